"""Carrying a disk to another host: its changes as a file, and a disk made of such a file.

`export_delta` writes only what differs from the base, with the digest of that base. `import_delta`
takes no other base. It makes the disk's own file under no name, and gives it one when the whole
stream was read and found good; then the log learns of a disk that is paused, as it does of one
that was adopted. A crash between the two leaves a file that `byre orphans` tells of.
May be imported by cli.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Final

import attrs

from reconciler import baserefs, specs
from reconciler.api import Byre
from reconciler.content import compare, delta, flat
from reconciler.content.delta import Header, Reader, Writer
from reconciler.content.newstore import NewStore
from reconciler.content.spans import total
from reconciler.drivers.cow_room import first_size
from reconciler.kernel import clone, extents, files, newfile, safepath
from reconciler.outside import Tell, append, failing, outside, untold
from reconciler.requester import as_text, checked_claim, this_process
from reconciler.source import WhenLive
from reconciler.specs import Sourced
from statemachine import payloads
from statemachine.errors import IdentityMismatch, RefusedError
from statemachine.events import CORRELATION_BYTES, NewEvent
from statemachine.fileidentity import FileIdentity
from statemachine.machine import Desired, State, Trigger
from statemachine.record import Record
from statemachine.spec import DriverChoice
from statemachine.specreader import parse
from statemachine.units import Bytes

DIGESTING: Final = "digest of the base"
PACKING: Final = "packing"
UNPACKING: Final = "unpacking"


@attrs.frozen(kw_only=True)
class Exported:
    """What `export_delta` made.

    Attributes:
        record: the disk.
        path: the delta.
        size: of the file, in bytes.
        header: what it says of itself.
        written: the digest of the file, and what is in it.
        frozen_ns: how long the disk was suspended for it.
    """

    record: Record
    path: Path
    size: int
    header: Header
    written: delta.Written
    frozen_ns: int


@attrs.frozen(kw_only=True)
class Imported:
    """What `import_delta` made.

    Attributes:
        record: the disk, paused.
        header: what the delta says of itself.
        content_bytes: how much of the disk differs from its base.
        fell_back_because: why the disk is a clone; "" if it is none, or was asked to be one.
    """

    record: Record
    header: Header
    content_bytes: int
    fell_back_because: str


# --- there ---------------------------------------------------------------------------------------


def export_delta(
    byre: Byre,
    name: str,
    target: Path,
    *,
    when_live: WhenLive = WhenLive.SUSPEND,
    replace: bool = False,
    reason: str = "",
    tell: Tell = untold,
) -> Exported:
    """Write where a disk differs from its base into a new file, and record that.

    Args:
        byre: open for writing.
        name: the disk.
        target: the file; its folder must be there.
        when_live: whether a live disk is suspended for a moment, or refused.
        replace: whether a file that is there may be replaced, when the new one is whole.
        reason: why; recorded.
        tell: is told how far it is.

    Raises:
        NoSuchDisk, UsageError: there is no such disk, or no such folder.
        RefusedError: the target is there, or the disk cannot be read; see `Sources.opened`.
        ActionError: a file could not be read or written; nothing is left of the target.
    """
    record, target = byre.get(name), target.absolute()
    with (
        failing(f"export {name} to {target}"),
        outside(byre, target, replace=replace) as place,
        byre.sources().opened(record, when_live=when_live, needs_base=True) as source,
    ):
        assert source.base is not None, "the base was asked for"
        where = list(source.image.written())
        header = Header(
            disk_bytes=source.image.size,
            base_sha256=flat.digest(
                source.base.descriptor, lambda done, all_: tell(DIGESTING, done, all_)
            ),
            content_bytes_max=total(where),
            base=record.wanted.base.name,
            disk=name,
            id=record.id,
            generation=record.generation,
        )
        with newfile.made(place, replace=replace) as descriptor:
            with os.fdopen(os.dup(descriptor), "wb") as file:
                writer = Writer(file, header)
                for span in compare.differences(source.image, source.base, where):
                    for start, end in extents.pieces(*span):
                        writer.block(start, source.image.read(start, end))
                        tell(PACKING, end, source.image.size)
                written = writer.finish()
            source.check_unmoved()
            size = os.fstat(descriptor).st_size
    payload = payloads.DiskExported(
        form="delta",
        path=str(target),
        size_bytes=size,
        sha256=written.sha256,
        frozen_ns=source.frozen_ns,
        by=this_process(),
    )
    append(byre, record, payload, reason=reason)
    return Exported(
        record=record,
        path=target,
        size=size,
        header=header,
        written=written,
        frozen_ns=source.frozen_ns,
    )


# --- and back ------------------------------------------------------------------------------------


def import_delta(
    byre: Byre,
    name: str,
    path: Path,
    base: str,
    *,
    driver: DriverChoice = DriverChoice.AUTO,
    reason: str = "",
    on_behalf_of: str = "",
    tell: Tell = untold,
) -> Imported:
    """Make a paused disk of a delta and of the base that it was made on.

    Args:
        byre: open for writing.
        name: what the disk is to be called; a removed one begins its next generation.
        path: the delta.
        base: the image; its digest must be the one in the delta.
        driver: how it is built; `auto` takes a clone where there is no device-mapper.
        reason: why; recorded.
        on_behalf_of: for whom, as the caller says; recorded as a claim.
        tell: is told how far it is.

    Raises:
        UsageError: the claim is no short plain text.
        SpecError: the name or the base cannot be used.
        RefusedError: there is a disk of this name.
        IdentityMismatch: the base is another one.
        DeltaDamaged: the file is no delta, or not a whole one; nothing was made.
        ActionError: a file could not be read or written; nothing was made.
    """
    claim = checked_claim(on_behalf_of)
    with failing(f"import {path} as {name}"):
        made = _Import(byre, name, driver, base, tell)
        return made.run(path.absolute(), reason=reason, claim=claim)


class _Import:
    """One import."""

    def __init__(self, byre: Byre, name: str, driver: DriverChoice, base: str, tell: Tell) -> None:
        table = {"name": name, "base": base, "state": Desired.PAUSED.value, "driver": driver.value}
        [spec] = parse({"disk": [table]}, source="import", folder=Path.cwd())
        [named] = baserefs.all_resolved([Sourced("import", spec)], byre.log)
        self._spec = named.spec
        self._byre = byre
        self._tell = tell
        self._before = self._record_before()
        self._id = self._before.id if self._before else secrets.token_hex(16)
        self._generation = self._before.generation + 1 if self._before else 1
        why_no_dm = byre.kernel.capabilities().dm if driver is DriverChoice.AUTO else ""
        self._why_clone = why_no_dm
        is_clone = bool(why_no_dm) or driver is DriverChoice.CLONE
        self._driver = DriverChoice.CLONE if is_clone else DriverChoice.DM_SNAPSHOT

    def run(self, path: Path, *, reason: str, claim: str) -> Imported:
        with (
            safepath.regular(path, os.O_RDONLY, follow=True) as descriptor,
            os.fdopen(os.dup(descriptor), "rb") as file,
        ):
            reader = Reader(file)
            pin = specs.check_base("import", self._spec, self._byre.kernel)
            own, content = self._write(reader, pin)
        found = self._byre.kernel.identify(own)
        assert found is not None, own
        try:
            self._byre.allowance.measure()
            events = self._events(path, own, found, pin, reason=reason, claim=claim)
            self._byre.log.append(events)
        except BaseException:
            self._byre.kernel.remove_file(own, found)
            raise
        return Imported(
            record=self._byre.get(self._spec.name),
            header=reader.header,
            content_bytes=content,
            fell_back_because=self._why_clone,
        )

    def _record_before(self) -> Record | None:
        record = self._byre.log.record(self._spec.name)
        if record is not None and record.state is not State.REMOVED:
            msg = f"there is a disk named {record.name}: it is {record.state}"
            raise RefusedError(msg, hint="give the new one another name, or remove that one")
        return record

    def _write(self, reader: Reader, pin: FileIdentity) -> tuple[Path, int]:
        """Make the disk's own file; returns its path and how much of the disk differs."""
        suffix = "img" if self._driver is DriverChoice.CLONE else "cow"
        own = self._byre.root.cow(self._id, self._generation, suffix)
        with safepath.regular(self._spec.base, os.O_RDONLY, follow=True) as base:
            self._check_base(reader.header, pin, base)
            size = Bytes(reader.header.disk_bytes)
            if size > pin.size:
                self._spec = attrs.evolve(self._spec, size=size)
            files.make_parents(own)
            needed = reader.header.content_bytes_max
            self._byre.sources().refuse_without_room(own.parent, needed)
            with safepath.place(own, own=True) as place, newfile.made(place) as descriptor:
                content = self._fill(reader, base, descriptor, size)
        return own, content

    def _check_base(self, header: Header, pin: FileIdentity, base: int) -> None:
        path, found = self._spec.base, os.fstat(base)
        if not files.same_inode(found, pin):
            raise files.mismatch(path, found, pin)
        wanted = f"{header.base_sha256} ({header.base}, {header.disk_bytes} bytes)"
        if pin.size.count > header.disk_bytes:
            msg = f"the delta was made on another base: {wanted}; {path} has {pin.size.count} bytes"
            raise IdentityMismatch(msg, hint="give the very image that the disk was made on")
        sha256 = flat.digest(base, lambda done, all_: self._tell(DIGESTING, done, all_))
        if sha256 != header.base_sha256:
            msg = f"the delta was made on another base: {wanted}; {path} is {sha256}"
            raise IdentityMismatch(msg, hint="give the very image that the disk was made on")

    def _fill(self, reader: Reader, base: int, descriptor: int, size: Bytes) -> int:
        """Write what the delta has into an empty file, as the driver keeps it."""
        content = 0
        store = None
        if self._driver is DriverChoice.CLONE:
            clone.copy_into(base, descriptor, size.count)
            os.ftruncate(descriptor, size.count)
        else:
            store = NewStore(descriptor, first_size(self._spec, size))
        for start, piece in reader.blocks():
            if store is None:
                extents.overwrite(descriptor, piece, start)
            else:
                store.put(start, piece)
            content += len(piece)
            self._tell(UNPACKING, start + len(piece), size.count)
        if store is not None:
            store.finish()
        return content

    def _events(
        self,
        path: Path,
        own: Path,
        found: FileIdentity,
        pin: FileIdentity,
        *,
        reason: str,
        claim: str,
    ) -> tuple[NewEvent, NewEvent]:
        """Return how the log learns of the disk: wanted, and there."""
        by = this_process()
        declared = payloads.DiskDeclared(
            id=self._id,
            spec=self._spec.to_data(),
            device_name=f"{self._byre.settings.device_prefix}{self._spec.name}",
            base=pin,
            by=by,
            why=payloads.IMPORTED,
            on_behalf_of=claim,
        )
        because = f" ({self._why_clone})" if self._why_clone else ""
        drift = payloads.DriftDetected(
            trigger=Trigger.FIND,
            source=State.ABSENT,
            target=State.PAUSED,
            differences=(f"{own.name} was made of {path}, for {self._driver}{because}",),
            cow=found,
            cow_path=str(own),
            driver=self._driver.value,
        )
        first = NewEvent(
            disk=self._spec.name,
            type=payloads.type_of(declared),
            data=payloads.to_data(declared),
            actor=by.user,
            expect=self._before.expect if self._before else (0, 0),
            generation=self._generation,
            reason=as_text(reason),
            correlation_id=secrets.token_hex(CORRELATION_BYTES),
        )
        data, kind = payloads.to_data(drift), payloads.type_of(drift)
        return first, attrs.evolve(first, type=kind, data=data, expect=None)
