"""What can have happened to a base that was registered, and what the log keeps of one.

Pure; may be imported by hostfacts, payloads and everything above.
"""

from __future__ import annotations

import attrs

from statemachine.asker import Requester
from statemachine.fileidentity import FileIdentity


@attrs.frozen(kw_only=True)
class Base:
    """A registered base image. Times are UTC in ns."""

    name: str
    path: str
    file: FileIdentity
    """Which file, and which content, it was when it was added."""
    sha256: str
    boot_id: str
    """The boot in which `file` was taken."""
    added_at: int
    copied_from: str = ""
    """The file that it is a copy of, when the copy is in the root; "" for a file elsewhere."""
    method: str = ""
    """How the copy was made: "reflink" or "sparse-copy"."""
    read_only: bool = False
    """Whether its mode lets nobody write to it."""
    verity: str = ""
    """What fs-verity measured, as "sha256:..."; "" where it is off."""
    verity_why: str = ""
    """Why it is off."""
    verified_at: int = 0
    """When somebody looked last; 0 for never since it was added."""
    wrong: str = ""
    """What was wrong with it then; "" when nothing was."""


@attrs.frozen(kw_only=True)
class BaseAdded:
    """Somebody registered a base: its digest is known, and disks may name it."""

    name: str
    path: str
    file: FileIdentity
    sha256: str
    copied_from: str = ""
    """The file that it is a copy of; "" when it was not copied."""
    method: str = ""
    """How the copy was made: "reflink" or "sparse-copy"."""
    read_only: bool = False
    """Whether its mode lets nobody write to it."""
    verity: str = ""
    """What fs-verity measured, as "sha256:..."; "" where it is off."""
    verity_why: str = ""
    """Why it is off."""
    by: Requester | None = None


@attrs.frozen(kw_only=True)
class BaseVerified:
    """Somebody had a base looked at as a whole."""

    name: str
    how: str
    """"sha256" (all of it was read) or "fs-verity" (the kernel checks what is read)."""
    wrong: str = ""
    """What was wrong with it; "" when it is what was added."""
    by: Requester | None = None


@attrs.frozen(kw_only=True)
class BaseRemoved:
    """Somebody took a base off the list; no disk used it. A copy in the root is deleted then."""

    name: str
    path: str
    file: FileIdentity
    is_copy: bool = False
    """Whether the file is one that byre made, and is deleted."""
    by: Requester | None = None
