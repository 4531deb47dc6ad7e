"""What a field means, where its name tells whoever reads the code but not whoever reads a page.

A docstring in the code comes before what stands here. A test fails when a field has neither.
May be imported by `docs/parts.py` only.
"""

from typing import Final

COMMON_MEANINGS: Final[dict[str, str]] = {
    "trigger": "the input of the state machine",
    "source": "the state before",
    "target": "the state after",
    "attempt": "1 for the first attempt, one more for each that failed in a row",
    "driver": "`dm-snapshot` or `clone`",
    "message": "the whole sentence, for people",
    "hint": "the next step for a person, or empty",
    "kind": "a short word for scripts; see [reasons](conditions-and-exit-codes.md#reasons)",
    "exit_code": "what a waiting command returns for it",
    "errno": "the number that the kernel returned",
    "by": "who asked",
    "on_behalf_of": "for whom, as the caller said (`--on-behalf-of`): a claim that nobody checked",
    "pid": "the process",
}
"""By the field's name, whatever its class."""

MEANINGS: Final[dict[str, dict[str, str]]] = {
    "DiskDeclared": {
        "id": "the disk's identity, 32 hex digits; stays with the name",
        "spec": "the [spec](spec.md), with absolute paths; of a later declaration what changed",
        "device_name": "what the dm device is called",
    },
    "TransitionStarted": {
        "cow_path": "the disk's own file, in the first intent of a generation",
    },
    "TransitionCompleted": {
        "device": "its path; empty unless the disk is live",
        "device_number": "major and minor, as `253:4`",
        "base_loop": "number of the base's loop device",
        "cow_loop": "number of the loop device of the disk's own file",
        "jail_number": "major and minor that the node leads to, as `253:4`",
        "duration_ns": "from the intent to the last action",
    },
    "TransitionFailed": {
        "action": "the action that failed, in words; empty when nothing was touched",
        "holders": "who holds the thing",
        "undone": "what this attempt had changed and took back, last change first",
        "not_undone": "what could not be taken back, with the reason",
    },
    "LogArchived": {
        "first_seq": "the first event in the archive",
        "last_seq": "the last one; the log begins after it",
        "last_hash": "its hash, which the next event has as `prev_hash`",
        "file": "where the archive was written",
        "digest": "SHA-256 of that file",
        "checkpoint": "the `digest` of the checkpoint that the log begins with",
    },
    "BaseAdded": {
        "name": "what specs call it, as `base:NAME`",
        "path": "the file that is the base: the copy, where there is one",
        "file": "which file, and which content",
        "sha256": "its digest",
    },
    "BaseVerified": {"name": "which base"},
    "BaseRemoved": {
        "name": "which base",
        "path": "its file",
        "file": "which file it was; nothing else is deleted",
    },
    "Base": {
        "name": "what specs call it",
        "path": "the file that is the base",
        "sha256": "its digest",
        "added_at": "UTC in ns",
    },
    "DriftDetected": {
        "differences": "what the kernel shows, in words",
        "cow_path": "where that file is",
    },
    "LogRestored": {
        "from_seq": "the newest event of that file",
        "from_hash": "its hash",
        "lost_hash": "its hash",
    },
    "CowThresholdCrossed": {
        "percent": "the level",
        "used_bytes": "what is used of the exception store",
        "capacity_bytes": "its size",
    },
    "CowGrown": {
        "from_bytes": "its size before",
        "to_bytes": "its size now",
        "used_bytes": "what was used of the exception store",
    },
    "DiskExported": {
        "path": "the file that was written",
        "size_bytes": "its size",
    },
    "OrphanFound": {
        "kind": "`dm`, `loop`, `file` or `link`",
        "name": "what it is called",
        "identity": "what it is recognised by",
        "evidence": "why it is byre's and nobody's",
    },
    "OrphanResolved": {
        "kind": "`dm`, `loop`, `file` or `link`",
        "name": "what it is called",
        "identity": "what it is recognised by",
    },
    "HostBooted": {
        "root_id": "the identity of this state root",
        "kernel": "the kernel's release",
        "previous_boot_id": "the boot that this root saw before, or empty",
    },
    "ReconcilerStarted": {"version": "of byre"},
    "ReconcilerStopped": {"why": "the signal's name, or the reason"},
    "Requester": {
        "uid": "the numeric user",
        "user": "the user's name",
        "command": "the command line, at most 400 characters",
    },
    "Parent": {
        "name": "what it was called",
        "id": "its identity",
        "generation": "in which of its generations",
    },
    "Point": {
        "name": "what it is called",
        "path": "its file",
        "file": "which file that is",
    },
    "Rewind": {
        "point": "its name",
    },
    "DiskCheckpointed": {
        "kept": "the point",
    },
    "DiskPointsDropped": {
        "points": "their names",
    },
    "FileIdentity": {
        "device": "`st_dev`",
        "inode": "`st_ino`",
        "size": "in bytes",
        "mtime_ns": "time of the last change of the content, UTC in ns",
    },
    "Waited": {
        "record": "the disk's record when the waiting ended",
        "message": "why it is not there",
    },
}
"""By class and field; comes before what is common."""
