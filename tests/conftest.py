"""What every test can use: Hypothesis profiles, a folder in memory for logs, logging anew.

`HYPOTHESIS_PROFILE` chooses how many examples are tried: `default`, `ci` (the same ones at every
run) or `long`.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, settings

_COMMON = settings(
    deadline=None,  # a shared machine is slow now and then; pytest-timeout bounds the whole test
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("default", _COMMON, max_examples=50)
settings.register_profile("ci", _COMMON, max_examples=50, derandomize=True, database=None)
settings.register_profile("long", _COMMON, max_examples=500)
_USUAL = "ci" if os.environ.get("CI") else "default"
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", _USUAL))

SHARED_MEMORY = Path("/dev/shm")


@pytest.fixture(autouse=True)
def _log_as_at_the_start() -> Iterator[None]:
    """Have no test log into the stream of one before it, which is closed by then."""
    yield
    structlog.reset_defaults()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """An empty folder, in memory where the host has that: a log is synced at each commit.

    Its path does not begin with /dev, which does not outlive a reboot of a simulated host.
    """
    if not os.access(SHARED_MEMORY, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="byre-test-", dir=SHARED_MEMORY) as made:
        link = tmp_path / "memory"
        link.symlink_to(made)
        yield link
