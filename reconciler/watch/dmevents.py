"""Hints from device-mapper's own event counter: a snapshot that fills up or fails says so at once.

The kernel has one counter for all devices, and a file that becomes readable when it moves
(DM_DEV_ARM_POLL; struct dm_file, dm_poll() and dev_arm_poll() in drivers/md/dm-ioctl.c, since
4.37, Linux 4.14). Which device it was is found by comparing each device's own `event_nr`.
In this order, so that nothing falls between: wait, arm, look (as multipathd does it). Seen on
Linux 6.1 (tests/kernel/test_dm_events.py): creation, removal and what a target reports, as an
invalid snapshot, move the counter; suspending and resuming by hand do not.

What this module does not do: it changes nothing and asks no device for its status. Foreign devices
give hints as well, by name: nobody opens anything because of a hint.
May be imported by daemon and reconcile. Privilege: CAP_SYS_ADMIN.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Protocol

from reconciler.kernel import ioctl
from reconciler.kernel.dm import EventPoll
from reconciler.kernel.dmstruct import is_full, pack_request
from reconciler.watch.hint import Hint, HintKind, Hold, Wake, at_once
from reconciler.watch.thread import PollThread

HINTS_MAX: Final = 1_000
"""More devices than this at once become one hint "all"."""

_LIST_BYTES: Final = 64 * 1024
_LIST_BYTES_MAX: Final = 64 * 1024 * 1024
_DATA_SIZE_AT: Final = 12  # data_size and data_start in struct dm_ioctl
_NAME_LIST: Final = struct.Struct("=QI")
_EVENT_NR: Final = struct.Struct("=I")


class EventSource(Protocol):
    """The counter and the devices; `KernelEvents` is the real one."""

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when the counter moved."""
        ...

    def arm(self) -> None:
        """Take the counter as it is now as seen; raises OSError."""
        ...

    def event_numbers(self) -> Mapping[str, int]:
        """Return each dm device's own event number by its name; raises OSError."""
        ...

    def close(self) -> None:
        """Give the descriptor back."""
        ...


class KernelEvents:
    """The event source of this host's kernel; raises OSError when there is none."""

    def __init__(self, control: Path = Path("/dev/mapper/control")) -> None:
        self._poll = EventPoll(control)

    def fileno(self) -> int:
        """See `EventSource`."""
        return self._poll.fileno()

    def arm(self) -> None:
        """See `EventSource`; ENOTTY before 4.37."""
        self._poll.arm()

    def event_numbers(self) -> Mapping[str, int]:
        """See `EventSource`; one ioctl for all devices, again while they do not fit."""
        size_bytes = _LIST_BYTES
        while size_bytes <= _LIST_BYTES_MAX:
            buffer = pack_request(size_bytes=size_bytes)
            ioctl.call(self.fileno(), ioctl.DM_LIST_DEVICES, buffer)
            if not is_full(buffer):
                return parse_event_numbers(buffer)
            size_bytes *= 4
        raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))

    def close(self) -> None:
        """See `EventSource`."""
        self._poll.close()


class DmEventWatcher:
    """A `Watcher` on the dm devices of the host; hints carry their names.

    Args:
        open_source: makes the event source; called by `start`.
    """

    name = "dmevents"

    def __init__(self, open_source: Callable[[], EventSource] = KernelEvents) -> None:
        self._open_source = open_source
        self._source: EventSource | None = None
        self._thread: PollThread | None = None
        self._seen: Mapping[str, int] = {}
        self._refused = ""

    @property
    def unavailable(self) -> str:
        """Why no events are seen: no device-mapper, no privilege, or a kernel before 4.14."""
        return (self._thread.failure if self._thread else "") or self._refused

    def start(self, wake: Wake, hold_s: Hold = at_once) -> None:
        """Note every device's event number and wait for the counter; see `Watcher.start`."""
        try:
            source = self._open_source()
        except OSError as error:
            self._refused = f"device-mapper cannot be used: {error}"
            return
        try:
            source.arm()
            self._seen = source.event_numbers()
        except OSError as error:
            source.close()
            self._refused = f"device-mapper's events cannot be waited for: {error}"
            return

        def ready() -> None:
            for hint in self._hints(source):
                wake(hint)

        self._source = source
        self._thread = PollThread("byre-dmevents", source.fileno(), ready, hold_s=hold_s)
        self._thread.start()

    def stop(self) -> None:
        """See `Watcher.stop`."""
        thread, self._thread = self._thread, None
        if thread is not None and thread.stop() and self._source is not None:
            self._source.close()

    def _hints(self, source: EventSource) -> list[Hint]:
        source.arm()
        before, self._seen = self._seen, source.event_numbers()
        names = changed_names(before, self._seen)
        if len(names) > HINTS_MAX:
            return [Hint(source=self.name, kind=HintKind.ALL)]
        return [Hint(source=self.name, kind=HintKind.MAPPER, name=name) for name in names]


def changed_names(before: Mapping[str, int], after: Mapping[str, int]) -> list[str]:
    """Return, sorted, the names that came, went, or have another event number."""
    return sorted({name for name, _ in before.items() ^ after.items()})


def parse_event_numbers(buffer: bytes | bytearray) -> Mapping[str, int]:
    """Read the event numbers in a DM_LIST_DEVICES answer.

    A record is dev (u64), next (u32, from its own start, 0 in the last), the name with its NUL,
    and on the next 8-byte border the event number (u32). Source: struct dm_name_list in
    include/uapi/linux/dm-ioctl.h; an empty list is one record with dev 0.

    Raises:
        OSError: EPROTO, the answer does not have this layout.
    """
    end, start = struct.unpack_from("=2I", buffer, _DATA_SIZE_AT)
    numbers: dict[str, int] = {}
    try:
        while start < end:
            device, following = _NAME_LIST.unpack_from(buffer, start)
            if device == 0:
                break
            name_at = start + _NAME_LIST.size
            name_end = buffer.index(b"\0", name_at, end)
            number_at = start + -(-(name_end + 1 - start) // 8) * 8
            (number,) = _EVENT_NR.unpack_from(buffer, number_at)
            numbers[os.fsdecode(bytes(buffer[name_at:name_end]))] = number
            start = start + following if following else end
    except (ValueError, struct.error) as error:
        raise OSError(errno.EPROTO, f"the list of dm devices is cut short: {error}") from error
    return numbers
