"""The limits of a root: refused where the log decides, by what is there, asked and allowed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler import allowance
from reconciler.api import Byre
from reconciler.checkup import bounds
from reconciler.checkup.finding import Level, Patient
from reconciler.config import Settings
from reconciler.drivers.cow_room import cow_size
from reconciler.root import Root
from reconciler.specs import Sourced
from statemachine.errors import LimitReached, RefusedError, UsageError
from statemachine.machine import State, Trigger
from statemachine.specreader import parse
from statemachine.units import Bytes
from tests.unit.builders import BASE, MIB, Stage
from tests.unit.cliworld import World

FULL = cow_size(Bytes(MIB)).count
"""What a disk on the base promises."""


@pytest.fixture
def stage(folder: Path) -> Iterator[Stage]:
    made = Stage(folder)
    yield made
    made.close()


def limit(stage: Stage, **limits: object) -> None:
    stage.settings = Settings(attempts_max=5, limits=limits)
    stage.restart()


def apply(stage: Stage, *names: str, prune: bool = False, **fields: object) -> None:
    tables = [{"name": name, "base": str(BASE), **fields} for name in names]
    specs = parse({"disk": tables}, source="a.toml", folder=Path("/"))
    stage.byre.apply([Sourced("a.toml", spec) for spec in specs], prune=prune)


def test_more_disks_than_allowed_are_refused_as_a_whole(stage: Stage) -> None:
    limit(stage, disks=3)
    apply(stage, "sb-1", "sb-2")
    with pytest.raises(LimitReached) as caught:
        apply(stage, "sb-2", "sb-3", "sb-4")
    assert str(caught.value) == "limits.disks: there are 2, 2 more are asked, 3 are allowed"
    assert (caught.value.exit_code, "config.toml" in caught.value.hint) == (4, True)
    assert stage.byre.log.record("sb-3") is None
    apply(stage, "sb-3")


def test_a_disk_counts_until_it_is_removed_and_may_be_wanted_again_until_then(
    stage: Stage,
) -> None:
    limit(stage, disks=1)
    stage.live()
    stage.byre.command(["sb-1"], Trigger.REMOVE)
    with pytest.raises(LimitReached, match="there are 1, 1 more are asked"):
        apply(stage, "sb-2")
    apply(stage, "sb-1")  # wanted again before it is removed
    stage.settle()
    assert stage.record().state is State.SNAPSHOTTED
    stage.command(Trigger.REMOVE)
    apply(stage, "sb-2")


def test_what_is_over_a_limit_already_may_be_changed_and_taken_away(stage: Stage) -> None:
    apply(stage, "sb-1", "sb-2", "sb-3")
    stage.settle()
    limit(stage, disks=1, bytes_promised=MIB)
    stage.command(Trigger.PAUSE)
    apply(stage, "sb-2", busy_timeout_s=5)
    apply(stage, "sb-2", prune=True)
    with pytest.raises(LimitReached):
        apply(stage, "sb-4")


def test_promises_are_what_files_may_become(stage: Stage) -> None:
    limit(stage, bytes_promised=2 * FULL + MIB)
    apply(stage, "sb-1", "sb-2")
    apply(stage, "small", cow_max="1MiB", cow_size="1MiB")
    with pytest.raises(LimitReached, match=r"limits\.bytes_promised: there are") as caught:
        apply(stage, "sb-3")
    assert str(Bytes(2 * FULL + MIB)) in str(caught.value)
    with pytest.raises(LimitReached):
        apply(stage, "small")  # the same disk, with a bound that is larger
    used = allowance.used(stage.byre.log, stage.kernel, stage.byre.root.cows)
    assert (used.disks, used.bytes_promised.count) == (3, 2 * FULL + MIB)


def test_two_clients_cannot_both_take_the_last_place(stage: Stage) -> None:
    limit(stage, disks=5)
    settings = stage.settings
    ready, refused = threading.Barrier(8), []

    def client(number: int) -> None:
        with Byre(stage.root, kernel=stage.kernel, settings=settings) as byre:
            ready.wait(60)
            try:
                byre.ensure(f"sb-{number}", base=BASE)
            except LimitReached:
                refused.append(number)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (len(refused), len(stage.byre.log.in_use())) == (3, 5)


def test_one_batch_counts_its_requests_one_after_the_other(stage: Stage) -> None:
    limit(stage, disks=1)
    turns = stage.byre.log
    results: list[str] = []
    barrier = threading.Barrier(4)

    def ask(number: int) -> None:
        barrier.wait(60)
        try:
            stage.byre.ensure(f"sb-{number}", base=BASE)
            results.append("stored")
        except LimitReached:
            results.append("refused")

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(results) == ["refused"] * 3 + ["stored"]
    assert len(turns.in_use()) == 1


def test_while_the_files_take_too_much_nothing_begins_and_nothing_goes_live(stage: Stage) -> None:
    record = stage.live()
    stage.kernel.write(record.device, 0, b"x" * 65536)
    stage.command(Trigger.PAUSE)
    taken = stage.kernel.allocated(Path(record.cow_path)).count
    limit(stage, bytes_used=taken)
    with pytest.raises(RefusedError, match=r"limits\.bytes_used is") as caught:
        apply(stage, "sb-2")
    assert caught.value.exit_code == 4
    stage.byre.command(["sb-1"], Trigger.RESTORE)
    stage.once()
    failure = stage.record().failure
    assert failure is not None
    assert (failure.consequence, failure.kind) == ("blocked", "no-space")
    assert "limits.bytes_used" in failure.message
    limit(stage, bytes_used=taken + 1)
    stage.settle()
    assert stage.record().state is State.RESTORED


def test_what_is_live_stays_live_whatever_its_file_takes(stage: Stage) -> None:
    record = stage.live()
    stage.kernel.write(record.device, 0, b"x" * 65536)
    limit(stage, bytes_used=1)
    stage.check_quiet()
    assert stage.record().state is State.SNAPSHOTTED


@pytest.mark.parametrize(
    "said",
    ["limits = 3", "[limits]\ndisks = -1", "[limits]\ndisks = true", "[limits]\nbytes_used = 'x'",
     "[limits]\nbytes_promised = 1.5", "[limits]\ncows = 3"],
)  # fmt: skip
def test_a_limit_that_is_none_is_named_with_its_file(folder: Path, said: str) -> None:
    path = folder / "config.toml"
    path.write_text(said)
    with pytest.raises(UsageError, match=r"config.toml: .*limits.*allowed"):
        Settings.read(path)


def test_limits_are_read_from_the_settings_of_a_root(folder: Path) -> None:
    path = folder / "config.toml"
    path.write_text("[limits]\ndisks = 10\nbytes_promised = '2GiB'\nbytes_used = 4096\n")
    found = Settings.read(path).limits
    assert (found.disks, found.bytes_promised, found.bytes_used) == (10, Bytes(2**31), Bytes(4096))


def test_doctor_and_get_say_how_much_of_the_limits_is_used(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world = World(folder, monkeypatch, capsys)
    world.create("sb-1")
    with Byre(world.root, kernel=world.kernel) as byre:
        patient = Patient(root=Root(world.root), records=tuple(byre.log.records()))
    assert (bounds.limits(patient).level, bounds.limits(patient).found) == (
        Level.OK,
        "this root has none",
    )
    assert "limits" not in world.byre("get").err
    (world.root / "config.toml").write_text("[limits]\ndisks = 2\nbytes_promised = '1GiB'\n")
    said = f"disks: 1 of 2, promised: {Bytes(FULL)} of {Bytes(2**30)}"
    assert f"limits: {said}" in world.byre("get").err
    assert (bounds.limits(patient).level, bounds.limits(patient).found) == (Level.OK, said)
    assert world.create("sb-2").code == 0
    refused = world.create("sb-3")
    assert (refused.code, "there are 2, 1 more are asked, 2 are allowed" in refused.err) == (
        4,
        True,
    )
    with Byre(world.root, kernel=world.kernel) as byre:
        patient = Patient(root=Root(world.root), records=tuple(byre.log.records()))
    found = bounds.limits(patient)
    assert (found.level, "raise [limits]" in found.remedy) == (Level.WARNING, True)
    (world.root / "config.toml").write_text("limits = 1")
    assert bounds.limits(patient).level is Level.WARNING
    assert world.byre("get").code == 0


def test_a_disk_that_is_changed_beside_a_new_one_counts_once(stage: Stage) -> None:
    limit(stage, disks=2, bytes_promised=2 * FULL)
    apply(stage, "sb-1")
    tables = [
        {"name": "sb-1", "base": str(BASE), "busy_timeout_s": 5},
        {"name": "sb-2", "base": str(BASE)},
    ]
    specs = parse({"disk": tables}, source="a.toml", folder=Path("/"))
    declared = stage.byre.apply([Sourced("a.toml", spec) for spec in specs])
    assert [each.changed for each in declared] == [True, True]
