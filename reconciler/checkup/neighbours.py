"""Checks of who else works on devices here: udev, LVM, multipath; and of inotify's limits.

May be imported by doctor and tests.
"""

from __future__ import annotations

import errno
import re
import socket
from pathlib import Path
from typing import Final

from reconciler import udev
from reconciler.checkup.finding import Finding, Level, Patient, exists, number, read

WATCHES_MIN: Final = 8192
INSTANCES_MIN: Final = 128
_CONNECT_S: Final = 1.0
_FILTER: Final = re.compile(r"^\s*(global_filter|filter)\s*=\s*\[(.*?)\]", re.MULTILINE | re.DOTALL)
_QUOTED: Final = re.compile(r'"((?:[^"\\]|\\.)*)"')


def udevd(patient: Patient) -> Finding:
    """Whether udevd answers; byre never waits for it."""
    path = patient.run / "udev/control"
    refused = _refused(path)
    if not refused:
        return Finding(check="udevd", level=Level.OK, found=f"it answers at {path}")
    return Finding(
        check="udevd",
        level=Level.NOTE,
        found=f"{path}: {refused}; byre makes its own nodes, but dmsetup would wait for ever",
        remedy="start systemd-udevd, if other programs on this host rely on it",
    )


def _refused(path: Path) -> str:
    """Return why nobody answers at a socket of udevd; "" when somebody does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        client.settimeout(_CONNECT_S)
        try:
            client.connect(str(path))
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EPERM):
                return ""  # the socket is there; only root may ask
            return error.strerror or str(error)
    return ""


def udev_rule(patient: Patient) -> Finding:
    """Whether udev is told to leave byre's devices alone."""
    folders = (patient.etc, patient.run, patient.lib)
    rules = [rule for each in folders for rule in (each / "udev/rules.d").glob("*byre*.rules")]
    remedy = f"`byre udev-rules > /etc/udev/rules.d/{udev.NAME}`"
    if not rules:
        found = "none for byre: udev probes the devices of sandboxes when they appear"
        return Finding(check="udev-rule", level=Level.NOTE, found=found, remedy=remedy)
    if read(rules[0]).strip() != udev.rules().strip():
        found = f"{rules[0]} is not the one of this version"
        return Finding(check="udev-rule", level=Level.NOTE, found=found, remedy=remedy)
    return Finding(check="udev-rule", level=Level.OK, found=f"{rules[0]}")


def lvm(patient: Patient) -> Finding:
    """Whether LVM looks into byre's devices, and would take over volumes inside of sandboxes."""
    conf = read(patient.etc / "lvm/lvm.conf")
    if not conf and not patient.which("lvm"):
        return Finding(check="lvm", level=Level.OK, found="not installed")
    devices = patient.etc / "lvm/devices/system.devices"
    plain = "\n".join(line.partition("#")[0] for line in conf.splitlines())
    if exists(devices) and not re.search(r"\buse_devicesfile\s*=\s*0\b", plain):
        found = f"{devices} exists: LVM looks at the devices listed there only"
        return Finding(check="lvm", level=Level.OK, found=found)
    ours = (f"/dev/mapper/{patient.device_prefix}x", "/dev/loop0")
    scanned = [path for path in ours if not _is_rejected(path, plain)]
    if not scanned:
        return Finding(check="lvm", level=Level.OK, found="its filter leaves byre's devices alone")
    return Finding(
        check="lvm",
        level=Level.WARNING,
        found=f"LVM scans {' and '.join(scanned)}: it may activate volumes of a sandbox, and then "
        "holds the device",
        remedy='in lvm.conf: global_filter = [ "r|^/dev/mapper/'
        f'{patient.device_prefix}|", "r|^/dev/loop|" ]',
    )


def _is_rejected(path: str, conf: str) -> bool:
    """Apply filter and global_filter (lvm.conf(5)): the first pattern that fits decides."""
    return any(_verdict(path, _QUOTED.findall(body)) == "r" for _, body in _FILTER.findall(conf))


def _verdict(path: str, patterns: list[str]) -> str:
    for pattern in patterns:
        word, body = pattern[:1], pattern[2:-1]
        try:
            if re.search(body, path):
                return word
        except re.error:
            continue
    return "a"


def multipath(patient: Patient) -> Finding:
    """Whether multipathd may take byre's devices."""
    conf = read(patient.etc / "multipath.conf")
    if not conf and not patient.which("multipathd"):
        return Finding(check="multipath", level=Level.OK, found="not installed")
    plain = "\n".join(line.partition("#")[0] for line in conf.splitlines())
    exceptions = re.search(r"blacklist_exceptions\s*\{(.*?)\n\}", plain, re.DOTALL)
    if exceptions and re.search(r'devnode\s+"?[^"\n]*(loop|dm-|\.\*)', exceptions[1]):
        return Finding(
            check="multipath",
            level=Level.WARNING,
            found="blacklist_exceptions let multipathd take loop or dm devices",
            remedy='take the devnode out of it, or add blacklist { devnode "^(loop|dm-)" }',
        )
    chosen = re.search(r'find_multipaths\s+"?(\w+)', plain)
    if chosen and chosen[1] in ("no", "off", "greedy"):
        return Finding(
            check="multipath",
            level=Level.NOTE,
            found=f"find_multipaths is {chosen[1]}: only the built-in blacklist protects loops",
            remedy="find_multipaths strict",
        )
    return Finding(check="multipath", level=Level.OK, found="its blacklist has loop and dm devices")


def inotify(patient: Patient) -> Finding:
    """Whether there is room for the watches of a reconciler."""
    folder = patient.proc / "sys/fs/inotify"
    watches, instances = (number(folder / f"max_user_{word}") for word in ("watches", "instances"))
    found = f"{watches} watches and {instances} instances for each user"
    if watches is None or instances is None:
        return Finding(
            check="inotify",
            level=Level.WARNING,
            found="not to be had: changes are found by looking, once a resync",
            remedy="a kernel with inotify; a shorter `byre run --resync` meanwhile",
        )
    if watches >= WATCHES_MIN and instances >= INSTANCES_MIN:
        return Finding(check="inotify", level=Level.OK, found=found)
    return Finding(
        check="inotify",
        level=Level.WARNING,
        found=f"{found}: others may use them up, and changes are then found by looking only",
        remedy=f"sysctl fs.inotify.max_user_watches={WATCHES_MIN} "
        f"fs.inotify.max_user_instances={INSTANCES_MIN}",
    )
