"""An older log under a kernel that has moved on: what is live stays live, with number and data."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.kernel.host import Host, digest

pytestmark = pytest.mark.kernel


def write(at: Path, text: str) -> None:
    (at / "note").write_text(text)


def test_a_restored_backup_adopts_what_is_live_and_tears_nothing_down(host: Host) -> None:
    base = host.make_ext4()
    backup = host.folder / "backup.db"
    daemon = host.cli.daemon()
    for name in ("kept", "was-paused", "gone", "rests", "again"):
        host.live(name, base)
    host.cli("pause", "was-paused", "--wait")
    host.cli("log", "backup", backup)
    with ExitStack() as mounts:
        for name in ("kept", "rests"):
            with host.mounted(host.device(name)) as at:
                write(at, name)
        host.cli("restore", "was-paused", "--wait")
        host.cli("remove", "gone", "again", "--wait")
        host.cli("pause", "rests", "--wait")
        names = ("kept", "was-paused", "new", "again")
        for name in ("new", "again"):
            host.live(name, base)
        places = {name: mounts.enter_context(host.mounted(host.device(name))) for name in names}
        for name in names[1:]:
            write(places[name], name)
        assert daemon.terminate() == 0

        was = host.kernel_side()
        lives = {name: host.life_of(name) for name in names}
        seq = host.last_seq()
        done = host.cli("log", "restore", backup, "-o", "json").json
        assert (done["lost_seq"], done["held"]) == (seq, ["was-paused"])
        assert was == host.kernel_side()

        refused = host.cli("run", "--once", expect=None)
        assert refused.code in (1, 4)
        assert "was-paused" in refused.err
        assert lives == {name: host.life_of(name) for name in names}
        for name in names:
            assert (places[name] / "note").read_text() == name
            write(places[name], f"{name}, and still written to")
        told = {each["name"] for each in host.cli("orphans", "-o", "json").json}
        assert {host.device("new").name, host.device("again").name} <= told
    # What was paused in the lost span was wanted live, and has its data.
    with host.mounted(host.device("rests")) as at:
        assert (at / "note").read_text() == "rests"
    assert host.record("gone").fault is not None
    assert host.record("was-paused").state == "restored"
    before = digest(host.device("new"))
    later = host.life_of("again")
    host.cli("remove", "gone", "--wait")
    host.cli("remove", "again", "--wait", "--timeout", "20", expect=None)
    assert host.life_of("again") == later, "a later generation is not what was removed"
    host.cli("orphans", "--adopt", host.device("new").name)
    assert digest(host.device("new")) == before
    host.cli("pause", "was-paused", "--wait")
    assert host.record("was-paused").state == "paused"
    host.cli("log", "verify")
