"""Writing the store of a paused disk anew, beside the old one, and giving it the old one's name.

The new file is whole, checked and durable before it has a name at all; the old one stays as it is
until `linux` is told to swap them. Raises OSError, IdentityMismatch and StoreError; may be imported
by `linux`.
"""

from __future__ import annotations

import os
from pathlib import Path

from reconciler.kernel import extents, files, newfile, safepath
from reconciler.kernel.ioctl import failing
from reconciler.kernel.storejob import Compaction, StoreJob
from reconciler.store import compact, reader
from reconciler.store.files import check_open
from reconciler.store.layout import Header, StoreError
from statemachine.fileidentity import FileIdentity
from statemachine.units import SECTOR_BYTES, Bytes


class StoreFiles:
    """The part of the port about stores that are written anew."""

    _sys: Path

    def compact_store(self, job: StoreJob) -> Compaction:
        """Write what of a store differs from the base into a new file, checked and durable."""
        with failing(f"compact {job.path}"):
            return compact_store(job, sys=self._sys)

    def swap_file(
        self, source: Path, expected: FileIdentity, target: Path, replaces: FileIdentity
    ) -> bool:
        """Give a file the name of another one, which goes; durable. Refuses by identity."""
        with failing(f"rename {source} to {target}"):
            return swap_file(source, expected, target, replaces)


def compact_store(job: StoreJob, *, sys: Path) -> Compaction:
    """Do what `Kernel.compact_store` says."""
    path, into, base, disk = job.path, job.into, job.base, job.disk
    with (
        safepath.regular(path, os.O_RDONLY, follow=False) as old,
        safepath.regular(base, os.O_RDONLY, follow=True) as below,
    ):
        for descriptor, at, meant in ((old, path, job.expected), (below, base, job.base_expected)):
            found = os.fstat(descriptor)
            if not files.same_inode(found, meant):
                raise files.mismatch(at, found, meant)
        before = os.fstat(old).st_blocks * SECTOR_BYTES
        header = reader.read_header(old)
        if header is None or not header.valid:
            return Compaction(made=None, before=Bytes(before), after=Bytes(before))
        kept = compact.judge(
            header, _pairs(old, header, disk), store=_read(old), base=_read(below),
            disk_bytes=disk.count,
        )  # fmt: skip
        if not kept.is_worth_it(header, before):
            return Compaction(made=None, before=Bytes(before), after=Bytes(before))
        with safepath.place(into, own=True) as place, newfile.made(place, replace=True) as new:
            os.ftruncate(new, os.fstat(old).st_size)
            for at_byte, piece in compact.pieces(header, kept, store=_read(old)):
                extents.write_sparse(new, piece, at_byte)
            _verify(new, old, header, kept, disk)
            os.fsync(new)
            after = os.fstat(new).st_blocks * SECTOR_BYTES
    made = files.identify(into, follow=False, sys=sys)
    assert made is not None, into
    return Compaction(made=made, before=Bytes(before), after=Bytes(after), dropped=kept.dropped)


def _pairs(descriptor: int, header: Header, disk: Bytes) -> list[tuple[int, int]]:
    """Return the exceptions of a store; raises StoreDamaged at the first that is not sound."""
    size = reader.file_size(descriptor)
    return [(e.old, e.new) for e in reader.exceptions(descriptor, header, size=size, disk=disk)]


def _verify(new: int, old: int, header: Header, kept: compact.Kept, disk: Bytes) -> None:
    """Read the new store back before it is given a name."""
    report = check_open(new, disk=disk)
    is_same = report.sound and compact.is_same(
        header, kept, _pairs(new, header, disk), old=_read(old), new=_read(new)
    )
    if not is_same:
        raise StoreError("the new store is not what was written", kind="cow-damaged")


def _read(descriptor: int) -> compact.Read:
    def read(start: int, end: int) -> bytes:
        size = os.fstat(descriptor).st_size
        inside = min(end, size)
        found = extents.read_all(descriptor, start, inside) if start < inside else b""
        return found.ljust(end - start, b"\0")

    return read


def swap_file(source: Path, expected: FileIdentity, target: Path, replaces: FileIdentity) -> bool:
    """Do what `Kernel.swap_file` says."""
    with safepath.place(target, own=True) as (folder, name):
        with safepath.regular(source, os.O_RDONLY, follow=False) as descriptor:
            found = os.fstat(descriptor)
            if not files.same_inode(found, expected):
                raise files.mismatch(source, found, expected)
        with safepath.regular(target, os.O_RDONLY, follow=False) as descriptor:
            found = os.fstat(descriptor)
            if not files.same_inode(found, replaces):
                raise files.mismatch(target, found, replaces)
        os.rename(source, name, dst_dir_fd=folder)
        newfile.sync_folder(folder)
    return True
