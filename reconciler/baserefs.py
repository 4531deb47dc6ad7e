"""Bases as specs name them: by path, by the name or the digest of a registered one.

Appends nothing. May be imported by declare.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import attrs

from reconciler import specs
from reconciler.kernel.port import Kernel
from reconciler.specs import Sourced
from statemachine.errors import SpecError
from statemachine.eventlog import EventLog
from statemachine.fileidentity import FileIdentity
from statemachine.names import base_reference
from statemachine.registry import Bases


def resolved(each: Sourced, bases: Bases) -> Sourced:
    """Return a spec with the path of its base, where it names a registered one.

    Raises:
        SpecError: no base of that name or digest is registered.
    """
    spec = each.spec
    if spec.base.is_absolute():
        return each
    kind, wanted = base_reference(str(spec.base)) or ("", "")
    for base in bases.values():
        if wanted == (base.name if kind == "name" else base.sha256):
            return attrs.evolve(each, spec=attrs.evolve(spec, base=Path(base.path)))
    there = ", ".join(f"base:{name}" for name in sorted(bases)) or "none"
    allowed = f"a path, or a registered base; there are: {there}"
    raise specs.base_fault(each.source, spec, "no such base", allowed)


def all_resolved(wanted: Sequence[Sourced], log: EventLog) -> list[Sourced]:
    """Return specs as `resolved` does; raises SpecError for all that name no registered base."""
    bases = {} if all(each.spec.base.is_absolute() for each in wanted) else log.bases()
    found: list[Sourced] = []
    faults: list[str] = []
    for each in wanted:
        try:
            found.append(resolved(each, bases))
        except SpecError as error:
            faults += error.faults
    if faults:
        raise SpecError(faults)
    return found


def pinned(kernel: Kernel, each: Sourced, log: EventLog) -> tuple[FileIdentity, str]:
    """Return which file a new disk's base is, with its digest and name if it is registered.

    Raises:
        SpecError: it cannot be a base, or is a registered one and not what was added.
    """
    found = specs.check_base(each.source, each.spec, kernel)
    for base in log.bases().values():
        same_boot = base.boot_id == log.boot_id
        if not base.file.same_file(found, same_boot=same_boot):
            continue
        if not base.file.same_content(found, same_boot=same_boot) or base.wrong:
            wrong = base.wrong or f"it was {base.file}, and is {found}"
            allowed = f"what was added as base {base.name!r}; see `byre base verify`"
            raise specs.base_fault(each.source, each.spec, wrong, allowed)
        return attrs.evolve(found, sha256=base.sha256), base.name
    return found, ""
