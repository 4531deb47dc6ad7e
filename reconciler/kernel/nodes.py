"""Device nodes in jails: look, put, drop, and what would be wrong with one.

The jail's user may own the folder that its node is in, and change names there at any moment. So a
node is made beside its place, opened, and given away by its descriptor only if it is the very node
that was just made; then the two names are exchanged, and what came out is looked at. What a jail's
user can break by all that is his own jail.

Raises OSError, ForeignDevice for what is somebody else's, UnsafePath, and PermanentError (no-node)
where no node can be. May be imported by `linux` and tests.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from reconciler.kernel import ioctl, safepath
from reconciler.kernel.holders import unescaped
from reconciler.kernel.links import beside
from reconciler.kernel.newfile import sync_folder
from reconciler.kernel.safepath import Place
from statemachine.errors import ForeignDevice, PermanentError, UnsafePath
from statemachine.jail import Jail
from statemachine.observed import DeviceNumber, LinkKind, NodeObservation

NO_NODE: Final = "no-node"
"""The kind of failure where no device node can be."""
MODE: Final = 0o600
_CAP_MKNOD: Final = 1 << 27  # include/uapi/linux/capability.h
_TRIES_MAX: Final = 3
"""How often the thing at a path may change between looking and acting."""
_HINT: Final = "byre never overwrites it; move it away or choose another node"


def look_at_node(jail: Jail) -> NodeObservation:
    """Return what is where a jail's node is to be, and what is wrong with the place."""
    try:
        missing = _missing_parents(jail.path)
        flaw = _flaw(jail, missing)
        if missing:
            return NodeObservation(kind=LinkKind.MISSING, missing_parents=missing, flaw=flaw)
        with safepath.place(jail.path, own=True, guest=jail.uid) as place:
            return _look(place, flaw)
    except FileNotFoundError:
        return NodeObservation(kind=LinkKind.MISSING)
    except NotADirectoryError:
        return NodeObservation(kind=LinkKind.OCCUPIED)
    except UnsafePath as error:
        return NodeObservation(kind=LinkKind.OCCUPIED, unsafe=error.message)


def put_node(jail: Jail, device: DeviceNumber, *, replaces: DeviceNumber | None) -> bool:
    """Make a jail's node lead to a device, durable if it replaces one. False if it does already.

    Privileges: CAP_MKNOD, CAP_CHOWN.

    Raises:
        ForeignDevice: something else than a node of this number, or of `replaces`, is there.
        UnsafePath: another user could bend the way, or swapped the node while it was made.
        PermanentError: no-node, where the kernel allows none.
        OSError: EINVAL where the file system cannot exchange names, ENOENT without a parent,
            EAGAIN if the path keeps changing.
    """
    with _place(jail) as place:
        for _ in range(_TRIES_MAX):
            there = _look(place)
            if there.kind is LinkKind.MISSING:
                with contextlib.suppress(FileExistsError), _made_beside(place, jail, device) as new:
                    os.link(
                        new.name,
                        place.name,
                        src_dir_fd=new.folder,
                        dst_dir_fd=place.folder,
                        follow_symlinks=False,
                    )
                    return True
            elif _is_right(there, jail, device):
                return False
            elif there.kind is LinkKind.DEVICE and there.number in (str(device), str(replaces)):
                with contextlib.suppress(FileNotFoundError):
                    _exchange(place, jail, device, there)
                    return True
            else:
                raise _foreign(jail.path, there)
    raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN), str(jail.path))


def drop_node(path: Path, device: DeviceNumber) -> bool:
    """Remove the node at `path` if it is of this number, durable. False if nothing is there.

    Raises:
        ForeignDevice: anything else is there.
        UnsafePath: the way to it is not to be passed.
    """
    try:
        with safepath.place(path) as place:
            _clear_leftover(place)
            there = _look(place)
            if there.kind is LinkKind.MISSING:
                return False
            if there.number != str(device):
                raise _foreign(path, there)
            os.unlink(place.name, dir_fd=place.folder)
            sync_folder(place.folder)
    except FileNotFoundError:
        return False
    except NotADirectoryError as error:
        raise _foreign(path, NodeObservation(kind=LinkKind.OCCUPIED)) from error
    return True


# --- what is wrong with a place ------------------------------------------------------------------


def _flaw(jail: Jail, missing: tuple[str, ...]) -> str:
    """Say why a node could not be made, or not be opened by its user; "" when all is well."""
    for folder in (jail.root, *_inside(jail)):
        if str(folder) in missing:
            break
        with safepath.folder(folder, own=True, guest=jail.uid) as descriptor:
            if not may_search(os.fstat(descriptor), jail.uid, jail.gid):
                return f"uid {jail.uid}, gid {jail.gid} may not search the folder {folder}"
    nearest = Path(missing[0]).parent if missing else jail.path.parent
    with safepath.folder(nearest, own=True, guest=jail.uid) as descriptor:
        if os.fstatvfs(descriptor).f_flag & os.ST_NODEV:
            return f"its mount {mount_of(descriptor)} is nodev: a device node there opens nothing"
        if not _may_make_nodes():
            on = mount_of(descriptor)
            return f"this process may make no device node on its mount {on}: it lacks CAP_MKNOD"
    return ""


def may_search(folder: os.stat_result, uid: int, gid: int) -> bool:
    """Tell whether a user with one group may pass a folder, by its mode."""
    if uid == 0:
        return True
    if folder.st_uid == uid:
        return bool(folder.st_mode & stat.S_IXUSR)
    return bool(folder.st_mode & (stat.S_IXGRP if folder.st_gid == gid else stat.S_IXOTH))


