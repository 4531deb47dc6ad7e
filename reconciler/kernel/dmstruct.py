"""The binary layout of device-mapper's ioctl interface, version 4: bytes in, values out.

Pure: it packs requests and reads answers, and makes no call; `dm` does. One buffer is one
`struct dm_ioctl` (312 bytes) and its data behind it; native byte order and alignment, which is
the same on all 64-bit Linux.

Source: include/uapi/linux/dm-ioctl.h; list_devices(), list_versions() and retrieve_status() in
drivers/md/dm-ioctl.c. May be imported by `dm` and by tests.
"""

from __future__ import annotations

import enum
import os
import struct
from collections.abc import Iterator
from typing import Final

import attrs

from reconciler.kernel.ioctl import DM_IOCTL_BYTES
from reconciler.kernel.port import DmName
from statemachine.errors import PermanentError
from statemachine.observed import DeviceNumber
from statemachine.units import Sectors, UnitError

NAME_BYTES_MAX: Final = 127  # DM_NAME_LEN 128 with its NUL
UUID_BYTES_MAX: Final = 128  # DM_UUID_LEN 129 with its NUL
_TYPE_BYTES_MAX: Final = 15  # DM_MAX_TYPE_NAME 16 with its NUL

_HEADER = struct.Struct("=3I3IiIIIQ128s129s7x")
"""struct dm_ioctl: version (three numbers), data_size, data_start, target_count, open_count, flags,
event_nr, padding, dev, name, uuid, and seven bytes that fill it up."""
_SPEC = struct.Struct("=QQiI16s")
"""struct dm_target_spec: sector_start, length, status, next, target_type; then the parameters."""
_NAME_LIST = struct.Struct("=QI")
"""struct dm_name_list: dev, next; then the name."""
_NAME_EXTRA = struct.Struct("=II")
"""What follows a name, aligned to 8: event_nr, flags; then the UUID."""
_VERSIONS_NAME: Final = 16
"""Where the name stands in struct dm_target_versions, behind next and three numbers."""
_NEXT = struct.Struct("=I")
_SIZE_AT, _COUNT_AT, _FLAGS_AT = 12, 20, 28
"""Where `data_size`, `target_count` and `flags` stand in struct dm_ioctl."""
_DEVICE, _UUID = slice(40, 48), slice(176, 305)
"""Where `dev` and `uuid` stand."""
_HAS_UUID: Final = 1  # DM_NAME_LIST_FLAG_HAS_UUID
assert _HEADER.size == DM_IOCTL_BYTES


class Flag(enum.IntFlag):
    """The flags of `struct dm_ioctl` that byre gives or reads."""

    READONLY = 1 << 0
    SUSPEND = 1 << 1
    STATUS_TABLE = 1 << 4
    ACTIVE_PRESENT = 1 << 5
    INACTIVE_PRESENT = 1 << 6
    BUFFER_FULL = 1 << 8
    SKIP_LOCKFS = 1 << 10
    NOFLUSH = 1 << 11
    UUID = 1 << 14
    """Given to DM_LIST_DEVICES: list the UUIDs as well (4.45, Linux 5.13). Given to DM_DEV_RENAME:
    what follows is a UUID, for a device that has none (4.19, Linux 2.6.39)."""


_BUFFER_FULL: Final = Flag.BUFFER_FULL.value


class LayoutError(PermanentError):
    """An answer of the kernel, or a request, does not fit the layout of version 4."""


@attrs.frozen(kw_only=True)
class Target:
    """One target of a table: what is mapped, where, and its parameters or status text."""

    length: Sectors
    kind: str
    text: str
    start: Sectors = Sectors(0)  # noqa: RUF009 - a frozen value


@attrs.frozen(kw_only=True)
class Reply:
    """The header of an answer."""

    name: str
    uuid: str
    device: DeviceNumber
    flags: int
    open_count: int
    event_nr: int
    target_count: int

    def has(self, flag: Flag) -> bool:
        """Tell whether the kernel set this flag."""
        return bool(self.flags & flag._value_)  # documented, and no call


