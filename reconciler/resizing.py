"""Making the ext4 file system on a live disk that nobody uses as large as the disk.

The programs of e2fsprogs do it: `e2fsck -f -p`, then `resize2fs`. They open the device exclusively,
so that nobody can mount it meanwhile. What they change is the disk's content, as a guest would
change it; the disk's state is as it was. May be imported by cli.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

from reconciler.actions import in_use_error, lasting
from statemachine.errors import IdentityMismatch, PermanentError, RefusedError
from statemachine.machine import LIVE
from statemachine.observed import DeviceNumber
from statemachine.record import Record

if TYPE_CHECKING:
    from reconciler.api import Byre

TIMEOUT_S: Final = 3600.0
_MENDED: Final = 1
"""What e2fsck returns when it found something and put it right (e2fsck(8))."""
_MAGIC: Final = b"\x53\xef"
_MAGIC_AT: Final = 1024 + 56
"""`s_magic` of the superblock of ext2, ext3 and ext4 (fs/ext4/ext4.h)."""


def resize(byre: Byre, name: str) -> None:
    """Check a disk's ext4 file system and make it fill the disk; idempotent.

    Privilege: to open the device for writing.

    Raises:
        RefusedError: the disk is not live, or there is no ext4 file system on it.
        IdentityMismatch: its device is not the recorded one.
        BlockedError: somebody uses it.
        PermanentError: one of the programs is missing, or failed.
    """
    record = byre.get(name)
    if record.state not in LIVE:
        msg = f"{name}: it is {record.state}, and a file system is resized on a live device"
        raise RefusedError(msg, hint=f"`byre restore {name} --wait`, then again with the same size")
    device = _device(byre, record)
    holders = lasting(byre.kernel.holders(device))
    if holders:
        raise in_use_error(record.device, holders)
    _refuse_others(record)
    _run(record, ("e2fsck", "-f", "-p", record.device), (0, _MENDED))
    _run(record, ("resize2fs", record.device), (0,))


def _device(byre: Byre, record: Record) -> DeviceNumber:
    """Return the number of the device, which is the one behind the recorded path now."""
    number = record.device_number
    found = byre.kernel.dm(record.device_name)
    if not number and record.cow_loop is None:
        msg = f"{record.name}: it is offered as a plain file"
        raise RefusedError(msg, hint=f"resize2fs {record.device}, while nobody has it open")
    if found is not None and str(found.device) != number:
        msg = f"{record.name}: its device is {found.device}, recorded is {number}"
        raise IdentityMismatch(msg, hint="`byre explain` says what is wrong")
    return DeviceNumber.parse(number)


def _refuse_others(record: Record) -> None:
    with Path(record.device).open("rb") as device:
        device.seek(_MAGIC_AT)
        magic = device.read(len(_MAGIC))
    if magic != _MAGIC:
        msg = f"{record.name}: there is no ext4 file system on {record.device}"
        raise RefusedError(msg, hint="the disk is larger; what is on it is its user's to grow")


def _run(record: Record, words: tuple[str, ...], good: tuple[int, ...]) -> None:
    """Run one of the programs; it is not told to be quiet about what it cannot mend."""
    try:
        done = subprocess.run(  # noqa: S603 - fixed programs, with the path of a device of ours
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=TIMEOUT_S,
            check=False,
        )
    except FileNotFoundError as error:
        msg = f"{words[0]} is not installed"
        raise PermanentError(msg, hint="install e2fsprogs") from error
    except subprocess.TimeoutExpired as error:
        msg = f"{words[0]} did not end within {TIMEOUT_S:.0f} s on {record.device}"
        raise PermanentError(msg) from error
    if done.returncode not in good:
        said = " ".join((done.stdout + done.stderr).split())[-400:]
        msg = f"{' '.join(words)} failed with {done.returncode}: {said}"
        hint = f"`e2fsck {record.device}` by hand, then again"
        raise PermanentError(msg, hint=hint)
