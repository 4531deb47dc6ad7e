"""The driver for a kernel without device-mapper: a private copy of the base.

The copy is a reflink where the file system has them, else a sparse copy; it is offered on a loop
device where the process may make one, and as a plain file where it may not. Same states, same log,
same commands as `dm-snapshot`; it costs the copying, and it costs the space.

May be imported by reconcile (through the table of drivers) only.
"""

from __future__ import annotations

from pathlib import Path

import attrs

from reconciler.actions import (
    Action,
    AttachCow,
    CheckBase,
    CheckCow,
    CloneBase,
    DetachCow,
    GrowOwn,
    OfferFile,
    RemoveCow,
)
from reconciler.bases import BaseLoops
from reconciler.drivers import directio, jailing, keeping, linking
from reconciler.drivers.port import Appraisal, Ground, Shape, left_links, link_defects
from reconciler.kernel.port import Capabilities, Kernel
from statemachine.machine import LIVE, State, Trigger
from statemachine.names import cow_marker
from statemachine.observed import ObservedDisk
from statemachine.record import Record


class Clone:
    """See the module docstring; `Driver` in `drivers.port` for each method."""

    name = "clone"

    def unavailable(self, capabilities: Capabilities) -> str:
        """Works wherever files can be written."""
        del capabilities
        return ""

    def cow_path(self, record: Record, ground: Ground) -> Path:
        """`<root>/cow/<id>-<generation>.img`."""
        return ground.root.cow(record.id, record.generation, "img")

    def observe(self, kernel: Kernel, bases: BaseLoops, record: Record, cow: Path) -> ObservedDisk:
        """Look at the copy, and at the loop device where the record saw it."""
        del bases
        file = kernel.identify(cow)
        loop = kernel.loop(record.cow_loop, named=False) if record.cow_loop is not None else None
        ours = loop is not None and loop.marker == cow_marker(record.id, record.generation)
        wanted = record.wanted.link
        return ObservedDisk(
            base=kernel.identify(record.wanted.base, follow=True),
            cow=file,
            cow_header="opaque" if file is not None else "missing",
            base_loop=None,
            cow_loop=loop if ours else None,
            link=kernel.read_link(wanted) if wanted is not None else None,
            other_links=linking.look_at_others(kernel, record),
            jail=jailing.look(kernel, record),
            other_nodes=jailing.look_at_others(kernel, record),
        )

    def appraise(self, record: Record, observed: ObservedDisk, ground: Ground) -> Appraisal:
        """The copy on its loop is live or attached, as the record has it; alone it is stored."""
        fault = _fault(record, observed, ground)
        if fault is not None:
            return fault
        if observed.cow is None:
            return Appraisal(shape=Shape.NOTHING)
        # A disk that was recorded without a loop is offered as a plain file.
        is_offered = record.cow_loop is None or observed.cow_loop is not None
        if record.state in LIVE and is_offered:
            ours = _targets(record, observed)
            wrong_links = link_defects(record, observed, record.device, ours)
            number = str(observed.cow_loop.device) if observed.cow_loop is not None else ""
            wrong_node = jailing.defects(record, observed, number)
            defects = (
                *_size_defects(record, observed),
                *directio.defects(record, observed),
                *wrong_links,
                *wrong_node,
            )
            return Appraisal(shape=Shape.LIVE, defects=defects)
        if record.state is State.ATTACHED and is_offered:
            return Appraisal(shape=Shape.ATTACHED, defects=directio.defects(record, observed))
        links = left_links(record, observed, _targets(record, observed))
        leftovers = (*links, *jailing.left_nodes(record, observed))
        return Appraisal(shape=Shape.STORED, leftovers=leftovers)

    def plan(
        self, trigger: Trigger, record: Record, observed: ObservedDisk, ground: Ground
    ) -> tuple[Action, ...]:
        """See `Trigger` and the table of states."""
        cow = record.cow_file if record.cow_path else self.cow_path(record, ground)
        base = record.wanted.base
        if trigger is Trigger.ATTACH:
            ours = _targets(record, observed)
            look = (
                *([] if record.wanted.persistent else linking.drop_link(record, observed, ours)),
                *([] if record.wanted.persistent else jailing.drop(record, observed)),
                *linking.check_link(record, ours),
                *jailing.check(record, has_device=not ground.capabilities.loop),
            )
            copy = CloneBase(base, cow, record.size)
            offer = _offer(record, observed, ground, cow)
            old = keeping.throw_away(record, observed, ground, cow)
            return (*look, CheckBase(base, record.base), *old, copy, *offer)
        if trigger in (Trigger.SNAPSHOT, Trigger.RESTORE) or (
            trigger is Trigger.REPAIR and record.state in LIVE
        ):
            return tuple(self._go_live(record, observed, ground, cow))
        actions: list[Action] = [
            *linking.drop_link(record, observed, _targets(record, observed)),
            *jailing.drop(record, observed),
            DetachCow(cow, record.id, record.generation),
            *linking.drop_folders(record),
        ]
        if trigger is Trigger.REWIND:
            actions += keeping.go_back(record, ground, cow)
        if trigger is Trigger.REMOVE:
            actions += keeping.drop_all(record, ground)
            same_boot = record.cow_boot_id == ground.boot_id
            actions.append(RemoveCow(cow, record.cow, same_boot))
        return tuple(actions)

    def _go_live(
        self, record: Record, observed: ObservedDisk, ground: Ground, cow: Path
    ) -> list[Action]:
        assert record.cow is not None, "an attached disk has its copy"
        same_boot = record.cow_boot_id == ground.boot_id
        target = str(cow) if ground.capabilities.loop else ""
        ours = _targets(record, observed)
        return [
            *linking.check_link(record, ours),
            *jailing.check(record, has_device=not target),
            CheckCow(cow, record.cow, same_boot, record.wanted.chunk_size, ()),
            *_offer(record, observed, ground, cow),
            *([GrowOwn(cow, record.size)] if _is_smaller(record, observed) else []),
            *linking.make_link(record, observed, target, ours),
            *jailing.make(record, observed),
        ]


