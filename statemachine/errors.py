"""Every error that byre raises on purpose, as one tree.

    ByreError                     exit code 1
    ├── UsageError                2   the call or the spec is wrong
    │   └── SpecError                 one or more faults of a spec, all of them at once
    ├── NoSuchDisk                3
    ├── NoSuchOrphan              3
    ├── NoSuchBase                3
    ├── RefusedError              4   it could be done, and must not be
    │   ├── LimitReached              it would pass a limit of this root
    │   ├── IllegalTransition         the state table has no such edge
    │   ├── IdentityMismatch          the thing in place is not the thing recorded
    │   ├── ForeignDevice             the thing in place is not byre's
    │   ├── BadSignature              a noted head is not signed, by another key, or was changed
    │   └── UnsafePath                another user could lead the path elsewhere
    ├── DeadlinePassed            5
    ├── LogDamaged                6   the event log is not what was written
    ├── LogUnavailable            1   the log cannot be opened or written just now
    ├── VersionConflict           1   somebody else appended to this disk first
    ├── RootBusy                  1   another reconciler holds this root
    └── ActionError               1   a change to the kernel failed; sorted by consequence
        ├── TransientError            busy, again: try again after a backoff
        ├── BlockedError              in use, no space: wait for the thing that is named
        └── PermanentError            refused, invalid: until the spec or the world changes

`exit_code` is the contract of the command line; `hint` is the next step for a person.
What this module does not do: it never looks at message texts, and it formats no tables.
May be imported by everything.
"""

from __future__ import annotations

import enum
import errno as errno_names
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Sequence


