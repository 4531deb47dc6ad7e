"""A process that kills itself right after so many changes to the kernel, as a crash would.

May be imported by the kernel and the torture tests.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import NoReturn, ParamSpec, TypeVar

import attrs

from reconciler.kernel.linux import LinuxKernel

P = ParamSpec("P")
R = TypeVar("R")

CHANGES = (
    "create_sparse",
    "sync_file",
    "remove_file",
    "loop_attach",
    "loop_set_autoclear",
    "loop_detach",
    "dm_create",
    "dm_load",
    "dm_resume",
    "dm_remove",
    "ensure_node",
    "put_link",
    "drop_link",
    "put_node",
    "drop_node",
    "make_folder",
    "remove_folder",
)
"""Every change that the kernel port offers and the dm-snapshot driver makes."""


def die() -> NoReturn:
    """End as by a crash."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("nobody survives that")


@attrs.define
class Bomb:
    """Kills the process right after so many changes; after none, before the first."""

    changes: int

    def lay(self) -> None:
        """Put it under every change of this process."""
        for name in CHANGES:
            setattr(LinuxKernel, name, self._wrapped(getattr(LinuxKernel, name)))

    def _wrapped(self, change: Callable[P, R]) -> Callable[P, R]:
        def changed(*arguments: P.args, **options: P.kwargs) -> R:
            if self.changes == 0:
                die()
            result = change(*arguments, **options)
            self.changes -= 1
            if self.changes == 0:
                die()
            return result

        return changed
