"""What this kernel and these privileges allow, and the reason in plain words where they do not.

Changes nothing; keeps for a while what it found. Tells a kernel that has no device-mapper from
one whose node is missing, which in a container is the usual case.
May be imported by `linux` only.
"""

from __future__ import annotations

import contextlib
import errno
import time
from pathlib import Path
from typing import Final

from reconciler.kernel.dm import DeviceMapper
from reconciler.kernel.ioctl import refuse
from reconciler.kernel.loopdev import LoopDevices
from reconciler.kernel.port import Capabilities
from reconciler.kernel.table import TARGET

_WORKING_S: Final = 60.0
"""How long what works is taken to work on: the kept control nodes hold its drivers in the kernel,
and a change that fails makes it be asked anew."""
_LACKING_S: Final = 0.5
"""How long what is missing is taken to be missing: somebody may load a module."""
NO_DEVICE_MAPPER: Final = frozenset({errno.ENOENT, errno.ENODEV, errno.ENXIO})


class Abilities:
    """Asks for device-mapper and loop devices by the nodes that they would be used through."""

    def __init__(self, dm: DeviceMapper, loops: LoopDevices, *, dev: Path, proc: Path) -> None:
        self._dm = dm
        self._loops = loops
        self._dev = dev
        self._proc = proc
        self._found: tuple[float, Capabilities | None] = (0.0, None)

    def found(self) -> Capabilities:
        """Say what works, as it was found not long ago."""
        now_s = time.monotonic()
        until_s, found = self._found
        if found is None or now_s > until_s:
            found = Capabilities(dm=self.why_no_dm(), loop=self.why_no_loop())
            stays_s = _LACKING_S if found.dm or found.loop else _WORKING_S
            self._found = (now_s + stays_s, found)
        return found

    def forget(self) -> None:
        """Have everything asked anew, as something failed."""
        self._found = (0.0, None)

    def is_without_dm(self, error: OSError) -> bool:
        """Tell whether there is no dm device; raises what is missing when that cannot be seen."""
        if error.errno != errno.ENOENT or self._has_no_dm(error):
            return self._has_no_dm(error)
        hint = self._missing_node(self._dev / "mapper" / "control", "device-mapper")
        raise refuse(errno.ENOENT, "ask device-mapper", hint=hint) from error

    def why_no_dm(self) -> str:
        """Say why the snapshot target cannot be used; "" when it can."""
        try:
            usable = self._dm.has_target(TARGET)
        except OSError as error:
            if self._has_no_dm(error):
                return "this kernel has no device-mapper; `modprobe dm-mod dm-snapshot`, if it can"
            if error.errno == errno.ENOENT:
                return self._missing_node(self._dev / "mapper" / "control", "device-mapper")
            return f"device-mapper is not to be used: {error.strerror}; it needs root"
        if not usable:
            return "device-mapper has no snapshot target; `modprobe dm-snapshot`"
        return ""

    def why_no_loop(self) -> str:
        """Say why loop devices cannot be made; "" when they can."""
        try:
            self._loops.control.fileno()
        except OSError as error:
            if error.errno == errno.ENOENT and self._misc_minor("loop-control") is not None:
                return self._missing_node(self._loops.control.path, "loop-control")
            if error.errno in NO_DEVICE_MAPPER:
                return "this kernel has no loop devices; `modprobe loop`, if it can"
            return f"loop devices are not to be used: {error.strerror}; they need root"
        return ""

    def _has_no_dm(self, error: OSError) -> bool:
        """Tell whether there is no device-mapper, and not merely no node to ask it by."""
        blind = error.errno == errno.ENOENT and self._misc_minor("device-mapper") is not None
        return error.errno in NO_DEVICE_MAPPER and not blind

    def _misc_minor(self, name: str) -> int | None:
        """Return the minor of a driver of the misc major, 10; None if this kernel has it not."""
        with contextlib.suppress(OSError):
            for line in (self._proc / "misc").read_text().splitlines():
                minor, _, found = line.strip().partition(" ")
                if found == name and minor.isdecimal():
                    return int(minor)
        return None

    def _missing_node(self, path: Path, name: str) -> str:
        minor = self._misc_minor(name)
        return f"{path} is missing, the kernel has it: `mknod -m 600 {path} c 10 {minor}`"
