"""How long what a host can do is taken for granted."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from reconciler.kernel import able
from reconciler.kernel.able import Abilities
from reconciler.kernel.dm import DeviceMapper
from reconciler.kernel.loopdev import LoopDevices


class Hand:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s


class Host:
    """A host whose device-mapper comes and goes; its loop-control is a plain file."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (folder / "loop-control").touch()
        self.clock, self.asked, self.has_dm = Hand(), 0, True
        dm = DeviceMapper(control=folder / "mapper" / "control")
        self.able = Abilities(dm, LoopDevices(dev=folder, sys=folder), dev=folder, proc=folder)
        monkeypatch.setattr(able, "time", self.clock)
        monkeypatch.setattr(dm, "has_target", self._has_target)

    def _has_target(self, _name: str) -> bool:
        self.asked += 1
        if not self.has_dm:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        return True


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


def test_what_works_is_asked_once_a_minute(host: Host) -> None:
    for _ in range(3):
        assert (host.able.found().dm, host.able.found().loop) == ("", "")
    assert host.asked == 1
    host.clock.now_s += 61
    host.able.found()
    assert host.asked == 2


def test_what_is_missing_is_soon_asked_anew(host: Host) -> None:
    host.has_dm = False
    assert host.able.found().dm.startswith("this kernel has no device-mapper")
    host.has_dm = True
    host.clock.now_s += 1
    assert host.able.found().dm == ""


def test_a_failure_makes_everything_be_asked_anew(host: Host) -> None:
    host.able.found()
    host.has_dm = False
    host.able.forget()
    assert host.able.found().dm.startswith("this kernel has no device-mapper")
