"""The binary layout of device-mapper's ioctls, against answers laid out as the kernel does."""

import struct
from collections.abc import Callable

import pytest

from reconciler.kernel import ioctl
from reconciler.kernel.dmstruct import (
    Flag,
    LayoutError,
    Target,
    is_same_device,
    pack_request,
    read_names,
    read_reply,
    read_targets,
    read_versions,
    written,
)
from reconciler.kernel.loopinfo import LoopInfo
from reconciler.kernel.port import DmName
from statemachine.observed import DeviceNumber
from statemachine.units import Sectors

HEADER = 312


def answer(data: bytes, *, target_count: int = 0, size: int | None = None) -> bytearray:
    """Put data behind a header, as the kernel does: data_start 312, data_size to its end."""
    buffer = pack_request(size_bytes=HEADER) + data
    struct.pack_into(
        "=3I", buffer, 12, HEADER + len(data) if size is None else size, HEADER, target_count
    )
    return buffer


def aligned(data: bytes) -> bytes:
    return data.ljust(-(-len(data) // 8) * 8, b"\0")


def name_record(dev: int, name: str, uuid: str | None, *, last: bool) -> bytes:
    """One struct dm_name_list as Linux 5.13 and later write it."""
    head = aligned(struct.pack("=QI", dev, 0) + name.encode() + b"\0")
    flags = 1 if uuid else 2
    tail = struct.pack("=II", 0, flags) + (uuid.encode() + b"\0" if uuid else b"")
    record = bytearray(aligned(head + tail))
    struct.pack_into("=I", record, 8, 0 if last else len(record))
    return bytes(record)


def test_the_ioctl_numbers_are_those_of_the_header() -> None:
    assert ioctl.DM_DEV_CREATE == 0xC138FD03
    assert ioctl.DM_TABLE_STATUS == 0xC138FD0C
    assert ioctl.DM_DEV_ARM_POLL == 0xC138FD10
    assert ioctl.FICLONE == 0x40049409


def test_a_request_carries_version_4_its_own_size_and_no_udev_cookie() -> None:
    buffer = pack_request(size_bytes=4096, name="byre-x", uuid="BYRE-1", flags=Flag.NOFLUSH)
    version = struct.unpack_from("=3I", buffer, 0)
    data_size, data_start, target_count, open_count, flags, event_nr = struct.unpack_from(
        "=3IiII", buffer, 12
    )
    assert version == (4, 0, 0)
    assert (data_size, data_start, target_count, open_count) == (len(buffer), HEADER, 0, 0)
    assert (flags, event_nr) == (1 << 11, 0)
    assert buffer[48:54] == b"byre-x"
    assert buffer[176:182] == b"BYRE-1"
    assert len(buffer) == 4096


def test_a_table_to_load_comes_back_as_it_was_given() -> None:
    target = Target(length=Sectors(131072), kind="snapshot", text="7:0 7:1 P 8")
    buffer = pack_request(size_bytes=HEADER, uuid="BYRE-1", targets=(target,))
    assert len(buffer) % 8 == 0
    assert read_targets(buffer) == (target,)


def test_several_targets_are_found_by_their_offset_from_the_first() -> None:
    first = struct.pack("=QQiI16s", 0, 8, 0, 48, b"linear") + b"7:0 0\0\0\0"
    second = struct.pack("=QQiI16s", 8, 8, 0, 96, b"error") + b"\0"
    found = read_targets(answer(first + second, target_count=2))
    expected = (
        Target(start=Sectors(0), length=Sectors(8), kind="linear", text="7:0 0"),
        Target(start=Sectors(8), length=Sectors(8), kind="error", text=""),
    )
    assert found == expected


def test_a_device_number_is_decoded_beyond_eight_bits_of_minor() -> None:
    buffer = pack_request(size_bytes=HEADER)
    struct.pack_into("=Q", buffer, 40, (253 << 8) | (300 & 0xFF) | ((300 & ~0xFF) << 12))
    assert read_reply(buffer).device == DeviceNumber(253, 300)


def test_the_list_of_devices_with_uuids() -> None:
    data = name_record(0xFD00, "a", "BYRE-1", last=False) + name_record(
        0xFD01, "bb", None, last=True
    )
    expected = (
        (DmName(name="a", uuid="BYRE-1", device=DeviceNumber(253, 0)), True),
        (DmName(name="bb", uuid="", device=DeviceNumber(253, 1)), True),
    )
    assert read_names(answer(data)) == expected


def test_before_5_13_the_list_says_nothing_about_uuids() -> None:
    record = aligned(struct.pack("=QI", 0xFD00, 0) + b"a\0") + struct.pack("=II", 7, 0)
    expected = ((DmName(name="a", uuid="", device=DeviceNumber(253, 0)), False),)
    assert read_names(answer(record)) == expected


def test_before_4_14_nothing_follows_a_name() -> None:
    first = bytearray(aligned(struct.pack("=QI", 0xFD00, 0) + b"a\0"))
    struct.pack_into("=I", first, 8, len(first))
    last = aligned(struct.pack("=QI", 0xFD01, 0) + b"b\0")
    assert [told for _, told in read_names(answer(bytes(first) + last))] == [False, False]


def test_no_devices_is_one_record_without_a_number() -> None:
    assert read_names(answer(bytes(16))) == ()


def test_the_list_of_target_types() -> None:
    first = bytearray(aligned(struct.pack("=4I", 0, 1, 16, 0) + b"snapshot\0"))
    struct.pack_into("=I", first, 0, len(first))
    last = aligned(struct.pack("=4I", 0, 1, 4, 0) + b"linear\0")
    assert read_versions(answer(bytes(first) + last)) == {"snapshot", "linear"}
    assert read_versions(answer(b"")) == frozenset()


def test_an_answer_of_another_version_is_refused() -> None:
    buffer = pack_request(size_bytes=HEADER)
    struct.pack_into("=I", buffer, 0, 5)
    with pytest.raises(LayoutError, match="version 5"):
        read_reply(buffer)


def test_an_answer_that_is_cut_off_is_refused() -> None:
    with pytest.raises(LayoutError, match="cannot hold"):
        read_reply(bytes(HEADER - 1))
    with pytest.raises(LayoutError, match="outside"):
        read_targets(answer(bytes(8), target_count=1))
    with pytest.raises(LayoutError, match="no end"):
        read_targets(answer(struct.pack("=QQiI16s", 0, 8, 0, 0, b"x") + b"abc", target_count=1))
    with pytest.raises(LayoutError, match="runs out"):
        read_names(answer(struct.pack("=QI", 0xFD00, 4096) + b"a\0\0\0"))


@pytest.mark.parametrize(("name", "uuid"), [("n" * 128, ""), ("", "u" * 129), ("a\0b", "")])
def test_a_name_that_does_not_fit_is_refused_before_the_kernel_sees_it(
    name: str, uuid: str
) -> None:
    with pytest.raises(LayoutError, match="does not fit"):
        pack_request(size_bytes=HEADER, name=name, uuid=uuid)


def test_a_loop_status_comes_back_as_it_was_given() -> None:
    info = LoopInfo(offset_bytes=4096, size_limit_bytes=8192, flags=5, marker="m" * 63)
    raw = info.pack()
    assert len(raw) == 232
    assert LoopInfo.unpack(raw) == info
    assert info.autoclear
    assert info.read_only


@pytest.mark.parametrize("read", [read_reply, read_targets, read_names, read_versions])
@pytest.mark.parametrize("size", [0, 1, 19, HEADER - 1])
def test_an_answer_without_a_whole_header_is_refused(
    read: Callable[[bytes], object], size: int
) -> None:
    with pytest.raises(LayoutError, match=f"{size} bytes cannot hold a dm_ioctl"):
        read(bytes(size))


def test_a_target_of_a_size_that_nothing_has_is_refused() -> None:
    target = struct.pack("=QQiI16s", 0, 2**64 - 1, 0, 48, b"linear") + b"7:0 0\0\0\0"
    with pytest.raises(LayoutError, match="18446744073709551615 sectors is outside of 0 to"):
        read_targets(answer(target, target_count=1))


def test_two_answers_are_of_one_device_only_in_one_life() -> None:
    first = pack_request(size_bytes=HEADER, name="x", uuid="BYRE-a-1")
    again, other = bytearray(first), pack_request(size_bytes=HEADER, name="x", uuid="BYRE-a-2")
    assert is_same_device(first, again)
    assert not is_same_device(first, other)
    struct.pack_into("=Q", again, 40, 7)
    assert not is_same_device(first, again)


def test_what_the_kernel_wrote_says_the_same_without_the_room_behind_it() -> None:
    target = struct.pack("=QQiI16s", 0, 8, 0, 48, b"linear") + b"7:0 0\0\0\0"
    whole = answer(target, target_count=1)
    roomy = whole + bytes(500)
    assert written(roomy) == bytes(whole)
    assert read_targets(written(roomy)) == read_targets(roomy)
    assert written(pack_request(size_bytes=HEADER)) == bytes(pack_request(size_bytes=HEADER))
