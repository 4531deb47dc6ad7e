"""How large a disk may become: never below its base, never smaller than it was.

Pure; may be imported by declare.
"""

from __future__ import annotations

import attrs

from reconciler.specs import Sourced
from statemachine.errors import RefusedError, SpecError
from statemachine.machine import Desired, State
from statemachine.record import Record
from statemachine.spec import DiskSpec, DriverChoice
from statemachine.specfault import SpecFault
from statemachine.units import Bytes

_NO_CHUNKS = "nothing with driver 'clone', which has no CoW file"


def refuse_below_base(each: Sourced, base: Bytes) -> None:
    """Refuse a disk that would be smaller than its base.

    Raises:
        SpecError: naming both sizes.
    """
    size = each.spec.size
    if size is None or size >= base:
        return
    raise SpecError([_fault(each.source, each.spec.name, "size", size, f"at least {base.count}")])


def refuse_smaller(spec: DiskSpec, record: Record) -> None:
    """Refuse to make a disk smaller that may have data past its new end.

    Raises:
        RefusedError: naming both sizes.
    """
    size = max(record.base.size, spec.size or record.base.size)
    has_data = record.state is not State.ABSENT or record.cow is not None or record.in_flight
    if size >= record.size or not has_data or spec.state is Desired.REMOVED:
        return
    msg = f"{spec.name}: its size is {record.size.count} bytes; it cannot become {size.count}"
    raise RefusedError(msg, hint="a disk only grows; make a new one and copy what is in it")


def refuse_throwaway(spec: DiskSpec, record: Record) -> None:
    """Refuse to make a throwaway disk larger: a new table would begin without its exceptions.

    Raises:
        RefusedError: it is one, and has data.
    """
    size = max(record.base.size, spec.size or record.base.size)
    if size > record.size and not record.wanted.persistent and record.state is not State.ABSENT:
        msg = f"{spec.name}: a throwaway disk keeps its size, {record.size.count} bytes"
        raise RefusedError(msg, hint="say its size when it is made; `byre remove` it first")


def grown(record: Record, *, size: Bytes | None, cow_max: Bytes | None) -> DiskSpec:
    """Return the spec of a disk that is to be larger.

    Raises:
        SpecError: a size that no spec may have.
        RefusedError: the disk is removed, or would become smaller.
    """
    if record.desired is Desired.REMOVED:
        msg = f"{record.name}: it is removed, or about to be, and cannot grow"
        raise RefusedError(msg, hint="create it with the size that it should have")
    spec = record.wanted
    if size is not None and (size > record.size or record.wanted.size is not None):
        spec = attrs.evolve(spec, size=size)
    if size is not None:
        refuse_below_base(Sourced("grow", attrs.evolve(spec, size=size)), record.base.size)
    refuse_smaller(spec, record)
    refuse_throwaway(spec, record)
    if cow_max is None:
        return spec
    if record.driver == DriverChoice.CLONE or spec.driver is DriverChoice.CLONE:
        raise SpecError([_fault("grow", record.name, "cow_max", cow_max, _NO_CHUNKS)])
    cow_max = cow_max.rounded_up(spec.chunk_size)
    least = max(spec.cow_max or Bytes(0), spec.cow_size or Bytes(0))
    if cow_max < least:
        msg = f"{record.name}: its cow_max is {least.count} bytes; it cannot become {cow_max.count}"
        raise RefusedError(msg, hint="a CoW file only grows")
    # One without a bound may grow as far as it ever needs to.
    return spec if spec.cow_max is None else attrs.evolve(spec, cow_max=cow_max)


def refuse_to_sparsify(record: Record) -> None:
    """Refuse to make a CoW file smaller that is in use, or that is none.

    Raises:
        RefusedError: the disk is not paused, or is a clone.
    """
    if record.driver == DriverChoice.CLONE:
        msg = f"{record.name}: it is a clone, whose loop device passes discards to its file"
        raise RefusedError(msg, hint="`fstrim` in the guest gives the room back")
    if record.state is not State.PAUSED or record.desired is not Desired.PAUSED:
        msg = f"{record.name}: it is {record.state}, {record.desired} is desired; its CoW is in use"
        raise RefusedError(msg, hint="pause it first, or say `sparsify = true` in its spec")


def _fault(source: str, name: str, field: str, found: Bytes, allowed: str) -> str:
    disk = f"disk {name!r}"
    fault = SpecFault(source=source, disk=disk, field=field, found=found.count, allowed=allowed)
    return str(fault)
