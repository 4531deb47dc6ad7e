"""The Kernel port: every question and every change that byre puts to the kernel and to files.

One call is one step: a crash can fall before or after it, never inside, so whatever must be
atomic is one call and whatever is not atomic in the kernel is several. `linux` implements the
port with system calls, `sim` in memory; one contract suite (tests/contract) passes on both.

Rules for every implementation:

- Questions change nothing, open nothing for writing, and skip what they cannot read.
- A change checks the identity it is given again, right before the destructive call, and raises
  `IdentityMismatch` or `ForeignDevice` when it is not that thing any more.
- A change of something already so returns False (UNCHANGED) instead of failing.
- A failing system call is raised as `statemachine.errors.ActionError`, sorted by errno; nothing
  else leaks out, so an OSError never crosses this border.
- No call waits for udev, and none waits without a bound.

May be imported by drivers and everything above; knows nothing of disks, states or the log.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Protocol

import attrs

from reconciler.kernel.imageport import Images
from reconciler.kernel.storejob import Compaction, StoreJob
from statemachine.units import DEFAULT_CHUNK

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from statemachine.fileidentity import FileIdentity
    from statemachine.jail import Jail
    from statemachine.observed import (
        DeviceNumber,
        DmDevice,
        Holder,
        LinkObservation,
        Loop,
        NodeObservation,
        OriginTable,
        SnapshotTable,
    )
    from statemachine.units import Bytes


class CowHeader(enum.StrEnum):
    """What the first chunk of a CoW file says (kernel fact 10: `SnAp`, valid, version, chunk).

    Source: struct disk_header in drivers/md/dm-snap-persistent.c.
    """

    MISSING = "missing"
    EMPTY = "empty"
    """All zero: no snapshot was ever made on it, or its content was lost."""
    VALID = "valid"
    INVALID = "invalid"
    """The kernel marked it invalid: its exceptions are lost."""
    FOREIGN = "foreign"
    """Something else than an exception store of version 1 with the disk's chunk size."""


class CloneMethod(enum.StrEnum):
    """How a copy of a base was made."""

    REFLINK = "reflink"
    SPARSE_COPY = "sparse-copy"


@attrs.frozen(kw_only=True)
class Capabilities:
    """What this kernel and these privileges allow, each with the reason when not.

    A field is "" when it works, else the reason in plain words.
    """

    dm: str
    """/dev/mapper/control opens and the snapshot target can be used."""
    loop: str
    """/dev/loop-control opens for writing."""


@attrs.frozen(kw_only=True)
class FreeSpace:
    """Room on the file system of a path."""

    available: Bytes
    total: Bytes


@attrs.frozen(kw_only=True)
class DmName:
    """One line of the kernel's list of dm devices; uuid is "" where there is none."""

    name: str
    uuid: str
    device: DeviceNumber


