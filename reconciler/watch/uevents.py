"""Hints from the kernel's own uevents for block devices, by netlink; works without udevd.

The only module that imports pyudev. It listens to the source "kernel": what the kernel says when
it says it, before (and whether or not) udevd has looked at the device. libudev drops messages that
were not sent by the kernel. The socket's queue is bounded by the kernel; when it overflows the
next read is ENOBUFS, and that becomes one hint "all".

What this module does not do: it reads no properties of a device and trusts no action. In a
container whose user namespace is not the host's, the kernel sends nothing and says nothing of it
(lib/kobject_uevent.c, kernel 4.18): that cannot be told from silence; the resync is for that.
May be imported by daemon and reconcile. Needs no privilege but an AF_NETLINK socket.
"""

from __future__ import annotations

import errno
import os
import socket
import weakref
from typing import Final

import pyudev

from reconciler.watch.hint import Hint, HintKind, Hold, Wake, at_once
from reconciler.watch.thread import PollThread

ACTIONS: Final = frozenset({b"add", b"change", b"remove"})
_KERNEL: Final = 0
"""The port that the kernel sends from (netlink(7), `nl_pid`)."""
_MESSAGE_BYTES: Final = 8192
"""More than the kernel ever sends: UEVENT_BUFFER_SIZE is 2048, and a path before it."""
BATCH_MAX: Final = 256
"""How many messages are read before their hints are handed over; the rest comes right after."""


class UeventWatcher:
    """A `Watcher` on the host's block devices; hints carry names like "dm-3" and "loop7".

    Args:
        queue_bytes: room for unread messages in the kernel (SO_RCVBUF, socket(7)); None leaves
            what libudev chose: 128 MiB with CAP_NET_ADMIN, else net.core.rmem_default.
    """

    name = "uevents"

    def __init__(self, *, queue_bytes: int | None = None) -> None:
        self._queue_bytes = queue_bytes
        self._messages: _Messages | None = None
        self._thread: PollThread | None = None
        self._refused = ""

    @property
    def unavailable(self) -> str:
        """Why no uevents are seen; see the module for a case that nobody can know of."""
        return (self._thread.failure if self._thread else "") or self._refused

    def start(self, wake: Wake, hold_s: Hold = at_once) -> None:
        """Open the socket and listen; see `Watcher.start`."""
        try:
            messages = _Messages(self._queue_bytes)
        except ImportError as error:
            self._refused = f"libudev cannot be loaded: {error}"
            return
        except OSError as error:
            self._refused = f"no netlink socket for uevents: {error}"
            return

        def ready() -> None:
            for hint in messages.hints():
                wake(hint)

        self._messages = messages
        self._thread = PollThread("byre-uevents", messages.fileno(), ready, hold_s=hold_s)
        self._thread.start()

    def stop(self) -> None:
        """See `Watcher.stop`."""
        thread, self._thread = self._thread, None
        if thread is not None and thread.stop():
            self._messages = None


class _Messages:
    """The socket and what comes out of it; it closes with the last reference."""

    def __init__(self, queue_bytes: int | None) -> None:
        self._monitor = pyudev.Monitor.from_netlink(pyudev.Context(), source="kernel")
        self._monitor.start()
        # The same socket with Python's methods; a copy, as each closes its own descriptor.
        self._socket = socket.socket(fileno=os.dup(self._monitor.fileno()))
        weakref.finalize(self, self._socket.close)
        if queue_bytes is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, queue_bytes)

    def fileno(self) -> int:
        """Return the descriptor, to poll for reading."""
        return self._socket.fileno()

    def hints(self) -> list[Hint]:
        """Read what is there, up to a bound; many messages about one device become one hint."""
        hints: dict[Hint, None] = {}
        for _ in range(BATCH_MAX):
            try:
                message, sender = self._socket.recvfrom(_MESSAGE_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                hints[Hint(source=UeventWatcher.name, kind=HintKind.ALL)] = None
                continue
            name = changed_device(message) if sender[0] == _KERNEL else ""
            if name:
                hints[Hint(source=UeventWatcher.name, kind=HintKind.DEVICE, name=name)] = None
        return list(hints)


def changed_device(message: bytes) -> str:
    """Return the kernel's name of the block device that a message is about; "" for any other.

    A message is `ACTION@DEVPATH` and then `KEY=value`, each with a NUL at its end
    (lib/kobject_uevent.c).
    """
    head, *fields = message.split(b"\0")
    action, _, path = head.partition(b"@")
    if action not in ACTIONS or b"SUBSYSTEM=block" not in fields:
        return ""
    return os.fsdecode(path.rpartition(b"/")[2])
