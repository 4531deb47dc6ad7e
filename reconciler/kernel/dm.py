"""Device-mapper by its ioctl interface: create, load, resume, suspend, remove, look, list.

Each call has a buffer of its own, on one kept descriptor of /dev/mapper/control, so any number
of threads may call at once (libdevmapper could not; kernel fact 8). No udev cookie is given and
nobody waits for udev (facts 4 to 6). No policy: what a device is for, and whether it is ours, is
decided above; `linux` checks the UUID before a removal.

Privilege: CAP_SYS_ADMIN for everything, also for looking.
Raises OSError; may be imported by `linux`, `bench` and `reconciler.watch` (for `EventPoll`).
"""

from __future__ import annotations

import errno
import functools
import os
import time
from pathlib import Path
from typing import Final, Self

import attrs

from reconciler.kernel import ioctl, origintable
from reconciler.kernel.dmstruct import (
    Flag,
    Reply,
    Target,
    is_full,
    is_same_device,
    pack_request,
    read_names,
    read_reply,
    read_targets,
    read_versions,
    written,
)
from reconciler.kernel.keptnode import KeptNode
from reconciler.kernel.port import DmName
from reconciler.kernel.table import TARGET, TableError, format_table, parse_status, parse_table
from statemachine.observed import DeviceNumber, DmDevice, OriginTable, SnapshotStatus, SnapshotTable

_BUFFER_BYTES: Final = 1024
"""Enough for a device and its table of a target or two; lists begin larger."""
_LIST_BYTES: Final = 16 * 1024
_BUFFER_BYTES_MAX: Final = 64 * 1024 * 1024
"""More than the list of all 2**20 device numbers' usual names needs."""
_LOOKS_MAX: Final = 5
_STATUS_FLAGS: Final = Flag.NOFLUSH.value
_TABLE_FLAGS: Final = Flag.NOFLUSH.value | Flag.STATUS_TABLE.value
_SUSPEND_FLAGS: Final = Flag.SUSPEND.value | Flag.SKIP_LOCKFS.value
_ANSWERS_MAX: Final = 4096
"""How many devices' answers are kept, half a KiB each, with what they say."""
_REMOVE_DELAYS_S: Final = (0.002, 0.004, 0.008, 0.016, 0.016)
"""udev may hold a new device open for its rules (kernel fact 5): 46 ms in all, then EBUSY."""


class DeviceMapper:
    """The control node of device-mapper; holds its descriptor and no state."""

    def __init__(self, *, control: Path) -> None:
        """Take the node; opens nothing yet."""
        self._control = KeptNode(control)

    def target_types(self) -> frozenset[str]:
        """Return the names of the target types that are loaded now."""
        return read_versions(self._call(ioctl.DM_LIST_VERSIONS, size_bytes=_LIST_BYTES))

    def has_target(self, name: str) -> bool:
        """Tell whether a target type can be used; the kernel loads its module for the question.

        DM_GET_TARGET_VERSION asks for one type by name and loads `dm-NAME` (get_target_version and
        dm_get_target_type in drivers/md; since dm 4.41, Linux 5.4); before that, only what is
        loaded already counts.
        """
        try:
            self._call(ioctl.DM_GET_TARGET_VERSION, name=name)
        except OSError as error:
            if error.errno == errno.EINVAL:
                return False
            if error.errno == errno.ENOTTY:
                return name in self.target_types()
            raise
        return True

    def names(self) -> tuple[DmName, ...]:
        """Return all devices; where the kernel does not list UUIDs (before 5.13), ask for each."""
        buffer = self._call(ioctl.DM_LIST_DEVICES, flags=Flag.UUID.value, size_bytes=_LIST_BYTES)
        return tuple(
            line if told else attrs.evolve(line, uuid=self._uuid_of(line.name))
            for line, told in read_names(buffer)
        )

    def info(self, *, name: str = "", uuid: str = "") -> Reply | None:
        """Return the header of one device, None if there is none."""
        try:
            return read_reply(self._call(ioctl.DM_DEV_STATUS, name=name, uuid=uuid))
        except OSError as error:
            if error.errno == errno.ENXIO:
                return None
            raise

    def look(self, name: str) -> DmDevice | None:
        """Return one device with its table and status.

        Two ioctls, as the kernel gives table and status one at a time; asked again when the
        device became another one in between. DM_NOFLUSH: a status that flushes would wait for IO.
        """
        return _look(self._control.fileno(), name)

    def ours(self, prefix: str) -> tuple[DmDevice, ...]:
        """Return the devices whose UUID begins so; those that go meanwhile are left out."""
        names = [line.name for line in self.names() if line.uuid.startswith(prefix)]
        control = self._control.fileno() if names else -1
        looked = [_look(control, name) for name in names]
        return tuple(device for device in looked if device is not None)

    def create(self, name: str, uuid: str) -> DeviceNumber:
        """Make a device without a table; EBUSY if the name or the UUID is taken."""
        return read_reply(self._call(ioctl.DM_DEV_CREATE, name=name, uuid=uuid)).device

    def load(self, uuid: str, table: SnapshotTable | OriginTable) -> None:
        """Load a table into the inactive slot, replacing one that is there."""
        targets: tuple[Target, ...]
        if isinstance(table, OriginTable):
            targets = origintable.targets_of(table)
        else:
            targets = (Target(length=table.length, kind=TARGET, text=format_table(table)),)
        self._call(ioctl.DM_TABLE_LOAD, uuid=uuid, targets=targets)

    def resume(self, uuid: str) -> None:
        """Make the inactive table live, or let IO go on."""
        self._call(ioctl.DM_DEV_SUSPEND, uuid=uuid)

    def suspend(self, uuid: str) -> None:
        """Stop IO, once what is in flight is done.

        Waits for IO in flight as long as the kernel needs; a signal ends the wait (EINTR). A file
        system mounted on it is not frozen (SKIP_LOCKFS): freezing one writes its dirty pages,
        and this is called when there is no room for them.
        """
        self._call(ioctl.DM_DEV_SUSPEND, uuid=uuid, flags=_SUSPEND_FLAGS)

    def give_uuid(self, name: str, uuid: str) -> None:
        """Give a device without a UUID one; EINVAL if it has one, EBUSY if another has this."""
        data = os.fsencode(uuid) + b"\0"
        self._call(ioctl.DM_DEV_RENAME, name=name, flags=Flag.UUID.value, data=data)

    def remove(self, uuid: str) -> None:
        """Remove a device; in use: a few quick tries, 46 ms in all, then EBUSY.

        By UUID, so that look-up and removal are one step and never hit another device.
        """
        for delay_s in _REMOVE_DELAYS_S:
            try:
                self._call(ioctl.DM_DEV_REMOVE, uuid=uuid)
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
                time.sleep(delay_s)
            else:
                return
        self._call(ioctl.DM_DEV_REMOVE, uuid=uuid)

    def _uuid_of(self, name: str) -> str:
        reply = self.info(name=name)
        return reply.uuid if reply else ""

    def _call(
        self,
        request: int,
        *,
        name: str = "",
        uuid: str = "",
        flags: int = 0,
        targets: tuple[Target, ...] = (),
        data: bytes = b"",
        size_bytes: int = _BUFFER_BYTES,
    ) -> bytearray:
        return _ask(
            self._control.fileno(), request,
            name=name, uuid=uuid, flags=flags, targets=targets, data=data, size_bytes=size_bytes,
        )  # fmt: skip


