"""What another program has on this host that could become disks of a root, and what is against it.

Found by the names that its code gives them (`reconciler.peers`): devices first, with the loops and
files below them; then loops on its CoW files that no device stands on; then CoW files alone. Of
each it is said what it is made of, and the first reason why it cannot be taken over, if there is
one. Changes nothing and writes no log; `reconciler.annex` does.
May be imported by annex and cli.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import attrs

from reconciler import specs
from reconciler.adoption import Word
from reconciler.drivers.longer import LOOP_MAJOR
from reconciler.kernel.port import CowHeader, Kernel
from reconciler.orphans import DELETED, OrphanKind
from reconciler.peers import ID, Peer
from reconciler.root import Root
from statemachine.errors import SpecError, UsageError
from statemachine.eventlog import EventLog
from statemachine.fileidentity import FileIdentity
from statemachine.machine import State
from statemachine.names import DmUuid
from statemachine.observed import DeviceNumber, DmDevice, Loop, SnapshotHealth
from statemachine.specreader import parse
from statemachine.units import CHUNK_SIZES, SECTOR_BYTES, Bytes, Sectors

Flaw = tuple[str, str]
"""Why something cannot be taken over, and what to do about it."""
_COPY_OUT: Final = "copy its data out, and create a disk with that as its base"


@attrs.frozen(kw_only=True)
class Find:
    """One thing of another program.

    Attributes:
        kind: a device, a loop without a device, or a CoW file without a loop.
        name: the device's name, or the path of the loop or file.
        id: the program's own id of the disk.
        disk: what the disk is to be called, or is called already.
        cow, base: the paths of its files; "" where nothing tells.
        table: how the snapshot target keeps its exceptions, "P 8"; "" where there is none.
        open_count: how many have the device open.
        flaw, advice: why it cannot be taken over, and what to do about that; "" if it can.
        owner: the UUID that it has from an attempt before; None if it has none of byre's.
        is_taken: whether it is a disk of this root already.
        number, file: what proves that it is still the same.
    """

    kind: OrphanKind
    name: str
    id: str
    disk: str
    cow: str = ""
    base: str = ""
    table: str = ""
    open_count: int = 0
    flaw: str = ""
    advice: str = ""
    owner: DmUuid | None = None
    is_taken: bool = False
    number: DeviceNumber | None = None
    file: FileIdentity | None = None


@attrs.frozen(kw_only=True)
class Theirs:
    """What is looked for: a program, where it keeps its files, what a person says of one disk."""

    peer: Peer
    folder: Path
    word: Word


class Looker:
    """Looks at what one program has.

    Args:
        kernel: is asked.
        log: whose disks are known already; None where there is no root yet.
        root: which would get the files.
        theirs: what is looked for.
    """

    def __init__(self, kernel: Kernel, log: EventLog | None, root: Root, theirs: Theirs) -> None:
        self._kernel = kernel
        self._log = log
        self._root = root
        self._peer = theirs.peer
        self._folder = theirs.folder
        self._word = theirs.word

    def look(self, wanted: Sequence[str] = ()) -> tuple[Find, ...]:
        """Return what there is, devices first.

        Args:
            wanted: names of devices, paths, or the program's own ids; all that there is if empty.

        Raises:
            ActionError: a question to the kernel failed.
            UsageError: nothing is called so, or one name was given for several disks.
        """
        found = self._all()
        chosen = [each for each in found if not wanted or {each.name, each.id} & set(wanted)]
        missing = set(wanted) - {name for each in chosen for name in (each.name, each.id)}
        if missing:
            there = ", ".join(each.name for each in found) or "nothing"
            msg = f"{self._peer.name} has no {', '.join(sorted(missing))}; there is {there}"
            raise UsageError(msg)
        if self._word.name and len(chosen) > 1:
            msg = f"--as {self._word.name} is for one disk; {self._peer.name} has {len(chosen)}"
            raise UsageError(msg, hint="say which one")
        return tuple(chosen)

    def _all(self) -> tuple[Find, ...]:
        loops = self._kernel.loops()
        names = [line.name for line in self._kernel.dm_names() if self._peer.id_of(line.name)]
        devices = [find for name in names if (find := self._device(name, loops))]
        below = {find.cow for find in devices}
        files = [find for path in self._cow_files() if (find := self._file(path, loops))]
        return (*devices, *(find for find in files if find.cow not in below))

    # --- devices -----------------------------------------------------------------------------

    def _device(self, name: str, loops: Sequence[Loop]) -> Find | None:
        device = self._kernel.dm(name)
        if device is None:
            return None
        table, owner = device.table, DmUuid.parse(device.uuid)
        cow = _loop(loops, table.cow) if table else None
        base = _loop(loops, table.origin) if table else None
        record = self._log.record_of(owner.disk_id) if owner and self._log else None
        id_ = self._peer.id_of(name)
        find = Find(
            kind=OrphanKind.DM,
            name=name,
            id=id_,
            disk=record.name if record else self._word.name or id_,
            cow=cow.backing_path if cow else "",
            base=self._word.base or (base.backing_path if base else ""),
            table=f"{table.persistent} {table.chunk.count}" if table else "",
            open_count=device.open_count,
            owner=owner,
            is_taken=record is not None,
            number=device.device,
            file=self._kernel.identify(Path(cow.backing_path)) if cow else None,
        )
        return find if record else _judged(find, self._device_flaws(find, device, cow, base))

    def _device_flaws(
        self, find: Find, device: DmDevice, cow: Loop | None, base: Loop | None
    ) -> Iterator[Flaw]:
        if device.uuid and find.owner is None:
            yield f"it has the UUID {device.uuid}, and a UUID cannot be changed", _COPY_OUT
        if device.suspended:
            advice = f"`dmsetup resume {find.name}`, or wait until {self._peer.name} does it"
            yield "it is suspended: somebody is at work on it", advice
        table = device.table
        if table is None:
            yield "its table is not one plain snapshot", _COPY_OUT
        elif table.persistent != "P":
            lost = "its exceptions are in memory alone (N), and would be lost with the device"
            yield lost, _COPY_OUT
        elif device.status is None or device.status.health is not SnapshotHealth.VALID:
            health = device.status.health if device.status else SnapshotHealth.UNKNOWN
            yield f"the snapshot is {health}", "what was written to it is lost"
        elif cow is None or find.file is None or not cow.backs(find.file):
            where = cow.backing_path if cow else f"device {table.cow}"
            yield f"its CoW is {where}, and there is no such file", _COPY_OUT
        elif base is None:
            yield f"its origin is device {table.origin}, not the loop of an image", _COPY_OUT
        else:
            chunk = table.chunk.to_bytes()
            yield from self._file_flaws(find, find.file, cow, chunk)
            yield from self._base_flaws(find, chunk)
            yield from self._origin_flaws(find, base, table.length)

    def _origin_flaws(self, find: Find, loop: Loop, length: Sectors) -> Iterator[Flaw]:
        """Judge whether a device stands on its base, the whole of it, and nothing else."""
        if not loop.read_only:
            yield f"its base is on {loop.path}, which can be written to", _COPY_OUT
        file = self._kernel.identify(Path(find.base), follow=True)
        if file is None or not loop.backs(file):
            yield f"{find.base} is not what {loop.path} is on", "`--base IMG` says where it is"
        elif length != file.size.sectors_exact():
            yield f"it has {length.count} sectors, its base {file.size.count} bytes", _COPY_OUT

    # --- files -------------------------------------------------------------------------------

    def _cow_files(self) -> Iterator[Path]:
        for pattern in self._peer.cows:
            above, _, below = pattern.partition(ID)
            folder = self._folder / above.rpartition("/")[0]
            for name in self._kernel.list_folder(folder):
                path = folder / name / below[1:] if below.startswith("/") else folder / name
                if self._peer.id_in(path, self._folder):
                    yield path

    def _file(self, path: Path, loops: Sequence[Loop]) -> Find | None:
        file = self._kernel.identify(path)
        if file is None or file.kind != "file":
            return None
        on = next((loop for loop in loops if loop.backs(file)), None)
        id_ = self._peer.id_in(path, self._folder)
        find = Find(
            kind=OrphanKind.LOOP if on else OrphanKind.FILE,
            name=on.path if on else str(path),
            id=id_,
            disk=self._word.name or id_,
            cow=str(path),
            base=self._word.base,
            file=file,
        )
        return _judged(find, self._rest_flaws(find, file, on))

    def _rest_flaws(self, find: Find, file: FileIdentity, on: Loop | None) -> Iterator[Flaw]:
        """Judge a CoW file that no device stands on."""
        if on is not None:
            yield f"{on.path} is on it, and no device", f"`losetup -d {on.path}` if nobody needs it"
        chunk = self._chunk(Path(find.cow))
        if chunk is None:
            yield "there is no valid exception store in it", "it has no data that could be used"
            return
        if not find.base:
            yield "nothing tells its base", "say `--base IMG`, the very image it was made on"
            return
        yield from self._file_flaws(find, file, None, chunk)
        yield from self._base_flaws(find, chunk)

    def _chunk(self, path: Path) -> Bytes | None:
        sizes = (Bytes(size) for size in CHUNK_SIZES)
        valid = CowHeader.VALID
        return next((size for size in sizes if self._kernel.cow_header(path, size) is valid), None)

    # --- both --------------------------------------------------------------------------------

    def _file_flaws(
        self, find: Find, file: FileIdentity, loop: Loop | None, chunk: Bytes
    ) -> Iterator[Flaw]:
        if find.cow.endswith(DELETED):
            yield f"its CoW file was deleted: {find.cow}", _COPY_OUT
        if chunk.count not in CHUNK_SIZES:
            yield (
                f"its chunks have {chunk.count} bytes; byre has {min(CHUNK_SIZES)} and more",
                (_COPY_OUT),
            )
        elif self._kernel.cow_header(Path(find.cow), chunk) is not CowHeader.VALID:
            yield f"{find.cow} has no valid exception store", _COPY_OUT
        if loop is not None and loop.size.count != file.size.count // SECTOR_BYTES:
            yield f"{loop.path} is on a part of {find.cow} only", _COPY_OUT
        home = next(
            (found for each in (self._root.cows, *self._root.cows.parents)
             if (found := self._kernel.identify(each, follow=True))),
            None,
        )  # fmt: skip
        if home is not None and home.device != file.device:
            yield (
                f"{find.cow} and {self._root.cows} are on two file systems",
                f"use a root on the same one: `byre --root {self._folder / 'byre'}`",
            )

    def _base_flaws(self, find: Find, chunk: Bytes) -> Iterator[Flaw]:
        """Judge what the spec would be; it is made by the same reader as every other."""
        table = {"name": find.disk, "base": find.base, "chunk_size": chunk.count}
        try:
            [spec] = parse({"disk": [table]}, source=find.name, folder=Path.cwd())
            specs.check_base(find.name, spec, self._kernel)
        except SpecError as error:
            yield error.message, "`--as NAME` gives a name, `--base IMG` a base"
            return
        record = self._log.record(find.disk) if self._log else None
        if record is not None and record.state is not State.REMOVED:
            yield f"there is a disk named {find.disk}", "`--as NAME` gives it another name"


def _judged(find: Find, flaws: Iterator[Flaw]) -> Find:
    """Note the first flaw, if there is one."""
    flaw, advice = next(flaws, ("", ""))
    return attrs.evolve(find, flaw=flaw, advice=advice)


def _loop(loops: Sequence[Loop], number: DeviceNumber) -> Loop | None:
    if number.major != LOOP_MAJOR:
        return None
    return next((loop for loop in loops if loop.number == number.minor), None)