def pack_request(
    *,
    size_bytes: int,
    name: str = "",
    uuid: str = "",
    flags: int = 0,
    targets: tuple[Target, ...] = (),
    data: bytes = b"",
) -> bytearray:
    """Build a request; the buffer also takes the answer, so it is as large as that may be.

    The event number is 0: no udev cookie, so udev's rules disable themselves and nobody waits
    (kernel fact 5). The version asked for is 4.0.0, which every version 4 answers.

    Args:
        size_bytes: the least size of the buffer; grown if the targets need more.
        name: the device's name; the kernel takes a name or a uuid but for a creation.
        uuid: the device's UUID.
        flags: of `Flag`.
        targets: the table to load.
        data: what a request takes instead of a table.

    Raises:
        LayoutError: a name, a UUID or a target's type is longer than the kernel's field.
    """
    if targets:
        data = b"".join(map(_pack_target, targets))
    total = max(size_bytes, DM_IOCTL_BYTES + len(data))
    buffer = bytearray(total)
    _HEADER.pack_into(
        buffer, 0, 4, 0, 0, total, DM_IOCTL_BYTES, len(targets), 0, flags, 0, 0, 0,
        _field(name, NAME_BYTES_MAX, "dm name"),
        _field(uuid, UUID_BYTES_MAX, "dm uuid"),
    )  # fmt: skip
    if data:
        buffer[DM_IOCTL_BYTES : DM_IOCTL_BYTES + len(data)] = data
    return buffer


def read_reply(buffer: bytes | bytearray) -> Reply:
    """Read the header of an answer; raises LayoutError when it is not of version 4."""
    if len(buffer) < DM_IOCTL_BYTES:
        raise LayoutError(f"{len(buffer)} bytes cannot hold a dm_ioctl")
    fields = _HEADER.unpack_from(buffer)
    major, _, _, _, _, target_count, open_count, flags, event_nr, _, device, name, uuid = fields
    if major != 4:  # noqa: PLR2004 - DM_VERSION_MAJOR
        raise LayoutError(f"the kernel speaks device-mapper interface version {major}, not 4")
    return Reply(
        name=_text(name),
        uuid=_text(uuid),
        device=_device(device),
        flags=flags,
        open_count=open_count,
        event_nr=event_nr,
        target_count=target_count,
    )


def is_full(buffer: bytes | bytearray) -> bool:
    """Tell whether the kernel had more to say than the buffer holds."""
    (flags,) = _NEXT.unpack_from(buffer, _FLAGS_AT)
    return bool(flags & _BUFFER_FULL)


def is_same_device(left: bytearray, right: bytearray) -> bool:
    """Tell whether two answers are of one device in one life; texts are filled up with zeros."""
    return left[_DEVICE] == right[_DEVICE] and left[_UUID] == right[_UUID]


def written(buffer: bytearray) -> bytes:
    """Return what the kernel wrote of an answer: its header and data, without the room behind."""
    (size,) = _NEXT.unpack_from(buffer, _SIZE_AT)
    return bytes(buffer[: max(size, DM_IOCTL_BYTES)])


def read_targets(buffer: bytes | bytearray) -> tuple[Target, ...]:
    """Read the targets of a DM_TABLE_STATUS answer; `next` counts from the first of them."""
    data = _data(buffer)
    (count,) = _NEXT.unpack_from(buffer, _COUNT_AT)
    targets: list[Target] = []
    offset = 0
    for _ in range(count):
        if offset + _SPEC.size > len(data):
            raise LayoutError(f"target {len(targets)} of {count} lies outside of the answer")
        start, length, _, following, kind = _SPEC.unpack_from(data, offset)
        text = _text_at(data, offset + _SPEC.size, len(data))
        where = {"start": _sectors(start), "length": _sectors(length)}
        targets.append(Target(**where, kind=_text(kind), text=text))
        offset = max(following, offset + _SPEC.size)
    return tuple(targets)


