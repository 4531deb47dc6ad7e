"""`byre checkpoint`, `byre points`, `byre restore --to`: kept points of a disk, and going back."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reconciler.kernel.sim import SimCrash
from reconciler.orphans import survey
from reconciler.outcome import is_there
from reconciler.resolve import Resolver
from statemachine.errors import (
    BlockedError,
    IdentityMismatch,
    NoSuchDisk,
    PermanentError,
    RefusedError,
    TransientError,
    UsageError,
)
from statemachine.machine import Desired, State, Trigger
from tests.unit.builders import BASE, LINK, MIB, Stage
from tests.unit.crashing import count_commits
from tests.unit.diskyard import CHUNK, Yard, overlaid, store

AT = 3 * CHUNK
FIRST, SECOND = b"first", b"second"


@pytest.fixture
def stage(folder: Path) -> Iterator[Stage]:
    made = Stage(folder)
    yield made
    made.close()


def begun(stage: Stage, *, has_dm: bool = True) -> None:
    """Make a live disk with a point "clean" of FIRST, and with SECOND in it by now."""
    stage.kernel.host.dm_errno = 0 if has_dm else errno.ENODEV
    stage.kernel.host.tree.get(BASE).fs.reflink = True
    stage.declare(link=LINK)
    stage.settle()
    stage.kernel.write(LINK, AT, FIRST)
    stage.byre.checkpoint("sb-1", "clean", reason="before the update")
    stage.kernel.write(LINK, AT, SECOND)
    stage.kernel.sync()


def shown(stage: Stage, name: str = "sb-1") -> bytes:
    return stage.kernel.read(stage.record(name).device, AT, 6).rstrip(b"\0")


def files(stage: Stage) -> list[str]:
    return list(stage.kernel.list_folder(stage.byre.root.cows))


def names(stage: Stage) -> list[str]:
    return [point.name for point in stage.record().points]


@pytest.mark.parametrize("has_dm", [True, False])
@pytest.mark.parametrize("state", [Desired.LIVE, Desired.PAUSED])
def test_a_disk_goes_back_to_a_point_as_often_as_wanted(
    stage: Stage,
    state: Desired,
    has_dm: bool,  # noqa: FBT001 - pytest
) -> None:
    begun(stage, has_dm=has_dm)
    for word in (SECOND, b"third"):
        stage.kernel.write(LINK, AT, word)
        if state is Desired.PAUSED:
            stage.command(Trigger.PAUSE)
        before = stage.record()
        stage.byre.go_back("sb-1", "clean", reason="the update broke it")
        assert not is_there(stage.record())
        stage.settle()
        after = stage.record()
        assert (after.state, after.rewind) == (State.RESTORED, None)
        assert shown(stage) == FIRST
        assert after.cow is not None
        assert before.cow is not None
        assert after.cow.inode != before.cow.inode
        assert after.cow_path == before.cow_path
        stage.check()
    told = [kind for kind in stage.types() if "rewind" in kind]
    assert told == ["transition.started rewind", "transition.completed rewind"] * 2
    event = next(each for each in stage.events() if "rewind" in each.data)
    assert (event.type, event.reason) == ("disk.declared", "the update broke it")
    assert event.data["rewind"]["point"] == "clean"


def test_a_checkpoint_changes_nothing_of_the_disk_and_suspends_it_once(stage: Stage) -> None:
    begun(stage)
    record = stage.record()
    assert (record.state, stage.kernel.read(LINK, AT, 6)) == (State.SNAPSHOTTED, SECOND)
    assert [call.name for call in stage.kernel.trace].count("dm_suspend") == 1
    [point] = record.points
    assert (point.name, point.how) == ("clean", "reflink")
    event = stage.events()[-1]
    assert (event.type, event.reason) == ("disk.checkpointed", "before the update")
    stage.check()
    stage.check_quiet()


def test_points_are_named_in_order_and_the_oldest_give_way(stage: Stage) -> None:
    begun(stage)
    made = [stage.byre.checkpoint("sb-1", keep=3).point.name for _ in range(4)]
    assert made == ["p1", "p2", "p3", "p4"]
    assert names(stage) == ["p2", "p3", "p4"]
    assert [e.data["why"] for e in stage.events() if e.type == "disk.points_dropped"] == [
        "keep 3",
        "keep 3",
    ]
    assert stage.byre.drop_points("sb-1", ["p3", "p2"]) == ("p3", "p2")
    assert names(stage) == ["p4"]
    assert len(files(stage)) == 2
    stage.check()


def test_points_go_with_their_disk(stage: Stage) -> None:
    begun(stage)
    stage.byre.checkpoint("sb-1")
    stage.byre.go_back("sb-1", "p1")
    assert len(files(stage)) == 4
    record = stage.command(Trigger.REMOVE)
    assert (record.points, record.rewind, files(stage)) == ((), None, [])
    stage.check()


def test_a_fork_of_a_point_is_as_the_point_was(stage: Stage) -> None:
    begun(stage)
    stage.byre.fork("sb-1@clean", ["sb-2"])
    stage.settle()
    assert (shown(stage, "sb-2"), shown(stage)) == (FIRST, SECOND)
    parent = stage.record("sb-2").parent
    assert parent is not None
    assert (str(parent), parent.frozen_ns) == ("sb-1@clean", 0)
    with pytest.raises(RefusedError, match="no point named 'other'; it has clean"):
        stage.byre.fork("sb-1@other", ["sb-3"])
    stage.check()


def test_points_outlive_a_reboot(stage: Stage) -> None:
    begun(stage)
    stage.byre.go_back("sb-1", "clean")
    stage.kernel.reboot(renumber=True)
    stage.restart()
    stage.settle()
    assert shown(stage) == FIRST
    stage.kernel.write(LINK, AT, SECOND)
    stage.byre.go_back("sb-1", "clean")
    stage.settle()
    assert shown(stage) == FIRST
    stage.command(Trigger.REMOVE)
    assert files(stage) == []


def test_going_back_is_the_way_out_of_a_fault(stage: Stage) -> None:
    begun(stage)
    stage.command(Trigger.PAUSE)
    stage.kernel.delete(stage.record().cow_path)
    stage.declare()
    stage.settle()
    assert stage.record().fault is not None
    stage.byre.go_back("sb-1", "clean")
    stage.settle()
    assert shown(stage) == FIRST
    stage.check()


def test_a_disk_in_use_goes_back_when_it_is_let_go(stage: Stage) -> None:
    begun(stage)
    handle = stage.kernel.open(LINK)
    stage.byre.go_back("sb-1", "clean")
    stage.once()
    record = stage.record()
    assert record.failure is not None
    assert record.failure.kind == "in-use"
    assert stage.kernel.read(LINK, AT, 6) == SECOND
    handle.close()
    stage.settle()
    assert shown(stage) == FIRST


def test_a_restore_without_a_point_takes_it_back(stage: Stage) -> None:
    begun(stage)
    stage.byre.go_back("sb-1", "clean")
    stage.byre.command(["sb-1"], Trigger.RESTORE)
    stage.settle()
    assert shown(stage) == SECOND
    record = stage.record()
    assert (record.state, record.rewind) == (State.SNAPSHOTTED, None)
    [stray] = survey(stage.byre.log, stage.kernel, stage.byre.root)
    assert "a copy that waited of sb-1" in stray.evidence
    Resolver(stage.byre).remove(stray.name)
    stage.check()


def test_the_last_word_counts(stage: Stage) -> None:
    begun(stage)
    stage.byre.checkpoint("sb-1", "later")
    stage.byre.go_back("sb-1", "clean")
    stage.byre.go_back("sb-1", "later")
    stage.settle()
    assert shown(stage) == SECOND
    stage.check()


def absent(stage: Stage) -> None:
    stage.declare()


def attached(stage: Stage) -> None:
    stage.declare(state=Desired.ATTACHED)
    stage.settle()


@pytest.mark.parametrize("make", [absent, attached])
def test_what_has_no_data_is_not_kept(stage: Stage, make: Callable[[Stage], None]) -> None:
    make(stage)
    with pytest.raises(RefusedError):
        stage.byre.checkpoint("sb-1", "clean")
    with pytest.raises(RefusedError, match="has no points"):
        stage.byre.go_back("sb-1", "clean")


def test_what_is_no_point_is_refused(stage: Stage) -> None:
    begun(stage)
    before = stage.byre.log.last_seq()
    with pytest.raises(UsageError, match="'Upper' is not the name of a point"):
        stage.byre.checkpoint("sb-1", "Upper")
    with pytest.raises(RefusedError, match="has a point named clean"):
        stage.byre.checkpoint("sb-1", "clean")
    with pytest.raises(RefusedError, match="no point named 'other'"):
        stage.byre.go_back("sb-1", "other")
    with pytest.raises(RefusedError, match="no point named 'other'"):
        stage.byre.drop_points("sb-1", ["clean", "other"])
    with pytest.raises(NoSuchDisk):
        stage.byre.checkpoint("sb-9", "clean")
    assert (before, names(stage)) == (stage.byre.log.last_seq(), ["clean"])


def test_another_file_in_the_place_of_a_point_is_never_used_nor_deleted(stage: Stage) -> None:
    begun(stage)
    [point] = stage.record().points
    stage.clock.advance_s(1)
    stage.kernel.write(point.path, 0, b"x")
    with pytest.raises(IdentityMismatch, match="was changed"):
        stage.byre.go_back("sb-1", "clean")
    stage.kernel.delete(point.path)
    with pytest.raises(PermanentError, match="is missing"):
        stage.byre.fork("sb-1@clean", ["sb-2"])
    stage.kernel.make_file(point.path, MIB, b"precious")
    for ask in (stage.byre.go_back, lambda *_: stage.byre.drop_points("sb-1", ["clean"])):
        with pytest.raises(IdentityMismatch, match="another file"):
            ask("sb-1", "clean")
    assert stage.kernel.read(point.path, 0, 8) == b"precious"


def test_the_copy_that_waits_must_be_the_one_that_was_made(stage: Stage) -> None:
    begun(stage)
    stage.byre.go_back("sb-1", "clean")
    rewind = stage.record().rewind
    assert rewind is not None
    stage.kernel.delete(rewind.path)
    stage.settle()
    failure = stage.record().failure
    assert failure is not None
    assert (failure.kind, stage.record().state) == ("point-missing", State.PAUSED)
    stage.byre.go_back("sb-1", "clean")
    stage.settle()
    assert shown(stage) == FIRST
    stage.check()


def test_an_own_file_that_somebody_replaced_is_left_alone(stage: Stage) -> None:
    begun(stage)
    stage.command(Trigger.PAUSE)
    path = stage.record().cow_path
    stage.kernel.delete(path)
    stage.kernel.make_file(path, MIB, b"precious")
    stage.byre.go_back("sb-1", "clean")
    stage.settle()
    failure = stage.record().failure
    assert failure is not None
    assert failure.exit_code == 4
    assert stage.kernel.read(path, 0, 8) == b"precious"


def test_nothing_is_left_of_a_checkpoint_that_the_log_refuses(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun(stage)
    before = files(stage)

    def failing(*_: object) -> None:
        raise BlockedError("the log is full", kind="no-space")

    monkeypatch.setattr(stage.byre.log, "append", failing)
    for ask in (stage.byre.checkpoint, lambda *_: stage.byre.go_back("sb-1", "clean")):
        with pytest.raises(BlockedError):
            ask("sb-1")
    assert before == files(stage)


def test_while_it_goes_back_it_cannot_be_asked_again(stage: Stage) -> None:
    begun(stage)
    stage.byre.go_back("sb-1", "clean")
    stage.kernel.faults.crash_in("rename_over", when="before")
    with pytest.raises(SimCrash):
        stage.settle()
    stage.restart()
    with pytest.raises(TransientError, match="rewind is under way"):
        stage.byre.go_back("sb-1", "clean")
    [declared] = stage.byre.command(["sb-1"], Trigger.RESTORE)
    assert not declared.changed
    stage.settle()
    assert shown(stage) == FIRST


COMMANDS: dict[str, Callable[[Stage], object]] = {
    "checkpoint": lambda stage: stage.byre.checkpoint("sb-1", "more", keep=1),
    "go-back": lambda stage: stage.byre.go_back("sb-1", "clean"),
    "drop": lambda stage: stage.byre.drop_points("sb-1", ["clean"]),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_crash_of_the_command_leaves_nothing_that_nobody_knows(folder: Path, name: str) -> None:
    point, died = 0, True
    while died:
        root = folder / f"{point}"
        root.mkdir()
        stage = Stage(root)
        begun(stage)
        count_commits(stage)
        faults = stage.kernel.faults
        faults.crash_at_call(faults.calls + point + 1, when="before" if point == 0 else "after")
        try:
            COMMANDS[name](stage)
            died = False
        except SimCrash:
            died = True
        faults.clear()
        stage.restart()
        stage.settle()
        for stray in survey(stage.byre.log, stage.kernel, stage.byre.root):
            assert stray.owner is None, "it is no disk of its own"
            Resolver(stage.byre, file_users=lambda _: ()).remove(stray.name)
        stage.check()
        assert shown(stage) == (FIRST if stage.types()[-1].endswith("restore") else SECOND), point
        if names(stage) == ["clean"]:
            stage.byre.go_back("sb-1", "clean")
            stage.settle()
            assert shown(stage) == FIRST
        stage.close()
        point += 1
    assert point > 3


def test_the_commands_say_what_they_did(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    yard = Yard(folder, capsys)
    base = bytes(MIB // 2) + b"base".ljust(CHUNK, b".") * 128
    yard.make_base(base)
    yard.paused("sb-1", store({3: b"three", 200: b""}))
    assert "point p1 is kept" in yard.byre("checkpoint", "sb-1").err
    said = yard.byre("checkpoint", "sb-1", "clean", "-o", "json").json
    assert [each["name"] for each in said] == ["p1", "clean"]
    assert said == yard.byre("points", "sb-1", "-o", "json").json
    [got] = yard.byre("get", "sb-1", "-o", "json").json
    assert (said, got["rewind_to"]) == (got["points"], None)
    assert "clean" in yard.byre("points", "sb-1").err
    assert "p1 is dropped" in yard.byre("checkpoint", "sb-1", "--drop", "p1").err
    yard.byre("fork", "sb-1@clean", "sb-2", "--state", "paused")
    image = folder / "sb-2.flat"
    yard.byre("flatten", "sb-2", image)
    assert image.read_bytes() == overlaid(base, {3: b"three", 200: b""})
    yard.byre("restore", "sb-1", "--to", "clean")
    [got] = yard.byre("get", "sb-1", "-o", "json").json
    assert (got["rewind_to"], got["desired"]) == ("clean", "live")
    said = yard.byre("explain", "sb-1", "-o", "json").json
    assert said["rewind_to"] == "clean"
    assert said["triggers"] == ["rewind", "restore"]
    yard.byre("restore", "sb-1", "sb-2", "--to", "clean", code=2)
    yard.byre("checkpoint", "sb-1", "more", "--drop", "clean", code=2)
    yard.byre("restore", "sb-1", "--to", "none", code=4)
    yard.byre("points", "sb-9", code=3)
    yard.byre("replay", "--verify")
