"""Registered bases: digest, copy, read-only, named in specs, kept while a disk stands on one."""

from __future__ import annotations

import hashlib
import itertools
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from reconciler import basekeeping
from reconciler.basekeeping import Condition, Verity
from reconciler.kernel.sim import SimCrash
from reconciler.kernel.sim.files import File
from reconciler.specs import Sourced
from statemachine import history, repair, replaying, retention
from statemachine.basefacts import Base
from statemachine.errors import (
    ActionError,
    IdentityMismatch,
    NoSuchBase,
    RefusedError,
    SpecError,
    UsageError,
    VersionConflict,
)
from statemachine.events import Event, NewEvent
from statemachine.machine import Trigger
from statemachine.names import disk_name
from statemachine.payloads import BaseAdded, Requester
from statemachine.specreader import parse
from tests.unit.builders import BASE, MIB, Stage

BY = Requester(uid=0, user="root", pid=1, command="test")
CONTENT = b"base".ljust(MIB, b"\0")
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def stage(folder: Path) -> Iterator[Stage]:
    made = Stage(folder)
    yield made
    made.close()


def add(stage: Stage, *, copy: bool = False, verity: Verity = Verity.AUTO) -> Base:
    base, _ = basekeeping.add(stage.byre, BASE, name=disk_name("debian"), copy=copy, verity=verity)
    return base


def apply(stage: Stage, base: str, name: str = "sb-1") -> None:
    [spec] = parse({"disk": [{"name": name, "base": base}]}, source="a.toml", folder=Path("/srv"))
    stage.byre.apply([Sourced("a.toml", spec)])
    stage.settle()


def conditions(stage: Stage) -> dict[str, Condition]:
    return {each.base.name: each.condition for each in basekeeping.listed(stage.byre)}


def copies(stage: Stage) -> list[str]:
    return list(stage.kernel.list_folder(stage.byre.root.bases))


def test_a_base_is_added_with_its_digest_and_nobody_may_write_to_it(stage: Stage) -> None:
    base = add(stage)
    assert (base.sha256, base.path, base.copied_from) == (SHA256, str(BASE), "")
    assert stage.kernel.file_mode(BASE) & 0o222 == 0
    assert (base.read_only, base.verity) == (True, "")
    assert "--verity on only" in base.verity_why
    again, is_new = basekeeping.add(stage.byre, BASE, name=disk_name("debian"))
    assert (again, is_new) == (base, False)
    assert [e.type for e in stage.byre.log.events() if e.type.startswith("base.")] == ["base.added"]


def test_a_copy_is_a_file_of_our_own_and_goes_with_the_base(stage: Stage) -> None:
    base = add(stage, copy=True)
    assert (base.path, base.copied_from) == (
        str(stage.byre.root.bases / f"{SHA256}.img"),
        str(BASE),
    )
    assert base.method in ("reflink", "sparse-copy")
    assert stage.kernel.file_mode(Path(base.path)) & 0o222 == 0
    assert stage.kernel.file_mode(BASE) & 0o222, "the file that was copied is left alone"
    stage.kernel.delete(BASE)
    apply(stage, "base:debian")
    assert stage.kernel.read(stage.record().device, 0, 4) == b"base"
    stage.command(Trigger.REMOVE)
    basekeeping.remove(stage.byre, ["debian"])
    assert copies(stage) == []


@pytest.mark.parametrize("word", ["base:debian", f"sha256:{SHA256}"])
def test_a_spec_names_a_base_and_the_log_has_its_path_and_digest(stage: Stage, word: str) -> None:
    add(stage)
    apply(stage, word)
    record = stage.record()
    assert (record.spec["base"], record.base.sha256) == (str(BASE), SHA256)
    [declared] = [e for e in stage.events() if e.type == "disk.declared"]
    assert declared.data["base_name"] == "debian"
    seq = stage.byre.log.last_seq()
    apply(stage, word)
    apply(stage, str(BASE))
    assert seq == stage.byre.log.last_seq(), "the same base by another word is no new wish"


def test_a_path_to_a_registered_base_takes_its_digest_too(stage: Stage) -> None:
    add(stage)
    stage.live()
    assert stage.record().base.sha256 == SHA256


def test_a_path_that_looks_like_a_word_is_written_with_its_folder(stage: Stage) -> None:
    stage.kernel.make_file(Path("/srv/base:debian"), MIB, b"path")
    apply(stage, "./base:debian")
    assert stage.record().spec["base"] == "/srv/base:debian"