class Kernel(Images, Protocol):
    """See the module's rules; each method names what is particular to it."""

    # --- questions ---------------------------------------------------------------------------

    def capabilities(self) -> Capabilities:
        """Say what works here; cheap after the first call."""

    def boot_id(self) -> str:
        """Return /proc/sys/kernel/random/boot_id: which boot this is."""

    def identify(self, path: Path, *, follow: bool = False) -> FileIdentity | None:
        """Return which file is at a path, None if there is none.

        Args:
            path: an absolute path.
            follow: whether a symlink at its end is followed (bases: yes; our own files: no).
        """

    def readable(self, path: Path) -> bool:
        """Tell whether this process can open the file for reading."""

    def is_open(self, path: Path) -> bool:
        """Tell whether anybody has a file open: a process, or a loop device on it.

        True also where the file system or our privileges do not let it be told, and when it is
        missing; so only False says something. Costs the same however many loops there are.
        """

    def list_folder(self, path: Path) -> tuple[str, ...]:
        """Return the sorted names in a folder; empty when it does not exist."""

    def cow_header(self, path: Path, chunk: Bytes = DEFAULT_CHUNK) -> CowHeader:
        """Read the first 16 bytes of a CoW file with chunks of this size and say what they are."""

    def allocated(self, path: Path | str) -> Bytes:
        """Return how many bytes a file occupies (st_blocks * 512); 0 when it is missing."""

    def shares_blocks(self, path: Path) -> bool:
        """Tell whether a copy of this file in its folder would be a reflink, and take no room."""

    def free_space(self, path: Path) -> FreeSpace:
        """Return the room on the file system of the nearest existing parent of a path."""

    def loops(self) -> tuple[Loop, ...]:
        """Return all bound loop devices, by number; ones that cannot be read are skipped."""

    def loop_numbers(self) -> tuple[int, ...]:
        """Return the numbers of all bound loop devices, in order; asks no device."""

    def loop(self, number: int, *, named: bool = True) -> Loop | None:
        """Return one loop device if it is bound; costs the same however many there are.

        Not `named`, the path of one of ours may be what its file was called at an earlier look:
        half the cost, for who goes by device and inode.
        """

    def dm_names(self) -> tuple[DmName, ...]:
        """Return all dm devices of the host, ours or not; empty without device-mapper."""

    def dm(self, name: str) -> DmDevice | None:
        """Return one dm device with its table and status; one line, no flush, no wait."""

    def dm_devices(self) -> tuple[DmDevice, ...]:
        """Return all dm devices with a UUID of ours, with table and status; for a full look.

        One pass over the kernel's list: cheaper than `dm` for each, by name.
        """

    def files_in(self, folder: Path) -> Mapping[str, FileIdentity]:
        """Return what is in a folder, by name; nothing when it does not exist."""

    def links_in(self, folder: Path) -> Mapping[str, str]:
        """Return the texts of the symlinks in a folder, by name; nothing when it is missing."""

    def read_link(self, path: Path) -> LinkObservation:
        """Return what is at a path where a link or node should be, without following it."""

    def look_at_node(self, jail: Jail) -> NodeObservation:
        """Return what is where a jail's node is to be, and what would be wrong with a node there.

        Wrong is: this process may make none, its mount is `nodev`, the jail's user may not
        search a folder on the way, and a way that another user can bend. Of access control lists
        nothing is asked.
        """

    def real_path(self, path: Path) -> Path:
        """Return a path with all its symlinks resolved; what is missing stays as it is said."""

    def holders(self, device: DeviceNumber) -> tuple[Holder, ...]:
        """Return who has a device open: processes, mounts, dm devices above; slow (/proc)."""

    # --- files -------------------------------------------------------------------------------

    def create_sparse(self, path: Path, size: Bytes) -> FileIdentity:
        """Make a new sparse file of this size, 0600, durable with its folder entry.

        Missing parent folders are made, 0700. Not idempotent on purpose: an existing file raises
        PermanentError (EEXIST), as data is never replaced silently.
        """

    def grow_file(self, path: Path, expected: FileIdentity, size: Bytes) -> bool:
        """Make a file this large, durable, if it is still (device, inode) `expected`.

        The new part is a hole. False if it is as large already; never makes it smaller.
        """

    def sync_file(self, path: Path, expected: FileIdentity) -> None:
        """Make what was written to a file survive a power cut, through a loop device as well.

        Needed where the kernel wrote and nobody flushed: it leaves a new exception store's header
        in the cache until the first exception is committed (kernel fact 22). Of a file that
        `clone_file` has just made, the name survives as well.
        """

    def clone_file(
        self,
        source: Path,
        target: Path,
        size: Bytes,
        *,
        expected: FileIdentity | None = None,
        durable: bool = True,
    ) -> CloneMethod:
        """Make `target` a private copy of `source`, 0600: FICLONE, else a sparse copy.

        Written under a temporary name and renamed when it is whole and durable, so `target` is
        either complete or not there. An existing target raises PermanentError (EEXIST), and a
        source that is not `expected`, where that is given, IdentityMismatch. One that is not
        `durable` is whole, and survives a power cut once `sync_file` was called for it.
        """

    def rename_over(
        self, source: Path, target: Path, *, expected: FileIdentity, replaces: FileIdentity
    ) -> bool:
        """Rename a file over another in one step, durable. False if it was done before.

        The source must be `expected`, and what is at the target `replaces`, or nothing may be
        there: anything else in place raises IdentityMismatch and stays. Done before is: the target
        is `expected`. The two are in one folder.
        """

    def remove_file(self, path: Path, expected: FileIdentity) -> bool:
        """Unlink a file if it is still (device, inode) `expected`; durable. False if gone."""

    def move_file(self, path: Path, target: Path, expected: FileIdentity) -> bool:
        """Give a file another name on its file system, if it is still `expected`; durable.

        Whoever has it open, a loop device too, goes on with it. Missing parent folders are made,
        0700. False if it is at `target` already. What else is there raises PermanentError (EEXIST)
        and stays; another file system raises PermanentError (EXDEV).
        """

    # --- loop devices ------------------------------------------------------------------------

    def compact_store(self, job: StoreJob) -> Compaction:
        """Write what of a store differs from the base into a new file, checked and durable.

        IdentityMismatch if another file than expected is in its place; StoreError if it is no
        sound store.
        """

    def swap_file(
        self, source: Path, expected: FileIdentity, target: Path, replaces: FileIdentity
    ) -> bool:
        """Give a file the name of another one, which goes; durable. Refuses by identity."""

    def loop_attach(
        self,
        path: Path,
        expected: FileIdentity,
        *,
        marker: str,
        read_only: bool,
    ) -> Loop:
        """Bind a free loop device to a file by LOOP_CTL_GET_FREE and LOOP_CONFIGURE.

        Another process may take the free number first: tried again, up to a bound. The file is
        opened without following a symlink for our own files; its (device, inode) must be
        `expected`. No partition scan, no autoclear. Does not look for another loop on the file.
        """

    def loop_set_autoclear(self, loop: Loop) -> bool:
        """Let the kernel detach this loop when its last opener goes. False if it was set."""

    def loop_keep(self, loop: Loop) -> bool:
        """Take autoclear back: the loop stays when its last opener goes. False if it is gone.

        True means that it is bound and stays, whether it had autoclear or not.
        """

    def loop_grow(self, loop: Loop) -> bool:
        """Give a loop the size that its file has by now, by LOOP_SET_CAPACITY (kernel fact 2).

        What stands on it sees the new size at once. False if it had it.
        """

    def loop_set_direct_io(self, loop: Loop, *, on: bool) -> bool:
        """Have a loop go past its file's page cache (LOOP_SET_DIRECT_IO), or not, under its users.

        False if it did so already. PermanentError (EINVAL) where the file system cannot.
        """

    def loop_detach(self, loop: Loop) -> bool:
        """Detach a loop if it still backs the same file. False if it does not exist any more.

        LOOP_CLR_FD "succeeds" on a loop in use and only sets autoclear (kernel fact 11), so
        the result is read back; in use: autoclear is set back and TransientError (EBUSY) raised.
        """

    # --- device-mapper -----------------------------------------------------------------------

    def dm_create(self, name: str, uuid: str) -> DeviceNumber:
        """Make a dm device without a table; EBUSY (transient) if the name or UUID exists."""

    def dm_load(self, uuid: str, table: SnapshotTable | OriginTable) -> None:
        """Load a table into the inactive slot; opens the devices named in it."""

    def dm_resume(self, uuid: str) -> bool:
        """Make the loaded table live, or resume a suspended device. False if it was so."""

    def dm_suspend(self, uuid: str) -> bool:
        """Stop IO, once what is in flight is done. False if it was suspended.

        A file system that the host has mounted on it is not frozen first: that would write.
        """

    def dm_give_uuid(self, name: str, device: DeviceNumber, uuid: str) -> bool:
        """Give a device without a UUID one, under its users. False if it has this one.

        It can be done once in a device's life. Another number under this name, or another UUID,
        raises IdentityMismatch or ForeignDevice.
        """

    def dm_flush(self, uuid: str) -> None:
        """Have what the host holds in its cache of a device written to it; returns when it is.

        What waits then in a suspend is little. A suspended device is left alone: it would wait.
        """

    def dm_remove(self, name: str, uuid: str) -> bool:
        """Remove the device of this name if it has this UUID. False if there is none.

        In use: TransientError with errno EBUSY. Never deferred, never forced.
        """

    def flush_ahead(self, uuid: str) -> bool:
        """Begin to write what the page cache holds for a device in use, and return at once.

        What its user wrote without O_DIRECT is written at the last close otherwise, and that close
        then takes long. Ends by itself, after 300 s at the latest. False when nothing was begun:
        there is no such device, it is suspended, or enough is going on.
        """

    # --- nodes, links, folders ---------------------------------------------------------------

    def ensure_node(self, device: DeviceNumber, path: Path) -> bool:
        """Make the block device node if it is missing (no devtmpfs). False if it was there."""

    def put_link(self, path: Path, target: str, *, replaces: str | None) -> bool:
        """Make `path` a symlink to `target`, atomically. False if it is that already.

        Args:
            path: where; its parent must exist.
            target: the literal text of the symlink.
            replaces: the text of the symlink that may be replaced, or None if nothing may be
                there. Anything else in place raises ForeignDevice and stays as it is.

        Durable where it replaces: else a power cut brings a text back that no record knows.
        """

    def drop_link(self, path: Path, target: str) -> bool:
        """Remove the symlink at `path` if its text is `target`. False if nothing is there.

        Durable: after a power cut nobody would look for a link of a disk that is removed.
        Anything else in place raises ForeignDevice and stays as it is.
        """

    def put_node(self, jail: Jail, device: DeviceNumber, *, replaces: DeviceNumber | None) -> bool:
        """Make a jail's node lead to a device, atomically: the jail's owner and group, 0600.

        False if it is all that already. A node of the same number, or of `replaces`, is replaced;
        anything else in place raises ForeignDevice and stays as it is. PermanentError (no-node)
        where the mount, which is named, or the privileges allow none. Durable where it replaces.
        """

    def drop_node(self, path: Path, device: DeviceNumber) -> bool:
        """Remove the block device node at `path` if it is of this number. False if none is there.

        Durable. Anything else in place raises ForeignDevice and stays as it is.
        """

    def make_folder(self, path: Path) -> bool:
        """Make one folder, 0755. False if it exists."""

    def remove_folder(self, path: Path) -> bool:
        """Remove one folder if it is empty, durable. False if it is not, or is gone."""
