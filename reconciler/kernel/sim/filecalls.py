"""The port's calls on files, folders and links, on the simulated tree.

Each does what its namesake in `reconciler.kernel.files`, `clone` and `links` does on a real one,
errnos included. Raises OSError, IdentityMismatch and ForeignDevice; called with the lock held.
May be imported by the rooms of `sim` only.
"""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Final

from reconciler.kernel.files import parse_header
from reconciler.kernel.port import CloneMethod, CowHeader, FreeSpace
from reconciler.kernel.sim.files import (
    PAGE_BYTES,
    BlockNode,
    File,
    Folder,
    Node,
    Symlink,
    in_bytes,
    os_error,
)
from reconciler.kernel.sim.host import Host
from statemachine.errors import ForeignDevice, IdentityMismatch
from statemachine.fileidentity import FileIdentity
from statemachine.observed import DeviceNumber, LinkKind, LinkObservation
from statemachine.units import Bytes

_HEADER_BYTES: Final = 16
_MISSING: Final = LinkObservation(kind=LinkKind.MISSING)
_KINDS: Final[dict[type[Node], str]] = {File: "file", Folder: "folder", BlockNode: "device"}


def identify(host: Host, path: Path, *, follow: bool) -> FileIdentity | None:
    """Return which file is at a path, None if there is none."""
    node = host.tree.find(path, follow=follow)
    return None if node is None else identity(host, node)


def identity(host: Host, node: Node) -> FileIdentity:
    """Return what stat would say of a node; for a device, with the device's size."""
    size = 0
    if isinstance(node, File):
        size = node.size
    elif isinstance(node, BlockNode):
        size = host.device_bytes(node.number)
    return FileIdentity(
        device=node.fs.device,
        inode=node.inode,
        size=in_bytes(size),
        mtime_ns=node.mtime_ns,
        kind=_KINDS.get(type(node), "other"),
    )


def readable(host: Host, path: Path) -> bool:
    """Tell whether the file is there and not made unreadable by the test."""
    return str(path) not in host.unreadable and host.tree.find(path, follow=True) is not None


def files_in(host: Host, folder: Path) -> dict[str, FileIdentity]:
    """Return what is in a folder, by name."""
    node = host.tree.find(folder, follow=True)
    entries = node.entries if isinstance(node, Folder) else {}
    return {name: identity(host, each) for name, each in sorted(entries.items())}


def is_open(host: Host, path: Path) -> bool:
    """Tell whether anybody has a file open; True for what is no file."""
    node = host.tree.find(path)
    return not isinstance(node, File) or node.users > 0


def list_folder(host: Host, path: Path) -> tuple[str, ...]:
    """Return the sorted names in a folder; empty when it does not exist."""
    try:
        node = host.tree.get(path)
    except FileNotFoundError:
        return ()
    if not isinstance(node, Folder):
        raise os_error(errno.ENOTDIR, path)
    return tuple(sorted(node.entries))


def cow_header(host: Host, path: Path, chunk: Bytes) -> CowHeader:
    """Say what the first 16 bytes of a file are."""
    node = host.tree.find(path)
    if node is None:
        return CowHeader.MISSING
    if not isinstance(node, File):
        return CowHeader.FOREIGN
    _may_open(host, path)
    return parse_header(node.read(0, _HEADER_BYTES), chunk)


def allocated(host: Host, path: Path) -> Bytes:
    """Return the room that a file's pages take."""
    node = host.tree.find(path)
    return Bytes(len(node.pages) * PAGE_BYTES if isinstance(node, File) else 0)


def shares_blocks(host: Host, path: Path) -> bool:
    """Tell whether a copy of a file in its folder would be a reflink."""
    return host.tree.get(path).fs.reflink


def free_space(host: Host, path: Path) -> FreeSpace:
    """Return the room on the file system of the nearest existing parent."""
    node = host.tree.find(path, follow=True)
    while node is None:
        path = path.parent
        node = host.tree.find(path, follow=True)
    return FreeSpace(
        available=Bytes(node.fs.available_pages * PAGE_BYTES),
        total=Bytes(node.fs.capacity_pages * PAGE_BYTES),
    )


