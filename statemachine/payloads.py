"""What each type of event says: one class a type, and the codec between classes and JSON.

Adding a field with a default needs no new schema version; anything else does, with an upcaster in
`events.UPCASTERS`. Unknown fields are ignored when read, so that an older program can read what a
newer one added; the log keeps them.

Pure; may be imported by projection, history and everything in `reconciler`.
"""

from __future__ import annotations

from typing import Any, Final, TypeVar

import attrs
import cattrs

from statemachine.codec import CONVERTER
from statemachine.events import Data, Event, EventType
from statemachine.machine import State, Trigger
from statemachine.observed import FileIdentity

T = TypeVar("T")

ADOPTED: Final = "adopted"
"""The `why` of a declaration by which a person took in what the kernel has and the log had not."""
IMPORTED: Final = "imported"
"""The `why` of a declaration of a disk that was made of a delta."""


@attrs.frozen(kw_only=True)
class Requester:
    """Who asked, as the operating system says."""

    uid: int
    user: str
    pid: int
    command: str
    login_user: str = ""
    """Who logged in, as the kernel has it from the session, when it is somebody else."""
    sudo_user: str = ""
    """Whom `sudo` named as its caller: a claim, as anybody can set a variable."""


@attrs.frozen(kw_only=True)
class DiskDeclared:
    """Somebody wants this disk so. The first one of a generation begins it, and says everything.

    A later one (`id` is "") says of the spec what changed, and always the state; see `again`.
    """

    id: str = ""
    spec: dict[str, str]
    without: tuple[str, ...] = ()
    """Fields that the spec has no more; of a later declaration."""
    device_name: str = ""
    base: FileIdentity | None = None
    """The pin: which base, and which content, this generation is built on."""
    by: Requester | None = None
    why: str = "declared"
    """"declared", "command" (pause, restore, remove), "pruned", "adopted" or "imported"."""
    on_behalf_of: str = ""

    def spec_after(self, before: dict[str, str]) -> dict[str, str]:
        """Return the whole spec, when this follows on one."""
        if self.id:
            return self.spec
        kept = {name: value for name, value in before.items() if name not in self.without}
        return kept | self.spec


def again(before: dict[str, str], wanted: dict[str, str]) -> dict[str, Any]:
    """Return `spec` and `without` of a later declaration, to be read by `spec_after`."""
    changed = {name: text for name, text in wanted.items() if before.get(name) != text}
    told = {"state": wanted["state"]} | changed
    return {"spec": told, "without": tuple(sorted(before.keys() - wanted.keys()))}


@attrs.frozen(kw_only=True)
class TransitionStarted:
    """The intent: in the log before the first change to the kernel."""

    trigger: Trigger
    source: State
    target: State
    attempt: int
    driver: str
    driver_reason: str = ""
    """Why `auto` fell back; "" when it did not."""
    actions: tuple[str, ...] = ()
    resumes: int | None = None
    """The seq of the unfinished intent that a crash left, when this goes on with it."""
    cow_path: str = ""
    made_folders: tuple[str, ...] = ()
    """Folders that this transition is about to make, and may take away again when empty."""


@attrs.frozen(kw_only=True)
class TransitionCompleted:
    """The outcome: the kernel shows the target state."""

    trigger: Trigger
    source: State
    target: State
    unchanged: tuple[str, ...] = ()
    cow: FileIdentity | None = None
    """The disk's own file; left out when it is as it was, but for `cow_mtime_ns`."""
    cow_mtime_ns: int | None = None
    """When that file was last written to, if nothing else of it changed."""
    cow_is_other: bool = False
    """Whether another file was in its place, and what is known of the disk's own stays."""
    cow_method: str = ""
    """"sparse", "reflink" or "sparse-copy"."""
    device: str = ""
    device_number: str = ""
    base_loop: int | None = None
    cow_loop: int | None = None
    link: str = ""
    """Where the link was made; "" when there is none."""
    link_target: str = ""
    """Where it leads to, if not to `device`."""
    jail_node: str = ""
    """Where the node in the disk's jail was made; "" when it has none."""
    jail_number: str = ""
    duration_ns: int = 0


