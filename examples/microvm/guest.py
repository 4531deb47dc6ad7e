"""What the microVM is made of: a kernel, a first file system in memory, and an image for its root.

All of it comes from files that Debian's packages bring: a kernel with its modules, and
busybox-static. No privilege is needed: `mke2fs -d` fills an image without mounting it.
May be imported by run.py.
"""

from __future__ import annotations

import lzma
import os
import re
import shutil
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

BUSYBOX = Path("/bin/busybox")
MODULES = ("crc32c_generic", "ext4", "virtio_pci", "virtio_blk")
"""What Debian's kernel has as modules and needs for a root on a virtio disk."""
ROOT_BYTES = 24 << 20

# Documentation/x86/boot.rst of Linux: where the payload of a bzImage is.
SETUP_SECTORS_AT = 0x1F1
PAYLOAD_AT = 0x248
SECTOR_BYTES = 512

FIRST_INIT = """\
#!/bin/busybox sh
mount=/bin/busybox
$mount mount -t devtmpfs devtmpfs /dev
for module in {modules}; do
    $mount insmod /lib/$module.ko
done
$mount mount -t ext4 /dev/vda /root
exec $mount switch_root /root /bin/init
"""
"""Loads the modules, and goes on in the root on the disk."""

INIT = """\
#!/bin/busybox sh
/bin/busybox mount -t devtmpfs devtmpfs /dev
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t tmpfs tmpfs /run
/bin/busybox --install -s /bin
export PATH=/bin
stty -echo -onlcr
echo ready
while read -r line; do
    eval "$line" 2>&1
    echo "exit $?"
done
"""
"""Does what it is told over the serial line, one line of shell at a time."""


@dataclass(frozen=True)
class Parts:
    """What a machine is made of."""

    kernel: Path
    first_root: Path
    base: Path


def make_parts(folder: Path) -> Parts:
    """Make all that a machine needs, in a folder."""
    image, modules = find_kernel()
    return Parts(
        kernel=make_kernel(image, folder / "vmlinux"),
        first_root=make_first_root(modules, folder / "first-root", folder / "first-root.cpio"),
        base=make_image(folder / "image", folder / "base.ext4"),
    )


def copied(template: Path, folder: Path) -> Parts:
    """Copy the parts of a machine that was booted before."""
    names = ("vmlinux", "first-root.cpio", "base.ext4")
    return Parts(*(Path(shutil.copy(template / name, folder)) for name in names))


def make_kernel(image: Path, target: Path) -> Path:
    """Unpack a kernel, for QEMU's own entry (PVH): emulated, unpacking takes twice the boot.

    One that is packed in another way than Debian's is taken as it is.
    """
    packed = image.read_bytes()
    offset, length = struct.unpack_from("<II", packed, PAYLOAD_AT)
    start = (packed[SETUP_SECTORS_AT] + 1) * SECTOR_BYTES + offset
    payload = packed[start : start + length]
    if not payload.startswith(b"\xfd7zXZ"):
        return Path(shutil.copy(image, target))
    target.write_bytes(lzma.LZMADecompressor().decompress(payload))
    return target


def make_first_root(modules: Path, folder: Path, target: Path) -> Path:
    """Pack the file system that the kernel starts in.

    Args:
        modules: /lib/modules/VERSION of that kernel.
        folder: to put it together in.
        target: the archive.
    """
    needed = with_dependencies(modules, MODULES)
    for name in ("bin", "dev", "lib", "root"):
        (folder / name).mkdir(parents=True)
    shutil.copy(BUSYBOX, folder / "bin")
    for module in needed:
        shutil.copy(modules / module, folder / "lib")
    names = " ".join(Path(module).stem for module in needed)
    write_program(folder / "init", FIRST_INIT.format(modules=names))
    paths = "\n".join(str(path.relative_to(folder)) for path in sorted(folder.rglob("*")))
    with target.open("wb") as archive:
        subprocess.run(
            [BUSYBOX, "cpio", "-o", "-H", "newc"],
            cwd=folder,
            input=paths.encode(),
            stdout=archive,
            stderr=subprocess.DEVNULL,
            check=True,
        )
    return target


def with_dependencies(modules: Path, names: tuple[str, ...]) -> list[str]:
    """Return the paths of kernel modules and of what they need, each after what it needs."""
    needs: dict[str, list[str]] = {}
    for line in (modules / "modules.dep").read_text().splitlines():
        path, _, others = line.partition(":")
        needs[path] = others.split()
    paths = {Path(path).stem: path for path in needs}
    ordered: list[str] = []
    for name in names:
        wanted = paths[name]
        ordered += [*reversed(needs[wanted]), wanted]
    return list(dict.fromkeys(ordered))


def make_image(folder: Path, target: Path) -> Path:
    """Make the image that is the base of all disks: ext4, with busybox and an init."""
    for name in ("bin", "dev", "proc", "run", "srv"):
        (folder / name).mkdir(parents=True)
    shutil.copy(BUSYBOX, folder / "bin")
    write_program(folder / "bin" / "init", INIT)
    with target.open("wb") as image:
        image.truncate(ROOT_BYTES)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", folder, target], check=True)
    return target


def find_kernel() -> tuple[Path, Path]:
    """Return a kernel image that can be read, and the folder of its modules.

    `BYRE_MICROVM_KERNEL` names the image. Else it is the newest in /boot.

    Raises:
        FileNotFoundError: there is none, or its modules are not where the package has them.
    """
    named = os.environ.get("BYRE_MICROVM_KERNEL")
    images = [Path(named)] if named else sorted(Path("/boot").glob("vmlinuz-*"), key=by_version)
    if not images:
        raise FileNotFoundError("no kernel in /boot; BYRE_MICROVM_KERNEL=PATH names another one")
    image = images[-1]
    version = image.name.removeprefix("vmlinuz-")
    modules = image.parent.parent / "lib" / "modules" / version
    if not (modules / "modules.dep").exists():
        raise FileNotFoundError(f"{image}: its modules are not in {modules}")
    return image, modules


def by_version(image: Path) -> list[int]:
    """Return the numbers in a name, to sort 6.10 after 6.9."""
    return [int(number) for number in re.findall(r"\d+", image.name)]


def write_program(path: Path, text: str) -> None:
    """Write a file that can be run."""
    path.write_text(text)
    path.chmod(0o755)
