"""A kernel that has a driver, and a /dev that lacks its node: what is missing is said."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from reconciler.kernel.linux import LinuxKernel
from statemachine.errors import ActionError

MISC = " 57 other\n236 device-mapper\n237 loop-control\n"


@pytest.fixture
def kernel(tmp_path: Path) -> LinuxKernel:
    for name in ("dev", "proc", "sys"):
        (tmp_path / name).mkdir()
    return LinuxKernel(dev=tmp_path / "dev", proc=tmp_path / "proc", sys=tmp_path / "sys")


def test_a_kernel_with_the_drivers_and_no_nodes_says_how_to_make_them(
    kernel: LinuxKernel, tmp_path: Path
) -> None:
    (tmp_path / "proc/misc").write_text(MISC)
    able, dev = kernel.capabilities(), tmp_path / "dev"
    assert able.dm.endswith(f"`mknod -m 600 {dev}/mapper/control c 10 236`")
    assert able.loop.endswith(f"`mknod -m 600 {dev}/loop-control c 10 237`")


def test_what_cannot_be_looked_at_is_not_taken_for_gone(
    kernel: LinuxKernel, tmp_path: Path
) -> None:
    (tmp_path / "proc/misc").write_text(MISC)
    for ask in (kernel.dm_names, lambda: kernel.dm("byre-sb-1")):
        with pytest.raises(ActionError) as caught:
            ask()
        assert caught.value.errno == errno.ENOENT
        assert f"{tmp_path}/dev/mapper/control is missing" in caught.value.hint


@pytest.mark.parametrize("misc", [None, "", " 57 other\n", "nonsense"])
def test_a_kernel_without_the_drivers_has_no_devices(
    kernel: LinuxKernel, tmp_path: Path, misc: str | None
) -> None:
    if misc is not None:
        (tmp_path / "proc/misc").write_text(misc)
    able = kernel.capabilities()
    assert able.dm.startswith("this kernel has no device-mapper")
    assert able.loop.startswith("this kernel has no loop devices")
    assert (kernel.dm_names(), kernel.dm("byre-sb-1")) == ((), None)