class ByreError(Exception):
    """The root of byre's own errors.

    Attributes:
        exit_code: what a command that ends with this error returns.
        hint: the next step for a person, a sentence or "".
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(ByreError):
    """The command was called in a way that has no meaning."""

    exit_code = 2


class SpecError(UsageError):
    """One spec, or a set of them, is not acceptable; `faults` names every reason.

    Nothing was appended to the log when this is raised.
    """

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("\n".join(faults), hint="nothing was recorded; correct the spec")
        self.faults = tuple(faults)


class NoSuchDisk(ByreError):
    """No disk of this name was ever declared in this root."""

    exit_code = 3

    def __init__(self, name: str) -> None:
        super().__init__(f"no such disk: {name!r}", hint="`byre get --all` lists the known ones")
        self.name = name


class NoSuchOrphan(ByreError):
    """Nothing of this name is an orphan of this root."""

    exit_code = 3

    def __init__(self, name: str, known: Sequence[str]) -> None:
        there = ", ".join(known) or "none"
        super().__init__(f"no such orphan: {name!r}; there are: {there}", hint="see `byre orphans`")
        self.name = name


class NoSuchBase(ByreError):
    """No base of this name or digest is registered in this root."""

    exit_code = 3

    def __init__(self, name: str, known: Sequence[str]) -> None:
        there = ", ".join(known) or "none"
        super().__init__(f"no such base: {name!r}; there are: {there}", hint="see `byre base list`")
        self.name = name


class RefusedError(ByreError):
    """It could be done, and byre must not do it."""

    exit_code = 4
    kind: ClassVar[str] = "refused"


class LimitReached(RefusedError):
    """It would pass a limit of this root."""

    kind = "limit-reached"
    HINT: ClassVar[str] = "remove disks, or raise the limit in config.toml; nothing was recorded"

    def __init__(self, limit: str, there: str, asked: str, allowed: str) -> None:
        super().__init__(
            f"limits.{limit}: there are {there}, {asked} more are asked, {allowed} are allowed",
            hint=self.HINT,
        )
        self.limit = limit


class IllegalTransition(RefusedError):
    """The state table has no edge for this trigger from this state."""

    kind = "illegal-transition"

    def __init__(self, disk: str, state: str, trigger: str, allowed_from: Sequence[str]) -> None:
        super().__init__(
            f"{disk}: cannot {trigger} a disk that is {state}; "
            f"{trigger} is allowed from: {', '.join(allowed_from) or 'no state'}",
        )
        self.disk = disk
        self.state = state
        self.trigger = trigger


class IdentityMismatch(RefusedError):
    """A file or device is in the recorded place but is another one."""

    kind = "identity-mismatch"


class ForeignDevice(RefusedError):
    """A device, file or link that byre did not make is in the way."""

    kind = "foreign-device"


class BadSignature(RefusedError):
    """A noted head is not signed, is signed with another key, or was changed after that."""

    kind = "bad-signature"


class UnsafePath(RefusedError):
    """Another user could lead the path elsewhere, or replace what byre keeps there."""

    kind = "unsafe-path"


class DeadlinePassed(ByreError):
    """What was waited for did not happen in time; it may still happen."""

    exit_code = 5


class Damage(enum.StrEnum):
    """What was done to an event, as far as the chain shows it."""

    EDITED = "edited"
    MISSING = "missing"
    REORDERED = "reordered"
    INSERTED = "inserted"
    RESTARTED = "restarted"
    """The chain begins anew here: this event names no predecessor, or one that never was."""
    TRUNCATED = "truncated"
    REPLACED = "replaced"
    """Another event stands where a noted head says which one stood there."""
    UNREADABLE = "unreadable"


class LogDamaged(ByreError):
    """The event log is not what was written.

    Attributes:
        seq: the first bad event, if known.
        what: what was done to it, if known.
    """

    exit_code = 6

    def __init__(
        self,
        message: str,
        *,
        seq: int | None = None,
        what: Damage | None = None,
        hint: str = "",
    ) -> None:
        super().__init__(message, hint=hint)
        self.seq = seq
        self.what = what


class LogUnavailable(ByreError):
    """The log cannot be opened or written: no privilege, no space, read-only, newer schema."""


class VersionConflict(ByreError):
    """Somebody else appended to this disk since it was read; read again and decide again."""


class RootBusy(ByreError):
    """Another reconciler holds the lock of this root."""


class ActionError(ByreError):
    """A change to the kernel or to a file failed.

    Attributes:
        errno: the number the kernel returned, or None.
        kind: a short stable word for scripts: the errno's name in lower case, or a reason.
        holders: who holds the thing, when that is known.
    """

    consequence: ClassVar[str] = "permanent"

    def __init__(
        self,
        message: str,
        *,
        errno: int | None = None,
        kind: str = "",
        holders: Sequence[str] = (),
        hint: str = "",
    ) -> None:
        super().__init__(message, hint=hint)
        self.errno = errno
        self.kind = kind or errno_names.errorcode.get(errno or 0, "failed").lower()
        self.holders = tuple(holders)


class TransientError(ActionError):
    """Busy or interrupted: the same call may work in a moment."""

    consequence = "transient"


class BlockedError(ActionError):
    """In use or out of space: works when the named thing lets go."""

    consequence = "blocked"


class PermanentError(ActionError):
    """Refused or invalid: will fail again until the spec or the world changes."""


TRANSIENT_ERRNOS = frozenset(
    {
        errno_names.EAGAIN,
        errno_names.EBUSY,
        errno_names.EINTR,
        errno_names.ENOMEM,
        errno_names.ENXIO,
        errno_names.ETIMEDOUT,
        errno_names.EMFILE,
        errno_names.ENFILE,
    },
)
BLOCKED_ERRNOS = frozenset({errno_names.ENOSPC, errno_names.EDQUOT, errno_names.EROFS})


def from_oserror(error: OSError, doing: str, *, hint: str = "") -> ActionError:
    """Sort an OSError by its consequence.

    Args:
        error: what the system call raised.
        doing: the action and its object, for the message ("attach a loop device to /x").
        hint: the next step for a person.

    Returns:
        A `TransientError`, `BlockedError` or `PermanentError` with errno and kind set.
    """
    number = error.errno
    message = f"{doing}: {error.strerror or error}"
    if number in TRANSIENT_ERRNOS:
        return TransientError(message, errno=number, hint=hint)
    if number in BLOCKED_ERRNOS:
        return BlockedError(message, errno=number, hint=hint)
    return PermanentError(message, errno=number, hint=hint)
