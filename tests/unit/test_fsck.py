"""`byre fsck`: what is wrong in a store is named with its offset; what is sound says how full."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from reconciler import storecheck
from reconciler.store import files
from tests.unit.builders import Stage
from tests.unit.cliworld import World
from tests.unit.diskyard import CHUNK, MIB, Yard, store


@pytest.fixture
def yard(folder: Path, capsys: pytest.CaptureFixture[str]) -> Yard:
    made = Yard(folder, capsys)
    made.make_base(bytes(MIB))
    return made


CHANGES = {3: b"three", 9: b"nine", 200: b"two hundred"}


def test_a_sound_disk_says_how_full_and_how_dirty_it_is(yard: Yard) -> None:
    cow = yard.paused("sb-1", store(CHANGES, chunks=10))
    found = yard.byre("fsck", "sb-1", "-o", "json").json
    assert found == {
        "disk": "sb-1",
        "file": str(cow),
        "live": False,
        "note": "",
        "sound": True,
        "header": {"valid": True, "chunk_bytes": CHUNK},
        "exceptions": 3,
        "usage": {
            "health": "valid",
            "used_bytes": 5 * CHUNK,
            "capacity_bytes": 10 * CHUNK,
            "metadata_bytes": 2 * CHUNK,
            "fill": 0.5,
            "dirty": 3 / 256,
        },
        "findings": [],
        "findings_total": 0,
    }
    said = yard.byre("fsck", "sb-1").err
    assert said == (
        "sb-1: sound, 3 exceptions, 50.0% of the store is used, 1.2% of the disk has changed\n"
    )


def test_explain_tells_how_full_a_paused_disk_is_too(yard: Yard) -> None:
    cow = yard.paused("sb-1", store(CHANGES, chunks=10))
    usage = yard.byre("explain", "sb-1", "-o", "json").json["usage"]
    assert usage == {
        "used_bytes": 5 * CHUNK,
        "capacity_bytes": 10 * CHUNK,
        "metadata_bytes": 2 * CHUNK,
        "fill": 0.5,
        "dirty": 3 / 256,
    }
    cow.write_bytes(b"no store")
    assert yard.byre("explain", "sb-1", "-o", "json").json["usage"] is None


def test_explain_tells_of_a_live_disk_what_the_kernel_says(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world = World(folder, monkeypatch, capsys)
    world.create("sb-1")
    world.kernel.write(Path("/dev/mapper/byre-sb-1"), 0, b"written")
    usage = world.byre("explain", "sb-1", "-o", "json").json["usage"]
    assert (usage["used_bytes"], usage["metadata_bytes"]) == (3 * CHUNK, 2 * CHUNK)
    world.create("sb-2", "--driver", "clone")
    assert world.byre("explain", "sb-2", "-o", "json").json["usage"] is None


def test_each_problem_has_its_offset_and_the_code_is_1(yard: Yard) -> None:
    cow = yard.paused("sb-1", store(CHANGES, chunks=10))
    raw = bytearray(cow.read_bytes())
    struct.pack_into("<2Q", raw, CHUNK + 16, 256, 3)  # past the end of the disk
    struct.pack_into("<2Q", raw, CHUNK + 32, 3, 2)  # both of them for the second time
    raw[CHUNK + 64] = 7
    cow.write_bytes(raw)
    found = yard.byre("fsck", "sb-1", "-o", "json", code=1).json
    assert [(each["kind"], each["offset"]) for each in found["findings"]] == [
        ("beyond-disk", CHUNK + 16),
        ("old-twice", CHUNK + 32),
        ("new-twice", CHUNK + 40),
        ("after-end", CHUNK + 64),
    ]
    assert (found["sound"], found["findings_total"]) == (False, 4)
    said = yard.byre("fsck", "sb-1", code=1).err
    assert "chunk 256 of the disk; allowed: below 256, its end" in said
    assert "sb-1: 4 problems" in said


def test_a_file_needs_no_root_and_no_log(yard: Yard) -> None:
    path = yard.folder / "backup.cow"
    path.write_bytes(store(CHANGES))
    found = yard.byre("fsck", path, "-o", "json").json
    assert (found["disk"], found["file"], found["exceptions"]) == (None, str(path), 3)
    assert found["usage"]["dirty"] is None
    found = yard.byre("fsck", path, "--disk-size", "512KiB", "-o", "json", code=1).json
    assert [(e["kind"], e["offset"]) for e in found["findings"]] == [("beyond-disk", CHUNK + 32)]
    assert not yard.root.exists()


def test_a_name_without_a_slash_is_a_disk_before_it_is_a_file(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(yard.folder)
    (yard.folder / "sb-1").write_bytes(store({}))
    assert yard.byre("fsck", "sb-1", "-o", "json").json["disk"] is None
    yard.paused("sb-1", store(CHANGES))
    assert yard.byre("fsck", "sb-1", "-o", "json").json["disk"] == "sb-1"


def test_what_cannot_be_checked_has_its_own_code(yard: Yard) -> None:
    cow = yard.paused("sb-1", store(CHANGES))
    assert "no such disk: 'sb-2'" in yard.byre("fsck", "sb-2", code=3).err
    assert "no such file: " in yard.byre("fsck", yard.folder / "none.cow", code=2).err
    assert (
        "--disk-size goes with a FILE" in yard.byre("fsck", "sb-1", "--disk-size", "1M", code=2).err
    )
    assert "is not a size" in yard.byre("fsck", "x/y", "--disk-size", "huge", code=2).err
    cow.rename(yard.folder / "away")
    assert "is missing" in yard.byre("fsck", "sb-1", code=1).err
    cow.write_bytes(store(CHANGES))
    assert "is another file: recorded" in yard.byre("fsck", "sb-1", code=4).err
    (yard.folder / "link").symlink_to(yard.folder / "away")
    assert "link: " in yard.byre("fsck", yard.folder / "link", code=1).err
    os.mkfifo(yard.folder / "pipe")
    assert "no regular file" in yard.byre("fsck", yard.folder / "pipe", code=1).err


def test_a_removed_disk_has_nothing_to_check(yard: Yard) -> None:
    yard.paused("sb-1", store(CHANGES))
    yard.byre("remove", "sb-1", "--wait")
    assert "sb-1 is removed: it has no file of its own" in yard.byre("fsck", "sb-1", code=4).err


def test_a_file_that_is_no_store_is_a_finding(yard: Yard) -> None:
    path = yard.folder / "image"
    path.write_bytes(b"an image" * 100)
    [found] = yard.byre("fsck", path, "-o", "json", code=1).json["findings"]
    assert (found["kind"], found["offset"]) == ("foreign", 0)


def test_zeros_are_lost_data_for_a_disk_that_has_been_live(yard: Yard) -> None:
    cow = yard.paused("sb-1", store(CHANGES))
    cow.write_bytes(bytes(10 * CHUNK))
    [found] = yard.byre("fsck", "sb-1", "-o", "json", code=1).json["findings"]
    assert (found["kind"], found["offset"]) == ("empty", 0)
    assert yard.byre("fsck", cow, "-o", "json").json["exceptions"] == 0


def test_a_clone_says_that_it_has_no_store(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world = World(folder, monkeypatch, capsys)
    world.create("sb-1", "--driver", "clone")
    answer = world.byre("fsck", "sb-1", "-o", "json")
    assert (answer.code, answer.json["sound"], answer.json["header"]) == (0, True, None)
    assert "a clone has no exception store" in answer.json["note"]


def test_what_is_wrong_on_a_live_disk_for_a_moment_only_is_no_problem(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torn, whole = folder / "torn", folder / "whole"
    whole.write_bytes(store(CHANGES))
    torn.write_bytes(store({300: b"past the end of the disk"}))
    looks = [torn, torn, whole]

    def check(_path: Path, **given: object) -> files.Report:
        return real(looks.pop(0), **given)  # type: ignore[arg-type]

    real = files.check
    monkeypatch.setattr(files, "check", check)
    stage = Stage(folder)
    record = stage.live()
    checked = storecheck.check_disk(stage.byre.sources(), record)
    stage.close()
    assert (checked.is_live, checked.sound, looks) == (True, True, [])
    assert "pause the disk for an answer that holds" in checked.note
