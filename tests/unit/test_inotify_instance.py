"""One inotify instance: what it watches, what it reads, and what it makes of odd names."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from reconciler.watch.inotify import Change, Inotify, Told


def test_reading_without_anything_to_read_does_not_wait() -> None:
    inotify = Inotify()
    assert inotify.read() == []
    inotify.close()
    inotify.close()


@pytest.mark.parametrize(
    ("name", "error"), [("missing", FileNotFoundError), ("file", NotADirectoryError)]
)
def test_what_is_no_folder_cannot_be_watched(
    tmp_path: Path, name: str, error: type[OSError]
) -> None:
    (tmp_path / "file").touch()
    inotify = Inotify()
    with pytest.raises(error, match=name):
        inotify.watch_folder(tmp_path / name, Change.ENTRIES)
    inotify.close()


def test_a_name_that_is_not_utf_8_is_a_loss_and_not_a_failure(tmp_path: Path) -> None:
    inotify = Inotify()
    watch = inotify.watch_folder(tmp_path, Change.ENTRIES)
    (tmp_path / "before").touch()
    (tmp_path / os.fsdecode(b"\xff\xfe")).touch()
    first, second = inotify.read()
    assert (watch, "before", False) == (first.watch, first.name, first.lost)
    assert second.lost
    (tmp_path / "after").touch()
    assert [notice.name for notice in inotify.read()] == ["after"]
    inotify.close()


def test_a_watch_that_the_kernel_ended_can_be_forgotten(tmp_path: Path) -> None:
    inotify = Inotify()
    folder = tmp_path / "folder"
    folder.mkdir()
    watch = inotify.watch_folder(folder, Change.ENTRIES)
    folder.rmdir()
    assert {True} == {notice.gone for notice in inotify.read()}
    inotify.forget(watch)
    inotify.forget(watch)
    inotify.close()


def test_what_is_still_told_of_a_forgotten_watch_is_nobodys(tmp_path: Path) -> None:
    inotify = Inotify()
    watch = inotify.watch_folder(tmp_path, Change.ENTRIES)
    (tmp_path / "before").touch()
    inotify.forget(watch)
    assert inotify.read() == []
    inotify.close()


def test_of_many_notices_none_is_left_out(tmp_path: Path) -> None:
    inotify = Inotify()
    inotify.watch_folder(tmp_path, Change.ENTRIES)
    names = [f"{number:040d}" for number in range(2000)]  # more than fits into one read
    for name in names:
        (tmp_path / name).touch()
    told = []
    while notices := inotify.read():
        told += [notice.name for notice in notices]
    assert told == names
    inotify.close()


def test_a_closed_instance_cannot_be_read() -> None:
    inotify = Inotify()
    inotify.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        inotify.read()


def test_pyinotify_writes_nothing_and_its_import_warns_of_nothing() -> None:
    assert logging.getLogger("pyinotify").disabled
    code = "import reconciler.watch.inotify"
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=Path(__file__).parents[2],
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_a_file_that_is_watched_alone_tells_only_whether(tmp_path: Path) -> None:
    path = tmp_path / "head"
    path.write_text("1")
    inotify = Inotify()
    inotify.watch_file(path, Change.MODIFIED)
    assert inotify.drain() is Told.NOTHING
    path.write_text("2")
    path.write_text("3")
    assert (inotify.drain(), inotify.drain()) == (Told.SOMETHING, Told.NOTHING)
    path.unlink()
    assert inotify.drain() is Told.GONE
    inotify.close()