def create_sparse(host: Host, path: Path, size: Bytes) -> FileIdentity:
    """Make a new sparse file, durable."""
    folder = host.tree.make_folders(path.parent, host.now_ns())
    file = File(folder.fs, str(path), host.now_ns())
    host.tree.add(path, file)
    file.truncate(size.count, host.now_ns())
    file.sync()
    folder.sync()
    return identity(host, file)


def grow_file(host: Host, path: Path, expected: FileIdentity, size: Bytes) -> bool:
    """Make a file this large, durable; False if it is as large already."""
    file = host.tree.get(path)
    check_identity(path, file, expected)
    if not isinstance(file, File):
        raise os_error(errno.EISDIR, path)
    if file.size >= size.count:
        return False
    file.truncate(size.count, host.now_ns())
    file.sync()
    return True


def sync_file(host: Host, path: Path, expected: FileIdentity) -> None:
    """Make the content of a file survive a power cut, and the name of a new one."""
    place = host.tree.place(path)
    file = host.tree.get(path)
    check_identity(path, file, expected)
    if not isinstance(file, File):
        raise os_error(errno.EISDIR, path)
    file.sync()
    place.folder.sync_name(place.name)


def clone_file(
    host: Host,
    source: Path,
    target: Path,
    size: Bytes,
    expected: FileIdentity | None,
    *,
    durable: bool = True,
) -> CloneMethod:
    """Make a private copy of a file, durable if so wanted; nothing is left of one that failed."""
    folder = host.tree.make_folders(target.parent, host.now_ns())
    if host.tree.find(target) is not None:
        raise os_error(errno.EEXIST, target)
    base = host.tree.get(source)
    _may_open(host, source)
    if not isinstance(base, File):
        raise os_error(errno.EINVAL, source)
    if expected is not None:
        check_identity(source, base, expected)
    if base.size > size.count:
        raise os_error(errno.EFBIG, source)
    shared = base.fs is folder.fs and base.fs.reflink
    copy = File(folder.fs, str(target), host.now_ns())
    try:
        copy.copy_pages(base, shared=shared, now_ns=host.now_ns())
    except OSError:
        copy.unlinked()
        raise
    copy.truncate(size.count, host.now_ns())
    host.tree.add(target, copy)
    if durable:
        copy.sync()
        folder.sync()
    return CloneMethod.REFLINK if shared else CloneMethod.SPARSE_COPY


def rename_over(
    host: Host, source: Path, target: Path, *, expected: FileIdentity, replaces: FileIdentity
) -> bool:
    """Rename a file over another in one step, durable. False if it was done before."""
    there = host.tree.find(target)
    if there is not None and (there.fs.device, there.inode) == (expected.device, expected.inode):
        return False
    if there is not None:
        check_identity(target, there, replaces)
    file = host.tree.get(source)
    check_identity(source, file, expected)
    host.tree.rename(source, target).sync()
    return True


def remove_file(host: Host, path: Path, expected: FileIdentity) -> bool:
    """Unlink a file if it is still the expected one, durable. False if it is gone."""
    node = host.tree.find(path)
    if node is None:
        return False
    check_identity(path, node, expected)
    host.tree.unlink(path).sync()
    return True


def open_for_loop(host: Host, path: Path, expected: FileIdentity, *, read_only: bool) -> File:
    """Open a file that shall be put on a loop device, and check that it is the expected one."""
    node = host.tree.get(path, follow=read_only)
    if isinstance(node, Symlink):
        raise os_error(errno.ELOOP, path)
    _may_open(host, path)
    if isinstance(node, Folder) and not read_only:
        raise os_error(errno.EISDIR, path)
    check_identity(path, node, expected)
    if not isinstance(node, File):
        raise os_error(errno.EINVAL, path)
    return node


