"""`byre fork`: new disks of a disk, all of a call or none, whatever dies in between."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reconciler.kernel.sim import SimCrash
from reconciler.orphans import survey
from reconciler.source import WhenLive
from statemachine.errors import (
    BlockedError,
    IdentityMismatch,
    NoSuchDisk,
    PermanentError,
    RefusedError,
    SpecError,
    TransientError,
)
from statemachine.machine import Desired, State, Trigger
from statemachine.units import Bytes
from tests.unit.builders import BASE, LINK, MIB, Stage
from tests.unit.crashing import count_commits
from tests.unit.diskyard import CHUNK, Yard, overlaid, store

DATA, AT = b"written before the fork", 3 * CHUNK
NAMES = ("sb-2", "sb-3")


@pytest.fixture
def stage(folder: Path) -> Iterator[Stage]:
    made = Stage(folder)
    yield made
    made.close()


def begun(stage: Stage, state: Desired = Desired.LIVE, *, has_dm: bool = True) -> None:
    """Make a disk with data, live or paused."""
    stage.kernel.host.dm_errno = 0 if has_dm else errno.ENODEV
    stage.declare(link=LINK)
    stage.settle()
    stage.kernel.write(LINK, AT, DATA)
    if state is Desired.PAUSED:
        stage.command(Trigger.PAUSE)


def shown(stage: Stage, name: str, length: int = len(DATA)) -> bytes:
    return stage.kernel.read(stage.record(name).device, AT, length)


def files(stage: Stage) -> list[str]:
    return list(stage.kernel.list_folder(stage.byre.root.cows))


@pytest.mark.parametrize("state", [Desired.PAUSED, Desired.LIVE])
@pytest.mark.parametrize("reflink", [True, False])
def test_forks_show_what_their_source_showed(stage: Stage, state: Desired, reflink: bool) -> None:  # noqa: FBT001 - pytest
    stage.kernel.host.tree.get(BASE).fs.reflink = reflink
    begun(stage, state)
    source = stage.record()
    suspends = sum(call.name == "dm_suspend" for call in stage.kernel.trace)
    made = stage.byre.fork("sb-1", NAMES, reason="try two ways")
    assert made.names == NAMES
    calls = [call.name for call in stage.kernel.trace]
    assert calls.count("dm_suspend") - suspends == (1 if state is Desired.LIVE else 0)
    stage.settle()
    stage.check()
    for name in NAMES:
        record = stage.record(name)
        assert (record.state, record.base) == (State.RESTORED, source.base)
        assert shown(stage, name) == DATA
        assert record.wanted.link is None
        parent = record.parent
        assert parent is not None
        assert (parent.name, parent.id, parent.seq) == ("sb-1", source.id, source.seq)
        assert parent.how == ("reflink" if reflink else "sparse-copy")
    event = stage.events("sb-2")[0]
    assert (event.data["why"], event.reason) == ("forked", "try two ways")
    assert event.data["forked_from"]["name"] == "sb-1"
    # Each goes its own way from here.
    stage.kernel.write(stage.record("sb-2").device, AT, b"other")
    assert shown(stage, "sb-3") == DATA
    assert stage.record() == source


def test_a_live_source_is_live_again_and_forks_may_stay_paused(stage: Stage) -> None:
    begun(stage)
    stage.byre.fork("sb-1", ["sb-2"], state=Desired.PAUSED)
    stage.kernel.write(LINK, AT, b"after the fork")
    stage.settle()
    assert stage.states() == {"sb-1": "snapshotted", "sb-2": "paused"}
    stage.command(Trigger.RESTORE, "sb-2")
    assert shown(stage, "sb-2") == DATA
    stage.check()


def test_a_clone_is_forked_where_it_can_be_copied_at_one_moment(stage: Stage) -> None:
    begun(stage, has_dm=False)
    with pytest.raises(RefusedError, match="clone can only be suspended by its user"):
        stage.byre.fork("sb-1", NAMES)
    stage.kernel.host.tree.get(BASE).fs.reflink = True
    stage.byre.fork("sb-1", ["sb-2"])
    stage.kernel.host.tree.get(BASE).fs.reflink = False
    stage.command(Trigger.PAUSE)
    stage.byre.fork("sb-1", ["sb-3"])
    stage.settle()
    stage.check()
    assert [shown(stage, name) for name in NAMES] == [DATA, DATA]
    assert stage.record("sb-3").driver == "clone"


def test_a_fork_of_a_removed_name_begins_its_next_generation(stage: Stage) -> None:
    begun(stage, Desired.PAUSED)
    stage.live("sb-2")
    stage.command(Trigger.REMOVE, "sb-2")
    stage.byre.fork("sb-1", ["sb-2"])
    stage.settle()
    assert stage.record("sb-2").generation == 2
    assert shown(stage, "sb-2") == DATA
    stage.check()


def test_a_source_is_known_again_after_a_reboot(stage: Stage) -> None:
    begun(stage, Desired.PAUSED)
    stage.kernel.reboot(renumber=True)
    stage.restart()
    stage.byre.fork("sb-1", ["sb-2"])
    stage.settle()
    assert shown(stage, "sb-2") == DATA
    stage.check()


def attached(stage: Stage) -> None:
    stage.declare(state=Desired.ATTACHED)
    stage.settle()


def faulted(stage: Stage) -> None:
    begun(stage, Desired.PAUSED)
    stage.kernel.delete(stage.record().cow_path)
    stage.declare()
    stage.settle()


def removed(stage: Stage) -> None:
    stage.live()
    stage.command(Trigger.REMOVE)


def half_paused(stage: Stage) -> None:
    begun(stage)
    stage.byre.command(["sb-1"], Trigger.PAUSE)
    stage.kernel.faults.crash_in("dm_remove", when="before")
    with pytest.raises(SimCrash):
        stage.settle()
    stage.restart()


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (Stage.declare, RefusedError, "is absent: it has no data"),
        (attached, RefusedError, "never live"),
        (faulted, RefusedError, "is faulted"),
        (removed, RefusedError, "is removed"),
        (half_paused, TransientError, "pause is under way"),
    ],
)
def test_what_has_no_data_to_rely_on_is_refused(
    stage: Stage, make: Callable[[Stage], None], error: type[Exception], words: str
) -> None:
    make(stage)
    before = (stage.byre.log.last_seq(), files(stage))
    with pytest.raises(error, match=words):
        stage.byre.fork("sb-1", NAMES)
    assert before == (stage.byre.log.last_seq(), files(stage))


def test_a_live_source_is_refused_where_it_may_not_be_suspended(stage: Stage) -> None:
    begun(stage)
    with pytest.raises(RefusedError, match="not to be suspended"):
        stage.byre.fork("sb-1", NAMES, when_live=WhenLive.REFUSE)


@pytest.mark.parametrize(
    ("names", "error", "words"),
    [
        (("sb-2", "sb-9"), RefusedError, "there is a disk named sb-9"),
        (("sb-2", "sb-1"), RefusedError, "there is a disk named sb-1"),
        (("sb-2", "sb-2"), SpecError, "sb-2"),
        (("sb-2", "Upper"), SpecError, "Upper"),
    ],
)
def test_all_are_made_or_none(
    stage: Stage, names: tuple[str, ...], error: type[Exception], words: str
) -> None:
    begun(stage, Desired.PAUSED)
    stage.declare("sb-9")
    before = (stage.byre.log.last_seq(), files(stage))
    with pytest.raises(error, match=words):
        stage.byre.fork("sb-1", names)
    assert before == (stage.byre.log.last_seq(), files(stage))


def test_an_unknown_source_is_no_disk(stage: Stage) -> None:
    with pytest.raises(NoSuchDisk):
        stage.byre.fork("sb-1", NAMES)


def test_another_base_or_none_is_refused(stage: Stage) -> None:
    begun(stage, Desired.PAUSED)
    stage.kernel.write(BASE, 0, b"changed")
    with pytest.raises(IdentityMismatch, match="has changed"):
        stage.byre.fork("sb-1", NAMES)
    stage.kernel.delete(BASE)
    with pytest.raises(PermanentError, match="is missing"):
        stage.byre.fork("sb-1", NAMES)
    assert len(files(stage)) == 1


def test_nothing_is_left_when_the_second_copy_or_the_log_fails(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun(stage)
    seq = stage.byre.log.last_seq()
    stage.kernel.faults.fail("clone_file", errno.EIO, after=1)
    with pytest.raises(PermanentError):
        stage.byre.fork("sb-1", NAMES)
    assert (len(files(stage)), stage.byre.log.last_seq()) == (1, seq)
    stage.kernel.faults.clear()

    def failing(*_: object) -> None:
        raise BlockedError("the log is full", kind="no-space")

    monkeypatch.setattr(stage.byre.log, "append", failing)
    with pytest.raises(BlockedError):
        stage.byre.fork("sb-1", NAMES)
    assert (len(files(stage)), stage.byre.log.last_seq()) == (1, seq)
    stage.kernel.write(LINK, AT, b"not suspended")


def test_a_source_that_somebody_resumes_is_copied_again(stage: Stage) -> None:
    begun(stage)
    tries: list[int] = []

    def meddle(*_: object) -> None:
        tries.append(1)
        if len(tries) <= 2:
            stage.kernel.resume_dm_by_hand("byre-sb-1")

    stage.kernel.faults.hook("clone_file", meddle, when="after")
    stage.byre.fork("sb-1", ["sb-2"])
    assert len(tries) == 3
    assert len(files(stage)) == 2
    stage.settle()
    stage.check()


def test_a_paused_source_that_is_written_to_meanwhile_is_refused(stage: Stage) -> None:
    begun(stage, Desired.PAUSED)
    path = stage.record().cow_path

    def meddle(*_: object) -> None:
        stage.clock.advance_s(1)
        stage.kernel.write(path, 0, b"x")

    stage.kernel.faults.hook("clone_file", meddle, when="after")
    with pytest.raises(TransientError, match="written to while it was copied"):
        stage.byre.fork("sb-1", NAMES)
    assert len(files(stage)) == 1


def test_room_is_asked_for_only_where_blocks_are_not_shared(stage: Stage) -> None:
    begun(stage, Desired.PAUSED)
    fs = stage.kernel.host.tree.get(BASE).fs
    for page in range(40):
        stage.kernel.write(stage.record().cow_path, MIB + page * CHUNK, b"x")
    fs.resize(Bytes((fs.used + 8) * CHUNK))
    with pytest.raises(BlockedError, match="no room"):
        stage.byre.fork("sb-1", ["sb-2"])
    fs.reflink = True
    assert stage.byre.fork("sb-1", ["sb-2"], state=Desired.PAUSED).names == ("sb-2",)


@pytest.mark.parametrize("state", [Desired.PAUSED, Desired.LIVE])
@pytest.mark.parametrize("cut", [False, True])
def test_a_crash_at_any_point_makes_all_forks_or_none(
    folder: Path,
    state: Desired,
    cut: bool,  # noqa: FBT001 - pytest
) -> None:
    point, died = 0, True
    while died:
        root = folder / f"{point}"
        root.mkdir()
        stage = Stage(root)
        begun(stage, state)
        stage.kernel.sync()
        count_commits(stage)
        faults = stage.kernel.faults
        faults.crash_at_call(faults.calls + point + 1, when="before" if point == 0 else "after")
        try:
            stage.byre.fork("sb-1", NAMES)
            died = False
        except SimCrash:
            died = True
        faults.clear()
        if cut:
            stage.kernel.reboot(lose_unsynced=True)
        stage.restart()
        stage.settle()
        there = {name: stage.byre.log.record(name) for name in NAMES}
        assert len({record is None for record in there.values()}) == 1, point
        known = {Path(record.cow_path).name for record in stage.byre.log.records()}
        strays = set(files(stage)) - known
        found = {each.name for each in survey(stage.byre.log, stage.kernel, stage.byre.root)}
        assert strays <= found, point
        for name, record in there.items():
            assert record is None or shown(stage, name) == DATA, point
        assert shown(stage, "sb-1") == DATA if state is Desired.LIVE else True
        assert stage.record().state is not State.ABSENT
        stage.check_log()
        stage.close()
        point += 1
    assert point > 8


def test_the_command_tells_what_it_made(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    yard = Yard(folder, capsys)
    base = bytes(MIB // 2) + b"base".ljust(CHUNK, b".") * 128
    changes = {3: b"three", 200: b""}
    yard.make_base(base)
    yard.paused("sb-1", store(changes))
    said = yard.byre(
        "fork", "sb-1", *NAMES, "--state", "paused", "--reason", "try", "-o", "json", "--wait"
    ).json
    assert [each["name"] for each in said] == list(NAMES)
    parent = said[0]["parent"]
    assert (parent["name"], parent["generation"], parent["point"]) == ("sb-1", 1, None)
    assert parent["how"] in {"reflink", "sparse-copy"}
    for name in NAMES:
        image = folder / f"{name}.flat"
        yard.byre("flatten", name, image)
        assert image.read_bytes() == overlaid(base, changes)
    assert "sb-1" in yard.byre("get", "sb-2", "-o", "wide").err
    assert "sb-1 by" in yard.byre("explain", "sb-2").err
    yard.byre("replay", "--verify")
    assert "there is a disk named sb-2" in yard.byre("fork", "sb-1", "sb-2", code=4).err
    yard.byre("fork", "sb-9", "sb-2", code=3)
