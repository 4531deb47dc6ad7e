"""The port's calls for what others made, on the simulated host: a new name, a first UUID.

Each does what its namesake in `reconciler.kernel.linux` does on a real one.
May be imported by the rooms of `sim` only.
"""

from __future__ import annotations

import errno
from pathlib import Path

from reconciler.kernel.sim.faults import Faults
from reconciler.kernel.sim.filecalls import check_identity, identity
from reconciler.kernel.sim.files import File, os_error
from reconciler.kernel.sim.host import Host
from reconciler.kernel.sim.step import change
from statemachine.errors import ForeignDevice, IdentityMismatch
from statemachine.fileidentity import FileIdentity
from statemachine.names import UUID_PREFIX
from statemachine.observed import DeviceNumber


class TakingSide:
    """The part of the port that makes ours what another program made."""

    host: Host
    faults: Faults

    @change
    def move_file(self, path: Path, target: Path, expected: FileIdentity) -> bool:
        """Give a file another name if it is still the expected one. False if it has it already."""
        tree = self.host.tree
        folder = tree.make_folders(target.parent, self.host.now_ns())
        there = tree.find(target)
        if there is not None and identity(self.host, there).inode == expected.inode:
            return False
        file = tree.get(path, follow=False)
        check_identity(path, file, expected)
        if not isinstance(file, File):
            raise os_error(errno.EISDIR, path)
        if there is not None:
            raise os_error(errno.EEXIST, target)
        if file.fs is not folder.fs:
            raise os_error(errno.EXDEV, target)
        place = tree.place(path)
        folder.put(target.name, place.folder.take(place.name))
        file.path = str(target)
        folder.sync()
        place.folder.sync()
        return True

    @change
    def dm_give_uuid(self, name: str, device: DeviceNumber, uuid: str) -> bool:
        """Give a device without a UUID one, under its users. False if it has this one."""
        self.host.need_dm()
        found = self.host.mapper.by_name(name)
        if found is None:
            raise os_error(errno.ENXIO, name)
        if found.number != device or found.uuid not in ("", uuid):
            refused = IdentityMismatch if found.uuid.startswith(UUID_PREFIX) else ForeignDevice
            raise refused(f"dm device {name} is {found.number} with the UUID {found.uuid!r}")
        if found.uuid:
            return False
        self.host.mapper.give_uuid(found, uuid)
        return True
