"""Walking to a folder by its path, and not where another user would like the walk to end.

A path is walked part by part. Each part is opened in the folder before it, judged by what was
opened (`objection` is the whole rule), and never looked up by its path again. What is done then
is done in the open folder, so a part that is swapped for a symlink meanwhile leads nowhere. The
walk needs no openat2(RESOLVE_NO_SYMLINKS): that asks for no owner, refuses the administrator's
own symlinks as well, and is missing before Linux 5.6 and under some seccomp filters.

Raises OSError, and UnsafePath for what the rule refuses.
May be imported by the kernel layer, by stateroot and by specs.
"""

from __future__ import annotations

import errno
import functools
import grp
import os
import pwd
import shlex
import stat
from pathlib import Path
from typing import Final, NamedTuple

from statemachine.errors import UnsafePath

_SYMLINKS_MAX: Final = 40  # MAXSYMLINKS, include/linux/namei.h
_PART: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER: Final = _PART | os.O_DIRECTORY
_NOT_OWNER: Final = stat.S_IWGRP | stat.S_IWOTH


class Place(NamedTuple):
    """Where a name is: a descriptor of its folder, for `dir_fd`, and the name in it."""

    folder: int
    name: str


# --- the rule ------------------------------------------------------------------------------------


def objection(folder: os.stat_result, entry: os.stat_result) -> str:
    """Say why an entry of a folder must not be passed on the way; "" when it may be.

    In a folder that only root and we can write to, whatever is there may be passed: nobody else
    can have put it there. In any other folder a symlink is never followed, and a folder is
    entered only if it is root's, ours, or its parent's owner's.
    """
    if keeps(folder):
        return ""
    if stat.S_ISLNK(entry.st_mode):
        return "is a symlink in a folder that another user can write to"
    if _is_trusted(entry.st_uid) or entry.st_uid == folder.st_uid:
        return ""
    return f"belongs to uid {entry.st_uid}, in a folder that another user can write to"


def keeps(folder: os.stat_result) -> bool:
    """Tell whether only root and we can put a name into a folder."""
    return is_ours(folder)


def holds(folder: os.stat_result, *, guest: int | None = None) -> bool:
    """Tell whether only root and we can take away a name of ours from a folder.

    Args:
        folder: what stat says of it.
        guest: the uid of one who may do so as well: what is there is for nobody else.
    """
    is_guests = folder.st_uid == guest and not _others_write(folder)
    is_sticky = _is_trusted(folder.st_uid) and bool(folder.st_mode & stat.S_ISVTX)
    return keeps(folder) or is_guests or is_sticky


def is_ours(found: os.stat_result) -> bool:
    """Tell whether only root and we may write to a file or folder."""
    if found.st_uid != 0 and not _is_trusted(found.st_uid):
        return False
    return not (found.st_mode & _NOT_OWNER and _others_write(found))


def remedy(path: Path, found: os.stat_result) -> str:
    """Return the command that makes a file or folder ours alone."""
    words = shlex.quote(str(path))
    commands = [] if _is_trusted(found.st_uid) else [f"chown {os.geteuid()} {words}"]
    if found.st_mode & _NOT_OWNER:
        commands.append(f"chmod go-w {words}")
    return " && ".join(commands)


def _others_write(found: os.stat_result) -> bool:
    """Tell whether anybody but its owner may write to a file or folder, by its mode."""
    if found.st_mode & stat.S_IWOTH:
        return True
    return bool(found.st_mode & stat.S_IWGRP) and not _is_own_group(found.st_uid, found.st_gid)


def _is_trusted(uid: int) -> bool:
    if uid == 0 or uid == os.geteuid():
        return True
    # In a user namespace the host's root is a stranger by number; it owns "/" all the same.
    return uid == _root().st_uid


@functools.cache
def _root() -> os.stat_result:
    """Return what "/" is like; asked once, as only the host's own root can change it."""
    return os.stat("/")  # noqa: PTH116 - one call, no Path


def _is_own_group(uid: int, gid: int) -> bool:
    """Tell whether a group is its user's own: the same name, no other member (umask 002)."""
    try:
        user, group = pwd.getpwuid(uid).pw_name, grp.getgrgid(gid)
    except KeyError:
        return False
    return group.gr_name == user and set(group.gr_mem) <= {user}


# --- the walk ------------------------------------------------------------------------------------


class folder:  # noqa: N801 - used as a function; each look at a link makes one
    """Walk to a folder and open it (O_PATH), for use as `dir_fd`.

    Args:
        path: an absolute path.
        own: whether byre's own files are there: then every folder on the way must hold them.
        guest: with `own`, the uid that they are for, whose own folders will do.

    Raises:
        UnsafePath: a part of the path is not to be passed, or does not hold what is ours.
        OSError: ENOENT, ENOTDIR, ELOOP, EACCES, as for any path.
    """

    __slots__ = ("_walk",)

    def __init__(self, path: Path, *, own: bool = False, guest: int | None = None) -> None:
        self._walk = _Walk(str(path), own=own, guest=guest)

    def __enter__(self) -> int:
        return self._walk.end()

    def __exit__(self, *_: object) -> None:
        self._walk.close()


