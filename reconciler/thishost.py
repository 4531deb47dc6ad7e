"""The kernel of this host: imported when it is asked for, as many commands never do.

May be imported by the API and cli.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from reconciler.kernel import occupied
from statemachine.errors import from_oserror

if TYPE_CHECKING:
    from pathlib import Path

    from reconciler.kernel.port import Kernel
    from statemachine.units import Bytes


def kernel() -> Kernel:
    """Return the port on this host's system calls."""
    from reconciler.kernel.linux import LinuxKernel  # noqa: PLC0415 - see the module docstring

    return LinuxKernel()


def allocated(path: Path | str) -> Bytes:
    """Return what `Kernel.allocated` does, without the rest of the port."""
    try:
        return occupied.allocated(path)
    except OSError as error:
        raise from_oserror(error, f"look at {path}") from error
