"""The port's calls that copy files, or have them on disk, on a simulated host.

May be imported by `sim.kernel` only.
"""

from __future__ import annotations

from pathlib import Path

from reconciler.kernel.port import CloneMethod
from reconciler.kernel.sim import filecalls
from reconciler.kernel.sim.faults import Faults
from reconciler.kernel.sim.host import Host
from reconciler.kernel.sim.step import change, question
from statemachine.fileidentity import FileIdentity
from statemachine.units import Bytes


class CopySide:
    """The part of the port that is about copies of files, and about having them on disk."""

    host: Host
    faults: Faults

    @question
    def shares_blocks(self, path: Path) -> bool:
        """Tell whether a copy of this file in its folder would be a reflink."""
        return filecalls.shares_blocks(self.host, path)

    @change
    def sync_file(self, path: Path, expected: FileIdentity) -> None:
        """Make what was written to a file survive a power cut."""
        filecalls.sync_file(self.host, path, expected)

    @change
    def clone_file(
        self,
        source: Path,
        target: Path,
        size: Bytes,
        *,
        expected: FileIdentity | None = None,
        durable: bool = True,
    ) -> CloneMethod:
        """Make `target` a private copy of `source`: a reflink, else a sparse copy."""
        return filecalls.clone_file(self.host, source, target, size, expected, durable=durable)

    @change
    def rename_over(
        self, source: Path, target: Path, *, expected: FileIdentity, replaces: FileIdentity
    ) -> bool:
        """Rename a file over another in one step, durable. False if it was done before."""
        return filecalls.rename_over(
            self.host, source, target, expected=expected, replaces=replaces
        )

    @change
    def dm_flush(self, uuid: str) -> None:
        """Have nothing to write: there is no page cache above a device here."""
        self.host.need_dm()
        self.host.mapper.by_uuid(uuid)
