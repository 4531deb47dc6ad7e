"""Checking the exception store of a disk, or of a CoW file of no disk: sound, how full, how dirty.

The file is read, and nothing else: no device, no lock, no privilege but that to read it. On a live
disk it is a moving file. An exception that the kernel has not committed is not in it, and a pair
that is being written may look wrong once; so what is wrong there counts when it is still wrong a
moment later. What was wrong and was put right in between is nobody's problem.

What this module does not do: it repairs nothing, and it looks at no data of the disk.
May be imported by cli.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import attrs

from reconciler.source import Sources
from reconciler.store import files
from reconciler.store.files import Report
from reconciler.store.finding import Finding, FindingKind
from reconciler.store.layout import StoreError
from statemachine.errors import UsageError, from_oserror
from statemachine.machine import LIVE, State
from statemachine.record import Record
from statemachine.spec import DriverChoice
from statemachine.units import Bytes

LOOKS_MAX: Final = 3
"""How often the moving file of a live disk is read before what is wrong in it counts."""
NO_STORE: Final = "a clone has no exception store: its file is the disk itself"
THROWAWAY: Final = "a throwaway disk has no exception store: what is where, only its device knows"
MOVING: Final = (
    "the disk is live, and its file moves while it is read: what the kernel has not committed is "
    "not counted; pause the disk for an answer that holds"
)


@attrs.frozen(kw_only=True)
class Checked:
    """What a check found.

    Attributes:
        path: the file.
        disk: the disk it belongs to; "" for a file that was given by its path.
        is_live: whether it moved meanwhile.
        disk_size: of the disk, None where it is not known.
        report: None for a clone and for a throwaway disk, which have no exception store.
        why_none: the sentence for that.
    """

    path: Path
    disk: str = ""
    is_live: bool = False
    disk_size: Bytes | None = None
    report: Report | None = None
    why_none: str = NO_STORE

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return self.report is None or self.report.sound

    @property
    def fill(self) -> float | None:
        """Which part of the store is used, 0 to 1; None where that cannot be told."""
        status = self.report.status if self.report else None
        if status is None or not status.total.count:
            return None
        return status.used.count / status.total.count

    @property
    def dirty(self) -> float | None:
        """Which part of the disk is in the store, 0 to 1; None without the size of the disk."""
        report, size = self.report, self.disk_size
        if report is None or size is None or not size.count:
            return None
        chunk = report.header.chunk_bytes if report.header else 1
        return report.exceptions / max(1, -(-size.count // chunk))

    @property
    def note(self) -> str:
        """What limits the answer; "" when nothing does."""
        if self.is_live:
            return MOVING
        return "" if self.report else self.why_none


def check_file(path: Path, *, disk_size: Bytes | None = None) -> Checked:
    """Check a file by its path.

    Raises:
        UsageError: there is no such file.
        ActionError: it cannot be read.
    """
    return Checked(path=path, disk_size=disk_size, report=_report(path, disk_size))


def check_disk(sources: Sources, record: Record) -> Checked:
    """Check the file of a disk; raises what `Sources.own_file` does, and ActionError."""
    path, size = sources.own_file(record), record.size
    checked = Checked(path=path, disk=record.name, disk_size=size)
    if record.driver == DriverChoice.CLONE:
        return checked
    if not record.wanted.persistent:
        return attrs.evolve(checked, why_none=THROWAWAY)
    is_live = record.state in LIVE
    report = _report(path, size)
    for _ in range(LOOKS_MAX - 1):
        if report.sound or not is_live:
            break
        report = _report(path, size)
    if report.header is None and report.sound and record.state is not State.ATTACHED:
        message = "no header of a store, and the disk has been live; allowed: 'SnAp'"
        report = _only(Finding(kind=FindingKind.EMPTY, offset=0, message=message), report.size)
    return attrs.evolve(checked, is_live=is_live, report=report)


def _report(path: Path, disk_size: Bytes | None) -> Report:
    try:
        return files.check(path, disk=disk_size)
    except FileNotFoundError as error:
        hint = "give the name of a disk, or a CoW file"
        raise UsageError(f"no such file: {path}", hint=hint) from error
    except OSError as error:
        raise from_oserror(error, f"read {path}", hint="a regular file is read") from error
    except StoreError as error:
        found = Finding(kind=FindingKind.FOREIGN, offset=0, message=error.message)
        return _only(found, Bytes(path.lstat().st_size))


def _only(finding: Finding, size: Bytes) -> Report:
    """Return the report on a file of which nothing else can be said."""
    return Report(
        size=size, header=None, exceptions=0, findings=(finding,), findings_total=1, status=None
    )
