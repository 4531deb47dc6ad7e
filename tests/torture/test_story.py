"""An intent that nobody went on with, a start that is not told, a leak: each is found and named."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from reconciler import hostnotes
from reconciler.kernel.sim import SimCrash
from statemachine.events import Event
from statemachine.machine import Trigger
from tests.torture import story, surplus
from tests.torture.story import Promise
from tests.unit.builders import Stage


@pytest.fixture
def stage(folder: Path) -> Iterator[Stage]:
    """A root on a simulated host."""
    made = Stage(folder)
    yield made
    made.close()


def events_of(stage: Stage) -> list[Event]:
    return list(stage.byre.log.events())


def crashed(stage: Stage) -> list[Event]:
    """Return the events of a disk whose pause was begun, killed, and gone on with."""
    stage.live()
    stage.byre.command(["sb-1"], Trigger.PAUSE)
    stage.kernel.faults.crash_in("dm_remove")
    with pytest.raises(SimCrash):
        stage.settle()
    stage.restart()
    stage.settle()
    return events_of(stage)


def test_a_crash_that_was_gone_on_with_is_explained(stage: Stage) -> None:
    events = crashed(stage)
    assert story.unexplained_intents(events) == []
    assert story.resumed(events) == 1
    assert story.transitions(events) == 3


def test_an_intent_that_nobody_names_is_found(stage: Stage) -> None:
    events = crashed(stage)
    [resuming] = [event for event in events if "resumes" in event.data]
    text = resuming.data_text.replace('"resumes"', '"forgets"')
    events[events.index(resuming)] = attrs.evolve(resuming, data_text=text)
    [wrong] = story.unexplained_intents(events)
    assert f"{resuming.seq} of sb-1 resumes None, not" in wrong


def test_an_intent_without_an_end_and_an_end_without_an_intent_are_found(stage: Stage) -> None:
    stage.live()
    events = events_of(stage)
    *_, intent, outcome = [event for event in events if event.type.startswith("transition.")]
    without_end = [event for event in events if event != outcome]
    assert story.unexplained_intents(without_end) == [f"{intent.seq} of sb-1 has no outcome"]
    without_intent = [event for event in events if event != intent]
    wrong = f"{outcome.seq} of sb-1 is an outcome without an intent"
    assert story.unexplained_intents(without_intent) == [wrong]


def test_each_start_is_told_once(stage: Stage) -> None:
    hostnotes.started(stage.byre.log, version="1")
    events = events_of(stage)
    [pid] = [event.data["pid"] for event in events if event.type == "reconciler.started"]
    assert story.untold_starts(events, ready={pid}, tried={pid, 1}) == []
    assert story.untold_starts(events, ready={pid, 1}, tried={pid, 1}) == [
        "start of 1 is not in the log"
    ]
    assert story.untold_starts(events, ready=set(), tried=set()) == [
        f"start of {pid}, which nobody made"
    ]
    assert story.untold_starts(events * 2, ready={pid}, tried={pid}) == [
        f"start of {pid} is told 2 times"
    ]


def test_a_command_that_was_told_yes_needs_its_outcome(stage: Stage) -> None:
    stage.live()
    events = events_of(stage)
    [declared] = [event for event in events if event.type == "disk.declared"]
    promise = Promise(disk="sb-1", pid=declared.data["by"]["pid"])
    assert story.broken_promises(events, [promise]) == []
    assert len(story.broken_promises(events[:-1], [promise])) == 1
    assert len(story.broken_promises(events, [Promise(disk="sb-1", pid=1)])) == 1


def test_an_acknowledged_event_must_be_there_as_it_was(stage: Stage) -> None:
    stage.live()
    events = events_of(stage)
    told = [(event.seq, event.hash) for event in events]
    assert story.forgotten(events, told) == []
    assert story.forgotten(events[:-1], told) == [f"event {told[-1][0]} was told of"]
    assert story.forgotten(events, [(told[0][0], "0" * 64)]) == [f"event {told[0][0]} was told of"]


# --- the host against the records ----------------------------------------------------------------


def differences(stage: Stage) -> list[str]:
    place = surplus.Place(
        root=stage.root, prefix="byre-", folder=Path("/"), links=stage.root.parent / "links"
    )
    return surplus.compare(stage.kernel, place, stage.byre.log.records())


def test_a_host_that_is_as_the_records_say_has_no_difference(stage: Stage) -> None:
    stage.live("sb-1")
    stage.live("sb-2")
    stage.command(Trigger.PAUSE, "sb-2")
    stage.live("sb-3")
    stage.command(Trigger.REMOVE, "sb-3")
    assert differences(stage) == []


def test_what_no_record_knows_is_leaked_and_what_is_gone_is_missing(stage: Stage) -> None:
    record = stage.live()
    stage.kernel.dm_create("byre-extra", "BYRE-extra")
    stage.kernel.drop_link(Path(record.device), stage.kernel.read_link(Path(record.device)).target)
    assert differences(stage) == [
        "device: byre-extra dead is leaked",
        f"node: {record.device_name} is missing",
    ]
