"""The Kernel port on a real Linux: each method delegates to one room and names what it does.

`files`, `clone`, `links`, `nodes`, `loopdev`, `dm` and `holders` do the work and raise OSError;
here every OSError becomes an `ActionError` that says which action on which object failed, and here
a dm device is checked to be the one that was meant before it is removed. No subprocess, no
libdevmapper, no waiting for udev.

One `LinuxKernel` may be used by any number of threads: it holds paths, the two control nodes, the
boot id, and for a while what it found out of the host's capabilities.
May be imported by the command line, the daemon and the contract suite; all else knows the port.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from reconciler.kernel import files, links, nodes, occupied, safepath
from reconciler.kernel.able import NO_DEVICE_MAPPER, Abilities
from reconciler.kernel.compaction import StoreFiles
from reconciler.kernel.copies import CopySide
from reconciler.kernel.dm import DeviceMapper
from reconciler.kernel.dmstruct import Flag, Reply
from reconciler.kernel.flushing import Flushes
from reconciler.kernel.holders import HolderFinder
from reconciler.kernel.images import LinuxImages
from reconciler.kernel.ioctl import failing, refuse
from reconciler.kernel.loopdev import LoopDevices
from reconciler.kernel.port import Capabilities, CowHeader, DmName, FreeSpace, Kernel
from statemachine.errors import ForeignDevice, IdentityMismatch, RefusedError, from_oserror
from statemachine.fileidentity import FileIdentity
from statemachine.jail import Jail
from statemachine.names import UUID_PREFIX
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
from statemachine.units import DEFAULT_CHUNK, Bytes

_IN_USE: Final = "`byre explain` names who holds it"


class LinuxKernel(CopySide, StoreFiles, LinuxImages, Kernel):
    """The port on system calls; see `port` for each method's contract."""

    def __init__(
        self, *, dev: Path = Path("/dev"), sys: Path = Path("/sys"), proc: Path = Path("/proc")
    ) -> None:
        """Take the three kernel file systems; tests give others. Opens nothing."""
        self._dev = dev
        self._sys = sys
        self._proc = proc
        self._loops = LoopDevices(dev=dev, sys=sys)
        self._dm = DeviceMapper(control=dev / "mapper" / "control")
        self._able = Abilities(self._dm, self._loops, dev=dev, proc=proc)
        self._flushes = Flushes(self._dm, dev)
        self._holders = HolderFinder(proc=proc, sys=sys, own=self._flushes.descriptors)
        self._boot_id = ""

    # --- questions ---------------------------------------------------------------------------

    def capabilities(self) -> Capabilities:
        """Say what works here; what lacks something is soon asked anew, as modules come."""
        return self._able.found()

    def boot_id(self) -> str:
        """Return which boot this is."""
        if not self._boot_id:
            with failing("read the boot id"):
                self._boot_id = (self._proc / "sys/kernel/random/boot_id").read_text().strip()
        return self._boot_id

    def identify(self, path: Path, *, follow: bool = False) -> FileIdentity | None:
        """Return which file is at a path, None if there is none."""
        try:
            return files.identify(path, follow=follow, sys=self._sys)
        except OSError as error:
            raise from_oserror(error, f"look at {path}") from error

    def readable(self, path: Path) -> bool:
        """Tell whether this process can open the file for reading."""
        with failing(f"open {path}"):
            return files.readable(path)

    def is_open(self, path: Path) -> bool:
        """Tell whether anybody has a file open; True when that cannot be told."""
        with failing(f"ask who has {path} open"):
            return files.is_open(path)

    def list_folder(self, path: Path) -> tuple[str, ...]:
        """Return the sorted names in a folder; empty when it does not exist."""
        with failing(f"list the folder {path}"):
            return files.list_folder(path)

    def cow_header(self, path: Path, chunk: Bytes = DEFAULT_CHUNK) -> CowHeader:
        """Read the first 16 bytes of a CoW file with such chunks and say what they are."""
        try:
            return files.cow_header(path, chunk)
        except OSError as error:
            raise from_oserror(error, f"read the header of {path}") from error

    def allocated(self, path: Path | str) -> Bytes:
        """Return how many bytes a file occupies; 0 when it is missing."""
        with failing(f"look at {path}"):
            return occupied.allocated(path)

    def free_space(self, path: Path) -> FreeSpace:
        """Return the room on the file system of the nearest existing parent of a path."""
        try:
            return files.free_space(path)
        except OSError as error:
            raise from_oserror(error, f"ask for the free space at {path}") from error

    def loops(self) -> tuple[Loop, ...]:
        """Return all bound loop devices, by number; ones that cannot be read are skipped."""
        with failing("list the loop devices"):
            looked = (self._loops.look(number) for number in self._loops.bound())
            return tuple(loop for loop in looked if loop is not None)

    def loop_numbers(self) -> tuple[int, ...]:
        """Return the numbers of all bound loop devices, in order; asks no device."""
        return self._loops.bound()

    def loop(self, number: int, *, named: bool = True) -> Loop | None:
        """Return one loop device if it is bound; costs the same however many there are."""
        try:
            return self._loops.look(number, named=named)
        except OSError as error:
            raise from_oserror(error, f"look at /dev/loop{number}") from error

    def dm_names(self) -> tuple[DmName, ...]:
        """Return all dm devices of the host, ours or not; empty without device-mapper."""
        with failing("list the dm devices"):
            try:
                return self._dm.names()
            except OSError as error:
                if self._able.is_without_dm(error):
                    return ()
                raise

    def dm(self, name: str) -> DmDevice | None:
        """Return one dm device with its table and status; no flush, no wait."""
        try:
            return self._dm.look(name)
        except OSError as error:
            with failing(f"look at dm device {name}"):
                if self._able.is_without_dm(error):
                    return None
                raise

    def dm_devices(self) -> tuple[DmDevice, ...]:
        """Return all dm devices with a UUID of ours, with table and status."""
        with failing("look at the dm devices"):
            try:
                return self._dm.ours(UUID_PREFIX)
            except OSError as error:
                if error.errno in NO_DEVICE_MAPPER:
                    return ()
                raise

    def files_in(self, folder: Path) -> Mapping[str, FileIdentity]:
        """Return what is in a folder, by name; nothing when it does not exist."""
        with failing(f"look into the folder {folder}"):
            return files.files_in(folder, sys=self._sys)

    def links_in(self, folder: Path) -> Mapping[str, str]:
        """Return the texts of the symlinks in a folder, by name."""
        with failing(f"look into the folder {folder}"):
            return links.links_in(folder)

    def read_link(self, path: Path) -> LinkObservation:
        """Return what is at a path where a link or node should be, without following it."""
        try:
            return links.read_link(path)
        except OSError as error:
            raise from_oserror(error, f"look at {path}") from error

    def real_path(self, path: Path) -> Path:
        """Return a path with all its symlinks resolved; what is missing stays as it is said."""
        with failing(f"resolve {path}"):
            return Path(os.path.realpath(path))

    def holders(self, device: DeviceNumber) -> tuple[Holder, ...]:
        """Return who has a device open: processes, mounts, swap, dm devices above."""
        return self._holders.find(device)

    # --- files -------------------------------------------------------------------------------

    def create_sparse(self, path: Path, size: Bytes) -> FileIdentity:
        """Make a new sparse file of this size, 0600, durable with its folder entry."""
        with failing(f"create the file {path}"):
            return files.create_sparse(path, size, sys=self._sys)

    def grow_file(self, path: Path, expected: FileIdentity, size: Bytes) -> bool:
        """Make a file this large if it is still the expected one. False if it is already."""
        with failing(f"grow the file {path} to {size.count} bytes"):
            return files.grow_file(path, expected, size)

    def sync_file(self, path: Path, expected: FileIdentity) -> None:
        """Make what was written to a file survive a power cut, through a loop device as well."""
        with failing(f"sync the file {path}"):
            files.sync_file(path, expected)

    def remove_file(self, path: Path, expected: FileIdentity) -> bool:
        """Unlink a file if it is still the expected one; durable. False if gone."""
        with failing(f"remove the file {path}"):
            return files.remove_file(path, expected)

    def move_file(self, path: Path, target: Path, expected: FileIdentity) -> bool:
        """Give a file another name if it is still the expected one. False if it has it already."""
        with failing(f"move the file {path} to {target}"):
            return files.move_file(path, target, expected)

    # --- loop devices ------------------------------------------------------------------------

    def loop_attach(
        self, path: Path, expected: FileIdentity, *, marker: str, read_only: bool
    ) -> Loop:
        """Bind a free loop device to a file that is still the expected one.

        A base (read-only) may be behind a symlink, our own files may not; what is bound is the
        open descriptor whose identity was checked, whatever the path says meanwhile.
        """
        flags = os.O_RDONLY if read_only else os.O_RDWR
        opening = safepath.regular(path, flags, follow=read_only)
        with self._using(f"attach a loop device to {path}"), opening as file:
            found = os.fstat(file)
            if not files.same_inode(found, expected):
                raise files.mismatch(path, found, expected)
            known = "" if read_only else str(path)  # no symlink: it was not followed
            return self._loops.attach(file, path=known, marker=marker, read_only=read_only)

    def loop_set_autoclear(self, loop: Loop) -> bool:
        """Let the kernel detach this loop when its last opener goes. False if it was set."""
        with failing(f"set autoclear on {loop.path}"):
            return self._loops.set_autoclear(loop)

    def loop_keep(self, loop: Loop) -> bool:
        """Take autoclear back: the loop stays when its last opener goes. False if it is gone."""
        with failing(f"take autoclear of {loop.path} back"):
            return self._loops.keep(loop)

    def loop_grow(self, loop: Loop) -> bool:
        """Give a loop the size that its file has by now. False if it had it."""
        with failing(f"grow {loop.path} with {loop.backing_path}"):
            return self._loops.grow(loop)

    def loop_set_direct_io(self, loop: Loop, *, on: bool) -> bool:
        """Have a loop go past the page cache, or not. False if it did so already, or is gone."""
        with failing(f"turn direct IO of {loop.path} {'on' if on else 'off'}"):
            return self._loops.set_direct_io(loop, on=on)

    def loop_detach(self, loop: Loop) -> bool:
        """Detach a loop if it still backs the same file. False if it does not exist any more."""
        with failing(f"detach {loop.path} from {loop.backing_path}", hint=_IN_USE):
            return self._loops.detach(loop)

    # --- device-mapper -----------------------------------------------------------------------

    def dm_create(self, name: str, uuid: str) -> DeviceNumber:
        """Make a dm device without a table; EBUSY (transient) if the name or UUID exists."""
        with self._using(f"create dm device {name}"):
            return self._dm.create(name, uuid)

    def dm_load(self, uuid: str, table: SnapshotTable | OriginTable) -> None:
        """Load a table into the inactive slot; opens the devices named in it."""
        with self._using(f"load a table into dm device {uuid}"):
            self._dm.load(uuid, table)

    def dm_resume(self, uuid: str) -> bool:
        """Make the loaded table live, or resume a suspended device. False if it was so."""
        doing = f"resume dm device {uuid}"
        with failing(doing):
            info = self._info(uuid)
            if not (info.has(Flag.ACTIVE_PRESENT) or info.has(Flag.INACTIVE_PRESENT)):
                raise refuse(errno.EINVAL, doing, hint="it has no table; load one first")
            if not (info.has(Flag.SUSPEND) or info.has(Flag.INACTIVE_PRESENT)):
                return False
            self._dm.resume(uuid)
        return True

    def dm_suspend(self, uuid: str) -> bool:
        """Stop IO, once what is in flight is done. False if it was suspended."""
        with failing(f"suspend dm device {uuid}"):
            if self._info(uuid).has(Flag.SUSPEND):
                return False
            self._dm.suspend(uuid)
        return True

    def dm_give_uuid(self, name: str, device: DeviceNumber, uuid: str) -> bool:
        """Give a device without a UUID one, under its users. False if it has this one."""
        doing = f"give dm device {name} the UUID {uuid}"
        with failing(doing):
            info = self._dm.info(name=name)
            if info is None:
                raise refuse(errno.ENXIO, doing, hint="it is gone; look again")
            if info.device != device or info.uuid not in ("", uuid):
                raise _not_that_device(name, f"{info.uuid} ({info.device})", f"{uuid} ({device})")
            if not info.uuid:
                self._dm.give_uuid(name, uuid)
        return not info.uuid

    def dm_flush(self, uuid: str) -> None:
        """Have what the host holds in its cache of a device written to it."""
        with failing(f"flush dm device {uuid}"):
            self._flushes.flush(uuid)

    def dm_remove(self, name: str, uuid: str) -> bool:
        """Remove the device of this name if it has this UUID. False if there is none."""
        with failing(f"remove dm device {name}", hint=_IN_USE):
            info = self._dm.info(name=name)
            if info is None:
                return False
            if info.uuid != uuid:
                raise _not_that_device(name, info.uuid, uuid)
            try:
                self._dm.remove(uuid)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    return False
                raise
        return True

    def flush_ahead(self, uuid: str) -> bool:
        """Begin to write what the page cache holds for a device in use, and return at once."""
        with failing(f"flush dm device {uuid}"):
            return self._flushes.start(uuid)

    # --- nodes, links, folders ---------------------------------------------------------------

    def ensure_node(self, device: DeviceNumber, path: Path) -> bool:
        """Make the block device node if it is missing (no devtmpfs). False if it was there."""
        with failing(f"make the device node {path}"):
            return links.ensure_node(device, path)

    def put_link(self, path: Path, target: str, *, replaces: str | None) -> bool:
        """Make `path` a symlink to `target`, atomically. False if it is that already."""
        with failing(f"link {path} to {target}"):
            return links.put_link(path, target, replaces=replaces)

    def drop_link(self, path: Path, target: str) -> bool:
        """Remove the symlink at `path` if its text is `target`. False if nothing is there."""
        with failing(f"remove the link {path}"):
            return links.drop_link(path, target)

    def look_at_node(self, jail: Jail) -> NodeObservation:
        """Return what is where a jail's node is to be, and what is wrong with the place."""
        with failing(f"look at {jail.path}"):
            return nodes.look_at_node(jail)

    def put_node(self, jail: Jail, device: DeviceNumber, *, replaces: DeviceNumber | None) -> bool:
        """Make a jail's node lead to a device, atomically. False if it does already."""
        with failing(f"make the device node {jail.path}"):
            return nodes.put_node(jail, device, replaces=replaces)

    def drop_node(self, path: Path, device: DeviceNumber) -> bool:
        """Remove the node at `path` if it is of this number. False if none is there."""
        with failing(f"remove the device node {path}"):
            return nodes.drop_node(path, device)

    def make_folder(self, path: Path) -> bool:
        """Make one folder, 0755. False if it exists."""
        with failing(f"make the folder {path}"):
            return files.make_folder(path)

    def remove_folder(self, path: Path) -> bool:
        """Remove one folder if it is empty. False if it is not, or is gone."""
        with failing(f"remove the folder {path}"):
            return files.remove_folder(path)

    # --- helpers -----------------------------------------------------------------------------

    def _using(self, doing: str) -> failing:
        """As `failing`, for what can fail because a driver has gone: then that is asked anew."""
        return failing(doing, then=self._able.forget)

    def _info(self, uuid: str) -> Reply:
        info = self._dm.info(uuid=uuid)
        if info is None:
            raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))
        return info


def _not_that_device(name: str, found: str, expected: str) -> RefusedError:
    message = f"dm device {name} has the UUID {found!r}, not {expected!r}"
    if found.startswith(UUID_PREFIX):
        return IdentityMismatch(message, hint="it is another disk's, or another generation's")
    return ForeignDevice(message, hint="byre did not make it and leaves it alone")
