"""Everybody but byre: what VMMs, administrators and power cuts do to the simulated host.

These are no calls of the port: they pass no faults, count as no crash points, and raise OSError
like the programs they stand for (dd, dmsetup, losetup, rm).
May be imported by the rooms of `sim` only; its methods are `SimKernel`'s.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self

from reconciler.kernel.sim import filecalls
from reconciler.kernel.sim.files import (
    BlockNode,
    File,
    Folder,
    Node,
    Symlink,
    os_error,
)
from reconciler.kernel.sim.host import Host
from reconciler.kernel.sim.loops import LoopDevice
from reconciler.kernel.sim.mapper import MappedDevice
from reconciler.kernel.sim.snapshot import Zero
from statemachine.observed import DeviceNumber, Holder, LinkObservation
from statemachine.units import Bytes, Sectors

SOMEBODY: Final = Holder(kind="process", name="sim-user", pid=4242)
_FOREIGN_SECTORS: Final = Sectors(2048)

_Opened = File | LoopDevice | MappedDevice


class Handle:
    """Something that a user has open; closed once, by `close` or by the end of a `with`."""

    __slots__ = ("_boot", "_close", "_host")

    def __init__(self, host: Host, close: Callable[[], None]) -> None:
        self._host = host
        self._boot = host.boot
        self._close: Callable[[], None] | None = close

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go; a loop with autoclear may go with it. Once more is harmless."""
        with self._host.entered():
            close, self._close = self._close, None
            if close is not None and self._boot == self._host.boot:
                close()


