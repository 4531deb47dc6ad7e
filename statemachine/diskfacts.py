"""What can have happened to one disk: a class for each type of event in its stream.

See `payloads` for what may change in them and for how they become JSON. `projection` says what
each does to the record. Those that most events are have no slots, as they are read faster so.

Pure; may be imported by payloads, whose names for them everybody uses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import attrs

from statemachine.asker import Requester
from statemachine.fileidentity import FileIdentity
from statemachine.lineage import Parent, Point, Rewind
from statemachine.machine import State, Trigger

ADOPTED: Final = "adopted"
"""The `why` of a declaration by which a person took in what the kernel has and the log had not."""
EXPIRED: Final = "expired"
"""The `why` of a declaration by the reconciler: the time that the spec gives the disk is over."""
IDLE: Final = "idle"
"""The same: nobody has written to the disk for as long as the spec's `idle_pause` says."""
EXTENDED: Final = "extended"
"""The `why` of a declaration by which a person gave a disk another end, or none."""
LAPSES: Final = frozenset({EXPIRED, IDLE})
IMPORTED: Final = "imported"
"""The `why` of a declaration of a disk that was made of a delta."""
FORKED: Final = "forked"
"""The `why` of a declaration of a disk that was made of another one."""


@attrs.frozen(kw_only=True, slots=False)
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
    base_name: str = ""
    """What the base is registered as; "" when it is not."""
    by: Requester | None = None
    why: str = "declared"
    """"declared", "command" (pause, restore, remove), "pruned", "adopted", "imported", "forked",
    "link", "extended", or by the reconciler: "expired", "idle"."""
    on_behalf_of: str = ""
    link_from: str = ""
    """The disk that this one takes its link over from; told of both in one transaction."""
    link_taken: str = ""
    """Where that link leads until this disk is live; "" if there was none in its place."""
    sparsify: bool = False
    """Whether the CoW file is to be made smaller once (`byre sparsify`)."""
    link_to: str = ""
    """The disk that takes this one's link over."""
    forked_from: Parent | None = None
    """Which disk it was made of."""
    rewind: Rewind | None = None
    """The point that it is to go back to, once it is paused."""
    without_rewind: bool = False
    """Whether it is not to go back any more to the point that was said before."""

    def spec_after(self, before: dict[str, str]) -> dict[str, str]:
        """Return the whole spec, when this follows on one."""
        if self.id:
            return self.spec
        after = before | self.spec
        for name in self.without:
            after.pop(name, None)
        return after


def again(
    before: dict[str, str], wanted: dict[str, str], *, anew: Sequence[str] = ()
) -> dict[str, Any]:
    """Return `spec` and `without` of a later declaration, to be read by `spec_after`.

    Args:
        before: the spec until now.
        wanted: the spec from now on.
        anew: fields that are said again though they are as before: a `ttl` counts from there.
    """
    changed = {
        name: text for name, text in wanted.items() if before.get(name) != text or name in anew
    }
    told = {"state": wanted["state"]} | changed
    return {"spec": told, "without": tuple(sorted(before.keys() - wanted.keys()))}


@attrs.frozen(kw_only=True, slots=False)
class TransitionStarted:
    """The intent: in the log before the first change to the kernel."""

    trigger: Trigger
    source: State
    target: State
    attempt: int = 1
    driver: str
    driver_reason: str = ""
    """Why `auto` fell back; "" when it did not."""
    actions: tuple[str, ...] = ()
    """What is left to do, in order, when this goes on with an intent that a crash left."""
    resumes: int | None = None
    """The seq of the unfinished intent that a crash left, when this goes on with it."""
    cow_path: str = ""
    made_folders: tuple[str, ...] = ()
    """More folders that this generation may make, and may take away again when empty."""


@attrs.frozen(kw_only=True, slots=False)
class TransitionCompleted:
    """The outcome: the kernel shows the target state."""

    trigger: Trigger
    source: State
    target: State
    unchanged: tuple[str, ...] = ()
    """What found nothing to change, when this went on with an intent that a crash left."""
    cow: FileIdentity | None = None
    """The disk's own file; left out when it is as it was, but for `cow_mtime_ns`."""
    cow_mtime_ns: int | None = None
    """When that file was last written to, if nothing else of it changed."""
    cow_is_other: bool = False
    """Whether another file was in its place, and what is known of the disk's own stays."""
    cow_next: FileIdentity | None = None
    """A smaller store, beside the disk's own file; the next transition gives it that one's name."""
    saved_bytes: int | None = None
    """How much less room that store takes, 0 for none; None if none was tried."""
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


@attrs.frozen(kw_only=True, slots=False)
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


@attrs.frozen(kw_only=True, slots=False)
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
class DiskCheckpointed:
    """A point of the disk is kept from now on; the disk is as it was."""

    kept: Point
    frozen_ns: int = 0
    """How long the disk was suspended for it; 0 if it was not."""
    by: Requester | None = None
    on_behalf_of: str = ""


@attrs.frozen(kw_only=True)
class DiskPointsDropped:
    """Points are kept no more; their files are deleted after this is in the log."""

    points: tuple[str, ...]
    why: str = "asked"
    """"asked", or "keep 3": there were more than so many."""
    by: Requester | None = None
    on_behalf_of: str = ""
