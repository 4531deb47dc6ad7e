"""Orphans: things that carry byre's identity and belong to no disk that needs them.

Found in four places: dm devices by their UUID, loop devices by their marker, files in `<root>/cow`
by their name, and symlinks in /dev/mapper that lead nowhere under a name that a record had. What
belongs to a disk that is on its way is no orphan, nor is what the next pass takes care of.

`look` asks the kernel, `find` judges (pure), `newly_found` compares with the log (reads only).
Nothing is changed here: that takes a person's word, see `reconciler.resolve`.
May be imported by adoption, resolve, daemon and cli.
"""

from __future__ import annotations

import enum
import errno
import re
import secrets
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

import attrs

from reconciler.drivers import longer
from reconciler.kernel.port import DmName, Kernel
from reconciler.root import Root
from statemachine import history, payloads
from statemachine.errors import ActionError
from statemachine.eventlog import EventLog
from statemachine.events import CORRELATION_BYTES, EventType, NewEvent
from statemachine.fileidentity import FileIdentity
from statemachine.machine import LIVE, Desired, State
from statemachine.names import HOST, DmUuid, base_marker
from statemachine.observed import DmDevice, LinkKind, Loop
from statemachine.record import Record

MAPPER: Final = Path("/dev/mapper")
PAGE_EVENTS: Final = 1000

_COW_NAME: Final = re.compile(
    r"\.?([0-9a-f]{32})-([1-9][0-9]{0,9})(@[@a-z0-9._-]+)?\.(cow|img)(\.byre-partial)?"
)
"""What `Root.cow` and `Root.kept` make, and what an interrupted copy leaves (`kernel.clone`)."""
_ELSEWHERE: Final = "it belongs to another byre root"
DELETED: Final = " (deleted)"
"""What the kernel puts behind the path of a file without a name (d_path in fs/d_path.c)."""
_HOLDS_BASE: Final = LIVE | {State.ATTACHED}


class OrphanKind(enum.StrEnum):
    """What an orphan is."""

    DM = "dm"
    LOOP = "loop"
    FILE = "file"
    LINK = "link"


@attrs.frozen(kw_only=True)
class Orphan:
    """One thing without a disk. `name` is what a person calls it by, `identity` what proves it."""

    kind: OrphanKind
    name: str
    identity: str
    evidence: str
    since: int | None = None
    """UTC in ns: when its disk came to rest, or its data was last written; None if unknown."""
    owner: DmUuid | None = None
    elsewhere: str = ""
    """The CoW file of a device that shows that it belongs to another root."""
    dm: DmDevice | None = None
    loop: Loop | None = None
    file: FileIdentity | None = None
    target: str = ""
    """The text of a link."""


@attrs.frozen(kw_only=True)
class Sight:
    """What was seen, of this and of other roots: facts at one moment, without judgement."""

    names: tuple[DmName, ...]
    """dm devices with a UUID of ours."""
    devices: dict[str, DmDevice]
    """Those of them that no record has, with their tables."""
    loops: tuple[Loop, ...]
    files: dict[str, FileIdentity]
    links: dict[str, str]
    """Symlinks in /dev/mapper that lead to no device, with their texts."""


def survey(log: EventLog, kernel: Kernel, root: Root) -> tuple[Orphan, ...]:
    """Look for orphans of a root, also while a reconciler works on it.

    The records are read before and after looking: what either of them needs is no orphan, so
    neither a disk that is being made nor one that is being removed is taken for one.

    Raises:
        ActionError: a question to the kernel failed.
    """
    before = log.in_use()
    sight = look(kernel, root, before)
    in_use = [*log.in_use(), *before]
    return find(sight, [*in_use, *_removed(log, sight, in_use)], root=root, root_id=log.root_id)


