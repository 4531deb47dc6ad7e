"""Times as text: UTC in nanoseconds, as every answer to a machine has them.

Pure; may be imported by everything above.
"""

from __future__ import annotations

from datetime import UTC, datetime


def iso(at_ns: int) -> str:
    """Return UTC nanoseconds as "2026-11-21T08:00:00.123456789Z"."""
    seconds, nanoseconds = divmod(at_ns, 1_000_000_000)
    whole = datetime.fromtimestamp(seconds, UTC).isoformat().removesuffix("+00:00")
    return f"{whole}.{nanoseconds:09d}Z"
