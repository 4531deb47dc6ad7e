"""The real driver: a dm-snapshot of a shared read-only base over the disk's own sparse CoW file.

    base image ── loop (read-only, shared) ── origin ┐
                                                     ├─ dm snapshot P 8 ── /dev/mapper/NAME
    CoW file ──── loop (autoclear) ────────── cow ───┘

May be imported by reconcile (through the table of drivers) only.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from reconciler.actions import (
    Action,
    AttachBase,
    AttachCow,
    CheckBase,
    CheckCow,
    DetachCow,
    FindDm,
    HandOverCow,
    LoadTable,
    MakeCow,
    MakeDm,
    ReleaseBase,
    RemoveCow,
    RemoveDm,
    ResumeDm,
    SyncCow,
)
from reconciler.actions.links import CheckName, DropNode, MakeNode
from reconciler.bases import BaseLoops
from reconciler.drivers import (
    directio,
    dm_appraisal,
    jailing,
    keeping,
    linking,
    longer,
    sparsifying,
)
from reconciler.drivers.cow_room import first_size
from reconciler.drivers.dm_appraisal import link_texts, node_path, uuid_of
from reconciler.drivers.port import Appraisal, Ground
from reconciler.kernel.port import Capabilities, CowHeader, Kernel
from statemachine.machine import LIVE, State, Trigger
from statemachine.observed import Loop, ObservedDisk
from statemachine.record import Record

_FIRST_LIFE: Final = (CowHeader.EMPTY, CowHeader.VALID)
"""A first life begins on an empty store; one that failed or crashed after it was resumed leaves a
valid one."""


class DmSnapshot:
    """See the module docstring; `Driver` in `drivers.port` for each method."""

    name = "dm-snapshot"

    def unavailable(self, capabilities: Capabilities) -> str:
        """Needs the snapshot target and loop devices."""
        return capabilities.dm or capabilities.loop

    def cow_path(self, record: Record, ground: Ground) -> Path:
        """`<root>/cow/<id>-<generation>.cow`."""
        return ground.root.cow(record.id, record.generation, "cow")

    def observe(self, kernel: Kernel, bases: BaseLoops, record: Record, cow: Path) -> ObservedDisk:
        """Look by name, then follow the table's device numbers to the loops."""
        del bases
        base = kernel.identify(record.wanted.base, follow=True)
        cow_file = kernel.identify(cow)
        dm = kernel.dm(record.device_name)
        origin = longer.look(kernel, record, dm)
        loops: tuple[Loop, ...] = ()
        base_loop = None
        if dm is not None and dm.uuid == uuid_of(record) and dm.table is not None:
            found = kernel.loop(dm.table.cow.minor, named=False)
            loops = (found,) if found is not None else ()
            base_loop = longer.base_loop(kernel, dm.table, origin)
        elif cow_file is not None:
            loops = _loops_below(kernel, record, cow_file.device, cow_file.inode)
            base_loop = (
                kernel.loop(record.base_loop, named=False) if record.base_loop is not None else None
            )
        ours = dm is not None and dm.uuid == uuid_of(record) and dm.live
        wanted, header = record.wanted.link, CowHeader.MISSING
        if cow_file is not None:
            header = kernel.cow_header(cow, record.wanted.chunk_size)
        return ObservedDisk(
            base=base,
            cow=cow_file,
            cow_header=header,
            base_loop=base_loop,
            cow_loop=loops[0] if loops else None,
            other_cow_loops=loops[1:],
            dm=dm,
            origin=origin,
            node=kernel.read_link(node_path(record)),
            device_node=kernel.read_link(Path(dm.node)) if dm is not None and ours else None,
            link=kernel.read_link(wanted) if wanted is not None else None,
            other_links=linking.look_at_others(kernel, record),
            jail=jailing.look(kernel, record),
            other_nodes=jailing.look_at_others(kernel, record),
        )

    def appraise(self, record: Record, observed: ObservedDisk, ground: Ground) -> Appraisal:
        """A live table over our own CoW file is live; a loop on the file is attached."""
        return dm_appraisal.appraise(record, observed, ground)

    def plan(
        self, trigger: Trigger, record: Record, observed: ObservedDisk, ground: Ground
    ) -> tuple[Action, ...]:
        """See `Trigger` and the table of states."""
        cow = record.cow_file if record.cow_path else self.cow_path(record, ground)
        if trigger is Trigger.ATTACH:
            name = CheckName(record.device_name, uuid_of(record), observed.dm)
            look: tuple[Action, ...] = (name,)
            if not record.wanted.persistent:  # what a device of before left; its number is another
                drop = linking.drop_link(record, observed, link_texts(record))
                look = (name, *drop, *jailing.drop(record, observed))
            look = (*look, *linking.check_link(record, link_texts(record)))
            look = (*look, *jailing.check(record, has_device=True))
            return (*look, *self._attach(record, observed, ground, cow))
        if trigger is Trigger.REPAIR:
            return tuple(self._repair(record, observed, ground, cow))
        if trigger in (Trigger.SNAPSHOT, Trigger.RESTORE):
            return tuple(self._go_live(record, observed, ground, cow))
        actions = self._take_down(record, observed, cow)
        if trigger is Trigger.REWIND:
            actions += sparsifying.before_writing(record, cow)
            actions += keeping.go_back(record, ground, cow)
        if trigger is Trigger.REMOVE:
            actions += keeping.drop_all(record, ground)
            same_boot = record.cow_boot_id == ground.boot_id
            actions += sparsifying.before_writing(record, cow)
            actions.append(RemoveCow(cow, record.cow, same_boot))
        return tuple(actions)

    def _attach(
        self, record: Record, observed: ObservedDisk, ground: Ground, cow: Path
    ) -> list[Action]:
        base, chunk = record.wanted.base, record.wanted.chunk_size
        have_cow: Action = MakeCow(cow, first_size(record.wanted, record.size), chunk)
        is_kept = record.wanted.persistent
        if is_kept and record.cow is not None and observed.cow is not None:
            # It was attached before and lost its loop; a first life may have been tried on it.
            same_boot = record.cow_boot_id == ground.boot_id
            have_cow = CheckCow(cow, record.cow, same_boot, chunk, _FIRST_LIFE)
        return [
            CheckBase(base, record.base),
            *keeping.throw_away(record, observed, ground, cow),
            have_cow,
            AttachBase(base),
            AttachCow(cow, record.id, record.generation),
            *directio.set_as_wanted(record, observed, cow),
        ]

    def _go_live(
        self, record: Record, observed: ObservedDisk, ground: Ground, cow: Path
    ) -> list[Action]:
        base, node, uuid = record.wanted.base, node_path(record), uuid_of(record)
        assert record.cow is not None, "an attached disk has a CoW file"
        same_boot = record.cow_boot_id == ground.boot_id
        is_first = record.state is State.ATTACHED
        headers: tuple[CowHeader, ...] = _FIRST_LIFE if is_first else (CowHeader.VALID,)
        is_kept = record.wanted.persistent
        if not is_kept:  # nothing in its file says anything
            headers = ()
        return [
            *jailing.check(record, has_device=True),
            *sparsifying.before_writing(record, cow),
            CheckBase(base, record.base),
            CheckCow(cow, record.cow, same_boot, record.wanted.chunk_size, headers),
            AttachBase(base),
            AttachCow(cow, record.id, record.generation, is_just_attached=_is_fresh(record)),
            *directio.set_as_wanted(record, observed, cow),
            *longer.make(record),
            MakeDm(record.device_name, uuid),
            LoadTable(
                record.device_name,
                uuid,
                record.size.sectors_exact(),
                record.wanted.chunk_size.sectors_exact(),
                dm_appraisal.store_of(record),
                record.wanted.discard,
            ),
            # Later lives have it on disk already, and may have much else to flush.
            *([SyncCow(cow)] if is_first and is_kept else []),
            ResumeDm(record.device_name, uuid),
            MakeNode(node),
            *linking.make_link(record, observed, str(node), link_texts(record)),
            *jailing.make(record, observed),
            # Last, as it cannot be taken back: an undo must leave an attached disk its loop.
            HandOverCow(cow),
        ]

    def _take_down(self, record: Record, observed: ObservedDisk, cow: Path) -> list[Action]:
        node = node_path(record)
        return [
            *linking.drop_link(record, observed, link_texts(record)),
            *jailing.drop(record, observed),
            RemoveDm(record.device_name, uuid_of(record)),
            DropNode(node),
            *longer.remove(record, observed),
            DetachCow(cow, record.id, record.generation),
            *linking.drop_folders(record),
            ReleaseBase(record.wanted.base, record.base),
        ]

    def _repair(
        self, record: Record, observed: ObservedDisk, ground: Ground, cow: Path
    ) -> list[Action]:
        node, uuid = node_path(record), uuid_of(record)
        if record.state in LIVE:
            # A frozen one stays suspended; `protect` resumes it when there is room.
            name = record.device_name
            return [
                *jailing.check(record, has_device=True),
                FindDm(name, uuid) if record.frozen else ResumeDm(name, uuid),
                *longer.grow(record, observed),
                *directio.set_as_wanted(record, observed, cow),
                HandOverCow(cow),
                MakeNode(node),
                *linking.make_link(record, observed, str(node), link_texts(record)),
                *jailing.make(record, observed),
            ]
        if record.state is State.ATTACHED:
            return [
                *linking.drop_link(record, observed, link_texts(record)),
                *jailing.drop(record, observed),
                RemoveDm(record.device_name, uuid),
                DropNode(node),
                *longer.remove(record, observed),
                *self._attach(record, observed, ground, cow),
            ]
        return [*self._take_down(record, observed, cow), *sparsifying.at_rest(record, cow)]


def _is_fresh(record: Record) -> bool:
    """Tell whether the last that happened to a disk is that we attached it."""
    came_now = record.state_since == record.updated_at and record.in_flight is None
    return record.state is State.ATTACHED and came_now


def _loops_below(
    kernel: Kernel, record: Record, file_device: int, file_inode: int
) -> tuple[Loop, ...]:
    """Find our loop on the CoW file where the record saw it; a search only where one is due."""
    if record.cow_loop is None:
        return ()
    seen = kernel.loop(record.cow_loop, named=False)
    backs = seen is not None and (seen.backing_device, seen.backing_inode) == (
        file_device,
        file_inode,
    )
    return (seen,) if seen is not None and backs else ()
