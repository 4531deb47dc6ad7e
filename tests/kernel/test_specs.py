"""The whole life of disks by specs: a folder kept to by a running `byre run`, and `apply`."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from statemachine.observed import SnapshotHealth
from tests.kernel.cli import END_S, until
from tests.kernel.host import Host

pytestmark = pytest.mark.kernel

START_S = 100.0
"""Starting the real program over 9p takes the slow guest up to half a minute."""


@attrs.frozen
class Program:
    """The real `byre run`, started as a service manager would."""

    process: subprocess.Popen[bytes]
    log: Path

    def says(self, text: str, *, timeout_s: float = END_S) -> None:
        until(lambda: text in self.log.read_text(), f"the log says {text!r}", timeout_s=timeout_s)


@pytest.fixture
def specs(host: Host) -> Path:
    folder = host.folder / "disks.d"
    folder.mkdir()
    return folder


@pytest.fixture
def program(host: Host, specs: Path) -> Iterator[Program]:
    log = host.folder / "run.log"
    words = host.cli.words("run", "--resync", "600", "--specs", specs)
    with log.open("wb") as stream:
        process = subprocess.Popen(["byre", *words], stdout=stream, stderr=stream)
    started = Program(process, log)
    try:
        started.says("reconciler started", timeout_s=START_S)
        yield started
    finally:
        process.kill()
        process.wait()


def spec(name: str, base: Path, state: str = "live", **more: object) -> str:
    fields = {"name": name, "base": base, "state": state, **more}
    return "[[disk]]\n" + "".join(f'{key} = "{value}"\n' for key, value in fields.items())


def write_atomically(path: Path, text: str) -> None:
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(text)
    beside.rename(path)


@pytest.mark.timeout(300)
def test_a_running_reconciler_keeps_to_its_spec_folder(
    host: Host, specs: Path, program: Program
) -> None:
    base, file = host.make_ext4(), specs / "sb-1.toml"
    write_atomically(file, spec("sb-1", base, link=host.folder / "links" / "sb-1"))
    until(lambda: host.device("sb-1").is_symlink(), "the device is there")
    host.until_settled("sb-1", "snapshotted")
    with host.mounted(host.folder / "links" / "sb-1") as at:
        (at / "note").write_text("kept")
    write_atomically(file, spec("sb-1", base, "paused"))
    host.until_settled("sb-1", "paused")
    host.assert_nothing_in_kernel()

    # A faulty set changes nothing, whatever is good in it, and is told once.
    before = host.last_seq()
    write_atomically(specs / "bad.toml", spec("sb-2", base, colour="blue"))
    program.says("colour")
    write_atomically(file, spec("sb-1", base, "live"))
    program.process.send_signal(signal.SIGHUP)
    program.says("reloading")
    time.sleep(1)
    assert program.log.read_text().count("colour") == 1
    assert before == host.last_seq()
    (specs / "bad.toml").unlink()

    host.until_settled("sb-1", "restored")
    with host.mounted(host.device("sb-1")) as at:
        assert (at / "note").read_text() == "kept"
    write_atomically(file, spec("sb-1", base, "removed"))
    host.until_settled("sb-1", "removed")
    host.assert_nothing_left()

    program.process.send_signal(signal.SIGTERM)
    assert program.process.wait(END_S) == 0
    assert host.types_after(host.last_seq() - 1)[0] == "reconciler.stopped"
    assert "Traceback" not in program.log.read_text()
    host.assert_proved()


@pytest.mark.timeout(300)
def test_twenty_disks_on_two_bases_come_and_go_in_one_apply_each(host: Host) -> None:
    bases = [host.make_ext4(name) for name in ("one.ext4", "two.ext4")]
    names = [f"sb-{number:02}" for number in range(20)]
    file = host.folder / "disks.toml"
    file.write_text("\n".join(spec(n, bases[i % 2]) for i, n in enumerate(names)))

    host.cli("apply", "-f", file, "--wait", "--timeout", "120")
    assert [len(host.loops_on(base)) for base in bases] == [1, 1]
    assert all(loop.read_only for base in bases for loop in host.loops_on(base))
    assert len(host.loops()) == 22
    devices = [host.kernel.dm(host.device(name).name) for name in names]
    assert [d.status.health for d in devices if d and d.status] == [SnapshotHealth.VALID] * 20

    seq, there = host.last_seq(), host.kernel_side()
    answer = host.cli("apply", "-f", file, "--wait")
    assert answer.err.count(": unchanged") == 20
    assert (seq, there) == (host.last_seq(), host.kernel_side())

    file.write_text("")
    host.cli("apply", "-f", file, "--wait")
    assert (seq, there) == (host.last_seq(), host.kernel_side())
    host.cli("apply", "-f", file, "--prune", "--wait", "--timeout", "120")
    host.assert_nothing_left()
    host.assert_proved()