def _removed(log: EventLog, sight: Sight, in_use: Iterable[Record]) -> list[Record]:
    """Return the records of removed disks that something seen belongs to: few of very many."""
    markers = (*(line.uuid for line in sight.names), *(loop.marker for loop in sight.loops))
    owners = {uuid.disk_id for marker in markers if (uuid := longer.owner_of(marker))}
    owners |= {match[1] for name in sight.files if (match := _COW_NAME.fullmatch(name))}
    owners -= {record.id for record in in_use}
    names = sight.links.keys() - {record.device_name for record in in_use}
    found = (*map(log.record_of, owners), *map(log.record_with_device, names))
    return [record for record in found if record is not None]


def look(kernel: Kernel, root: Root, records: Iterable[Record]) -> Sight:
    """Look at everything that could be an orphan; changes nothing."""
    needed = {uuid for r in records if not _is_over(r) for uuid in longer.devices_of(r)}
    everyone = _dm_names(kernel)
    names = tuple(line for line in everyone if longer.owner_of(line.uuid))
    devices = {line.name: kernel.dm(line.name) for line in names if line.uuid not in needed}
    files = {n: f for n, f in kernel.files_in(root.cows).items() if _COW_NAME.fullmatch(n)}
    there = {f"../dm-{line.device.minor}" for line in everyone}
    mapper = [name for name, text in kernel.links_in(MAPPER).items() if text not in there]
    links = {name: _dangling(kernel, MAPPER / name) for name in mapper}
    return Sight(
        names=names,
        devices={name: device for name, device in devices.items() if device is not None},
        loops=kernel.loops(),
        files=files,
        links={name: target for name, target in links.items() if target},
    )


def find(
    sight: Sight, records: Sequence[Record], *, root: Root, root_id: str
) -> tuple[Orphan, ...]:
    """Judge what was seen; pure.

    Args:
        sight: what `look` saw.
        records: of this root, removed ones too; a disk may be there twice, at two moments.
        root: whose orphans.
        root_id: what base loops are marked with.
    """
    judge = _Judge(sight, records, root, root_id)
    found = (*judge.devices(), *judge.loops(), *judge.files(), *judge.links())
    return tuple(sorted(found, key=lambda orphan: (orphan.kind, orphan.name)))


def newly_found(log: EventLog, orphans: Iterable[Orphan]) -> tuple[Orphan, ...]:
    """Return those that the log does not tell of since they were last resolved."""
    wanted = tuple(orphans)
    told = _told(log) if wanted else set()
    return tuple(orphan for orphan in wanted if (orphan.kind.value, orphan.identity) not in told)


def _told(log: EventLog) -> set[tuple[str, str]]:
    """Return (kind, identity) of the orphans that were found and not resolved, by the log."""
    told: set[tuple[str, str]] = set()
    question = history.Question(type="orphan")
    while page := history.ask(log, question, limit=PAGE_EVENTS):
        for event in page:
            key = (str(event.data.get("kind", "")), str(event.data.get("identity", "")))
            change = told.add if event.type == EventType.ORPHAN_FOUND else told.discard
            change(key)
        question = attrs.evolve(question, after=page[-1].seq)
    return told


def found_event(orphan: Orphan) -> NewEvent:
    """Return what a reconciler appends for an orphan that `newly_found` gave."""
    payload = payloads.OrphanFound(
        kind=orphan.kind.value,
        name=orphan.name,
        identity=orphan.identity,
        evidence=orphan.evidence,
    )
    return NewEvent(
        disk=HOST,
        type=payloads.type_of(payload),
        data=payloads.to_data(payload),
        actor="reconciler",
        correlation_id=secrets.token_hex(CORRELATION_BYTES),
    )


