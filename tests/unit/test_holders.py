"""Who holds a device: mounts, swap, devices above and processes, from a /proc of the test's own."""

import os
from pathlib import Path

import pytest

from reconciler.kernel.holders import HolderFinder, mount_points, swap_paths
from statemachine.observed import DeviceNumber, Holder

DEVICE = DeviceNumber(253, 4)
MOUNTINFO = """\
22 1 254:1 / / rw,relatime - ext4 /dev/vda1 rw
61 22 253:4 / /mnt/a\\040b rw,relatime shared:1 - ext4 /dev/dm-4 rw
62 22 253:44 / /mnt/other rw,relatime - ext4 /dev/dm-44 rw
broken
"""


def process(proc: Path, pid: int, namespace: str, mountinfo: str = "") -> Path:
    folder = proc / str(pid)
    (folder / "ns").mkdir(parents=True)
    (folder / "ns" / "mnt").symlink_to(namespace)
    (folder / "mountinfo").write_text(mountinfo)
    (folder / "comm").write_text("firecracker\n")
    (folder / "fd").mkdir()
    return folder


def finder(tmp_path: Path) -> HolderFinder:
    (tmp_path / "proc").mkdir()
    return HolderFinder(proc=tmp_path / "proc", sys=tmp_path / "sys")


def test_only_the_mounts_of_the_very_device_are_picked() -> None:
    assert list(mount_points(MOUNTINFO, DEVICE)) == ["/mnt/a b"]


def test_a_mount_is_named_once_and_found_in_other_namespaces(tmp_path: Path) -> None:
    find = finder(tmp_path)
    process(find.proc, 1, "mnt:[1]", MOUNTINFO)
    process(find.proc, 2, "mnt:[1]", "not read: the namespace was seen")
    process(find.proc, 3, "mnt:[2]", "70 1 253:4 / /jail rw - ext4 /dev/dm-4 rw\n")
    expected = {Holder(kind="mount", name="/mnt/a b"), Holder(kind="mount", name="/jail")}
    assert set(find.find(DEVICE)) == expected


STRANGE = "/mnt/a\u00a0b\u2028c\x0bd\x1ce\x85f\rg"
"""A name of what Python takes for spaces and ends of lines, and the kernel does not."""


def test_a_mount_point_is_named_whole_whatever_is_in_its_name(tmp_path: Path) -> None:
    find = finder(tmp_path)
    line = f"61 22 253:4 {STRANGE} {STRANGE} rw - ext4 /dev/dm-4 rw\n"
    process(find.proc, 1, "mnt:[1]")
    (find.proc / "1" / "mountinfo").write_bytes(line.encode())
    assert find.find(DEVICE) == (Holder(kind="mount", name=STRANGE),)


def test_swap_is_found_whatever_is_in_its_name_and_empty_lines_are_none() -> None:
    table = "Filename\t\t\t\tType\n/swap\\040file        file\t\t8\t\t0\t\t-2\n\n"
    assert list(swap_paths(table)) == ["/swap file"]
    assert list(swap_paths(f"Filename Type\n{STRANGE} file 8 0 -2\n")) == [STRANGE]
    assert list(swap_paths("")) == []


def test_a_dm_device_above_goes_by_its_name_and_others_by_the_kernels(tmp_path: Path) -> None:
    find = finder(tmp_path)
    for name in ("dm-7", "md0"):
        (find.sys / "dev" / "block" / "253:4" / "holders" / name).mkdir(parents=True)
    dm = find.sys / "block" / "dm-7" / "dm"
    dm.mkdir(parents=True)
    (dm / "name").write_text("byre-sb-1\n")
    expected = {Holder(kind="dm", name="byre-sb-1"), Holder(kind="dm", name="md0")}
    assert set(find.find(DEVICE)) == expected


def test_nobody_holds_a_device_that_nobody_holds(tmp_path: Path) -> None:
    find = finder(tmp_path)
    process(find.proc, 1, "mnt:[1]", MOUNTINFO)
    (find.proc / "swaps").write_text("Filename Type Size Used Priority\n/swapfile file 1 0 -2\n")
    assert find.find(DeviceNumber(253, 99)) == ()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mknod needs root")
def test_a_process_and_swap_are_found_by_the_device_number_of_a_node(tmp_path: Path) -> None:
    find = finder(tmp_path)
    node = tmp_path / "rootfs.ext4"
    os.mknod(node, 0o060600, os.makedev(DEVICE.major, DEVICE.minor))
    (process(find.proc, 41, "mnt:[1]") / "fd" / "7").symlink_to(node)
    (process(find.proc, 42, "mnt:[1]") / "fd" / "0").symlink_to(tmp_path / "gone")
    (find.proc / "swaps").write_text(f"Filename Type Size Used Priority\n{node} partition 1 0 -2\n")
    expected = {
        Holder(kind="process", name="firecracker", pid=41),
        Holder(kind="swap", name=str(node)),
    }
    assert set(find.find(DEVICE)) == expected
