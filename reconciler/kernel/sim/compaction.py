"""Compacting a store in memory, by the same layout as on a real host (`kernel.compaction`).

Raises OSError. May be imported by the rooms of `sim` only.
"""

from __future__ import annotations

import errno
from pathlib import Path

from reconciler.kernel.sim.faults import Faults
from reconciler.kernel.sim.filecalls import check_identity, identity
from reconciler.kernel.sim.files import PAGE_BYTES, File, os_error
from reconciler.kernel.sim.host import Host
from reconciler.kernel.sim.step import change
from reconciler.kernel.storejob import Compaction, StoreJob
from reconciler.store import compact
from reconciler.store.layout import HEADER_BYTES, parse_header
from statemachine.fileidentity import FileIdentity
from statemachine.units import Bytes


class StoreSide:
    """The part of the port that is about stores that are written anew."""

    host: Host
    faults: Faults

    @change
    def compact_store(self, job: StoreJob) -> Compaction:
        """Write what of a store differs from the base into a new file, durable."""
        return compact_store(self.host, job)

    @change
    def swap_file(
        self, source: Path, expected: FileIdentity, target: Path, replaces: FileIdentity
    ) -> bool:
        """Give a file the name of another one, which goes; durable."""
        return swap_file(self.host, source, expected, target, replaces)


def compact_store(host: Host, job: StoreJob) -> Compaction:
    """Do what `Kernel.compact_store` says."""
    into, disk = job.into, job.disk
    old = _file(host, job.path, job.expected)
    below = _file(host, job.base, job.base_expected, follow=True)
    before = Bytes(len(old.pages) * PAGE_BYTES)
    header = parse_header(old.read(0, HEADER_BYTES))
    if header is None or not header.valid:
        return Compaction(made=None, before=before, after=before)
    pairs = compact.pairs_in(header, _read(old), old.size)
    kept = compact.judge(header, pairs, store=_read(old), base=_read(below), disk_bytes=disk.count)
    if not kept.is_worth_it(header, before.count):
        return Compaction(made=None, before=before, after=before)
    folder = host.tree.make_folders(into.parent, host.now_ns())
    new = File(folder.fs, str(into), host.now_ns())
    new.truncate(old.size, host.now_ns())
    try:
        for at, piece in compact.pieces(header, kept, store=_read(old)):
            new.write(at, piece, host.now_ns())
    except OSError:
        new.unlinked()
        raise
    new.sync()
    if host.tree.find(into) is not None:
        host.tree.unlink(into)
    host.tree.add(into, new)
    folder.sync()
    after = Bytes(len(new.pages) * PAGE_BYTES)
    return Compaction(made=identity(host, new), before=before, after=after, dropped=kept.dropped)


def swap_file(
    host: Host, source: Path, expected: FileIdentity, target: Path, replaces: FileIdentity
) -> bool:
    """Do what `Kernel.swap_file` says."""
    file = _file(host, source, expected)
    _file(host, target, replaces)
    host.tree.unlink(target)
    host.tree.add(target, file)
    folder = host.tree.place(source).folder
    folder.take(source.name)
    file.path = str(target)
    folder.sync()
    return True


def _file(host: Host, path: Path, expected: FileIdentity, *, follow: bool = False) -> File:
    found = host.tree.get(path, follow=follow)
    check_identity(path, found, expected)
    if not isinstance(found, File):
        raise os_error(errno.EISDIR, path)
    return found


def _read(file: File) -> compact.Read:
    return lambda start, end: file.read(start, end - start).ljust(end - start, b"\0")