@pytest.mark.parametrize("word", ["base:other", f"sha256:{'0' * 64}"])
def test_a_base_that_is_not_registered_is_told_with_those_that_are(stage: Stage, word: str) -> None:
    add(stage)
    with pytest.raises(SpecError, match=f"{word}: no such base.*there are: base:debian"):
        apply(stage, word)


@pytest.mark.parametrize(
    "word", ["base:", "base:Über", "base:a/b", "sha256:", "sha256:" + "F" * 64]
)
def test_a_word_that_is_none_is_refused_with_the_rule(stage: Stage, word: str) -> None:
    with pytest.raises(SpecError, match=r"field 'base': found .*; allowed: base:NAME"):
        apply(stage, word)


def test_a_base_in_use_is_not_removed_and_the_disks_are_named(stage: Stage) -> None:
    add(stage, copy=True)
    for number in range(7):
        apply(stage, "base:debian", f"sb-{number}")
    stage.command(Trigger.PAUSE, "sb-0")
    with pytest.raises(RefusedError, match="by sb-0, sb-1, sb-2, sb-3, sb-4 and 2 more") as caught:
        basekeeping.remove(stage.byre, ["debian"])
    assert caught.value.exit_code == 4
    assert conditions(stage) == {"debian": Condition.INTACT}
    [listed] = basekeeping.listed(stage.byre, ["base:debian"])
    assert len(listed.disks) == 7


def test_a_disk_that_is_being_removed_still_stands_on_its_base(stage: Stage) -> None:
    add(stage)
    stage.live()
    stage.byre.command(["sb-1"], Trigger.REMOVE)
    with pytest.raises(RefusedError, match="sb-1"):
        basekeeping.remove(stage.byre, ["debian"])
    stage.settle()
    assert [base.name for base in basekeeping.remove(stage.byre, ["debian"])] == ["debian"]
    assert stage.kernel.identify(BASE) is not None, "a file elsewhere stays"


