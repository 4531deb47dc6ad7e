"""The registered bases: adding one with its digest, looking whether it is that, letting it go.

A copy in the root is named by its digest, made under no name until it is whole, and then told to
the log; so an addition that was killed is taken up by the next one of the same content. A removal
is told first, which nothing but the log decides: no disk stands on it, and none can from then on.
Then the copy is deleted, by the identity that the event has; what a kill leaves of that is deleted
by the next call.

Any process may do this beside a running reconciler. May be imported by cli.
"""

from __future__ import annotations

import contextlib
import enum
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import attrs

from reconciler import specs
from reconciler.api import Byre
from reconciler.outside import Tell, untold
from reconciler.requester import as_text, this_process
from statemachine import basetable, payloads
from statemachine.basefacts import Base
from statemachine.errors import ActionError, IdentityMismatch, NoSuchBase, RefusedError
from statemachine.events import CORRELATION_BYTES, EventType, NewEvent
from statemachine.fileidentity import FileIdentity
from statemachine.names import HOST, DiskName, base_reference
from statemachine.record import Record
from statemachine.schema import IS_RARE

DIGESTING: Final = "digesting"
VERIFYING: Final = "verifying"
_REMOVALS: Final = f"WHERE type = ? AND {IS_RARE} ORDER BY seq"


class Verity(enum.StrEnum):
    """Whether fs-verity is turned on, which nobody can take back."""

    AUTO = "auto"
    """For a copy in the root, where the file system has it."""
    ON = "on"
    OFF = "off"


class Condition(enum.StrEnum):
    """What a base is like now, by a look that costs nothing."""

    INTACT = "intact"
    CHANGED = "changed"
    MISSING = "missing"
    DAMAGED = "damaged"
    """It was found to be so when it was verified last."""


@attrs.frozen(kw_only=True)
class Listed:
    """A base, what it is like now, and the disks that stand on it."""

    base: Base
    condition: Condition
    why: str
    disks: tuple[str, ...]


def add(
    byre: Byre,
    image: Path,
    *,
    name: DiskName,
    copy: bool = False,
    verity: Verity = Verity.AUTO,
    reason: str = "",
    tell: Tell = untold,
) -> tuple[Base, bool]:
    """Register a base image: its digest is computed, and nobody may write to it any more.

    Args:
        byre: open for writing.
        image: the file.
        name: what specs call it, as "base:NAME"; by the rule of disks' names.
        copy: whether a copy in the root becomes the base, instead of the file itself.
        verity: whether fs-verity is turned on.
        reason: why; recorded.
        tell: is told how far it is.

    Returns:
        The base, and whether it is new; the same file under the same name is not.

    Raises:
        UsageError: the file cannot be a base.
        RefusedError: another base has the name.
        IdentityMismatch: the file was written to meanwhile.
        ActionError: it cannot be read, copied or made read-only.
    """
    finish_removals(byre)
    image = image.absolute()
    file = specs.check_image(image, byre.kernel)
    sha256 = byre.kernel.digest(image, file, lambda done, all_: tell(DIGESTING, done, all_))
    there = byre.log.bases().get(name)
    if there is not None:
        if there.sha256 == sha256 and (there.copied_from or there.path) == str(image):
            return there, False
        msg = f"base {name!r} is registered: {there.path}, sha256 {there.sha256[:12]}…"
        raise RefusedError(msg, hint="choose another name, or `byre base remove` that one first")
    path, method = (image, "") if not copy else _copied(byre, image, file, sha256, tell)
    payload = _sealed(byre, path, copied_from=str(image) if copy else "", verity=verity)
    payload = attrs.evolve(payload, name=name, sha256=sha256, method=method)
    _append(byre, payload, reason)
    return byre.log.bases()[name], True


def listed(byre: Byre, names: Sequence[str] = ()) -> list[Listed]:
    """Return registered bases, all of them or some, with what they are like now.

    Raises:
        NoSuchBase: one of the names is none.
    """
    bases = byre.log.bases()
    wanted = [find(bases, each) for each in dict.fromkeys(names)] if names else list(bases.values())
    records = byre.log.in_use() if wanted else []
    return [_listed(byre, base, records) for base in wanted]


def verify(
    byre: Byre,
    names: Sequence[str] = (),
    *,
    in_full: bool = False,
    reason: str = "",
    tell: Tell = untold,
) -> list[Listed]:
    """Look whether bases are what was added, and record it.

    With fs-verity the kernel checks every block that is read, so what it measured is enough.

    Args:
        byre: open for writing.
        names: which; none for all.
        in_full: read all of it in any case.
        reason: why; recorded.
        tell: is told how far it is.

    Raises:
        NoSuchBase: one of the names is none.
        ActionError: a file cannot be read.
    """
    for each in listed(byre, names):
        base = each.base
        by_kernel = bool(base.verity) and not in_full
        wrong = _wrong(byre, each, tell, by_kernel=by_kernel)
        payload = payloads.BaseVerified(
            name=base.name,
            how="fs-verity" if by_kernel else "sha256",
            wrong=wrong,
            by=this_process(),
        )
        _append(byre, payload, reason)
    return listed(byre, names)


def remove(byre: Byre, names: Sequence[str], *, reason: str = "") -> list[Base]:
    """Take bases off the list, all or none; a copy in the root is deleted.

    A file elsewhere stays where it is, and read-only.

    Raises:
        NoSuchBase: one of the names is none.
        RefusedError: a disk stands on one of them; the disks are named.
    """
    bases = byre.log.bases()
    gone = [find(bases, each) for each in dict.fromkeys(names)]
    events = [
        event(
            payloads.BaseRemoved(
                name=base.name,
                path=base.path,
                file=base.file,
                is_copy=bool(base.copied_from),
                by=this_process(),
            ),
            reason,
        )
        for base in {base.name: base for base in gone}.values()
    ]
    byre.log.append(events)
    finish_removals(byre)
    return gone