class _Judge:
    """The records against what was seen."""

    def __init__(self, sight: Sight, records: Sequence[Record], root: Root, root_id: str) -> None:
        self._sight = sight
        self._records = records
        self._cows = f"{root.cows}/"
        self._base_marker = base_marker(root_id)
        self._by_id = {record.id: record for record in reversed(records)}
        self._needed = {_key(record) for record in records if not _is_over(record)}
        self._used = {_key(record) for record in records if not _is_at_rest(record)}

    def devices(self) -> Iterable[Orphan]:
        """Device-mapper devices of no disk, of an earlier generation, or under another name."""
        used = (longer.devices_of(r) for r in self._records if not _is_over(r))
        names = {each for devices in used for each in devices.items()}
        for line in self._sight.names:
            owner = longer.owner_of(line.uuid)
            device = self._sight.devices.get(line.name)
            assert owner is not None, "only ours were looked at"
            if (line.uuid, line.name) in names:
                continue
            why, elsewhere = self._why(owner, "device"), self._elsewhere(owner, device)
            if owner in self._needed:
                disk = self._by_id[owner.disk_id]
                named = longer.devices_of(disk)[line.uuid]
                why = f"it is {disk.name}'s device, which should be named {named}"
            elif owner.disk_id not in self._by_id and not elsewhere:
                why += "; another byre root may know it"
            yield Orphan(
                kind=OrphanKind.DM,
                name=line.name,
                identity=line.uuid,
                evidence=_with_data(why, elsewhere),
                since=self._since(owner) or self._written(self._below(device)),
                owner=owner,
                elsewhere=elsewhere,
                dm=device,
            )

    def loops(self) -> Iterable[Orphan]:
        """Loops with a marker of ours that no disk uses."""
        for loop in self._sight.loops:
            owner = DmUuid.parse(loop.marker)
            on = f"it is on {loop.backing_path}"
            elsewhere = ""
            if loop.marker == self._base_marker:
                if self._has_base_user(loop):
                    continue
                why = f"its marker says that this root made it for a base; {on}, no disk uses it"
            elif owner is not None and owner not in self._used:
                elsewhere = "" if owner.disk_id in self._by_id else self._abroad(loop)
                why = f"{self._why(owner, 'loop')}; {on}"
                why = f"{why}: {_ELSEWHERE}" if elsewhere else why
            else:
                continue
            yield Orphan(
                kind=OrphanKind.LOOP,
                name=f"loop{loop.number}",
                identity=f"{loop.marker} on {loop.backing_device}:{loop.backing_inode}",
                evidence=why,
                since=(self._since(owner) if owner else None) or self._written(loop),
                owner=owner,
                elsewhere=elsewhere,
                loop=loop,
            )

    def files(self) -> Iterable[Orphan]:
        """CoW files and clones that no record needs."""
        open_names = {name for r in self._records if not _is_over(r) for name in _own_names(r)}
        begun = {_key(r) for r in self._records if not r.cow_path}
        for name, file in self._sight.files.items():
            match = _COW_NAME.fullmatch(name)
            assert match is not None, "only ours were looked at"
            owner = DmUuid(match[1], int(match[2]))
            is_partial = name.startswith(".")
            is_begun = is_partial or (owner in begun and match[3] is None)
            if name in open_names or (owner in self._needed and is_begun):
                continue
            yield Orphan(
                kind=OrphanKind.FILE,
                name=name,
                identity=f"{file.device}:{file.inode}",
                evidence=f"{self._why(owner, _called(match[3]))}; {file.size.count} bytes long",
                since=file.mtime_ns,
                # A kept point can be no disk of its own.
                owner=owner if match[3] is None else None,
                file=file,
            )

    def links(self) -> Iterable[Orphan]:
        """Symlinks in /dev/mapper under a name of ours, to a device that is not there."""
        busy = {r.device_name for r in self._records if not _is_at_rest(r)}
        owners = {r.device_name: r for r in reversed(self._records)}
        for name, target in self._sight.links.items():
            if name in busy or name not in owners:
                continue
            disk = owners[name]
            yield Orphan(
                kind=OrphanKind.LINK,
                name=f"{MAPPER / name}",
                identity=f"{MAPPER / name} to {target}",
                evidence=f"it has the name of {disk.name}'s device, and {target} does not exist",
                since=disk.state_since,
                owner=DmUuid(disk.id, disk.generation),
                target=target,
            )

    def _why(self, owner: DmUuid, what: str) -> str:
        record = self._by_id.get(owner.disk_id)
        if record is None:
            return f"a {what} of disk id {owner.disk_id}, which this root's log does not know"
        if owner.generation != record.generation:
            now = f"the disk is at generation {record.generation} now"
            return f"a {what} of {record.name}, generation {owner.generation}; {now}"
        return f"a {what} of {record.name}, which is {record.state} and has no use for it"

    def _elsewhere(self, owner: DmUuid, device: DmDevice | None) -> str:
        """Return the CoW file of a device of unknown disk if it lies in another root."""
        below = self._below(device)
        return self._abroad(below) if below and owner.disk_id not in self._by_id else ""

    def _below(self, device: DmDevice | None) -> Loop | None:
        """Return the loop that a device's data goes to."""
        number = device.table.cow if device is not None and device.table is not None else None
        return next((loop for loop in self._sight.loops if loop.device == number), None)

    def _written(self, loop: Loop | None) -> int | None:
        """Return when a loop's file in this root was last written."""
        files = self._sight.files.values() if loop is not None else ()
        return next((file.mtime_ns for file in files if loop and loop.backs(file)), None)

    def _abroad(self, loop: Loop) -> str:
        """Return the path of a loop's file if that exists and is not in this root."""
        here = {(file.device, file.inode) for file in self._sight.files.values()}
        if (loop.backing_device, loop.backing_inode) in here:
            return ""
        gone = loop.backing_path.endswith(DELETED)
        return "" if gone or loop.backing_path.startswith(self._cows) else loop.backing_path

    def _has_base_user(self, loop: Loop) -> bool:
        users = [r for r in self._records if r.state in _HOLDS_BASE or not _is_at_rest(r)]
        return any(loop.number == r.base_loop or loop.backing_inode == r.base.inode for r in users)

    def _since(self, owner: DmUuid) -> int | None:
        record = self._by_id.get(owner.disk_id)
        same = record is not None and owner.generation == record.generation
        return record.state_since if record is not None and same else None