def test_nobody_declares_a_disk_on_a_base_that_goes_at_the_same_moment(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(stage)
    log = stage.byre.log
    append = log.append

    def after_another(events: Sequence[NewEvent]) -> list[Event]:
        monkeypatch.setattr(log, "append", append)
        basekeeping.remove(stage.byre, ["debian"])
        return append(events)

    monkeypatch.setattr(log, "append", after_another)
    with pytest.raises(SpecError, match="no such base"):
        apply(stage, "base:debian")
    assert log.record("sb-1") is None


def test_two_who_add_the_same_name_do_not_both_get_it(stage: Stage) -> None:
    base = add(stage)
    [event] = [e for e in stage.byre.log.events() if e.type == "base.added"]
    payload = BaseAdded(name="debian", path="/other", file=base.file, sha256="0" * 64)
    assert event.data["name"] == "debian"
    with pytest.raises(VersionConflict, match="added meanwhile"):
        stage.byre.log.append([basekeeping.event(payload, "")])
    stage.kernel.make_file(Path("/srv/other"), MIB, b"other")
    with pytest.raises(RefusedError, match="is registered"):
        basekeeping.add(stage.byre, Path("/srv/other"), name=disk_name("debian"))


def test_a_base_that_changed_is_told_and_no_new_disk_stands_on_it(stage: Stage) -> None:
    add(stage)
    stage.kernel.write(BASE, 0, b"else")
    assert conditions(stage) == {"debian": Condition.CHANGED}
    with pytest.raises(SpecError, match="what was added as base 'debian'"):
        apply(stage, str(BASE))
    [found] = basekeeping.verify(stage.byre)
    assert found.condition is Condition.CHANGED
    stage.kernel.delete(BASE)
    assert conditions(stage) == {"debian": Condition.MISSING}


def test_a_base_whose_content_is_other_under_the_same_mtime_is_found_by_verify(
    stage: Stage,
) -> None:
    add(stage)
    assert [each.condition for each in basekeeping.verify(stage.byre)] == [Condition.INTACT]
    file = stage.kernel.host.tree.get(BASE)
    assert isinstance(file, File)
    file.pages[0] = b"rot"
    assert conditions(stage) == {"debian": Condition.INTACT}, "a look costs nothing and sees less"
    [found] = basekeeping.verify(stage.byre)
    assert (found.condition, SHA256 in found.why) == (Condition.DAMAGED, True)
    with pytest.raises(SpecError, match="base verify"):
        apply(stage, "base:debian")
    verified = [e.data for e in stage.byre.log.events() if e.type == "base.verified"]
    assert [data["how"] for data in verified] == ["sha256", "sha256"]
    assert ["wrong" in data for data in verified] == [False, True]


def test_verity_is_on_where_the_file_system_has_it_and_the_event_says_if_not(stage: Stage) -> None:
    assert "not supported" in add(stage, copy=True).verity_why
    basekeeping.remove(stage.byre, ["debian"])
    with pytest.raises(ActionError, match="enable_verity"):
        add(stage, verity=Verity.ON)
    stage.kernel.host.has_verity = True
    base = add(stage, copy=True)
    assert (base.verity, base.verity_why) == (f"sha256:{SHA256}", "")
    basekeeping.verify(stage.byre)
    [data] = [e.data for e in stage.byre.log.events() if e.type == "base.verified"]
    assert data["how"] == "fs-verity"
    calls = [call.name for call in stage.kernel.trace]
    basekeeping.verify(stage.byre, in_full=True)
    assert [call.name for call in stage.kernel.trace][len(calls) :].count("digest") == 1


def test_what_cannot_be_a_base_is_refused(stage: Stage) -> None:
    stage.kernel.make_file(Path("/srv/odd"), 513, b"x")
    for path, why in (("/srv/odd", "513 bytes"), ("/srv/none", "no such file"), ("/srv", "folder")):
        with pytest.raises(UsageError, match=why):
            basekeeping.add(stage.byre, Path(path), name=disk_name("odd"))
    with pytest.raises(NoSuchBase, match="there are: none") as caught:
        basekeeping.verify(stage.byre, ["odd"])
    assert caught.value.exit_code == 3


def test_what_is_in_the_place_of_a_copy_and_is_none_is_left_and_told(stage: Stage) -> None:
    place = stage.byre.root.bases / f"{SHA256}.img"
    stage.kernel.make_file(place, MIB, b"other")
    with pytest.raises(IdentityMismatch, match="has other content"):
        add(stage, copy=True)
    assert stage.kernel.identify(place) is not None


Step = Callable[[Stage], object]


def die_everywhere(folder: Path, prepare: Step, work: Step, check: Step) -> None:
    """Have a process die at each call of some work in turn, and do the work again in the next."""
    for point in itertools.count(1):
        (folder / str(point)).mkdir()
        stage = Stage(folder / str(point))
        stage.kernel.host.has_verity = True
        prepare(stage)
        faults, died = stage.kernel.faults, False
        faults.crash_at_call(faults.calls + point, when="after")
        try:
            work(stage)
        except SimCrash:
            died = True
            stage.restart()
            work(stage)
        faults.clear()
        check(stage)
        stage.check_log()
        stage.close()
        if not died:
            return


def test_dying_anywhere_while_a_base_is_added_leaves_nothing_that_the_next_try_minds(
    folder: Path,
) -> None:
    def check(stage: Stage) -> None:
        assert (conditions(stage), len(copies(stage))) == ({"debian": Condition.INTACT}, 1)

    die_everywhere(folder, lambda _: None, lambda stage: add(stage, copy=True), check)


def test_dying_anywhere_while_a_base_is_removed_is_finished_by_the_next_call(folder: Path) -> None:
    def remove(stage: Stage) -> None:
        if stage.byre.log.bases():
            basekeeping.remove(stage.byre, ["debian"])
        basekeeping.finish_removals(stage.byre)

    def check(stage: Stage) -> None:
        assert (conditions(stage), copies(stage)) == ({}, [])

    die_everywhere(folder, lambda stage: add(stage, copy=True), remove, check)


def test_the_bases_are_made_again_of_the_events_and_a_difference_is_told(stage: Stage) -> None:
    add(stage)
    basekeeping.verify(stage.byre)
    before = stage.byre.log.bases()
    assert list(history.compare(stage.byre.log)) == []
    with sqlite3.connect(stage.byre.root.log) as raw:
        raw.execute("DELETE FROM bases")
    [difference] = replaying.replay(stage.byre.log).differences
    assert difference.disk == "base debian"
    repair.rebuild(stage.byre.log)
    assert before == stage.byre.log.bases()
    assert list(history.compare(stage.byre.log)) == []


def test_a_base_is_not_lost_with_the_events_that_go_into_an_archive(stage: Stage) -> None:
    add(stage)
    stage.clock.advance_s(60)
    before = stage.byre.log.bases()
    file = stage.root.parent / "old.byre"
    retention.archive_before(stage.byre.log, stage.clock.now_ns(), file, by=BY)
    assert [e.type for e in stage.byre.log.events()] == ["log.archived"]
    assert before == stage.byre.log.bases()
    repair.rebuild(stage.byre.log)
    assert before == stage.byre.log.bases()
    basekeeping.remove(stage.byre, ["debian"])
    repair.rebuild(stage.byre.log)
    assert stage.byre.log.bases() == {}