def mount_of(descriptor: int) -> str:
    """Return the mount that an open file is on: where it is, and its type (proc(5))."""
    info = Path(f"/proc/self/fdinfo/{descriptor}").read_text("utf-8")
    number = next(line.split()[1] for line in info.splitlines() if line.startswith("mnt_id:"))
    mounts = Path("/proc/self/mountinfo").read_bytes().decode("utf-8", "replace")
    for line in mounts.split("\n"):
        fields = line.split(" ")
        if fields[0] == number:
            return f"{unescaped(fields[4])} ({fields[fields.index('-') + 1]})"
    return f"number {number}"  # of another namespace, reached by a descriptor


def _may_make_nodes() -> bool:
    for line in Path("/proc/self/status").read_text("utf-8").splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) & _CAP_MKNOD)
    return True  # not to be told; making one will tell


def _inside(jail: Jail) -> tuple[Path, ...]:
    """Return the folders between the root and the node, outermost first."""
    return tuple(jail.root / parent for parent in reversed(jail.node.parents[:-1]))


def _missing_parents(path: Path) -> tuple[str, ...]:
    missing = [str(parent) for parent in path.parents if not os.path.lexists(parent)]
    return tuple(reversed(missing))


# --- one node ------------------------------------------------------------------------------------


def _look(place: Place, flaw: str = "") -> NodeObservation:
    """Return what is at a name in an open folder, without following it."""
    try:
        found = os.stat(place.name, dir_fd=place.folder, follow_symlinks=False)
    except FileNotFoundError:
        return NodeObservation(kind=LinkKind.MISSING, flaw=flaw)
    if stat.S_ISLNK(found.st_mode):
        return NodeObservation(kind=LinkKind.SYMLINK, flaw=flaw)
    if not stat.S_ISBLK(found.st_mode):
        return NodeObservation(kind=LinkKind.OCCUPIED, flaw=flaw)
    return NodeObservation(
        kind=LinkKind.DEVICE,
        number=str(DeviceNumber(os.major(found.st_rdev), os.minor(found.st_rdev))),
        uid=found.st_uid,
        gid=found.st_gid,
        mode=stat.S_IMODE(found.st_mode),
        flaw=flaw,
    )


def _is_right(there: NodeObservation, jail: Jail, device: DeviceNumber) -> bool:
    wanted = (str(device), jail.uid, jail.gid, MODE)
    return (there.number, there.uid, there.gid, there.mode) == wanted


@contextlib.contextmanager
def _place(jail: Jail) -> Iterator[Place]:
    try:
        with safepath.place(jail.path, own=True, guest=jail.uid) as place:
            yield place
    except NotADirectoryError as error:
        raise _foreign(jail.path, NodeObservation(kind=LinkKind.OCCUPIED)) from error


@contextlib.contextmanager
def _made_beside(place: Place, jail: Jail, device: DeviceNumber) -> Iterator[Place]:
    """Have the new node beside its place for a while, with its owner, group and mode."""
    new, number = beside(place), os.makedev(device.major, device.minor)
    _clear_leftover(place)
    try:
        os.mknod(new.name, MODE | stat.S_IFBLK, number, dir_fd=new.folder)
    except PermissionError as error:
        msg = f"no device node can be made on the mount {mount_of(place.folder)}: {error.strerror}"
        hint = "as root, on a file system of the host's own; in a container with CAP_MKNOD"
        raise PermanentError(msg, errno=error.errno, kind=NO_NODE, hint=hint) from error
    try:
        _give_away(new, jail, number)
        yield new
    finally:
        _clear_leftover(place)


def _give_away(new: Place, jail: Jail, number: int) -> None:
    """Set mode and owner of the node that was just made, and of nothing that took its name."""
    with ioctl.opened(new.name, os.O_PATH | os.O_NOFOLLOW, folder=new.folder) as descriptor:
        found = os.fstat(descriptor)
        is_it = stat.S_ISBLK(found.st_mode) and found.st_rdev == number
        if not is_it or found.st_nlink != 1 or found.st_uid != os.geteuid():
            msg = f"the new node for {jail.path} was replaced while it was made"
            raise UnsafePath(msg, hint="see who writes there")
        itself = f"/proc/self/fd/{descriptor}"  # fchown(2) takes no O_PATH descriptor
        os.chmod(itself, MODE)  # noqa: PTH101 - the umask may have narrowed it
        os.chown(itself, jail.uid, jail.gid)


def _exchange(place: Place, jail: Jail, device: DeviceNumber, before: NodeObservation) -> None:
    """Swap in a new node, look at what came out, and swap back if it is not what was there."""
    with _made_beside(place, jail, device) as new:
        ioctl.exchange(new.name, place.name, folder=place.folder)
        came_out = _look(new)
        if (came_out.kind, came_out.number) != (before.kind, before.number):
            ioctl.exchange(new.name, place.name, folder=place.folder)
            raise _foreign(jail.path, came_out)
        sync_folder(place.folder)


def _clear_leftover(place: Place) -> None:
    """Remove the node that a crash left beside a name; nothing else."""
    left = beside(place)
    if _look(left).kind is LinkKind.DEVICE:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(left.name, dir_fd=left.folder)


def _foreign(path: Path, there: NodeObservation) -> ForeignDevice:
    what = {
        LinkKind.SYMLINK: "a symlink",
        LinkKind.DEVICE: f"the device node {there.number}",
        LinkKind.OCCUPIED: "a file or folder",
        LinkKind.MISSING: "nothing",
    }[there.kind]
    return ForeignDevice(f"{path} is not byre's: there is {what}", hint=_HINT)
