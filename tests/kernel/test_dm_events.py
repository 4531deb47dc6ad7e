"""Device-mapper's own events on a real device-mapper; every device is called byre-test-events-*."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.watch import dmevents
from reconciler.watch.dmevents import DmEventWatcher, KernelEvents
from reconciler.watch.hint import HintKind
from tests.unit.seen import QUIET_S, Seen

pytestmark = pytest.mark.kernel

PREFIX = "byre-test-events"
ORIGIN_SECTORS = 4096


def _run(*command: str) -> str:
    result = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    return result.stdout.strip()


def _loop(path: Path, size_bytes: int) -> str:
    with path.open("wb") as file:
        file.truncate(size_bytes)
    return _run("losetup", "--find", "--show", str(path))


def _create(name: str, table: str) -> None:
    _run("dmsetup", "create", name, "--noudevsync", "--table", table)


def _remove(name: str) -> None:
    _run("dmsetup", "remove", "--retry", "--noudevsync", name)


@pytest.fixture
def loops(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """Attach an origin of 2 MiB and a CoW device that has room for a few chunks only."""
    origin = _loop(tmp_path / "origin.img", ORIGIN_SECTORS * 512)
    cow = _loop(tmp_path / "cow.img", 64 * 1024)
    yield origin, cow
    for device in (origin, cow):
        _run("losetup", "--detach", device)


@pytest.fixture
def small_snapshot(loops: tuple[str, str]) -> Iterator[str]:
    name = f"{PREFIX}-small"
    _create(name, f"0 {ORIGIN_SECTORS} snapshot {loops[0]} {loops[1]} P 8")
    yield name
    _remove(name)


def test_a_snapshot_that_is_lost_is_a_hint_with_its_name(small_snapshot: str) -> None:
    other = f"{PREFIX}-other"
    _create(other, "0 8 zero")
    try:
        seen, watcher = Seen(), DmEventWatcher()
        watcher.start(seen)
        assert watcher.unavailable == ""
        device = Path("/dev/mapper") / small_snapshot
        _run("udevadm", "settle")
        subprocess.run(
            ["dd", "if=/dev/zero", f"of={device}", "bs=4k", "count=64", "oflag=direct"],
            check=False,
            capture_output=True,
            timeout=60,
        )
        assert "Invalid" in _run("dmsetup", "status", small_snapshot)
        assert seen.has(HintKind.MAPPER, small_snapshot)
        assert {hint.name for hint in seen.hints} == {small_snapshot}
        watcher.stop()
    finally:
        _remove(other)


def test_a_device_that_comes_or_goes_is_a_hint_and_one_that_is_suspended_is_not() -> None:
    """Seen on Linux 6.1, as no document says it: what moves the counter and what does not."""
    seen, watcher = Seen(), DmEventWatcher()
    watcher.start(seen)
    name = f"{PREFIX}-new"
    _create(name, "0 8 zero")
    came = seen.has(HintKind.MAPPER, name, within_s=QUIET_S * 5)
    seen.forget()
    _run("dmsetup", "suspend", "--noudevsync", name)
    suspended = seen.has(HintKind.MAPPER, name, within_s=QUIET_S * 5)
    seen.forget()
    _run("dmsetup", "resume", "--noudevsync", name)
    resumed = seen.has(HintKind.MAPPER, name, within_s=QUIET_S * 5)
    seen.forget()
    _remove(name)
    went = seen.has(HintKind.MAPPER, name, within_s=QUIET_S * 5)
    watcher.stop()
    assert (came, suspended, resumed, went) == (True, False, False, True)


def test_the_event_numbers_are_those_that_dmsetup_shows(small_snapshot: str) -> None:
    source = KernelEvents()
    numbers = source.event_numbers()
    source.close()
    shown = _run("dmsetup", "info", "-c", "--noheadings", "-o", "name,events", "--separator", "=")
    assert dict(numbers) == {
        name: int(number) for name, number in (line.split("=") for line in shown.splitlines())
    }
    assert small_snapshot in numbers


def test_a_list_that_does_not_fit_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dmevents, "_LIST_BYTES", 512)
    names = [f"{PREFIX}-{number}-{'x' * 100}" for number in range(5)]
    made: list[str] = []
    try:
        for name in names:
            _run("dmsetup", "create", name, "--notable")
            made.append(name)
        source = KernelEvents()
        assert set(names) <= set(source.event_numbers())
        source.close()
    finally:
        for name in made:
            _remove(name)