class place:  # noqa: N801 - used as a function
    """Walk to the folder of a name; the name itself may be missing, or anything. See `folder`."""

    __slots__ = ("_name", "_walk")

    def __init__(self, path: Path, *, own: bool = False, guest: int | None = None) -> None:
        above, _, name = str(path).rpartition("/")
        self._walk = _Walk(above or "/", own=own, guest=guest)
        self._name = name or "."

    def __enter__(self) -> Place:
        return Place(self._walk.end(), self._name)

    def __exit__(self, *_: object) -> None:
        self._walk.close()


class regular:  # noqa: N801 - used as a function; each look at a CoW file makes one
    """Open a regular file, and nothing else: opening a pipe may wait, opening a device may act.

    Args:
        path: an absolute path.
        flags: for open(2).
        follow: whether a symlink at its end is followed.

    Raises:
        Irregular: ELOOP for a symlink, EISDIR for a folder to be written, EINVAL for what else is
            no regular file.
        OSError: as for any path.
    """

    __slots__ = ("_descriptor", "_flags", "_follow", "_path")

    def __init__(self, path: Path, flags: int, *, follow: bool) -> None:
        self._path, self._flags, self._follow = path, flags, follow

    def __enter__(self) -> int:
        looking = os.O_PATH | os.O_CLOEXEC
        found = os.open(self._path, looking if self._follow else looking | os.O_NOFOLLOW)
        try:
            mode = os.fstat(found).st_mode
            if not stat.S_ISREG(mode):
                raise _irregular(self._path, mode, self._flags)
            self._descriptor = os.open(f"/proc/self/fd/{found}", self._flags | os.O_CLOEXEC)
        finally:
            os.close(found)
        return self._descriptor

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


class Irregular(OSError):
    """Something else than a regular file is where one was meant."""


def _irregular(path: Path, mode: int, flags: int) -> Irregular:
    if stat.S_ISLNK(mode):
        return Irregular(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    if stat.S_ISDIR(mode) and flags & os.O_ACCMODE != os.O_RDONLY:
        return Irregular(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    return Irregular(errno.EINVAL, "it is no regular file", str(path))


class _Walk:
    """One walk: the open folders from "/" down to where it is.

    A walk is a part of nearly every change, so a part that is as usual costs two system calls and
    little else; what a refusal says of it is put together only then.
    """

    __slots__ = ("_found", "_guest", "_is_kept", "_names", "_own", "_path", "_way")

    def __init__(self, path: str, *, own: bool, guest: int | None) -> None:
        assert path.startswith("/"), path
        self._path = path
        self._own = own
        self._guest = guest
        self._way: list[int] = []
        """The descriptors of the folders, "/" first."""
        self._names: list[str] = []
        """What they are called, without "/"."""
        self._found = _root()
        """The last of them."""
        self._is_kept = keeps(self._found)

    def end(self) -> int:
        """Walk the whole path; returns the descriptor of its last folder."""
        try:
            return self._end()
        except BaseException:
            self.close()
            raise

    def _end(self) -> int:
        self._way.append(os.open("/", _FOLDER))
        todo = _parts(self._path)
        symlinks = 0
        while todo:
            name = todo.pop()
            text = self._back(1) if name == ".." else self._step(name)
            if not text:
                continue
            symlinks += 1
            if symlinks > _SYMLINKS_MAX:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), self._path)
            if text.startswith("/"):
                self._back(len(self._names))
            todo += _parts(text)
        return self._way[-1]

    def close(self) -> None:
        """Close every folder of the walk."""
        while self._way:
            os.close(self._way.pop())

    def _step(self, name: str) -> str:
        """Enter a folder, or return the text of the symlink that is in its place."""
        try:  # as a folder first: that has an automount mounted, and O_PATH alone has not
            descriptor = os.open(name, _FOLDER, dir_fd=self._way[-1])
        except NotADirectoryError:
            descriptor = os.open(name, _PART, dir_fd=self._way[-1])
        self._way.append(descriptor)
        entry = os.fstat(descriptor)
        if not self._is_kept and (why := objection(self._found, entry)):
            raise self._refused(f"{self._here()}/{name} {why}", self._found)
        if stat.S_ISLNK(entry.st_mode):
            text = os.readlink("", dir_fd=descriptor)  # of the very one that was judged
            os.close(self._way.pop())
            return text
        if not stat.S_ISDIR(entry.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), self._path)
        self._names.append(name)
        self._found, self._is_kept = entry, is_ours(entry)
        if self._own and not (self._is_kept or holds(entry, guest=self._guest)):
            raise self._refused("another user can replace what byre keeps there", entry)
        return ""

    def _back(self, steps: int) -> str:
        """Go up, not above "/"; always by the way that was come."""
        for _ in range(min(steps, len(self._names))):
            os.close(self._way.pop())
            self._names.pop()
        self._found = os.fstat(self._way[-1])
        self._is_kept = keeps(self._found)
        return ""

    def _here(self) -> str:
        return "".join(f"/{name}" for name in self._names)

    def _refused(self, why: str, found: os.stat_result) -> UnsafePath:
        at = self._here() or "/"
        return UnsafePath(
            f"{self._path} is not safe: {why} ({at}: owner {found.st_uid}, "
            f"mode {stat.S_IMODE(found.st_mode):04o})",
            hint=f"take away what is not yours, then `{remedy(Path(at), found)}`",
        )


def _parts(path: str) -> list[str]:
    """Split a path, last part first."""
    return [part for part in reversed(path.split("/")) if part not in {"", "."}]
