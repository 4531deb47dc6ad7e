"""What of a disk may not change under its data: its base, its driver, how its file is written.

Asks the kernel which file a base is, and changes nothing. May be imported by declare.
"""

from __future__ import annotations

from reconciler.kernel.port import Kernel
from statemachine.errors import RefusedError
from statemachine.machine import State
from statemachine.projection import Record
from statemachine.spec import DiskSpec, DriverChoice


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
