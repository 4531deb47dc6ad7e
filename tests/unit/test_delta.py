"""`byre export` and `byre import`: a disk comes out as it went in, or nothing does."""

from __future__ import annotations

import hashlib
import io
import os
import struct
import zlib
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.content import delta
from reconciler.content.delta import DeltaDamaged, Header, Reader, Writer
from reconciler.kernel.linux import LinuxKernel
from reconciler.kernel.port import Capabilities
from reconciler.store import files
from statemachine.eventlog import EventLog
from statemachine.units import Bytes
from tests.unit.diskyard import CHUNK, MIB, Yard, overlaid, store

BASE = bytes(MIB) + b"base data".ljust(CHUNK, b".") * 300 + bytes(512)
SAME = BASE[MIB : MIB + CHUNK]
CHANGES = {280: SAME, 3: b"three", 4: b"four", 300: b"", 555: b"", 1: os.urandom(CHUNK)} | {
    number: b"%d" % number for number in range(10, 270)
}
SHOWN = overlaid(BASE, CHANGES)


@pytest.fixture
def yard(folder: Path, capsys: pytest.CaptureFixture[str]) -> Yard:
    made = Yard(folder, capsys)
    made.make_base(BASE)
    made.paused("sb-1", store(CHANGES))
    return made


@pytest.fixture
def with_dm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Say that there is device-mapper; a paused disk needs none."""
    monkeypatch.setattr(LinuxKernel, "capabilities", lambda _self: Capabilities(dm="", loop=""))


def exported(yard: Yard) -> Path:
    path = yard.folder / "sb-1.delta"
    yard.byre("export", "sb-1", "--delta", path)
    return path


def flat(yard: Yard, name: str, root: Path) -> bytes:
    """Return what a disk of another root shows."""
    image = yard.folder / f"{name}.flat"
    yard.byre("flatten", name, image, root=root)
    return image.read_bytes()


def copied_base(yard: Yard) -> Path:
    """Copy the base, as it would be on another host."""
    copy = yard.folder / "there.img"
    copy.write_bytes(BASE)
    return copy


@pytest.mark.usefixtures("with_dm")
def test_a_disk_is_carried_to_another_root(yard: Yard) -> None:
    path, there = exported(yard), yard.folder / "other-root"
    answer = yard.byre(
        *("import", "sb-9", "--delta", path, "--base", copied_base(yard)),
        *("--reason", "moved", "-o", "json"),
        root=there,
    )
    [disk] = answer.json
    assert (disk["name"], disk["state"], disk["desired"]) == ("sb-9", "paused", "paused")
    assert (disk["driver"], disk["generation"]) == ("dm-snapshot", 1)
    assert flat(yard, "sb-9", there) == SHOWN
    cow = Path(disk["cow"]["path"])
    report = files.check(cow, disk=Bytes(len(BASE)))
    chunks = range(0, len(BASE), CHUNK)
    changed = [at for at in chunks if SHOWN[at : at + CHUNK] != BASE[at : at + CHUNK]]
    assert len(changed) < len(CHANGES), "one was written with what the base has"
    assert (report.findings, report.exceptions) == ((), len(changed))
    assert cow.stat().st_mode & 0o777 == 0o600
    story = yard.byre("history", "sb-9", "-o", "json", root=there).json
    assert [event["type"] for event in story] == [
        "disk.declared",
        "drift.detected",
        "disk.exported",
    ]
    assert (story[0]["reason"], story[0]["data"]["why"]) == ("moved", "imported")
    yard.byre("replay", "--verify", root=there)
    yard.byre("fsck", "sb-9", root=there)


def test_the_log_tells_who_took_it(yard: Yard) -> None:
    path = yard.folder / "sb-1.delta"
    said = yard.byre("export", "sb-1", "--delta", path, "-o", "json").json
    assert said["base_sha256"] == hashlib.sha256(BASE).hexdigest()
    assert said["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert said["size_bytes"] == path.stat().st_size < said["changed_bytes"]
    event = yard.byre("history", "sb-1", "-o", "json").json[-1]
    assert (event["type"], event["data"]["form"]) == ("disk.exported", "delta")
    assert event["data"]["sha256"] == said["sha256"]
    assert "sb-1.delta is there" in yard.byre("export", "sb-1", "--delta", path, code=4).err
    yard.byre("export", "sb-1", "--delta", path, "--force")


def test_a_clone_is_carried_too_and_falling_back_is_told(yard: Yard) -> None:
    path, there = exported(yard), yard.folder / "other-root"
    base = copied_base(yard)
    words = ("import", "sb-1", "--delta", path, "--base", base, "--driver", "clone")
    yard.byre(*words, root=there)
    yard.byre("restore", "sb-1", "--wait", root=there)
    [disk] = yard.byre("get", "sb-1", "-o", "json", root=there).json
    assert disk["state"] == "restored"
    with Path(disk["device"]).open("rb") as device:
        assert device.read(len(SHOWN)) == SHOWN
    yard.byre("pause", "sb-1", "--wait", root=there)
    again = yard.folder / "again.delta"
    yard.byre("export", "sb-1", "--delta", again, root=there)
    yard.byre("import", "sb-2", "--delta", again, "--base", base, root=there)
    assert flat(yard, "sb-2", there) == SHOWN
    yard.byre("remove", "sb-1", "sb-2", "--wait", root=there)


def test_auto_takes_a_clone_without_device_mapper_and_says_why(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    why = Capabilities(dm="there is no device-mapper", loop="no")
    monkeypatch.setattr(LinuxKernel, "capabilities", lambda _self: why)
    path = exported(yard)
    said = yard.byre("import", "sb-2", "--delta", path, "--base", yard.base).err
    assert "sb-2: a clone, as there is no device-mapper" in said
    [drift] = yard.byre("history", "sb-2", "--type", "drift.detected", "-o", "json").json
    assert "for clone (there is no device-mapper)" in drift["data"]["differences"][0]


@pytest.mark.usefixtures("with_dm")
def test_a_removed_disk_begins_its_next_generation(yard: Yard) -> None:
    path = exported(yard)
    refused = yard.byre("import", "sb-1", "--delta", path, "--base", yard.base, code=4).err
    assert "there is a disk named sb-1: it is paused" in refused
    yard.byre("remove", "sb-1", "--wait")
    yard.byre("import", "sb-1", "--delta", path, "--base", yard.base)
    [disk] = yard.byre("get", "sb-1", "-o", "json").json
    assert (disk["generation"], disk["state"]) == (2, "paused")
    assert flat(yard, "sb-1", yard.root) == SHOWN


def own_files(root: Path) -> list[str]:
    return sorted(each.name for each in (root / "cow").iterdir())


@pytest.mark.usefixtures("with_dm")
def test_another_base_is_refused_with_both_digests(yard: Yard) -> None:
    path, before = exported(yard), own_files(yard.root)
    other = yard.folder / "other.img"
    other.write_bytes(BASE[:-1] + b"x")
    refused = yard.byre("import", "sb-2", "--delta", path, "--base", other, code=4).err
    assert hashlib.sha256(BASE).hexdigest() in refused
    assert hashlib.sha256(other.read_bytes()).hexdigest() in refused
    other.write_bytes(BASE + bytes(512))
    refused = yard.byre("import", "sb-2", "--delta", path, "--base", other, code=4).err
    assert f"{len(BASE)} bytes" in refused
    assert "no such disk" in yard.byre("explain", "sb-2", code=3).err
    assert own_files(yard.root) == before
    missing = yard.folder / "none.img"
    yard.byre("import", "sb-2", "--delta", path, "--base", missing, code=2)
    yard.byre("import", "sb-2", "--delta", missing, "--base", yard.base, code=1)
    yard.byre("import", "Not_A_Name", "--delta", path, "--base", yard.base, code=2)


@pytest.mark.usefixtures("with_dm")
def test_what_is_not_whole_leaves_nothing(yard: Yard) -> None:
    path, before = exported(yard), own_files(yard.root)
    raw = path.read_bytes()
    for damaged in (raw[:-1], raw + b"x", raw[: len(raw) // 2], b"", raw[:-40] + raw[-39:]):
        path.write_bytes(damaged)
        refused = yard.byre("import", "sb-2", "--delta", path, "--base", yard.base, code=1).err
        assert "damaged delta at byte" in refused
        assert own_files(yard.root) == before
    yard.byre("explain", "sb-2", code=3)


@pytest.mark.usefixtures("with_dm")
def test_a_log_that_cannot_be_told_leaves_no_file(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, before = exported(yard), own_files(yard.root)

    def full(_log: EventLog, _events: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(EventLog, "append", full)
    yard.byre("import", "sb-2", "--delta", path, "--base", yard.base, code=130)
    assert own_files(yard.root) == before


# --- the stream ----------------------------------------------------------------------------------

SIZE = 10 * CHUNK + 512
HEADER = Header(disk_bytes=SIZE, base_sha256="0" * 64, content_bytes_max=SIZE)


def stream(*blocks: tuple[int, bytes], header: Header = HEADER) -> bytes:
    file = io.BytesIO()
    writer = Writer(file, header)
    for start, content in blocks:
        writer.block(start, content)
    writer.finish()
    return file.getvalue()


def read(raw: bytes) -> list[tuple[int, bytes]]:
    return list(Reader(io.BytesIO(raw)).blocks())


BLOCKS = [(0, b"a" * CHUNK), (3 * CHUNK, os.urandom(2 * CHUNK)), (10 * CHUNK, b"e" * 512)]


def test_a_stream_survives_the_round_trip() -> None:
    assert read(stream(*BLOCKS)) == BLOCKS
    assert Reader(io.BytesIO(stream())).header == HEADER
    assert read(stream()) == []


@given(at=st.integers(0), change=st.integers(1, 255))
def test_no_byte_of_it_can_change(at: int, change: int) -> None:
    raw = bytearray(stream(*BLOCKS))
    raw[at % len(raw)] ^= change
    with pytest.raises(DeltaDamaged):
        read(bytes(raw))


def test_the_digest_of_the_whole_covers_what_nothing_else_does() -> None:
    """A name in the header is held against nothing, and the digest itself only against itself."""
    raw = stream(*BLOCKS, header=attrs.evolve(HEADER, disk="sb-1"))
    for changed in (raw.replace(b"sb-1", b"sb-2"), raw[:-1] + bytes([raw[-1] ^ 1])):
        with pytest.raises(DeltaDamaged, match="the digest of the whole is another"):
            read(changed)


@given(st.binary(max_size=200))
def test_whatever_is_planted_is_refused(tail: bytes) -> None:
    for raw in (tail, delta.MAGIC + tail, stream()[:-49] + tail):
        with pytest.raises(DeltaDamaged):
            read(raw)


def planted(start: int, length: int, packed: bytes, digest: bytes) -> bytes:
    """Return a stream with one block that a writer would not write."""
    head = stream()[:-49]
    return head + b"B" + struct.pack("<QII32s", start, length, len(packed), digest) + packed


@pytest.mark.parametrize(
    ("start", "content", "why"),
    [
        (1, b"x" * CHUNK, "whole blocks of 4 KiB"),
        (CHUNK, b"x" * 100, "whole blocks of 4 KiB"),
        (10 * CHUNK, b"x" * CHUNK, "whole blocks of 4 KiB"),
        (0, b"", "whole blocks of 4 KiB"),
        (2**63, b"x" * CHUNK, "whole blocks of 4 KiB"),
    ],
)
def test_a_block_lies_where_it_can(start: int, content: bytes, why: str) -> None:
    digest = hashlib.sha256(content).digest()
    with pytest.raises(DeltaDamaged, match=why):
        read(planted(start, len(content), zlib.compress(content), digest))


def test_blocks_come_in_order_and_unpack_to_what_they_say() -> None:
    with pytest.raises(DeltaDamaged, match="whole blocks of 4 KiB in 4096 to"):
        read(stream((0, bytes(CHUNK)), (0, bytes(CHUNK))))
    bomb = zlib.compress(bytes(100 * MIB))
    for length in (CHUNK, 2 * CHUNK):
        with pytest.raises(DeltaDamaged, match=f"unpacks to other than {length} bytes"):
            read(planted(0, length, bomb, bytes(32)))
    short = zlib.compress(bytes(CHUNK))
    with pytest.raises(DeltaDamaged, match="unpacks to other than 8192 bytes"):
        read(planted(0, 2 * CHUNK, short, bytes(32)))
    with pytest.raises(DeltaDamaged, match="not what was written"):
        read(planted(0, CHUNK, short, bytes(32)))
    with pytest.raises(DeltaDamaged, match="cannot be unpacked"):
        read(planted(0, CHUNK, b"no zlib", bytes(32)))


def test_a_header_is_held_to_its_bounds() -> None:
    small = Header(disk_bytes=SIZE, base_sha256="0" * 64, content_bytes_max=CHUNK)
    with pytest.raises(DeltaDamaged, match="at most 4096, as the header says"):
        read(stream((0, bytes(CHUNK)), (CHUNK, bytes(CHUNK)), header=small))
    for wrong in (
        Header(disk_bytes=0, base_sha256="0" * 64, content_bytes_max=0),
        Header(disk_bytes=512, base_sha256="0" * 64, content_bytes_max=513),
        Header(disk_bytes=512, base_sha256="no digest", content_bytes_max=0),
        Header(disk_bytes=2**63, base_sha256="0" * 64, content_bytes_max=0),
    ):
        with pytest.raises(DeltaDamaged, match="allowed: sizes that can be"):
            read(stream(header=wrong))
    for text in (b"[]", b"{}", b"\xff", b'{"format": 2}', b"[" * 60_000):
        with pytest.raises(DeltaDamaged, match=r"the header cannot be read|format"):
            read(delta.MAGIC + struct.pack("<I", len(text)) + text)
    with pytest.raises(DeltaDamaged, match="a header of 65537 bytes; allowed: at most 65536"):
        read(delta.MAGIC + struct.pack("<I", 65537))
