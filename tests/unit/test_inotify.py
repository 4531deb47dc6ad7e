"""Folders and specs, watched with the real inotify on folders of the test's own."""

from __future__ import annotations

import os
import resource
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reconciler.clock import SystemClock
from reconciler.watch import folders
from reconciler.watch.folders import FolderWatcher, Place
from reconciler.watch.hint import Hint, HintKind, Watcher
from reconciler.watch.inotify import Change, Inotify
from reconciler.watch.thread import STOP_S
from tests.unit.seen import GIVE_UP_S, QUIET_S, Seen

Watching = Callable[..., FolderWatcher]


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
def watching(seen: Seen) -> Iterator[Watching]:
    started: list[FolderWatcher] = []

    def start(*places: Place) -> FolderWatcher:
        watcher = FolderWatcher(places, SystemClock())
        started.append(watcher)
        watcher.start(seen)
        return watcher

    yield start
    for watcher in started:
        watcher.stop()


def _overflow(folder: Path) -> None:
    queued_max = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    for number in range(queued_max // 2 + 1):
        path = folder / str(number)
        path.touch()
        path.unlink()


def _is_watched(folder: Path, seen: Seen, kind: HintKind) -> bool:
    """Make entries until one is a hint; the first ones may be part of a hint "all"."""
    for turn in range(20):
        name = f"watched-{turn}"
        (folder / name).touch()
        if seen.has(kind, name, within_s=0.5):
            return True
    return False


# --- /dev/mapper --------------------------------------------------------------------------------


def test_an_entry_of_the_mapper_folder_that_comes_or_goes_is_a_hint_with_its_name(
    tmp_path: Path, seen: Seen, watching: Watching
) -> None:
    watcher: Watcher = watching(Place.mapper(tmp_path))
    (tmp_path / "sb-1").symlink_to("../dm-3")
    assert seen.has(HintKind.MAPPER, "sb-1")
    seen.forget()
    (tmp_path / "sb-1").rename(tmp_path / "sb-2")
    assert seen.has(HintKind.MAPPER, "sb-1")
    assert seen.has(HintKind.MAPPER, "sb-2")
    seen.forget()
    (tmp_path / "sb-2").unlink()
    assert seen.has(HintKind.MAPPER, "sb-2")
    assert {Hint(source=watcher.name, kind=HintKind.MAPPER, name="sb-2")} == set(seen.hints)
    assert watcher.unavailable == ""


def test_writing_to_what_is_in_the_mapper_folder_is_no_hint(
    tmp_path: Path, seen: Seen, watching: Watching
) -> None:
    (tmp_path / "control").touch()
    watching(Place.mapper(tmp_path))
    (tmp_path / "control").write_text("x")
    assert not seen.has(HintKind.MAPPER, "control", within_s=QUIET_S)


# --- specs --------------------------------------------------------------------------------------


def test_a_spec_that_is_written_replaced_or_deleted_is_a_hint(
    tmp_path: Path, seen: Seen, watching: Watching
) -> None:
    watching(Place.specs(tmp_path))
    (tmp_path / "a.toml").write_text("x")
    assert seen.has(HintKind.SPEC, "a.toml")
    seen.forget()
    (tmp_path / "a.toml.new").write_text("y")
    (tmp_path / "a.toml.new").rename(tmp_path / "a.toml")
    assert seen.has(HintKind.SPEC, "a.toml")
    seen.forget()
    (tmp_path / "a.toml").unlink()
    assert seen.has(HintKind.SPEC, "a.toml")


def test_a_spec_file_is_seen_however_often_an_editor_replaces_it(
    tmp_path: Path, seen: Seen, watching: Watching
) -> None:
    spec = tmp_path / "disks.toml"
    spec.write_text("x")
    watching(Place.specs(spec))
    for turn in range(3):
        (tmp_path / ".swap").write_text(f"{turn}")
        (tmp_path / ".swap").rename(spec)
        assert seen.has(HintKind.SPEC, "disks.toml")
        seen.forget()
    spec.write_text("in place")
    assert seen.has(HintKind.SPEC, "disks.toml")


def test_the_neighbours_of_a_spec_file_are_no_hint(
    tmp_path: Path, seen: Seen, watching: Watching
) -> None:
    (tmp_path / "disks.toml").write_text("x")
    watching(Place.specs(tmp_path / "disks.toml"))
    (tmp_path / "other.toml").write_text("x")
    assert not seen.has(HintKind.SPEC, "other.toml", within_s=QUIET_S)
    assert seen.hints == []


def test_a_spec_file_that_is_made_later_is_seen(
    tmp_path: Path, seen: Seen, watching: Watching
) -> None:
    watching(Place.specs(tmp_path / "disks.toml"))
    (tmp_path / "disks.toml").write_text("x")
    assert seen.has(HintKind.SPEC, "disks.toml")


def test_one_folder_may_be_watched_for_two_reasons(
    tmp_path: Path, seen: Seen, watching: Watching
) -> None:
    link = tmp_path.parent / f"{tmp_path.name}.link"
    link.symlink_to(tmp_path)
    watching(Place.specs(tmp_path), Place.mapper(link))
    (tmp_path / "sb-1").write_text("x")
    assert seen.has(HintKind.MAPPER, "sb-1")
    assert seen.has(HintKind.SPEC, "sb-1")


# --- losses, and folders that come and go -------------------------------------------------------


def test_a_queue_that_overflows_means_look_at_everything(
    tmp_path: Path, seen: Seen, watching: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher = watching(Place.specs(tmp_path))
    read = Inotify.read

    def overflow_first(inotify: Inotify) -> list[object]:
        monkeypatch.setattr(Inotify, "read", read)
        _overflow(tmp_path)
        return list(read(inotify))

    monkeypatch.setattr(Inotify, "read", overflow_first)
    (tmp_path / "first").touch()
    assert seen.has(HintKind.ALL, within_s=60)
    assert _is_watched(tmp_path, seen, HintKind.SPEC)
    assert watcher.unavailable == ""


@pytest.mark.parametrize("kind", [HintKind.SPEC, HintKind.MAPPER])
def test_a_folder_deleted_and_made_again_is_found_again(
    tmp_path: Path, seen: Seen, watching: Watching, kind: HintKind
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    watching(Place.specs(folder) if kind is HintKind.SPEC else Place.mapper(folder))
    for turn in ("once", "twice"):
        shutil.rmtree(folder)
        folder.mkdir()
        assert seen.has(HintKind.ALL)
        assert _is_watched(folder, seen, kind), turn
        seen.forget()


def test_a_folder_whose_parent_was_deleted_too_is_found_again(
    tmp_path: Path, seen: Seen, watching: Watching
) -> None:
    folder = tmp_path / "parent" / "folder"
    folder.mkdir(parents=True)
    watching(Place.specs(folder))
    shutil.rmtree(folder.parent)
    time.sleep(QUIET_S)
    seen.forget()
    folder.mkdir(parents=True)
    assert seen.has(HintKind.ALL)
    assert _is_watched(folder, seen, HintKind.SPEC)


def test_a_folder_moved_away_is_watched_no_more_and_its_successor_is(
    tmp_path: Path, seen: Seen, watching: Watching
) -> None:
    folder = tmp_path / "specs"
    folder.mkdir()
    watching(Place.specs(folder))
    folder.rename(tmp_path / "old")
    folder.mkdir()
    assert seen.has(HintKind.ALL)
    assert _is_watched(folder, seen, HintKind.SPEC)
    (tmp_path / "old" / "a.toml").touch()
    assert not seen.has(HintKind.SPEC, "a.toml", within_s=QUIET_S)


def test_a_folder_replaced_without_a_notice_is_found_out_in_time(
    tmp_path: Path, seen: Seen, watching: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "PRESENT_RECHECK_S", 0.1)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    (tmp_path / "specs").symlink_to("a")
    watching(Place.specs(tmp_path / "specs"))
    (tmp_path / "new").symlink_to("b")
    (tmp_path / "new").rename(tmp_path / "specs")
    assert seen.has(HintKind.ALL)
    assert _is_watched(tmp_path / "b", seen, HintKind.SPEC)


# --- starting, stopping, failing ----------------------------------------------------------------


def test_a_change_right_after_the_start_is_seen(
    tmp_path: Path, seen: Seen, watching: Watching
) -> None:
    for turn in range(20):
        watcher = watching(Place.specs(tmp_path))
        (tmp_path / f"{turn}").touch()
        assert seen.has(HintKind.SPEC, f"{turn}")
        watcher.stop()


def test_stopping_is_quick_and_final(tmp_path: Path, seen: Seen, watching: Watching) -> None:
    watcher = watching(Place.specs(tmp_path))
    begin_s = time.monotonic()
    watcher.stop()
    watcher.stop()
    assert time.monotonic() - begin_s < STOP_S
    (tmp_path / "a").touch()
    assert not seen.has(HintKind.SPEC, "a", within_s=QUIET_S)


def test_a_watcher_gives_its_descriptors_back(tmp_path: Path, watching: Watching) -> None:
    watching(Place.specs(tmp_path)).stop()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        watching(Place.specs(tmp_path)).stop()
    assert before == len(list(Path("/proc/self/fd").iterdir()))


def test_without_inotify_the_watcher_says_why(tmp_path: Path, seen: Seen) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    watcher = FolderWatcher([Place.specs(tmp_path)], SystemClock())
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    try:
        watcher.start(seen)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert "inotify cannot be used" in watcher.unavailable
    assert "Too many open files" in watcher.unavailable
    watcher.stop()


def test_a_folder_that_may_not_be_watched_is_named_and_tried_again(
    tmp_path: Path, seen: Seen, watching: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch_folder = Inotify.watch_folder

    def refuse(_: Inotify, path: Path, __: Change) -> int:
        raise OSError(28, f"watch {path}: No space left on device")

    monkeypatch.setattr(Inotify, "watch_folder", refuse)
    watcher = watching(Place.specs(tmp_path))
    assert f"watch {tmp_path}: No space left on device" == watcher.unavailable
    monkeypatch.setattr(Inotify, "watch_folder", watch_folder)
    assert seen.has(HintKind.ALL)
    assert watcher.unavailable == ""


def test_an_idle_watcher_sleeps(tmp_path: Path, watching: Watching) -> None:
    watching(Place.specs(tmp_path), Place.mapper(Path("/nowhere/mapper")))
    before_s = time.process_time()
    time.sleep(1.0)
    assert time.process_time() - before_s < 0.2


def test_too_many_places_are_refused(tmp_path: Path) -> None:
    places = [Place.specs(tmp_path)] * (folders.PLACES_MAX + 1)
    with pytest.raises(ValueError, match="places to watch"):
        FolderWatcher(places, SystemClock())


def test_a_place_is_an_absolute_path() -> None:
    with pytest.raises(ValueError, match="not an absolute path"):
        Place.specs(Path("specs"))


def test_a_missing_place_is_found_within_a_bound() -> None:
    assert folders.MISSING_RECHECK_S < folders.PRESENT_RECHECK_S
    assert folders.MISSING_RECHECK_S < GIVE_UP_S


def test_a_place_that_a_link_will_lead_to_is_found(
    tmp_path: Path, seen: Seen, watching: Watching
) -> None:
    """Where it is made nobody watches; the folder that the link is in tells of nothing."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "specs").symlink_to(tmp_path / "elsewhere" / "specs")
    watching(Place.specs(tmp_path / "specs"))
    (tmp_path / "elsewhere" / "specs").mkdir()
    assert seen.has(HintKind.ALL)
    assert _is_watched(tmp_path / "specs", seen, HintKind.SPEC)
