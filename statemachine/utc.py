"""Times as text: UTC in nanoseconds, as every answer to a machine has them.

Pure; may be imported by everything above.
"""

from __future__ import annotations

import functools
from datetime import UTC, datetime


def iso(at_ns: int) -> str:
    """Return UTC nanoseconds as "2026-11-21T08:00:00.123456789Z"."""
    seconds, nanoseconds = divmod(at_ns, 1_000_000_000)
    return f"{_to_the_second(seconds)}.{nanoseconds:09d}Z"


@functools.lru_cache(maxsize=1024)
def _to_the_second(seconds: int) -> str:
    """Return a time without its fraction: what happens comes in bursts, many in one second."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().removesuffix("+00:00")
