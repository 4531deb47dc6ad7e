"""The machine that the kernel tests run on is what they take it for."""

import os
import subprocess

import pytest

pytestmark = pytest.mark.kernel


def test_device_mapper_control_opens() -> None:
    os.close(os.open("/dev/mapper/control", os.O_RDWR))


def test_device_mapper_has_the_snapshot_target() -> None:
    answer = subprocess.run(["dmsetup", "targets"], capture_output=True, text=True, check=True)
    assert "snapshot" in [line.split()[0] for line in answer.stdout.splitlines()]


def test_loop_devices_can_be_asked_for() -> None:
    os.close(os.open("/dev/loop-control", os.O_RDWR))


def test_udevd_answers() -> None:
    subprocess.run(["udevadm", "control", "--ping"], timeout=30, check=True)
