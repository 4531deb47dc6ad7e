"""What an event leaves out is what the rest of it gives, and nobody who reads it misses it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reconciler.kernel.sim import SimCrash
from statemachine import events, payloads
from statemachine.asker import Requester
from statemachine.events import Event, EventType
from statemachine.machine import EDGES, Edge, Trigger
from tests.unit.builders import LINK, Stage

EACH_EDGE = pytest.mark.parametrize(
    "edge", EDGES, ids=lambda edge: f"{edge.trigger.value}-{edge.source.value}"
)


def stored(event_type: EventType, text: str, actor: str = "ops") -> Event:
    return Event(1, "sb-1", 1, 1, event_type.value, 8, actor, "", "", "boot", text, "", "")


@EACH_EDGE
def test_a_move_is_read_as_it_was_meant_whatever_it_leaves_out(edge: Edge) -> None:
    moved = payloads.TransitionCompleted(
        trigger=edge.trigger, source=edge.source, target=edge.target, duration_ns=7
    )
    text = events.encode(EventType.TRANSITION_COMPLETED, payloads.to_data(moved), actor="ops")
    event = stored(EventType.TRANSITION_COMPLETED, text)
    assert payloads.read(event) == moved
    assert (event.data["source"], event.data["target"]) == (edge.source, edge.target)


@EACH_EDGE
def test_a_state_is_left_out_where_the_trigger_has_no_other(edge: Edge) -> None:
    same = [each for each in EDGES if each.trigger is edge.trigger]
    told = {"trigger": edge.trigger, "source": edge.source, "target": edge.target}
    kept = json.loads(events.encode(EventType.TRANSITION_STARTED, told, actor=""))
    assert ("source" in kept) == (len({each.source for each in same}) > 1)
    assert ("target" in kept) == (len({each.target for each in same}) > 1)


def test_a_state_that_the_table_does_not_give_is_said_and_kept() -> None:
    told = {"trigger": "attach", "source": "paused", "target": "removed"}
    event = stored(
        EventType.TRANSITION_FAILED, events.encode(EventType.TRANSITION_FAILED, told, actor="")
    )
    assert (event.data["source"], event.data["target"]) == ("paused", "removed")


@pytest.mark.parametrize("why", ["declared", "command", "pruned"])
@pytest.mark.parametrize("identity", ["", "0" * 32])
def test_why_a_disk_was_declared_is_read_as_it_was_said(why: str, identity: str) -> None:
    declared = payloads.DiskDeclared(id=identity, spec={"state": "live"}, why=why)
    text = events.encode(EventType.DISK_DECLARED, payloads.to_data(declared), actor="ops")
    assert payloads.read(stored(EventType.DISK_DECLARED, text)) == declared
    assert ('"why"' in text) == (why != ("declared" if identity else "command"))


def test_a_later_declaration_of_version_2_that_says_no_why_was_declared() -> None:
    event = stored(EventType.DISK_DECLARED, '{"spec":{"state":"live"},"v":2}')
    declared = payloads.read(event)
    assert isinstance(declared, payloads.DiskDeclared)
    assert declared.why == "declared"


@pytest.mark.parametrize("actor", ["ops", "somebody-else"])
def test_who_asked_is_read_with_the_name_that_it_had(actor: str) -> None:
    by = Requester(uid=1000, user="ops", pid=7, command="byre")
    recovered = payloads.DiskRecovered(was="faulted", by=by)
    text = events.encode(EventType.DISK_RECOVERED, payloads.to_data(recovered), actor=actor)
    event = stored(EventType.DISK_RECOVERED, text, actor)
    assert payloads.read(event) == recovered
    assert event.data["by"]["user"] == "ops"
    assert ('"user"' in text) == (actor != "ops")


@pytest.mark.parametrize(
    "text",
    ['{"trigger":["attach"]}', '{"trigger":7}', '{"by":7}', '{"by":[]}', '{"spec":3}', "{}"],
)
def test_data_that_no_payload_has_is_read_as_it_is(text: str) -> None:
    event = stored(EventType.DISK_THAWED, text)
    assert event.data.items() >= json.loads(text).items()


def test_the_views_tell_the_states_that_events_leave_out(folder: Path) -> None:
    stage = Stage(folder)
    stage.live(link=LINK)
    for trigger in (Trigger.PAUSE, Trigger.RESTORE, Trigger.REMOVE):
        stage.command(trigger)
    meant = [
        (event.seq, event.data.get("source"), event.data.get("target")) for event in stage.events()
    ]
    columns = "SELECT seq, source, target FROM disk_history WHERE disk <> '@host' ORDER BY seq"
    assert meant == stage.byre.log.rows(columns)
    ends = [(seq, target) for seq, _, target in meant if target]
    outcomes = stage.byre.log.rows("SELECT seq, target FROM transition_outcomes ORDER BY seq")
    assert set(outcomes) <= set(ends)
    assert [target for _, target in outcomes] == [
        "attached", "snapshotted", "paused", "restored", "removed",
    ]  # fmt: skip
    stage.close()


def test_only_what_goes_on_after_a_crash_says_what_was_left_to_do(folder: Path) -> None:
    stage = Stage(folder)
    stage.declare(link=LINK)
    stage.kernel.faults.crash_in("dm_create")
    with pytest.raises(SimCrash):
        stage.settle()
    stage.restart()
    stage.settle()
    told = [event.data for event in stage.events() if event.type.startswith("transition.")]
    assert [each["trigger"] for each in told if "resumes" in each] == ["snapshot"]
    assert [each["trigger"] for each in told if "actions" in each] == ["snapshot"]
    ends = [each for each in told if "unchanged" in each]
    assert [each["trigger"] for each in ends] == ["snapshot"]
    assert {"CheckBase", "AttachCow"} <= set(ends[0]["unchanged"])
    stage.check_log()
    stage.close()
