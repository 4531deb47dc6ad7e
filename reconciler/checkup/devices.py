"""Checks of what disks are built from: device-mapper, loop devices, privileges, the kernel.

May be imported by doctor and tests.
"""

from __future__ import annotations

import errno
import re
from typing import Final

from reconciler.checkup.finding import Finding, Level, Patient, number, read
from statemachine.machine import State
from statemachine.spec import DriverChoice

_NO_DEVICE_MAPPER: Final = frozenset({errno.ENOENT, errno.ENODEV, errno.ENXIO})
_CAPABILITIES: Final = {"CAP_SYS_ADMIN": 21, "CAP_MKNOD": 27}
"""include/uapi/linux/capability.h"""
_LOOP_CONFIGURE: Final = (5, 8)
_LOOPS_FULL: Final = 0.8


def dm(patient: Patient) -> Finding:
    """Whether dm-snapshots can be made; without it byre works by copies."""
    try:
        targets = patient.targets(patient.dev / "mapper" / "control")
    except OSError as error:
        if error.errno in _NO_DEVICE_MAPPER:
            found = f"/dev/mapper/control: {error.strerror}: this kernel has no device-mapper"
            return _no_dm(patient, found, "`modprobe dm-mod dm-snapshot`, if the kernel has them")
        found = f"/dev/mapper/control: {error.strerror}: device-mapper is there, we may not use it"
        return _no_dm(patient, found, "run byre as root (CAP_SYS_ADMIN)")
    missing = [name for name in ("snapshot", "snapshot-origin") if name not in targets]
    if missing:
        found = f"device-mapper works, target {' and '.join(missing)} is missing"
        return _no_dm(patient, found, "`modprobe dm-snapshot`; name it in /etc/modules-load.d")
    return Finding(
        check="device-mapper", level=Level.OK, found="snapshot and snapshot-origin are there"
    )


def _no_dm(patient: Patient, found: str, remedy: str) -> Finding:
    """Disks that are dm-snapshots already cannot do without; new ones can."""
    bound = [
        record.name
        for record in patient.records
        if record.state is not State.REMOVED
        and DriverChoice.DM_SNAPSHOT in (record.driver, record.wanted.driver)
    ]
    if bound:
        found += f"; {len(bound)} disks of this root are dm-snapshots ({', '.join(bound[:3])})"
        return Finding(check="device-mapper", level=Level.BLOCKER, found=found, remedy=remedy)
    found += "; disks are made as copies (driver clone)"
    return Finding(check="device-mapper", level=Level.WARNING, found=found, remedy=remedy)


def loop_control(patient: Patient) -> Finding:
    """Whether loop devices can be asked for; without them disks are plain files."""
    path = patient.dev / "loop-control"
    check = "loop-control"
    try:
        path.open("r+b", buffering=0).close()
    except OSError as error:
        missing = error.errno in _NO_DEVICE_MAPPER
        remedy = "`modprobe loop`" if missing else "run byre as root, or give it the node"
        found = f"{path}: {error.strerror}; disks are plain files, with no block device"
        return Finding(check=check, level=Level.WARNING, found=found, remedy=remedy)
    return Finding(check=check, level=Level.OK, found=f"{path} opens")


def max_loop(patient: Patient) -> Finding:
    """How many loop devices are in use, and whether there is a limit near."""
    limit = number(patient.sys / "module/loop/parameters/max_loop")
    used = len(patient.loops())
    if not limit or limit < 0:
        return Finding(check="max-loop", level=Level.OK, found=f"{used} loops in use, no limit")
    found = f"{used} loops in use; {limit} were made at boot (max_loop), more come on demand"
    if used <= limit * _LOOPS_FULL:
        return Finding(check="max-loop", level=Level.OK, found=found)
    remedy = "where loops are refused, boot with a larger max_loop= (each dm disk needs one)"
    return Finding(check="max-loop", level=Level.NOTE, found=found, remedy=remedy)


def loop_folder(patient: Patient) -> Finding:
    """Whether util-linux is blind here: with a folder /dev/loop it looks nowhere else."""
    folder = patient.dev / "loop"
    if not folder.is_dir():
        return Finding(check="dev-loop-folder", level=Level.OK, found=f"no folder {folder}")
    return Finding(
        check="dev-loop-folder",
        level=Level.WARNING,
        found=f"{folder}/ exists: losetup looks into it and does not see {patient.dev}/loopN",
        remedy=f"rmdir {folder}; byre itself does not mind",
    )


def privilege(patient: Patient) -> Finding:
    """Whether this process may make devices."""
    match = re.search(r"^CapEff:\s*([0-9a-f]+)$", read(patient.proc / "self/status"), re.MULTILINE)
    if match is None:
        found = "the capabilities of this process cannot be read"
        return Finding(check="privilege", level=Level.NOTE, found=found, remedy="mount /proc")
    held = int(match[1], 16)
    missing = [name for name, bit in _CAPABILITIES.items() if not held >> bit & 1]
    if not missing:
        return Finding(check="privilege", level=Level.OK, found="CAP_SYS_ADMIN and CAP_MKNOD")
    return Finding(
        check="privilege",
        level=Level.WARNING,
        found=f"without {' and '.join(missing)}: no dm devices, perhaps no loops; plain files work",
        remedy="run as root, or give the service these capabilities",
    )


def kernel_version(patient: Patient) -> Finding:
    """Whether the kernel has what byre likes best."""
    match = re.match(r"(\d+)\.(\d+)", patient.release)
    found = f"Linux {patient.release}"
    if match is None or (int(match[1]), int(match[2])) >= _LOOP_CONFIGURE:
        return Finding(check="kernel", level=Level.OK, found=found)
    return Finding(
        check="kernel",
        level=Level.NOTE,
        found=f"{found}: before 5.8 there is no LOOP_CONFIGURE; loops are bound in two steps",
        remedy="it works; a newer kernel is quicker and leaks nothing in a crash between the two",
    )


def ipc_namespace(patient: Patient) -> Finding:
    """Whether udev cookies would reach udevd; byre uses none, dmsetup and LVM do."""
    mine, its = (_link(patient, f"{pid}/ns/ipc") for pid in ("self", "1"))
    if mine and mine == its:
        return Finding(check="ipc-namespace", level=Level.OK, found="the same as that of process 1")
    if not mine or not its:
        found = "cannot be compared with that of process 1 (needs CAP_SYS_PTRACE)"
        return Finding(check="ipc-namespace", level=Level.NOTE, found=found)
    return Finding(
        check="ipc-namespace",
        level=Level.NOTE,
        found=(
            "another one than that of process 1: udev cookies are semaphores of one IPC namespace, "
            "so dmsetup waits for udev for ever in here; byre uses no cookies and does not"
        ),
        remedy="call dmsetup with --noudevsync here, or share the host's IPC namespace",
    )


def _link(patient: Patient, name: str) -> str:
    try:
        return str((patient.proc / name).readlink())
    except OSError:
        return ""
