"""What a disk stands on: where its links may be, and what may not change under its data.

Asks the kernel which file a base is, and changes nothing. May be imported by declare.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from reconciler import linkmoves, linkroots
from reconciler.kernel.port import Kernel
from reconciler.specs import Sourced
from statemachine.errors import RefusedError
from statemachine.eventlog import EventLog
from statemachine.machine import Desired, State
from statemachine.record import Record
from statemachine.spec import DiskSpec, DriverChoice
from statemachine.specfault import SpecFault

_CALLED: Final = {"link": "link", "jail": "node"}
"""What is at each of a spec's places."""


def place_faults(kernel: Kernel, each: Sourced, link_roots: Sequence[Path]) -> list[str]:
    """Name a link, or a node in a jail, that is not below one of the allowed folders."""
    faults = (
        SpecFault(
            source=each.source,
            disk=f"disk {each.spec.name!r}",
            field=field,
            found=str(place),
            allowed=linkroots.allowed(link_roots),
        )
        for field, place in each.spec.places
        if linkroots.is_outside(kernel, place, link_roots)
    )
    return [str(fault) for fault in faults]


def refuse_taken_places(log: EventLog, wanted: Sequence[Sourced], *, prune: bool) -> None:
    """Refuse a link or node that a disk outside of this set has, or is about to have."""
    claiming = [each.spec for each in wanted if linkmoves.claims(each.spec)]
    places = {place: spec.name for spec in claiming for _, place in spec.places}
    names = {each.spec.name for each in wanted}
    for record in log.in_use_at(places) if places else []:
        if prune or record.name in names or record.desired is not Desired.LIVE:
            continue
        for field, place in record.wanted.places:
            if place not in places:
                continue
            msg = f"{places[place]}: {_CALLED[field]} {place} belongs to disk {record.name!r}"
            hint = f"pause or remove that disk first, or choose another {_CALLED[field]}"
            raise RefusedError(msg, hint=hint)


def refuse_change(kernel: Kernel, spec: DiskSpec, record: Record, *, boot_id: str) -> None:
    """Refuse a spec that would change what a disk's data stands on.

    Args:
        kernel: is asked about the base.
        spec: what is wanted now.
        record: the disk.
        boot_id: of this boot.

    Raises:
        RefusedError: naming what the disk has, and what was asked for.
    """
    before = record.wanted
    if spec.base != before.base and not _is_pinned_base(kernel, spec, record, boot_id):
        msg = (
            f"{spec.name}: its base is {before.base} ({record.base}); "
            f"it cannot become {spec.base} while the disk exists"
        )
        raise RefusedError(msg, hint="remove the disk first, or give the new one another name")
    same = spec.driver in (before.driver, DriverChoice.AUTO) or spec.driver == record.driver
    if not same and record.state is not State.ABSENT:
        msg = f"{spec.name}: its driver is {record.driver}; it cannot become {spec.driver}"
        raise RefusedError(msg, hint="remove the disk first")
    has_store = record.state is not State.ABSENT or record.cow is not None or record.in_flight
    for field in ("chunk_size", "persistent") if has_store else ():
        found, asked = (_said(getattr(each, field)) for each in (before, spec))
        if found != asked:
            msg = f"{spec.name}: its {field} is {found}; it cannot become {asked}"
            hint = "the CoW file is written for that; remove the disk first"
            raise RefusedError(msg, hint=hint)


def refuse_pause(record: Record) -> None:
    """Refuse to pause a throwaway disk.

    Raises:
        RefusedError: it is one.
    """
    if not record.wanted.persistent:
        msg = f"{record.name} is a throwaway disk: its data goes with its device, not to be paused"
        hint = "`byre remove` ends it; `persistent` is said when it is made"
        raise RefusedError(msg, hint=hint)


def _is_pinned_base(kernel: Kernel, spec: DiskSpec, record: Record, boot_id: str) -> bool:
    found = kernel.identify(spec.base, follow=True)
    same_boot = record.base_boot_id == boot_id
    return found is not None and record.base.same_content(found, same_boot=same_boot)


def _said(value: object) -> str:
    """Return a value as a spec has it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
