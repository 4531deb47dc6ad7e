"""A child in namespaces of its own: what a container has of /dev, and what it lacks.

For `Cli.fork(..., before=...)`: each function changes the forked child alone, before the command
runs in it. May be imported by the kernel tests.
"""

from __future__ import annotations

import ctypes
import os
import stat
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

CLONE_NEWNS: Final = 0x00020000
CLONE_NEWIPC: Final = 0x08000000
"""linux/sched.h"""
MISC_MAJOR: Final = 10
"""linux/major.h"""
PLAIN: Final = {"null": (1, 3), "zero": (1, 5), "urandom": (1, 9)}
"""Documentation/admin-guide/devices.txt"""
NODES: Final = {"mapper/control": "device-mapper", "loop-control": "loop-control"}
"""What byre asks the kernel by, and the name of each in /proc/misc."""


def unshare(flags: int) -> None:
    """Give this process namespaces of its own; os.unshare is of Python 3.12."""
    if ctypes.CDLL(None, use_errno=True).unshare(flags):
        raise OSError(ctypes.get_errno(), "unshare")


def own_ipc() -> None:
    """Have an IPC namespace: udev's semaphores are not to be seen."""
    unshare(CLONE_NEWIPC)


def own_dev(nodes: Sequence[str]) -> Callable[[], None]:
    """Return what gives a process a /dev without devtmpfs and a read-only /sys.

    Args:
        nodes: which of `NODES` there are.
    """

    def enter() -> None:
        unshare(CLONE_NEWNS | CLONE_NEWIPC)
        _run("mount", "--make-rprivate", "/")
        dev = Path("/run/byre-test-dev")
        dev.mkdir(exist_ok=True)
        _run("mount", "-t", "tmpfs", "tmpfs", dev)
        for name, (major, minor) in PLAIN.items():
            os.mknod(dev / name, 0o666 | stat.S_IFCHR, os.makedev(major, minor))
        for name in nodes:
            (dev / name).parent.mkdir(exist_ok=True)
            number = os.makedev(MISC_MAJOR, misc_minor(NODES[name]))
            os.mknod(dev / name, 0o600 | stat.S_IFCHR, number)
        (dev / "shm").mkdir()
        _run("mount", "--rbind", "/dev/shm", dev / "shm")
        _run("mount", "--move", dev, "/dev")
        _run("mount", "-o", "remount,bind,ro", "/sys")

    return enter


def misc_minor(name: str) -> int:
    """Return the minor of a driver of the misc major."""
    lines = [line.split() for line in Path("/proc/misc").read_text().splitlines()]
    return next(int(minor) for minor, found in lines if found == name)


def _run(*words: object) -> None:
    subprocess.run([str(word) for word in words], check=True, timeout=60)
