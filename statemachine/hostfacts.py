"""What can have happened to a host, to its log or beside its disks: a class for each type of event.

Pure; may be imported by payloads, whose names for them everybody uses.
"""

from __future__ import annotations

import attrs

from statemachine.asker import Requester
from statemachine.basefacts import Base


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
    bases: tuple[Base, ...] = ()
    """The registered bases, whose events may be in the archive."""
    by: Requester | None = None