def check_identity(path: Path, node: Node, expected: FileIdentity) -> None:
    """Raise IdentityMismatch if a node is not the file that was meant."""
    if (node.fs.device, node.inode) != (expected.device, expected.inode):
        raise IdentityMismatch(
            f"{path} is device {node.fs.device}, inode {node.inode} now, not "
            f"device {expected.device}, inode {expected.inode}",
        )


def read_link(host: Host, path: Path) -> LinkObservation:
    """Return what is at a path, without following it."""
    try:
        node = host.tree.place(path).node
    except NotADirectoryError:
        return LinkObservation(kind=LinkKind.OCCUPIED)
    except FileNotFoundError:
        missing = [str(parent) for parent in path.parents if host.tree.find(parent) is None]
        return LinkObservation(kind=LinkKind.MISSING, missing_parents=tuple(reversed(missing)))
    if node is None:
        return _MISSING
    if isinstance(node, Symlink):
        return LinkObservation(kind=LinkKind.SYMLINK, target=node.target)
    if isinstance(node, BlockNode):
        return LinkObservation(kind=LinkKind.DEVICE, target=str(node.number))
    return LinkObservation(kind=LinkKind.OCCUPIED)


def links_in(host: Host, folder: Path) -> dict[str, str]:
    """Return the texts of the symlinks in a folder, by name."""
    node = host.tree.find(folder, follow=True)
    entries = node.entries if isinstance(node, Folder) else {}
    return {name: each.target for name, each in entries.items() if isinstance(each, Symlink)}


def put_link(host: Host, path: Path, target: str, *, replaces: str | None) -> bool:
    """Make `path` a symlink to `target`. False if it is that already."""
    there = read_link(host, path)
    if there.kind is LinkKind.SYMLINK and there.target == target:
        return False
    if there.kind is LinkKind.SYMLINK and there.target == replaces:
        host.tree.unlink(path)
    elif there.kind is not LinkKind.MISSING:
        raise _foreign(path, there)
    place = host.tree.place(path)
    host.tree.add(path, Symlink(place.folder.fs, str(path), host.now_ns(), target))
    if there.kind is LinkKind.SYMLINK:
        place.folder.sync()
    return True


def drop_link(host: Host, path: Path, target: str) -> bool:
    """Remove the symlink at `path` if its text is `target`. False if nothing is there."""
    there = read_link(host, path)
    if there.kind is LinkKind.MISSING:
        return False
    if there.kind is not LinkKind.SYMLINK or there.target != target:
        raise _foreign(path, there)
    host.tree.unlink(path).sync()
    return True


def ensure_node(host: Host, device: DeviceNumber, path: Path) -> bool:
    """Make the block device node if it is missing. False if it is there."""
    there = read_link(host, path)
    if there.kind is LinkKind.DEVICE and there.target == str(device):
        return False
    if there.kind is not LinkKind.MISSING:
        raise _foreign(path, there)
    place = host.tree.place(path)
    host.tree.add(path, BlockNode(place.folder.fs, str(path), host.now_ns(), device))
    return True


def make_folder(host: Host, path: Path) -> bool:
    """Make one folder. False if it exists."""
    if isinstance(host.tree.find(path, follow=True), Folder):
        return False
    place = host.tree.place(path)
    host.tree.add(path, Folder(place.folder.fs, str(path), host.now_ns()))
    return True


def remove_folder(host: Host, path: Path) -> bool:
    """Remove one folder if it is empty. False if it is not, or is gone."""
    place = host.tree.place(path) if host.tree.find(path.parent, follow=True) else None
    if place is None or place.node is None:
        return False
    if not isinstance(place.node, Folder):
        raise os_error(errno.ENOTDIR, path)
    if place.node.entries:
        return False
    place.folder.take(place.name).unlinked()
    place.folder.sync()
    return True


def _may_open(host: Host, path: Path) -> None:
    if str(path) in host.unreadable:
        raise os_error(errno.EACCES, path)


def _foreign(path: Path, there: LinkObservation) -> ForeignDevice:
    what = f"{there.kind} {there.target}".strip()
    return ForeignDevice(f"{path} is not byre's: there is a {what}")