def _ask(
    control: int,
    request: int,
    *,
    name: str = "",
    uuid: str = "",
    flags: int = 0,
    targets: tuple[Target, ...] = (),
    data: bytes = b"",
    size_bytes: int = _BUFFER_BYTES,
) -> bytearray:
    """Make one ioctl, again with a larger buffer while the kernel says it is full."""
    while True:
        buffer = pack_request(
            size_bytes=size_bytes, name=name, uuid=uuid, flags=flags, targets=targets, data=data
        )
        ioctl.call(control, request, buffer)
        if not is_full(buffer):
            return buffer
        size_bytes *= 4
        if size_bytes > _BUFFER_BYTES_MAX:
            raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE), name)


def _look(control: int, name: str) -> DmDevice | None:
    for _ in range(_LOOKS_MAX):
        try:
            table = _ask(control, ioctl.DM_TABLE_STATUS, name=name, flags=_TABLE_FLAGS)
            status = _ask(control, ioctl.DM_TABLE_STATUS, name=name, flags=_STATUS_FLAGS)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return None
            raise
        if is_same_device(table, status):
            return _device(written(table), written(status))
    raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN), name)


class EventPoll:
    """A descriptor that becomes readable when any dm device has an event (4.37, Linux 4.14).

    Arm, look at every device, wait, again: an event between arming and waiting is not lost. The
    event says nothing about which device it was.
    """

    def __init__(self, control: Path) -> None:
        """Open the control node; raises OSError."""
        self._descriptor = os.open(control, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fileno(self) -> int:
        """Return the descriptor, for poll and select."""
        return self._descriptor

    def arm(self) -> None:
        """Take all events so far as seen."""
        buffer = pack_request(size_bytes=ioctl.DM_IOCTL_BYTES)
        ioctl.call(self._descriptor, ioctl.DM_DEV_ARM_POLL, buffer)

    def close(self) -> None:
        """Close the descriptor; once more is harmless."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


@functools.lru_cache(maxsize=_ANSWERS_MAX)
def _device(table_answer: bytes, status_answer: bytes) -> DmDevice:
    """Read the two answers; kept, as those about an idle device are the same at each look."""
    reply = read_reply(status_answer)
    table, status = read_targets(table_answer), read_targets(status_answer)
    parsed_table, parsed_status = _snapshot(table, status)
    return DmDevice(
        name=reply.name,
        uuid=reply.uuid,
        device=reply.device,
        suspended=reply.has(Flag.SUSPEND),
        open_count=reply.open_count,
        live=reply.has(Flag.ACTIVE_PRESENT),
        table=parsed_table,
        status=parsed_status,
        event_nr=reply.event_nr,
        origin=origintable.read(table),
    )


def _snapshot(
    table: tuple[Target, ...], status: tuple[Target, ...]
) -> tuple[SnapshotTable | None, SnapshotStatus | None]:
    """Read one snapshot target's two texts; (None, None) for any other kind of table.

    A snapshot with features that byre never gives it counts as another kind: it is not the table
    that anybody of us loaded.
    """
    if len(table) != 1 or len(status) != 1 or {table[0].kind, status[0].kind} != {TARGET}:
        return None, None
    try:
        return parse_table(table[0].length, table[0].text), parse_status(status[0].text)
    except TableError:
        return None, None