def _offer(record: Record, observed: ObservedDisk, ground: Ground, cow: Path) -> tuple[Action, ...]:
    if ground.capabilities.loop:
        return (OfferFile(cow),)
    attach = AttachCow(cow, record.id, record.generation)
    return (attach, *directio.set_as_wanted(record, observed, cow))


def _is_smaller(record: Record, observed: ObservedDisk) -> bool:
    """Tell whether the copy, or the loop on it, is smaller than the disk is to be."""
    loop = observed.cow_loop
    there = loop.size.to_bytes() if loop is not None else record.size
    return observed.cow is not None and min(observed.cow.size, there) < record.size


def _size_defects(record: Record, observed: ObservedDisk) -> tuple[str, ...]:
    if observed.cow is None or not _is_smaller(record, observed):
        return ()
    return (f"{record.cow_path} is smaller than its spec says, {record.size.count} bytes",)


def _targets(record: Record, observed: ObservedDisk) -> tuple[str, ...]:
    """Return the texts that a link of ours may have.

    The number of a loop device changes from life to life, so a link that a crash left may lead to
    any; only where an attempt set out to make one, which then found the place free, may a link
    that the record does not know be taken for ours.
    """
    texts = (record.link_target, record.link_taken, record.device, record.cow_path)
    known = tuple(text for text in texts if text)
    begun = [link for _, link in observed.other_links]
    if observed.link is not None and str(record.wanted.link) in record.links_begun:
        begun.append(observed.link)
    return (*known, *(link.target for link in begun if link.target.startswith("/dev/loop")))


def _fault(record: Record, observed: ObservedDisk, ground: Ground) -> Appraisal | None:
    if record.cow is None or record.state in (State.ABSENT, State.REMOVED):
        return None
    path, nothing = record.cow_path, Appraisal(shape=Shape.NOTHING)
    if observed.cow is None:
        hint = "put the file back, then `byre retry`; or `byre remove` gives the disk up"
        if observed.cow_loop is not None:
            hint = f"its data is still in {observed.cow_loop.path}: copy that first; then {hint}"
        return attrs.evolve(
            nothing, fault=f"{path} is missing", fault_kind="cow-missing", fault_hint=hint
        )
    if not record.cow.same_file(observed.cow, same_boot=record.cow_boot_id == ground.boot_id):
        return attrs.evolve(
            nothing,
            fault=f"{path} is another file: recorded {record.cow}; found {observed.cow}",
            fault_kind="identity-mismatch",
            fault_hint="put the recorded file back, then `byre retry`",
            fault_exit_code=4,
        )
    return None
