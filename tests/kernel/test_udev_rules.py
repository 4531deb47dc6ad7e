"""Our rules file: udev and blkid do not look into a sandbox's disk, and into others as before."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler import udev
from tests.kernel.host import MIB, Host, tool

pytestmark = pytest.mark.kernel

RULES = Path("/etc/udev/rules.d") / udev.NAME


@pytest.fixture
def ruled() -> Iterator[None]:
    """The guest's udevd with our rules, for one test."""
    RULES.parent.mkdir(parents=True, exist_ok=True)
    RULES.write_text(udev.rules())
    tool("udevadm", "control", "--reload")
    yield
    RULES.unlink()
    tool("udevadm", "control", "--reload")


def properties(device: str) -> dict[str, str]:
    """Return what udev knows of a device, when it has done all that it had to do."""
    tool("udevadm", "settle")
    lines = tool("udevadm", "info", "--query=property", f"--name={device}").splitlines()
    return dict(line.split("=", 1) for line in lines)


def cow_loop(host: Host) -> str:
    [cow] = (host.root / "cow").iterdir()
    [loop] = host.loops_on(cow)
    return loop.path


@pytest.mark.usefixtures("ruled")
def test_with_it_nobody_looks_into_a_disk_of_ours(host: Host) -> None:
    device = host.live("sb-1", host.make_ext4())
    node = f"/dev/{device.resolve().name}"
    for each in (cow_loop(host), node):
        tool("udevadm", "trigger", "--settle", each)
        seen = properties(each)
        assert seen.get("UDEV_DISABLE_PERSISTENT_STORAGE_RULES_FLAG") == "1"
        assert "ID_FS_TYPE" not in seen


@pytest.mark.usefixtures("ruled")
def test_with_it_others_are_treated_as_before(host: Host) -> None:
    image = host.make_ext4("theirs.ext4", 8 * MIB)
    loop = tool("losetup", "--find", "--show", image)
    tool("udevadm", "trigger", "--settle", loop)
    seen = properties(loop)
    tool("losetup", "--detach", loop)
    assert seen.get("ID_FS_TYPE") == "ext4"
