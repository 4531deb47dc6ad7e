"""`byre diff`: what differs is told to the block, with the files that it belongs to."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from reconciler import filenames
from tests.unit.diskyard import CHUNK, MIB, Yard, store

BASE = b"base data".ljust(CHUNK, b".") * (MIB // CHUNK)
SAME = BASE[:CHUNK]


@pytest.fixture
def yard(folder: Path, capsys: pytest.CaptureFixture[str]) -> Yard:
    made = Yard(folder, capsys)
    made.make_base(BASE)
    return made


def ranges(yard: Yard, *words: str) -> list[tuple[int, int]]:
    """Return what differs, in blocks."""
    found = yard.byre("diff", *words, "-o", "json").json
    assert found["count"] == len(found["ranges"])
    assert found["changed_bytes"] == sum(each["length"] for each in found["ranges"])
    return [(each["offset"] // CHUNK, each["length"] // CHUNK) for each in found["ranges"]]


def test_what_was_written_differs_and_what_was_written_back_does_not(yard: Yard) -> None:
    yard.paused("sb-1", store({7: b"a", 3: b"a", 4: b"b", 9: SAME, 255: b"the end"}))
    assert ranges(yard, "sb-1") == [(3, 2), (7, 1), (255, 1)]
    said = yard.byre("diff", "sb-1").err
    assert f"sb-1: 16.0 KiB in 3 ranges differ from base {yard.base}, 1.6% of 1.0 MiB" in said


def test_an_untouched_disk_has_no_difference(yard: Yard) -> None:
    yard.paused("sb-1", store({}))
    assert ranges(yard, "sb-1") == []


def test_two_disks_of_one_base(yard: Yard) -> None:
    yard.paused("sb-1", store({1: b"same", 2: b"one", 3: b"one only"}))
    yard.paused("sb-2", store({2: b"other", 1: b"same", 8: b"other only", 9: SAME}))
    assert ranges(yard, "sb-1", "sb-2") == ranges(yard, "sb-2", "sb-1") == [(2, 2), (8, 1)]
    assert "differ from sb-2" in yard.byre("diff", "sb-1", "sb-2").err


def test_disks_of_different_bases_are_refused_with_both(yard: Yard) -> None:
    yard.paused("sb-1", store({}))
    other = yard.folder / "other.img"
    other.write_bytes(BASE)
    yard.base = other
    yard.paused("sb-2", store({}))
    refused = yard.byre("diff", "sb-1", "sb-2", code=4).err
    assert f"inode {other.stat().st_ino}" in refused
    assert f"inode {(yard.folder / 'base.img').stat().st_ino}" in refused


def test_what_cannot_be_compared_has_its_own_code(yard: Yard) -> None:
    yard.paused("sb-1", store({}))
    assert "are one disk" in yard.byre("diff", "sb-1", "sb-1", code=2).err
    assert "no such disk: 'sb-2'" in yard.byre("diff", "sb-1", "sb-2", code=3).err
    yard.byre("remove", "sb-1", "--wait")
    assert "it has no data" in yard.byre("diff", "sb-1", code=4).err


def test_a_clone_is_compared_with_its_base(yard: Yard) -> None:
    words = ("--base", str(yard.base), "--driver", "clone", "--desired", "attached", "--wait")
    yard.byre("create", "sb-1", *words)
    yard.byre("create", "sb-2", *words)
    for name, at in (("sb-1", 5), ("sb-2", 6)):
        [disk] = yard.byre("get", name, "-o", "json").json
        with Path(disk["cow"]["path"]).open("r+b") as file:
            file.seek(at * CHUNK)
            file.write(b"changed")
    assert ranges(yard, "sb-1") == [(5, 1)]
    assert ranges(yard, "sb-1", "sb-2") == [(5, 2)]
    yard.paused("sb-3", store({5: b"changed".ljust(9, b".") + BASE[9:CHUNK]}))
    assert ranges(yard, "sb-1", "sb-3") == [(5, 1)]
    yard.byre("remove", "sb-1", "sb-2", "--wait")


def tool(*words: object) -> None:
    """Run a program of e2fsprogs, which Debian has where only root looks."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    program = shutil.which(str(words[0]), path=path)
    assert program is not None, f"{words[0]} is needed: apt-get install e2fsprogs"
    subprocess.run([program, *map(str, words[1:])], check=True, capture_output=True)


def ext4(path: Path, file: Path) -> bytes:
    """Make an ext4 image with one file."""
    path.write_bytes(bytes(4 * MIB))
    tool("mke2fs", "-q", "-t", "ext4", "-b", CHUNK, "-O", "^has_journal", path)
    return with_file(path, file)


def with_file(image: Path, file: Path) -> bytes:
    """Add a file to an ext4 image."""
    tool("debugfs", "-w", "-R", f"write {file} {file.name}", image)
    return image.read_bytes()


def difference(base: bytes, shown: bytes) -> dict[int, bytes]:
    """Return the chunks of a disk that shows this on that base."""
    return {
        at // CHUNK: shown[at : at + CHUNK]
        for at in range(0, len(base), CHUNK)
        if base[at : at + CHUNK] != shown[at : at + CHUNK]
    }


def test_the_files_of_an_ext4_are_named(yard: Yard) -> None:
    kept, new = yard.folder / "kept", yard.folder / "new.txt"
    kept.write_bytes(b"kept" * 5000)
    new.write_bytes(b"new!" * 5000)
    before = ext4(yard.base, kept)
    after = yard.folder / "after"
    after.write_bytes(before)
    yard.paused("sb-1", store(difference(before, with_file(after, new))))
    found = yard.byre("diff", "sb-1", "--files", "-o", "json").json
    named = {each["path"]: each["bytes"] for each in found["files"]}
    assert named["/new.txt"] == 5 * CHUNK
    assert "/" in named
    assert "/kept" not in named
    assert found["changed_bytes"] >= found["other_bytes"] > 0
    assert found["note"] == ""
    assert "/new.txt" in yard.byre("diff", "sb-1", "--files").err


def test_what_is_cut_off_is_said(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    (yard.folder / "empty").touch()
    ext4(yard.base, yard.folder / "empty")
    yard.paused("sb-1", store({500: b"f", 501: b"f", 502: b"f"}))
    monkeypatch.setattr(filenames, "BLOCKS_MAX", 2)
    found = yard.byre("diff", "sb-1", "--files", "-o", "json").json
    assert (found["note"], found["files"]) == ("only the first 2 blocks", [])
    assert found["other_bytes"] == 2 * CHUNK
    monkeypatch.setattr(filenames, "TIMEOUT_S", 0.0)
    found = yard.byre("diff", "sb-1", "--files", "-o", "json").json
    assert found["note"] == "debugfs took longer than 0 s"


def test_without_an_ext4_or_without_debugfs_the_answer_says_so(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    yard.paused("sb-1", store({1: b"x"}))
    found = yard.byre("diff", "sb-1", "--files", "-o", "json").json
    assert (found["files"], found["count"]) == ([], 1)
    assert found["note"] == "it has no ext4 file system on the whole disk"
    monkeypatch.setattr(filenames, "_block_bytes", lambda _head: 4096)
    monkeypatch.setattr(shutil, "which", lambda _name, path=None: path and None)
    said = yard.byre("diff", "sb-1", "--files").err
    assert "debugfs is not there" in said