def _with_data(why: str, elsewhere: str) -> str:
    return f"{why}; its data is in {elsewhere}: {_ELSEWHERE}" if elsewhere else why


def _own_names(record: Record) -> set[str]:
    """Return the names of a disk's own file, of its kept points, and of what waits for it."""
    waiting = (record.rewind.path,) if record.rewind is not None else ()
    kept = (point.path for point in record.points)
    return {Path(path).name for path in (record.cow_path, *kept, *waiting)}


def _called(kept: str | None) -> str:
    """Say what a file is, by what its name has besides its disk's identity."""
    if kept is None:
        return "file"
    return "copy that waited" if kept.startswith("@@") else f"copy of point {kept[1:]}"


def _key(record: Record) -> DmUuid:
    return DmUuid(record.id, record.generation)


def _is_over(record: Record) -> bool:
    """Tell whether a disk needs nothing any more, not even its file."""
    return record.state is State.REMOVED and record.in_flight is None


def _is_at_rest(record: Record) -> bool:
    """Tell whether a disk has nothing in the kernel and is not on its way there."""
    if record.in_flight is not None or record.state in _HOLDS_BASE or record.fault is not None:
        return False
    if record.state is State.REMOVED:
        return True
    return record.is_met and record.desired is Desired.PAUSED


def _dm_names(kernel: Kernel) -> tuple[DmName, ...]:
    """Return all dm devices; none for a process that may not see them."""
    try:
        return kernel.dm_names()
    except ActionError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.ENOENT):
            return ()
        raise


def _dangling(kernel: Kernel, path: Path) -> str:
    """Return the text of a symlink to a dm node that does not exist; "" for anything else."""
    link = kernel.read_link(path)
    if link.kind is not LinkKind.SYMLINK or not link.target.startswith("../dm-"):
        return ""
    node = Path("/dev") / Path(link.target).name
    return link.target if _is_missing(lambda: kernel.identify(node)) else ""


def _is_missing(ask: Callable[[], FileIdentity | None]) -> bool:
    try:
        return ask() is None
    except ActionError:
        return False