@attrs.frozen(kw_only=True)
class TransitionFailed:
    """The outcome: it did not work, and what this attempt had changed was taken back."""

    trigger: Trigger
    source: State
    target: State
    consequence: str
    """"transient", "blocked" or "permanent"."""
    kind: str
    message: str
    attempt: int
    errno: int | None = None
    hint: str = ""
    exit_code: int = 1
    """What a waiting command returns for it."""
    action: str = ""
    holders: tuple[str, ...] = ()
    retry_at: int | None = None
    """UTC in ns; None when it waits for the spec or the world to change."""
    world: str = ""
    """A digest of what was observed; when it changes, a stalled disk is tried again."""
    overdue: bool = False
    """Whether the disk has been in use for longer than its `busy_timeout_s`."""
    undone: tuple[str, ...] = ()
    not_undone: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class DriftDetected:
    """The kernel shows something else than the record; in the log before it is repaired."""

    trigger: Trigger
    source: State
    target: State
    differences: tuple[str, ...]
    cause: str = ""
    """"reboot" when the host booted since, else ""."""
    cow: FileIdentity | None = None
    """The disk's own file, when this is the first that the log hears of its data."""
    cow_path: str = ""
    driver: str = ""


@attrs.frozen(kw_only=True)
class DiskFaulted:
    """Data is missing or damaged, or is not the recorded one; waits for a person's word."""

    kind: str
    message: str
    hint: str = ""
    exit_code: int = 1


@attrs.frozen(kw_only=True)
class DiskRecovered:
    """A person's word: look again (`byre retry`)."""

    was: str
    """"faulted", "held", "stalled", "blocked" or "retrying"."""
    by: Requester | None = None
    on_behalf_of: str = ""


@attrs.frozen(kw_only=True)
class DiskHeld:
    """An older copy of the log was put back: its wish is not acted upon until it is said again."""

    message: str


@attrs.frozen(kw_only=True)
class CowThresholdCrossed:
    """The exception store filled past a set level."""

    percent: int
    used_bytes: int
    capacity_bytes: int


@attrs.frozen(kw_only=True)
class CowGrown:
    """A CoW file that was made small was made larger, under the live disk, before it was full."""

    from_bytes: int
    to_bytes: int
    used_bytes: int
    bound_bytes: int
    """How far it may be grown."""


@attrs.frozen(kw_only=True)
class DiskFrozen:
    """A live disk was suspended before a write of it could fail."""

    message: str
    cause: str = "host-space"
    """"host-space": the file system of the CoW files; "cow-bound": its CoW may not grow more."""


@attrs.frozen(kw_only=True)
class DiskThawed:
    """A frozen disk was resumed."""

    message: str
    frozen_ns: int = 0
    """How long it was frozen."""


@attrs.frozen(kw_only=True)
class DiskExported:
    """Somebody took a copy of the disk's content out of the root; the disk is as it was."""

    form: str
    """"image" (`byre flatten`) or "delta" (`byre export`)."""
    path: str
    size_bytes: int
    sha256: str = ""
    """The digest of the file; "" if it was not asked for."""
    method: str = ""
    """How the base got into an image: "reflink" or "sparse-copy"."""
    frozen_ns: int = 0
    """How long the disk was suspended for it; 0 if it was not."""
    by: Requester | None = None


@attrs.frozen(kw_only=True)
class OrphanFound:
    """Something carries our identity and no record knows it."""

    kind: str
    name: str
    identity: str
    evidence: str


@attrs.frozen(kw_only=True)
class OrphanResolved:
    """A person had an orphan removed or adopted."""

    kind: str
    name: str
    identity: str
    resolution: str
    """"removed" or "adopted"."""
    by: Requester | None = None
    on_behalf_of: str = ""


