"""The kernel of this host: imported when it is asked for, as many commands never do.

May be imported by the API and cli.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reconciler.kernel.port import Kernel


def kernel() -> Kernel:
    """Return the port on this host's system calls."""
    from reconciler.kernel.linux import LinuxKernel  # noqa: PLC0415 - see the module docstring

    return LinuxKernel()
