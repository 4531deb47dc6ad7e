"""The environment of a child process whose coverage is not measured.

For one that is sent a signal: a handler that raises in the middle of coverage's own bookkeeping
leaves its lock taken, and the child hangs at the next line.
"""

from __future__ import annotations

import os


def environment(**more: str) -> dict[str, str]:
    """Return this process's environment without what makes a child measure its coverage."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    return {**kept, **more}
