"""Nodes in jails that outlived a reboot: each may lead to another disk's device by now.

Device numbers begin anew with every boot, and the first disk that goes live may get the number
that a jail's node of before the boot still has. So all of them go before any disk is worked on;
each disk gets its own again when it goes live.

What this module does not do: it touches no node of this boot, and none that is not the one that
the log knows of. May be imported by reconcile.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from reconciler.kernel.port import Kernel
from statemachine.errors import ActionError, RefusedError
from statemachine.observed import DeviceNumber, LinkKind
from statemachine.record import Record


def drop(kernel: Kernel, record: Record, *, boot_id: str) -> None:
    """Remove the nodes that a disk got before this boot; what cannot be removed is left.

    Args:
        kernel: where they are.
        record: the disk.
        boot_id: the boot that is running.
    """
    if record.boot_id == boot_id:
        return
    for place in dict.fromkeys((record.jail_node, *record.nodes_begun)):
        if not place:
            continue
        # A way that is bent, or a file system that is not mounted yet: the disk's own pass tells.
        with contextlib.suppress(ActionError, RefusedError):
            there = kernel.read_link(Path(place))
            is_ours = place in record.nodes_begun or there.target == record.jail_number
            if there.kind is LinkKind.DEVICE and is_ours:
                kernel.drop_node(Path(place), DeviceNumber.parse(there.target))