@attrs.frozen(kw_only=True)
class LogRestored:
    """A person put a backup in the place of the log; what lies between is not in it."""

    backup: str
    """The file that was put in place; "" if somebody copied it there by hand."""
    from_seq: int
    from_hash: str
    lost_seq: int = 0
    """The newest event that the log had before, as far as it could be told; 0 if it could not."""
    lost_hash: str = ""
    kept: str = ""
    """Where the log of before was moved to; "" if there was none."""
    held: int = 0
    """How many disks' wishes are held back."""
    by: Requester | None = None


@attrs.frozen(kw_only=True)
class HostBooted:
    """The first look at this root since the host booted; every device of before is gone."""

    root_id: str
    kernel: str
    previous_boot_id: str = ""


@attrs.frozen(kw_only=True)
class ReconcilerStarted:
    """A reconciler took the root's lock."""

    pid: int
    version: str
    mode: str = "run"
    """"run" (the daemon) or "once"."""


@attrs.frozen(kw_only=True)
class ReconcilerStopped:
    """It ended cleanly and gave the lock back."""

    pid: int
    why: str


@attrs.frozen(kw_only=True)
class LogArchived:
    """The oldest events went into an archive; the log begins after them."""

    first_seq: int
    last_seq: int
    last_hash: str
    file: str
    digest: str
    checkpoint: str
    booted: str = ""
    """The boot of the last `host.booted` until then; "" when there was none."""
    by: Requester | None = None


PAYLOADS: Final[dict[EventType, type[Any]]] = {
    EventType.DISK_DECLARED: DiskDeclared,
    EventType.TRANSITION_STARTED: TransitionStarted,
    EventType.TRANSITION_COMPLETED: TransitionCompleted,
    EventType.TRANSITION_FAILED: TransitionFailed,
    EventType.DRIFT_DETECTED: DriftDetected,
    EventType.DISK_FAULTED: DiskFaulted,
    EventType.DISK_RECOVERED: DiskRecovered,
    EventType.DISK_HELD: DiskHeld,
    EventType.COW_THRESHOLD_CROSSED: CowThresholdCrossed,
    EventType.COW_GROWN: CowGrown,
    EventType.DISK_FROZEN: DiskFrozen,
    EventType.DISK_THAWED: DiskThawed,
    EventType.DISK_EXPORTED: DiskExported,
    EventType.ORPHAN_FOUND: OrphanFound,
    EventType.ORPHAN_RESOLVED: OrphanResolved,
    EventType.LOG_RESTORED: LogRestored,
    EventType.HOST_BOOTED: HostBooted,
    EventType.RECONCILER_STARTED: ReconcilerStarted,
    EventType.RECONCILER_STOPPED: ReconcilerStopped,
    EventType.LOG_ARCHIVED: LogArchived,
}
_TYPES: Final = {payload: event_type for event_type, payload in PAYLOADS.items()}


def type_of(payload: object) -> EventType:
    """Return the type of event that a payload belongs to."""
    return _TYPES[type(payload)]


def to_data(value: object) -> dict[str, Any]:
    """Return a payload or a record as plain data, leaving out what is at its default."""
    plain: dict[str, Any] = CONVERTER.unstructure(value)
    return plain


def read(event: Event) -> object:
    """Return the payload of an event.

    Returns:
        An instance of the class of its type; None for a type this version does not know.
    """
    try:
        kind = PAYLOADS[EventType(event.type)]
    except ValueError:
        return None
    return structure(event.data, kind)


def structure(data: Data, kind: type[T]) -> T:
    """Return plain data as an instance of a class; raises ValueError when it does not fit."""
    try:
        return CONVERTER.structure(data, kind)
    # cattrs asks for the items of what should be a table, whatever it is.
    except (
        AttributeError,
        cattrs.BaseValidationError,
        KeyError,
        TypeError,
        ValueError,
    ) as error:
        msg = f"{kind.__name__}: {error!r}"
        raise ValueError(msg) from error