class UserSide:
    """The part of `SimKernel` that is not the port."""

    def __init__(self, host: Host) -> None:
        self.host = host

    # --- reading, writing, holding ------------------------------------------------------------

    def open(self, path: Path | str, *, write: bool = False, holder: Holder = SOMEBODY) -> Handle:
        """Open a file or device, as a VMM does; it is in use until the handle is closed."""
        del write  # a read-only device can be opened for writing; the write fails
        with self.host.entered():
            opened = self._find(path)
            if isinstance(opened, File):
                opened.users += 1
                self.host.open_files.append(opened)
                return Handle(self.host, lambda: self._close_file(opened))
            opened.handles.append(holder)
            return Handle(self.host, lambda: self._close_device(opened, holder))

    def read(self, path: Path | str, offset: int, length: int) -> bytes:
        """Read from a file or device, through links; a file may give less at its end.

        Raises:
            OSError: EIO from a device that cannot; EAGAIN from a suspended one.
        """
        with self.host.entered():
            return self._find(path).read(offset, length)

    def write(self, path: Path | str, offset: int, data: bytes) -> None:
        """Write to a file or device; it has reached the device when this returns.

        Raises:
            OSError: EPERM to a read-only loop, EIO from a device that cannot, ENOSPC of a file.
        """
        with self.host.entered():
            opened = self._find(path)
            if isinstance(opened, File):
                opened.write(offset, data, self.host.now_ns())
            elif isinstance(opened, MappedDevice):
                self.host.mapper.write(opened, offset, data)
            elif opened.read_only:
                raise os_error(errno.EPERM, path)
            else:
                opened.write(offset, data)

    def sync(self) -> None:
        """Make everything written so far survive a power cut."""
        with self.host.entered():
            self.host.sync_all()

    # --- files --------------------------------------------------------------------------------

    def make_file(self, path: Path | str, size: Bytes | int, content: bytes = b"") -> Path:
        """Make a file, durable, in folders made as needed; EEXIST if there is one."""
        with self.host.entered():
            folder = self.host.tree.make_folders(Path(path).parent, self.host.now_ns())
            file = File(folder.fs, str(path), self.host.now_ns())
            self.host.tree.add(path, file)
            file.write(0, content, self.host.now_ns())
            file.truncate(int(size), self.host.now_ns())
            file.sync()
            self._sync_way_to(Path(path))
        return Path(path)

    def replace_file(self, path: Path | str, size: Bytes | int, content: bytes = b"") -> Path:
        """Put another file in the place of one: the name stays, the inode does not."""
        self.delete(path)
        return self.make_file(path, size, content)

    def delete(self, path: Path | str) -> None:
        """Delete a file, link or node by its name: rm."""
        with self.host.entered():
            self.host.tree.unlink(path).sync()

    def mount(self, path: Path | str, capacity: Bytes | None, *, reflink: bool = False) -> Path:
        """Make a new folder a file system of its own, with so much room."""
        with self.host.entered():
            self.host.mount(str(path), capacity, reflink=reflink)
        return Path(path)

    def has_room(self, path: Path | str) -> bool:
        """Tell whether another page fits on the file system of a path."""
        with self.host.entered():
            return self.host.tree.get(path).fs.available_pages > 0

    def set_capacity(self, path: Path | str, capacity: Bytes) -> None:
        """Change the room of the file system that a path is on."""
        with self.host.entered():
            self.host.tree.get(path).fs.resize(capacity)

    def set_readable(self, path: Path | str, *, readable: bool) -> None:
        """Let this process open a file, or not (EACCES)."""
        with self.host.entered():
            change = self.host.unreadable.discard if readable else self.host.unreadable.add
            change(str(path))

    def move(self, path: Path | str, target: Path | str) -> None:
        """Give a file another name on the same file system: mv -n. EEXIST if that is taken."""
        with self.host.entered():
            place = self.host.tree.place(path)
            if place.node is None:
                raise os_error(errno.ENOENT, path)
            self.host.tree.add(target, place.node)
            place.folder.take(place.name)
            place.node.path = str(target)
            place.folder.sync()
            self.host.tree.place(target).folder.sync()

    def make_folder_by_hand(self, path: Path | str) -> None:
        """Make a folder and its missing parents, durable: mkdir -p."""
        with self.host.entered():
            self.host.tree.make_folders(path, self.host.now_ns())
            self._sync_way_to(Path(path))

    def remove_folder_by_hand(self, path: Path | str) -> None:
        """Remove an empty folder, durable: rmdir. ENOENT, ENOTDIR, ENOTEMPTY."""
        with self.host.entered():
            folder = self.host.tree.get(path, follow=False)
            if not isinstance(folder, Folder):
                raise os_error(errno.ENOTDIR, path)
            if folder.entries:
                raise os_error(errno.ENOTEMPTY, path)
            place = self.host.tree.place(path)
            place.folder.take(place.name).unlinked()
            place.folder.sync()

    def look_at_link(self, path: Path | str) -> LinkObservation:
        """Return what is at a path: readlink and stat."""
        with self.host.entered():
            return filecalls.read_link(self.host, Path(path))

    # --- devices ------------------------------------------------------------------------------

    def names_in(self, path: Path | str) -> tuple[str, ...]:
        """Return the sorted names in a folder; empty when it does not exist: ls -A."""
        with self.host.entered():
            return filecalls.list_folder(self.host, Path(path))

    def flush(self, path: Path | str) -> None:
        """Make what was written to a file or device survive a power cut: fsync."""
        with self.host.entered():
            opened = self._find(path)
            if isinstance(opened, File):
                opened.sync()
            elif isinstance(opened, LoopDevice):
                opened.flush()
            elif opened.live is not None:
                opened.live.flush()

    def rename_dm_by_hand(self, name: str, new: str) -> None:
        """Rename a dm device and its link: dmsetup rename. ENXIO; EBUSY if the name is taken."""
        with self.host.entered():
            device = self._dm(name)
            self.host.mapper.rename(device, new)
            link = f"/dev/mapper/{name}"
            if isinstance(self.host.tree.find(link), Symlink):
                self.host.tree.unlink(link)
            self.host.udev_link(device)

    def resume_dm_by_hand(self, name: str) -> None:
        """Resume a dm device: dmsetup resume. ENXIO."""
        with self.host.entered():
            self.host.mapper.resume(self._dm(name))

    def remove_dm_by_hand(self, name: str) -> None:
        """Remove a dm device and its link: dmsetup remove. ENXIO, EBUSY."""
        with self.host.entered():
            device = self._dm(name)
            link = f"/dev/mapper/{name}"
            self.host.remove_dm(device)
            if self.host.tree.find(link) is not None:
                self.host.tree.unlink(link)

    def suspend_dm_by_hand(self, name: str) -> None:
        """Suspend a dm device: dmsetup suspend. ENXIO."""
        with self.host.entered():
            self.host.mapper.suspend(self._dm(name))

    def detach_loop_by_hand(self, number: int) -> bool:
        """Detach a loop: losetup -d, which says yes also when it only sets autoclear.

        Returns:
            Whether it is detached. Raises OSError (ENXIO) if it was not bound.
        """
        with self.host.entered():
            loop = self.host.loops.get(number)
            if loop is None:
                raise os_error(errno.ENXIO, f"loop{number}")
            return self.host.loops.clear(loop)

    def add_foreign_dm(self, name: str, *, uuid: str = "") -> DeviceNumber:
        """Make a dm device that is not byre's, with a link: dmsetup create, 1 MiB of zeros."""
        with self.host.entered():
            device = self.host.mapper.create(name, uuid)
            self.host.mapper.put_inactive(device, Zero(_FOREIGN_SECTORS))
            self.host.mapper.resume(device)
            self.host.udev_link(device)
            return device.number

    def add_foreign_loop(self, path: Path | str, *, read_only: bool = False) -> int:
        """Put a loop on a file by hand, losetup -f; returns its number."""
        with self.host.entered():
            file = self._find(path)
            if not isinstance(file, File):
                raise os_error(errno.EINVAL, path)
            marker = str(path)[:63]
            return self.host.loops.attach(file, marker=marker, read_only=read_only).number

    def reboot(self, *, lose_unsynced: bool = False, renumber: bool = False) -> None:
        """Reboot: processes, devices, loops and /dev are gone, files stay; boot_id changes.

        Args:
            lose_unsynced: a power cut: what was not synced is gone.
            renumber: file systems get another st_dev.
        """
        with self.host.entered():
            self.host.reboot(lose_unsynced=lose_unsynced, renumber=renumber)

    def subscribe(self, wake_up: Callable[[str], None]) -> Callable[[], None]:
        """Tell somebody the kernel name ("dm-3", "loop2") of each device that changes.

        Called after the change, outside of the lock, in the thread that made it.

        Returns:
            What ends the subscription.
        """
        return self.host.subscribe(wake_up)

    # --- helpers ------------------------------------------------------------------------------

    def _sync_way_to(self, path: Path) -> None:
        """Make a name and those of all folders above it durable, as fsync of a new file does."""
        for parent in path.parents:
            folder = self.host.tree.get(parent)
            if isinstance(folder, Folder):
                folder.sync()

    def _dm(self, name: str) -> MappedDevice:
        device = self.host.mapper.by_name(name)
        if device is None:
            raise os_error(errno.ENXIO, name)
        return device

    def _find(self, path: Path | str) -> _Opened:
        node: Node = self.host.tree.get(path)
        if isinstance(node, File):
            return node
        if not isinstance(node, BlockNode):
            raise os_error(errno.EISDIR, path)
        device = self.host.device_of(node.number)
        if device is None:
            raise os_error(errno.ENXIO, path)
        return device

    def _close_file(self, file: File) -> None:
        self.host.open_files.remove(file)
        file.release()

    def _close_device(self, device: LoopDevice | MappedDevice, holder: Holder) -> None:
        device.handles.remove(holder)
        if isinstance(device, LoopDevice):
            self.host.loops.released(device)
