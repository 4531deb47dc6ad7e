"""Taking an orphan into the log: a disk that the kernel has and that the log does not know.

The log was lost, or an older copy of it was put back. `take_in` looks at the device, its loops and
its file, checks that each is what the others say, and returns the events by which the log learns
of the disk: a declaration with the id and the generation of its UUID, and the drift `find` with its
file, to `paused`. A live device is then found by the next pass, as one that somebody made by hand.

What this module does not do: it changes nothing in the kernel and appends nothing, and it never
guesses (docs/decisions/0013-orphans-are-adopted-as-they-are.md).
May be imported by resolve.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import attrs

from reconciler import specs
from reconciler.drivers import longer
from reconciler.drivers.longer import LOOP_MAJOR
from reconciler.kernel.port import CowHeader, Kernel
from reconciler.orphans import DELETED, Orphan, OrphanKind
from reconciler.root import Root
from statemachine import payloads
from statemachine.errors import IdentityMismatch, RefusedError, UsageError
from statemachine.events import NewEvent
from statemachine.fileidentity import FileIdentity
from statemachine.machine import Desired, State, Trigger
from statemachine.names import DmUuid, origin_name
from statemachine.observed import DeviceNumber, DmDevice, Loop
from statemachine.record import Record
from statemachine.spec import DiskSpec, DriverChoice
from statemachine.specreader import parse
from statemachine.units import CHUNK_SIZES, Bytes

_COPY_OUT: Final = (
    "copy its data out with `dd if=/dev/mapper/NAME of=rescued.img conv=sparse`, and create a disk "
    "on that as base"
)
_BY_HAND: Final[dict[OrphanKind, str]] = {
    OrphanKind.DM: "it has no data of its own; `byre orphans --remove` takes it away",
    OrphanKind.LOOP: "adopt the device above it or the file below it; `--remove` detaches it",
    OrphanKind.FILE: "a .img is a whole image: copy it away and create a disk with it as base",
    OrphanKind.LINK: "it leads nowhere; `byre orphans --remove` takes it away",
}
"""What can be done with what is not adopted."""


@attrs.frozen(kw_only=True)
class Word:
    """What a person says of an orphan, where the kernel does not."""

    name: str = ""
    """What the disk is to be called; "" for what its device says."""
    base: str = ""
    """Its base; "" for what its device says."""


@attrs.frozen(kw_only=True)
class TakenIn:
    """How the log learns of a disk."""

    name: str
    events: tuple[NewEvent, ...]
    base_loop: Loop | None
    """The loop under the live device; None for a file alone."""


@attrs.frozen(kw_only=True)
class _Parts:
    """What a disk was found to be made of."""

    device_name: str
    file: FileIdentity
    base: str
    chunk: Bytes
    base_loop: Loop | None = None
    device: DmDevice | None = None
    size: Bytes | None = None
    """How large the disk is; None where only its base tells."""


class Adopter:
    """Looks at orphans of one root.

    Args:
        kernel: is asked; nothing is changed.
        root: whose orphans.
        records: all of the root's log, removed ones too.
        device_prefix: what devices of this root are named with.
        by: who asks.
        reason: why, in the words of whoever asks; recorded.
        on_behalf_of: for whom, as the caller says; recorded as a claim.
        correlation_id: the request that all of this belongs to.
    """

    def __init__(
        self,
        kernel: Kernel,
        root: Root,
        records: Sequence[Record],
        *,
        device_prefix: str,
        by: payloads.Requester,
        reason: str,
        on_behalf_of: str,
        correlation_id: str,
    ) -> None:
        self._kernel = kernel
        self._root = root
        self._records = records
        self._prefix = device_prefix
        self._by = by
        self._reason = reason
        self._claim = on_behalf_of
        self._correlation_id = correlation_id

    def take_in(self, orphan: Orphan, word: Word) -> TakenIn:
        """Return what makes a disk of an orphan device or CoW file; idempotent.

        Raises:
            UsageError: the name or the base cannot be known and was not given.
            SpecError: the name or the base that was given cannot be used.
            RefusedError: it is no whole disk, or the log has that disk or that name already.
            IdentityMismatch: its file, its loops and its base do not belong together.
            ActionError: a question to the kernel failed.
        """
        owner = orphan.owner
        is_file = orphan.kind is OrphanKind.FILE and orphan.name.endswith(".cow")
        if owner is None or not (is_file or orphan.kind is OrphanKind.DM):
            raise _refused(orphan, orphan.evidence)
        before = self._before(orphan, owner)
        name = self._name(orphan, word, before)
        parts = self._stored(orphan, owner, word, name) if is_file else self._live(orphan, owner)
        spec = _spec(name, word.base or parts.base, parts.chunk, is_live=not is_file)
        base = specs.check_base("--base" if word.base else orphan.name, spec, self._kernel)
        _check_base(orphan, parts, base)
        if parts.size is not None and parts.size != base.size:
            spec = attrs.evolve(spec, size=parts.size)
        return TakenIn(
            name=name,
            events=self._events(owner, spec, base, parts, before),
            base_loop=parts.base_loop,
        )

    # --- which disk it is --------------------------------------------------------------------

    def _before(self, orphan: Orphan, owner: DmUuid) -> Record | None:
        """Return the removed disk that this is a later generation of, if the log has one."""
        for record in self._records:
            if record.id != owner.disk_id:
                continue
            if record.state is State.REMOVED and owner.generation > record.generation:
                return record
            was = f"{record.state}, generation {record.generation}"
            why = f"the log has {record.name} with this id ({was})"
            later = owner.generation > record.generation
            hint = f"`byre remove {record.name}` first: the later one stays" if later else _COPY_OUT
            raise RefusedError(f"{orphan.name} cannot be adopted: {why}", hint=hint)
        return None

    def _name(self, orphan: Orphan, word: Word, before: Record | None) -> str:
        if before is not None and word.name not in ("", before.name):
            # Its next generation would have the id, and so the UUID, of this one.
            msg = f"{orphan.name} has the id of {before.name} and can only be adopted as that"
            raise RefusedError(msg, hint=f"say `--as {before.name}`, or nothing")
        own = orphan.name if orphan.kind is OrphanKind.DM else ""
        known = own.removeprefix(self._prefix) if own.startswith(self._prefix) else ""
        name = word.name or (before.name if before else known)
        if not name:
            hint = "say what it is to be called: `--as NAME`"
            raise UsageError(f"{orphan.name}: nothing tells the disk's name", hint=hint)
        if any(each.name == name and each is not before for each in self._records):
            hint = "give it another name: `--as NAME`"
            raise RefusedError(f"{orphan.name}: there is another disk named {name}", hint=hint)
        return name

    # --- what it is made of ------------------------------------------------------------------

    def _live(self, orphan: Orphan, owner: DmUuid) -> _Parts:
        device = self._kernel.dm(orphan.name)
        if device is None or device.uuid != str(owner):
            msg = f"{orphan.name} is not what it was a moment ago"
            raise IdentityMismatch(msg, hint="look again with `byre orphans`")
        table = device.table
        is_usual = table and table.persistent == "P" and table.chunk.to_bytes().count in CHUNK_SIZES
        if table is None or not is_usual:
            found = "it has no table" if not device.live else "its table is not one that byre makes"
            if table is not None and table.persistent == "N":
                found = "it is a throwaway disk, whose data goes with it"
            raise _refused(orphan, found)
        below = self._kernel.dm(origin_name(orphan.name))
        cow_loop, base_loop = self._loop(table.cow), longer.base_loop(self._kernel, table, below)
        path = self._root.cow(owner.disk_id, owner.generation, "cow")
        file = self._kernel.identify(path)
        if cow_loop is None or base_loop is None or file is None or not cow_loop.backs(file):
            data = cow_loop.backing_path if cow_loop else f"device {table.cow}"
            msg = f"{orphan.name} cannot be adopted: its data is in {data}, not in {path}"
            raise IdentityMismatch(msg, hint=f"put that file there, or {_COPY_OUT}")
        chunk = self._chunk(orphan, path)
        known = not base_loop.backing_path.endswith(DELETED)
        return _Parts(
            device_name=orphan.name,
            file=file,
            base=base_loop.backing_path if known else "",
            chunk=chunk,
            base_loop=base_loop,
            device=device,
            size=table.length.to_bytes(),
        )

    def _stored(self, orphan: Orphan, owner: DmUuid, word: Word, name: str) -> _Parts:
        path = self._root.cow(owner.disk_id, owner.generation, "cow")
        file = self._kernel.identify(path)
        if file is None or orphan.file is None or not file.same_file(orphan.file, same_boot=True):
            msg = f"{orphan.name} is not what it was a moment ago"
            raise IdentityMismatch(msg, hint="look again with `byre orphans`")
        chunk = self._chunk(orphan, path)
        if not word.base:
            hint = "a CoW file does not tell: say `--base PATH`, the very image it was made on"
            raise UsageError(f"{orphan.name}: nothing tells the disk's base", hint=hint)
        return _Parts(device_name=f"{self._prefix}{name}", file=file, base=word.base, chunk=chunk)

    def _loop(self, number: DeviceNumber) -> Loop | None:
        return self._kernel.loop(number.minor) if number.major == LOOP_MAJOR else None

    def _chunk(self, orphan: Orphan, path: Path) -> Bytes:
        """Return the size of the chunks of a valid store; refuses any other file."""
        headers = {size: self._kernel.cow_header(path, Bytes(size)) for size in CHUNK_SIZES}
        for size, header in headers.items():
            if header is CowHeader.VALID:
                return Bytes(size)
        told = [header for header in headers.values() if header is not CowHeader.FOREIGN]
        said = told[0] if told else CowHeader.FOREIGN
        msg = f"{orphan.name} cannot be adopted: the exception store of {path} is {said}"
        raise RefusedError(msg, hint="there is no data of a disk in it that could be used")

    # --- what the log is told ----------------------------------------------------------------

    def _events(
        self,
        owner: DmUuid,
        spec: DiskSpec,
        base: FileIdentity,
        parts: _Parts,
        before: Record | None,
    ) -> tuple[NewEvent, ...]:
        path = self._root.cow(owner.disk_id, owner.generation, "cow")
        declared = payloads.DiskDeclared(
            id=owner.disk_id,
            spec=spec.to_data(),
            device_name=parts.device_name,
            base=base,
            by=self._by,
            why=payloads.ADOPTED,
            on_behalf_of=self._claim,
        )
        found = payloads.DriftDetected(
            trigger=Trigger.FIND,
            source=State.ABSENT,
            target=State.PAUSED,
            differences=(f"{path.name} was an orphan and was adopted",),
            cow=parts.file,
            cow_path=str(path),
            driver=DriverChoice.DM_SNAPSHOT.value,
        )
        first = NewEvent(
            disk=spec.name,
            type=payloads.type_of(declared),
            data=payloads.to_data(declared),
            actor=self._by.user,
            expect=before.expect if before else (0, 0),
            generation=owner.generation,
            reason=self._reason,
            correlation_id=self._correlation_id,
        )
        data, kind = payloads.to_data(found), payloads.type_of(found)
        return first, attrs.evolve(first, type=kind, data=data, expect=None)


def _spec(name: str, base: str, chunk: Bytes, *, is_live: bool) -> DiskSpec:
    if not base:
        hint = "say `--base PATH`, where the very image is that it was made on"
        raise UsageError(f"{name}: its base has no path any more", hint=hint)
    state = Desired.LIVE if is_live else Desired.PAUSED
    table = {"name": name, "base": base, "state": state.value, "chunk_size": chunk.count}
    [spec] = parse({"disk": [table]}, source="--adopt", folder=Path.cwd())
    return spec


def _check_base(orphan: Orphan, parts: _Parts, base: FileIdentity) -> None:
    """Refuse a base that is not the one under the live device."""
    loop, table = parts.base_loop, parts.device.table if parts.device else None
    if loop is None or table is None:
        return
    if not loop.backs(base) or not loop.read_only:
        msg = f"{orphan.name} stands on {loop.backing_path} ({loop.path}), not on that base: {base}"
        raise IdentityMismatch(msg, hint="say where its base is now: `--base PATH`")
    is_longer = table.origin.major != LOOP_MAJOR
    if table.length != base.size.sectors_exact() and not is_longer:
        msg = (
            f"{orphan.name} is {table.length.count} sectors long, its base {base.size.count} bytes"
        )
        raise IdentityMismatch(msg, hint=_COPY_OUT)


def _refused(orphan: Orphan, why: str) -> RefusedError:
    msg = f"{orphan.name} cannot be adopted: {why}"
    return RefusedError(msg, hint=_BY_HAND[orphan.kind])