def finish_removals(byre: Byre) -> list[Path]:
    """Delete the copies whose removal is in the log and that no base stands for; idempotent."""
    kept = {base.path for base in byre.log.bases().values()}
    there = [byre.root.bases / name for name in byre.kernel.list_folder(byre.root.bases)]
    left = {str(path) for path in there} - kept
    done = []
    removals = byre.log.select(_REMOVALS, EventType.BASE_REMOVED.value) if left else []
    for event in removals:
        payload = payloads.read(event)
        if isinstance(payload, payloads.BaseRemoved) and payload.is_copy and payload.path in left:
            with contextlib.suppress(IdentityMismatch):  # one that was made anew since
                if byre.kernel.remove_file(Path(payload.path), payload.file):
                    done.append(Path(payload.path))
    return done


def find(bases: dict[str, Base], text: str) -> Base:
    """Return the base that somebody names: NAME, base:NAME or sha256:DIGEST.

    Raises:
        NoSuchBase: there is none.
    """
    try:
        kind, wanted = base_reference(text) or ("name", text)
    except ValueError as error:
        raise NoSuchBase(text, sorted(bases)) from error
    for base in bases.values():
        if wanted == (base.name if kind == "name" else base.sha256):
            return base
    raise NoSuchBase(text, sorted(bases))


# --- adding --------------------------------------------------------------------------------------


def _copied(
    byre: Byre, image: Path, file: FileIdentity, sha256: str, tell: Tell
) -> tuple[Path, str]:
    """Return a copy of an image in the root, and how it was made; takes up one that is whole."""
    kernel, target = byre.kernel, byre.root.bases / f"{sha256}.img"
    found = kernel.identify(target)
    method = ""
    if found is None:
        byre.sources().refuse_without_room(byre.root.path, kernel.allocated(image).count)
        method = kernel.clone_file(image, target, file.size, expected=file).value
        found = kernel.identify(target)
    assert found is not None, "it was made a moment ago"
    if kernel.digest(target, found, lambda done, all_: tell(VERIFYING, done, all_)) != sha256:
        msg = f"{target} is in the place of the copy, and has other content than {image}"
        raise IdentityMismatch(msg, hint="the image was written to meanwhile? look at both")
    return target, method


def _sealed(byre: Byre, path: Path, *, copied_from: str, verity: Verity) -> payloads.BaseAdded:
    """Have nobody write to the base any more, as far as that can be had, and say how far."""
    kernel = byre.kernel
    file = specs.check_image(path, kernel)
    kernel.make_read_only(path, file)
    why = ""
    if verity is Verity.OFF:
        why = "not asked for"
    elif verity is Verity.AUTO and not copied_from:
        why = "it is for ever, so a file outside of the root has it by --verity on only"
    else:
        try:
            kernel.enable_verity(path, file)
        except ActionError as error:
            if verity is Verity.ON:
                raise
            why = error.message
    measured = kernel.verity(path)
    return payloads.BaseAdded(
        name="",
        path=str(path),
        file=specs.check_image(path, kernel),
        sha256="",
        copied_from=copied_from,
        read_only=True,
        verity=measured,
        verity_why="" if measured else why,
        by=this_process(),
    )


# --- looking -------------------------------------------------------------------------------------


def _listed(byre: Byre, base: Base, records: Sequence[Record]) -> Listed:
    condition, why = condition_of(byre, base)
    disks = tuple(basetable.users_of(base, records))
    return Listed(base=base, condition=condition, why=why, disks=disks)


def condition_of(byre: Byre, base: Base) -> tuple[Condition, str]:
    """Return what a base is like by a look at its file, and why if it is not intact."""
    try:
        found = byre.kernel.identify(Path(base.path), follow=True)
    except ActionError as error:
        return Condition.MISSING, error.message
    if found is None:
        return Condition.MISSING, f"there is no file at {base.path}"
    if not found.same_content(base.file, same_boot=base.boot_id == byre.log.boot_id):
        return Condition.CHANGED, f"it was {base.file}; now it is {found}"
    return (Condition.DAMAGED, base.wrong) if base.wrong else (Condition.INTACT, "")


def _wrong(byre: Byre, each: Listed, tell: Tell, *, by_kernel: bool) -> str:
    base, path = each.base, Path(each.base.path)
    if each.condition in (Condition.MISSING, Condition.CHANGED):
        return each.why
    if by_kernel:
        found, expected = byre.kernel.verity(path), base.verity
    else:
        file = specs.check_image(path, byre.kernel)
        found = byre.kernel.digest(path, file, lambda done, all_: tell(VERIFYING, done, all_))
        expected = base.sha256
    return "" if found == expected else f"it measures {found or 'nothing'}, and not {expected}"


# --- the log -------------------------------------------------------------------------------------


def _append(byre: Byre, payload: object, reason: str) -> None:
    byre.log.append([event(payload, reason)])


def event(payload: object, reason: str) -> NewEvent:
    """Return an event of the host, by whoever runs this process."""
    return NewEvent(
        disk=HOST,
        type=payloads.type_of(payload),
        data=payloads.to_data(payload),
        actor=this_process().user,
        reason=as_text(reason),
        correlation_id=secrets.token_hex(CORRELATION_BYTES),
    )
