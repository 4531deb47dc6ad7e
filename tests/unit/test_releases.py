"""Holders that let go, watched with the real kernel: processes that end, nodes that are closed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reconciler.clock import SystemClock
from reconciler.watch import releases
from reconciler.watch.hint import Hint, HintKind
from reconciler.watch.inotify import Change
from reconciler.watch.releases import ECHOES_S, Echoes, ReleaseWatcher
from statemachine.observed import DeviceNumber, Holder
from tests.unit.seen import QUIET_S, Seen

DEVICE = DeviceNumber(253, 1_000_003)
LOOP = DeviceNumber(7, 1_000_003)
NOBODY = Path("/nowhere/dm-1000003")
ALL_S = 60.0


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
def watcher(seen: Seen) -> Iterator[ReleaseWatcher]:
    made = ReleaseWatcher(SystemClock())
    made.start(seen)
    assert made.unavailable == ""
    yield made
    made.stop()


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    words = [sys.executable, "-c", "import time; time.sleep(600)"]
    with subprocess.Popen(words) as process:
        yield process
        process.kill()


def until(question: Callable[[], bool]) -> None:
    give_up_s = time.monotonic() + ALL_S
    while not question():
        assert time.monotonic() < give_up_s, "it did not happen"
        time.sleep(0.01)


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def hints(seen: Seen, name: str = "sb-1") -> int:
    return seen.hints.count(Hint(source="releases", kind=HintKind.DISK, name=name))


def in_process(pid: int) -> Holder:
    return Holder(kind="process", name="holder", pid=pid)


def test_a_new_holder_is_worth_one_look_and_a_known_one_none(
    watcher: ReleaseWatcher, seen: Seen, sleeper: subprocess.Popen[bytes]
) -> None:
    holders = [in_process(sleeper.pid)]
    for _ in range(3):
        watcher.watch("sb-1", NOBODY, DEVICE, holders)
    assert hints(seen) == 1, "it may have let go since it was seen, and the next look shows it"
    watcher.watch("sb-1", NOBODY, DEVICE, [*holders, in_process(os.getpid())])
    assert hints(seen) == 2


def test_the_end_of_a_process_is_hinted(
    watcher: ReleaseWatcher, seen: Seen, sleeper: subprocess.Popen[bytes]
) -> None:
    watcher.watch("sb-1", NOBODY, DEVICE, [in_process(sleeper.pid)])
    watcher.watch("sb-2", NOBODY, DEVICE, [in_process(sleeper.pid)])
    sleeper.send_signal(signal.SIGKILL)
    for name in ("sb-1", "sb-2"):
        until(lambda name=name: hints(seen, name) > 1)  # type: ignore[misc]


def test_a_process_that_is_gone_already_is_hinted_once(
    watcher: ReleaseWatcher, seen: Seen, sleeper: subprocess.Popen[bytes]
) -> None:
    sleeper.kill()
    sleeper.wait()
    for _ in range(3):
        watcher.watch("sb-1", NOBODY, DEVICE, [in_process(sleeper.pid)])
    assert hints(seen) == 1


@pytest.mark.parametrize("mode", ["rb", "ab"])
def test_a_node_that_is_closed_is_hinted(
    watcher: ReleaseWatcher, seen: Seen, tmp_path: Path, mode: str
) -> None:
    node = tmp_path / "dm-7"
    node.touch()
    with node.open(mode):
        watcher.watch("sb-1", node, DEVICE, [])
        assert hints(seen) == 1
    until(lambda: hints(seen) > 1)


def test_reading_a_loop_is_no_notice_and_writing_it_is(
    watcher: ReleaseWatcher, seen: Seen, tmp_path: Path
) -> None:
    node = tmp_path / "loop7"
    node.touch()
    watcher.watch("sb-1", node, LOOP, [])
    node.open("rb").close()
    node.open("ab").close()
    until(lambda: hints(seen) > 1)
    read_only = Change.CLOSED & ~Change.WRITTEN
    assert not releases._change_of(LOOP) & read_only  # noqa: SLF001 - byre reads loops itself
    assert releases._change_of(DEVICE) & read_only  # noqa: SLF001


@pytest.mark.parametrize(
    ("holder", "thing"),
    [
        (Holder(kind="dm", name="above"), "above"),
        (Holder(kind="dm", name="dm-9"), "dm-9"),
        (Holder(kind="loop", name="/dev/loop9"), "loop9"),
    ],
)
def test_a_device_above_is_told_of_by_others(
    watcher: ReleaseWatcher, seen: Seen, holder: Holder, thing: str
) -> None:
    watcher.watch("sb-1", NOBODY, DEVICE, [holder])
    watcher.told("somebody-elses")
    watcher.told(thing)
    until(lambda: hints(seen) > 1)


def test_what_is_forgotten_is_not_hinted_and_gives_its_descriptors_back(
    watcher: ReleaseWatcher, seen: Seen, sleeper: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    node = tmp_path / "dm-7"
    node.touch()
    before = descriptors()
    watcher.watch("sb-1", node, DEVICE, [in_process(sleeper.pid)])
    assert before + 1 == descriptors()
    watcher.forget("sb-1")
    watcher.forget("sb-1")
    assert before == descriptors()
    sleeper.kill()
    node.open("ab").close()
    watcher.told("above")
    time.sleep(QUIET_S)
    assert hints(seen) == 1


def test_more_processes_than_the_bound_are_left_to_the_poll(
    watcher: ReleaseWatcher,
    seen: Seen,
    sleeper: subprocess.Popen[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(releases, "PROCESSES_MAX", 1)
    monkeypatch.setattr(releases, "NODES_MAX", 0)
    before = descriptors()
    holders = [in_process(os.getpid()), in_process(sleeper.pid)]
    watcher.watch("sb-1", NOBODY, DEVICE, holders)
    watcher.watch("sb-2", Path("/dev/null"), DEVICE, holders)
    assert before + 1 == descriptors()
    assert (hints(seen), hints(seen, "sb-2")) == (1, 1)


def test_it_stops_with_disks_still_watched_and_gives_everything_back(
    seen: Seen, sleeper: subprocess.Popen[bytes]
) -> None:
    before = descriptors()
    watcher = ReleaseWatcher(SystemClock())
    watcher.start(seen)
    watcher.watch("sb-1", NOBODY, DEVICE, [in_process(sleeper.pid)])
    watcher.stop()
    watcher.stop()
    watcher.watch("sb-1", NOBODY, DEVICE, [in_process(sleeper.pid)])
    watcher.told("above")
    assert before == descriptors()


def test_without_anything_to_wait_with_it_says_why(
    seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "eventfd", refuse)
    watcher = ReleaseWatcher(SystemClock())
    watcher.start(seen)
    assert "Too many open files" in watcher.unavailable
    watcher.watch("sb-1", NOBODY, DEVICE, [])
    watcher.stop()
    assert seen.hints == []


# --- when to hint ---------------------------------------------------------------------------------


def test_a_notice_is_hinted_at_once_and_while_the_kernel_is_closing() -> None:
    echoes = Echoes()
    echoes.notice(10.0)
    assert [10.0 + after_s for after_s in ECHOES_S] == echoes.due_s
    assert (echoes.take(10.0), echoes.take(10.0)) == (True, False)
    assert echoes.take(11.0)
    assert echoes.due_s == [14.0, 25.0]


def test_notices_all_the_time_do_not_become_hints_all_the_time() -> None:
    echoes, taken, seconds = Echoes(), 0, 100
    for tick in range(seconds * 100):
        echoes.notice(tick / 100)
        taken += echoes.take(tick / 100)
    assert seconds <= taken <= seconds * len(ECHOES_S)
    assert max(echoes.due_s) >= seconds + ECHOES_S[-1] - 1, "the last notice has its hints, too"
