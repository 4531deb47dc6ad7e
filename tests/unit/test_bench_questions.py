"""The bench of questions asks a log what it should, and its figures are of these questions."""

from __future__ import annotations

from pathlib import Path

import attrs

from reconciler.bench import questions
from statemachine.eventlog import EventLog
from statemachine.names import LOG_NAME
from tests.unit.events_made import declaration, host_event


def test_both_questions_are_measured_on_a_log(tmp_path: Path) -> None:
    path = tmp_path / LOG_NAME
    with EventLog(path) as log:
        log.append([declaration("sb-1"), declaration("sb-2"), host_event()])
        for name in ("sb-1", "sb-2"):
            record = log.record(name)
            assert record is not None
            again = attrs.evolve(declaration(name), expect=record.expect)
            log.append([again])
    last = questions.measure_last_events(path, rounds=6)
    assert {"p99", "bare"} == set(last.values)
    assert [len(series.samples) for series in last.series] == [6, 6]
    pages = questions.measure_first_pages(path, rounds=7)
    assert {"p99"} == set(pages.values)
    assert [len(series.samples) for series in pages.series] == [7]
