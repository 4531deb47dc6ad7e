"""The bench's story of a log: a sound log, in the mix that it promises, and the same each time."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from reconciler.bench import story
from statemachine import history
from statemachine.eventlog import EventLog


def test_a_story_is_a_sound_log_of_many_lives(folder: Path) -> None:
    with EventLog(folder / "byre.db") as log:
        story.write(log, events=6_000, disks=20)
        assert history.verify(log).events >= 6_000
        assert list(history.compare(log)) == []
        assert len(log.in_use()) <= 20
        types = Counter(event.type for event in log.events())
        states = {record.state.value for record in log.records()}
        assert max(record.generation for record in log.records()) > 1
    assert {"transition.started", "transition.completed", "disk.declared"} == {
        each for each, count in types.items() if count > 1_000
    }
    assert {"transition.failed", "drift.detected", "cow.threshold_crossed"} < types.keys()
    assert "removed" in states


def test_the_same_seed_tells_the_same_story(folder: Path) -> None:
    heads = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        with EventLog(folder / name / "byre.db") as log:
            story.write(log, events=100, disks=3, seed=seed)
            heads.append(log.select("ORDER BY seq DESC LIMIT 1")[0].hash)
    assert heads[0] == heads[1] != heads[2]