def read_names(buffer: bytes | bytearray) -> tuple[tuple[DmName, bool], ...]:
    """Read a DM_LIST_DEVICES answer.

    Returns:
        Each device, and whether the kernel told its UUID. Before 4.37 nothing stands behind the
        name, before 4.45 no UUID: the device's own status has to be asked.
    """
    data = _data(buffer)
    found: list[tuple[DmName, bool]] = []
    for offset, end in _records(data, _NAME_LIST.size):
        number, _ = _NAME_LIST.unpack_from(data, offset)
        if number == 0:  # an empty list is one record without a device
            break
        name = _text_at(data, offset + _NAME_LIST.size, end)
        uuid = _uuid_behind(data, offset + _NAME_LIST.size + len(os.fsencode(name)) + 1, end)
        found.append((DmName(name=name, uuid=uuid or "", device=_device(number)), uuid is not None))
    return tuple(found)


def read_versions(buffer: bytes | bytearray) -> frozenset[str]:
    """Read the names of the target types of a DM_LIST_VERSIONS answer."""
    data = _data(buffer)
    return frozenset(
        _text_at(data, offset + _VERSIONS_NAME, end)
        for offset, end in _records(data, _VERSIONS_NAME)
    )


def _records(data: bytes, header_bytes: int) -> Iterator[tuple[int, int]]:
    """Walk a list whose records hold `next`, relative to the record; yield (start, end)."""
    offset = 0
    next_at = 8 if header_bytes == _NAME_LIST.size else 0
    while data and offset + header_bytes <= len(data):
        (following,) = _NEXT.unpack_from(data, offset + next_at)
        if offset + following > len(data):
            break
        yield offset, offset + following if following else len(data)
        if not following:
            return
        offset += following
    if data:
        raise LayoutError("a list of the kernel runs out of its answer")


def _uuid_behind(data: bytes, name_end: int, record_end: int) -> str | None:
    """Return the UUID that stands behind a name; "" if it has none, None if it is not told."""
    at = _aligned(name_end)
    if at + _NAME_EXTRA.size > record_end:
        return None
    _, flags = _NAME_EXTRA.unpack_from(data, at)
    if flags & _HAS_UUID:
        return _text_at(data, at + _NAME_EXTRA.size, record_end)
    return "" if flags else None


def _pack_target(target: Target) -> bytes:
    text = os.fsencode(target.text) + b"\0"
    size = _aligned(_SPEC.size + len(text))
    kind = _field(target.kind, _TYPE_BYTES_MAX, "target type")
    spec = _SPEC.pack(target.start.count, target.length.count, 0, size, kind)
    return (spec + text).ljust(size, b"\0")


def _data(buffer: bytes | bytearray) -> bytes:
    """Cut out what the kernel says it wrote: from data_start to data_size."""
    if len(buffer) < DM_IOCTL_BYTES:
        raise LayoutError(f"{len(buffer)} bytes cannot hold a dm_ioctl")
    size, start = struct.unpack_from("=2I", buffer, 12)
    return bytes(buffer[start : min(size, len(buffer))])


def _device(number: int) -> DeviceNumber:
    """Decode huge_encode_dev(): the 12:20 bit layout that user space has as dev_t as well."""
    return DeviceNumber(os.major(number), os.minor(number))


def _sectors(count: int) -> Sectors:
    try:
        return Sectors(count)
    except UnitError as error:
        raise LayoutError(f"a target of the kernel is out of range: {error}") from error


def _aligned(size: int) -> int:
    return -(-size // 8) * 8


def _text(raw: bytes) -> str:
    return _text_at(raw, 0, len(raw))


def _text_at(data: bytes, start: int, end: int) -> str:
    """Read up to the NUL; raises LayoutError when there is none before `end`."""
    stop = data.find(b"\0", start, end)
    if stop < 0:
        raise LayoutError("a text of the kernel has no end")
    return os.fsdecode(data[start:stop])


def _field(text: str, bytes_max: int, what: str) -> bytes:
    if not text:
        return b""
    raw = os.fsencode(text)
    if len(raw) > bytes_max or b"\0" in raw:
        raise LayoutError(f"{what} {text!r} does not fit into the kernel's {bytes_max} bytes")
    return raw
