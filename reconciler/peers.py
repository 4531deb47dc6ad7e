"""Whose disks can be taken over, and what their code calls their devices and files.

Only names: whether a thing is whole and can be adopted is `reconciler.annex`'s to find out. Each
name was read in the program's own source, which `source` cites. Pure; may be imported by takeover
and cli.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import attrs

ID: Final = "{id}"
"""Stands for the id in a pattern of `Peer.cows`."""


@attrs.frozen(kw_only=True)
class Peer:
    """Another program that builds disks as dm-snapshots.

    Attributes:
        name: what `byre import` calls it.
        prefix: what its devices' names begin with; the rest is its own id of the disk.
        helpers: what the names of devices end with that are only parts of a disk.
        folder: where it keeps its files, unless it was told another place.
        cows: its CoW files below that folder, with {id} for its own id of the disk.
        source: where that was read.
    """

    name: str
    prefix: str
    helpers: tuple[str, ...] = ()
    folder: Path
    cows: tuple[str, ...]
    source: tuple[str, ...]

    def id_of(self, device: str) -> str:
        """Return its id of the disk that a device is for; "" if the device is no disk of it."""
        found = device.removeprefix(self.prefix) if device.startswith(self.prefix) else ""
        return "" if found.endswith(self.helpers or ("/",)) else found

    def id_in(self, path: Path, folder: Path) -> str:
        """Return its id of the disk that a CoW file is of; "" if it is no CoW file of it."""
        if not path.is_relative_to(folder):
            return ""
        below = str(path.relative_to(folder))
        for pattern in self.cows:
            before, _, after = pattern.partition(ID)
            match = re.fullmatch(f"{re.escape(before)}([^/]+){re.escape(after)}", below)
            if match:
                return match[1]
        return ""


WRENN: Final = Peer(
    name="wrenn",
    prefix="wrenn-",
    folder=Path("/var/lib/wrenn"),
    cows=("sandboxes/{id}/rootfs.cow", "sandboxes/{id}.cow"),
    source=(
        "wrennhq/wrenn internal/devicemapper/devicemapper.go",
        "wrennhq/wrenn internal/layout/layout.go",
    ),
)
ARCBOX: Final = Peer(
    name="arcbox",
    prefix="arcbox-snap-",
    folder=Path("/var/lib/firecracker-vmm"),
    cows=("cow/arcbox-cow-{id}.img",),
    source=("arcboxlabs/arcbox engine/arcbox-snapshot/src/snapshot_cow.rs",),
)
IGNITE: Final = Peer(
    name="ignite",
    prefix="ignite-",
    helpers=("-base",),
    folder=Path("/var/lib/firecracker"),
    cows=("vm/{id}/overlay.dm",),
    source=(
        "weaveworks/ignite pkg/dmlegacy/snapshot.go",
        "weaveworks/ignite pkg/constants/vm.go",
    ),
)

PEERS: Final = {peer.name: peer for peer in (WRENN, ARCBOX, IGNITE)}
