"""`byre flatten`: a whole image or none at all, told in the log; refused what must not be done."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler import source
from reconciler.cli.app import run
from reconciler.content import flat
from reconciler.copying import flatten
from reconciler.kernel import extents, safepath
from reconciler.kernel.port import CloneMethod
from reconciler.source import WhenLive
from reconciler.store import files
from statemachine.errors import BlockedError, RefusedError, TransientError
from statemachine.units import Bytes
from tests.unit.builders import Stage
from tests.unit.diskyard import CHUNK, MIB, Yard, overlaid, store

BASE = bytes(MIB // 2) + b"base data".ljust(CHUNK, b".") * 8 + bytes(MIB // 2 - 8 * CHUNK)
CHANGES = {0: b"zero", 3: b"three", 4: b"four", 128: b"", 255: b"the last"}
SHOWN = overlaid(BASE, CHANGES)


@pytest.fixture
def yard(folder: Path, capsys: pytest.CaptureFixture[str]) -> Yard:
    made = Yard(folder, capsys)
    made.make_base(BASE)
    made.paused("sb-1", store(CHANGES))
    return made


@pytest.fixture
def stage(folder: Path) -> Iterator[Stage]:
    made = Stage(folder)
    yield made
    made.close()


def newest(yard: Yard) -> dict[str, object]:
    """Return the newest event of the disk."""
    event = yard.byre("history", "sb-1", "-o", "json").json[-1]
    assert isinstance(event, dict)
    return event


def test_the_image_is_what_the_disk_shows_and_the_log_tells_of_it(yard: Yard) -> None:
    image = yard.folder / "golden.img"
    said = yard.byre("flatten", "sb-1", image, "--reason", "release", "-o", "json").json
    assert image.read_bytes() == SHOWN
    digest = hashlib.sha256(SHOWN).hexdigest()
    assert said == {
        "disk": "sb-1",
        "generation": 1,
        "file": str(image),
        "size_bytes": MIB,
        "allocated_bytes": image.stat().st_blocks * 512,
        "sha256": digest,
        "method": said["method"],
        "frozen_ms": 0.0,
    }
    event = newest(yard)
    assert (event["type"], event["reason"]) == ("disk.exported", "release")
    data = event["data"]
    assert isinstance(data, dict)
    assert (data["form"], data["path"], data["sha256"]) == ("image", str(image), digest)
    assert image.stat().st_mode & 0o777 == 0o600
    assert yard.rest() == ["golden.img"]
    yard.byre("replay", "--verify")


def test_a_disk_can_be_made_on_the_image(yard: Yard) -> None:
    image = yard.folder / "golden.img"
    yard.byre("flatten", "sb-1", image, "--no-digest")
    yard.byre(
        "create", "sb-2", "--base", image, "--driver", "clone", "--desired", "attached", "--wait"
    )
    again = yard.folder / "again.img"
    yard.byre("flatten", "sb-2", again, "--live", "refuse")
    assert again.read_bytes() == SHOWN
    yard.byre("remove", "sb-2", "--wait")


def test_what_is_there_stays_without_force_and_is_replaced_with_it(yard: Yard) -> None:
    image = yard.folder / "golden.img"
    image.write_text("something else")
    assert "golden.img is there" in yard.byre("flatten", "sb-1", image, code=4).err
    assert image.read_text() == "something else"
    yard.byre("flatten", "sb-1", image, "--force")
    assert image.read_bytes() == SHOWN
    assert yard.rest() == ["golden.img"]


def test_what_must_never_be_replaced_is_refused_with_force_too(yard: Yard) -> None:
    events = yard.byre("history", "-o", "jsonl").out
    (yard.folder / "link").symlink_to(yard.folder / "nothing")
    for target, why in (
        (yard.base, "is the base of sb-1"),
        (yard.root / "byre.db", "is in the state root"),
        (yard.root / "cow" / "new.img", "is in the state root"),
        (yard.folder / "link", "is no regular file"),
        (yard.folder, "is no regular file"),
    ):
        assert why in yard.byre("flatten", "sb-1", target, "--force", code=4).err
    assert "no such folder" in yard.byre("flatten", "sb-1", yard.folder / "a" / "b", code=2).err
    assert yard.base.read_bytes() == BASE
    assert yard.byre("history", "-o", "jsonl").out == events


def test_a_folder_that_another_user_could_lead_elsewhere_is_refused(yard: Yard) -> None:
    shared = yard.folder / "shared"
    shared.mkdir()
    (shared / "way").symlink_to(yard.folder)
    shared.chmod(0o777)
    assert "is not safe" in yard.byre("flatten", "sb-1", shared / "way" / "x.img", code=4).err


def test_disks_without_data_are_refused_by_what_they_are(yard: Yard) -> None:
    image = yard.folder / "x.img"
    assert "no such disk: 'sb-2'" in yard.byre("flatten", "sb-2", image, code=3).err
    yard.byre("create", "sb-2", "--base", yard.base)
    assert "sb-2 is absent: it has no data" in yard.byre("flatten", "sb-2", image, code=4).err
    yard.byre("remove", "sb-1", "--wait")
    assert "sb-1 is removed: it has no data" in yard.byre("flatten", "sb-1", image, code=4).err
    assert yard.rest() == []


def test_a_faulted_disk_is_refused_with_its_fault(yard: Yard) -> None:
    [cow] = (yard.root / "cow").iterdir()
    cow.rename(yard.folder / "away")
    yard.byre("run", "--once", "--timeout", "5", code=1)
    refused = yard.byre("flatten", "sb-1", yard.folder / "x.img", code=4).err
    assert "sb-1 is faulted" in refused
    assert str(cow) in refused


def test_another_base_or_another_file_is_refused(yard: Yard) -> None:
    image = yard.folder / "x.img"
    os.utime(yard.base, (1, 1))
    assert "has changed: pinned is" in yard.byre("flatten", "sb-1", image, code=4).err
    yard.base.unlink()
    assert "is missing" in yard.byre("flatten", "sb-1", image, code=1).err
    yard.make_base(BASE)
    [cow] = (yard.root / "cow").iterdir()
    cow.rename(yard.folder / "away")
    cow.write_bytes(store(CHANGES))
    assert "is another file: recorded" in yard.byre("flatten", "sb-1", image, code=4).err
    assert yard.rest() == ["away"]


def test_a_damaged_store_leaves_no_image(yard: Yard) -> None:
    [cow] = (yard.root / "cow").iterdir()
    with cow.open("r+b") as file:
        file.seek(CHUNK)
        file.write((10_000).to_bytes(8, "little"))
    image = yard.folder / "x.img"
    assert "damaged exception store: beyond-disk" in yard.byre("flatten", "sb-1", image, code=1).err
    assert yard.rest() == []


INTERRUPTIONS = {
    "Ctrl-C": KeyboardInterrupt(),
    "no space": OSError(28, "No space left on device"),
    "SIGTERM": SystemExit(143),
}


@pytest.mark.parametrize("how", INTERRUPTIONS)
@pytest.mark.parametrize("named", [False, True])
def test_what_is_interrupted_leaves_nothing(
    yard: Yard, monkeypatch: pytest.MonkeyPatch, how: str, *, named: bool
) -> None:
    def fail(*_: object) -> str:
        raise INTERRUPTIONS[how]

    if named:
        monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY)
    monkeypatch.setattr(flat, "digest", fail)
    with pytest.raises(SystemExit) as ended:
        run(["--root", str(yard.root), "flatten", "sb-1", str(yard.folder / "x.img")])
    assert ended.value.code != 0
    assert yard.rest() == []
    assert newest(yard)["type"] != "disk.exported"


def test_a_disk_that_is_written_to_meanwhile_is_not_taken(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    [cow] = (yard.root / "cow").iterdir()
    real = flat.write

    def write(*given: object, **named: object) -> CloneMethod:
        method = real(*given, **named)  # type: ignore[arg-type]
        os.utime(cow)
        return method

    monkeypatch.setattr(flat, "write", write)
    refused = yard.byre("flatten", "sb-1", yard.folder / "x.img", code=1).err
    assert "sb-1 was written to while it was read" in refused
    assert yard.rest() == []


def test_room_is_left_to_live_disks(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_reflink(_source: int, _target: int) -> bool:
        return False

    monkeypatch.setattr(extents, "reflink", no_reflink)
    (yard.root / "config.toml").write_text("low_space = '1000000 TiB'\n")
    refused = yard.byre("flatten", "sb-1", yard.folder / "x.img", code=1).err
    assert "where live disks write too" in refused
    assert yard.rest() == []


class TestLive:
    """On the simulated kernel; the files that are read are made beside it."""

    @pytest.fixture
    def cow(self, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Path:
        """Put real files where the simulated ones are said to be; returns the CoW."""
        path = stage.root / "real.cow"
        path.write_bytes(store(CHANGES))
        (stage.root / "real.base").write_bytes(BASE)
        record = stage.live()
        sources = stage.byre.sources()

        def opened(name: Path) -> object:
            return real_opened(path if name == Path(record.cow_path) else name)

        def regular(_base: Path, flags: int, *, follow: bool) -> object:
            return real_regular(stage.root / "real.base", flags, follow=follow)

        real_opened, real_regular = files.opened, safepath.regular
        monkeypatch.setattr(files, "opened", opened)
        monkeypatch.setattr(safepath, "regular", regular)
        monkeypatch.setattr(source, "_flush", lambda _device: None)
        sources.root.cows.mkdir(mode=0o700, exist_ok=True)
        return path

    def test_it_is_suspended_for_the_copy_and_no_longer(
        self, stage: Stage, folder: Path, cow: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def suspended() -> bool:
            device = stage.kernel.dm("byre-sb-1")
            return device is not None and device.suspended

        seen: list[bool] = []
        real = extents.copy_data

        def copy(from_: int, to: int, length: int) -> None:
            seen.append(suspended())
            stage.clock.advance_s(0.5)
            real(from_, to, length)

        monkeypatch.setattr(extents, "copy_data", copy)
        monkeypatch.setattr(extents, "reflink", lambda _source, _target: False)
        made = flatten(stage.byre, "sb-1", folder / "x.img")
        assert (folder / "x.img").read_bytes() == SHOWN
        assert (seen, suspended()) == ([True], False)
        assert made.frozen_ns == 500_000_000
        assert stage.types()[-1] == "disk.exported"
        assert cow.exists()
        stage.settle()
        stage.check()

    def test_it_is_resumed_when_the_copy_fails(
        self, stage: Stage, folder: Path, cow: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(_source: int, _target: int, _length: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(extents, "copy_data", full)
        monkeypatch.setattr(extents, "reflink", lambda _source, _target: False)
        with pytest.raises(BlockedError, match="flatten sb-1 to"):
            flatten(stage.byre, "sb-1", folder / "x.img")
        device = stage.kernel.dm("byre-sb-1")
        assert device is not None
        assert not device.suspended
        assert cow.exists()
        assert not (folder / "x.img").exists()

    def test_a_copy_in_which_somebody_resumed_it_is_made_again(
        self, stage: Stage, folder: Path, cow: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        record, times = stage.record(), [1, 2, 10**6]
        uuid = f"BYRE-{record.id}-{record.generation}"
        real = extents.copy_data

        def copy(from_: int, to: int, length: int) -> None:
            real(from_, to, length)
            if times and times.pop(0) < limit:
                stage.kernel.dm_resume(uuid)

        monkeypatch.setattr(extents, "copy_data", copy)
        monkeypatch.setattr(extents, "reflink", lambda _source, _target: False)
        limit = 10
        flatten(stage.byre, "sb-1", folder / "x.img")
        assert (folder / "x.img").read_bytes() == SHOWN
        times[:], limit = [1] * 100, 10
        with pytest.raises(TransientError, match="somebody resumes byre-sb-1"):
            flatten(stage.byre, "sb-1", folder / "y.img")
        assert not (folder / "y.img").exists()
        assert cow.exists()

    def test_one_that_was_frozen_before_stays_frozen(
        self, stage: Stage, folder: Path, cow: Path
    ) -> None:
        record = stage.record()
        stage.kernel.dm_suspend(f"BYRE-{record.id}-{record.generation}")
        flatten(stage.byre, "sb-1", folder / "x.img")
        device = stage.kernel.dm("byre-sb-1")
        assert device is not None
        assert device.suspended
        assert cow.exists()

    def test_it_is_refused_by_choice(self, stage: Stage, folder: Path) -> None:
        stage.live()
        with pytest.raises(RefusedError, match="sb-1 is live, and is not to be suspended"):
            flatten(stage.byre, "sb-1", folder / "x.img", when_live=WhenLive.REFUSE)

    def test_a_copy_needs_room(
        self, stage: Stage, folder: Path, cow: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(extents, "reflink", lambda _source, _target: False)
        monkeypatch.setattr(stage.kernel, "allocated", lambda _path: Bytes(2**62))
        with pytest.raises(BlockedError, match="where live disks write too"):
            flatten(stage.byre, "sb-1", folder / "x.img")
        assert cow.exists()
        assert "dm_suspend" not in {call.name for call in stage.kernel.trace}


@pytest.mark.parametrize("force", [False, True])
def test_an_image_is_on_disk_before_it_has_its_name_and_the_name_is_too(
    yard: Yard, monkeypatch: pytest.MonkeyPatch, *, force: bool
) -> None:
    calls: list[str] = []

    def noted(name: str) -> None:
        real = getattr(os, name)

        def call(*given: object, **named: object) -> object:
            calls.append(name)
            return real(*given, **named)

        monkeypatch.setattr(os, name, call)

    for each in ("fsync", "link", "rename"):
        noted(each)
    words = ["--force"] if force else []
    yard.byre("flatten", "sb-1", yard.folder / "x.img", "--no-digest", *words)
    names = ["link", "rename"] if force else ["link"]
    at = calls.index("link")
    assert calls[at - 1 : at + len(names) + 1] == ["fsync", *names, "fsync"]
