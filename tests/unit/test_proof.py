"""Whatever somebody did to the events, it is found, and the first bad one is named."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from statemachine import proof
from statemachine.errors import Damage, LogDamaged
from statemachine.eventlog import EventLog
from statemachine.events import GENESIS
from statemachine.head import Noted
from statemachine.logreader import LogReader
from statemachine.proof import Claim
from statemachine.schema import EVENT_COLUMNS
from tests.conftest import SHARED_MEMORY
from tests.unit.events_made import declaration, host_event
from tests.unit.logforger import (
    Row,
    placed,
    resealed,
    rows_of,
    sealed,
    with_column,
    write_rows,
)

EVENTS = 9
SEQS = st.integers(1, EVENTS)
NOT_LAST = st.integers(1, EVENTS - 1)


class Victim:
    """A log that is attacked over and over; each time a fresh copy of the healthy one."""

    def __init__(self, folder: Path) -> None:
        self._healthy = folder / "healthy" / "byre.db"
        self.path = folder / "attacked" / "byre.db"
        self.path.parent.mkdir()
        with EventLog(self._healthy, boot_id="boot-1") as log:
            log.append([declaration("sb-1")])
            for number in range(EVENTS - 1):
                log.append([host_event(f"{number}: a reason, größer")])
        self.rows = rows_of(self._healthy)

    def attacked(
        self, rows: Sequence[Row], *, with_head: bool = True, key: str = "INTEGER PRIMARY KEY"
    ) -> LogDamaged:
        """Write other rows and return what the proof says of them."""
        shutil.copy(self._healthy, self.path)
        if with_head:
            shutil.copy(self._healthy.with_name("head"), self.path.parent)
        else:
            self.path.with_name("head").unlink(missing_ok=True)
        write_rows(self.path, rows, key=key)
        with (
            LogReader(self.path, lenient=True) as log,
            pytest.raises(LogDamaged) as caught,
        ):
            proof.verify(log)
        return caught.value

    def before(self, seq: int) -> list[Row]:
        return self.rows[: seq - 1]

    def after(self, seq: int, *, moved_by: int = 0) -> list[Row]:
        return [placed(row, index + moved_by) for index, row in self._numbered() if index > seq]

    def at(self, seq: int) -> Row:
        return self.rows[seq - 1]

    def _numbered(self) -> Iterator[tuple[int, Row]]:
        return enumerate(self.rows, start=1)


@pytest.fixture(scope="module")
def victim() -> Iterator[Victim]:
    shared = SHARED_MEMORY if os.access(SHARED_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="byre-test-", dir=shared) as folder:
        yield Victim(Path(folder))


def verdict(damage: LogDamaged) -> tuple[int | None, Damage | None]:
    assert damage.exit_code == 6
    assert damage.what is not None
    return damage.seq, damage.what


# --- edited ---------------------------------------------------------------------------------------

COLUMNS = st.sampled_from(list(EVENT_COLUMNS)[1:])


@given(seq=SEQS, name=COLUMNS, at=st.integers(0, 2**16), to=st.characters(codec="utf-8"))
@settings(deadline=None)
def test_any_character_of_any_column(victim: Victim, seq: int, name: str, at: int, to: str) -> None:
    row = victim.at(seq)
    value = row[list(EVENT_COLUMNS).index(name)]
    other: object
    if isinstance(value, int):
        other = value ^ (1 << at % 62)
    else:
        text = str(value) or " "
        at %= len(text)
        other = text[:at] + (to if to != text[at] else f"{to}{to}") + text[at + 1 :]
    rows = [*victim.before(seq), with_column(row, name, other), *victim.after(seq)]
    assert (seq, Damage.EDITED) == verdict(victim.attacked(rows))


@given(seq=SEQS, name=COLUMNS, sort=st.sampled_from(["null", "blob", "real", "swapped"]))
@settings(deadline=None)
def test_any_column_of_another_type(victim: Victim, seq: int, name: str, sort: str) -> None:
    row = victim.at(seq)
    value = row[list(EVENT_COLUMNS).index(name)]
    others: dict[str, object] = {
        "null": None,
        "blob": str(value).encode(),
        "real": float(value) if isinstance(value, int) else 0.5,
        "swapped": str(value) if isinstance(value, int) else 7,
    }
    rows = [*victim.before(seq), with_column(row, name, others[sort]), *victim.after(seq)]
    damage = victim.attacked(rows)
    assert (seq, Damage.EDITED) == verdict(damage)
    assert f"its {name} is " in damage.message or name == "prev_hash"


@given(seq=NOT_LAST, name=st.sampled_from(["actor", "reason", "at", "data"]))
@settings(deadline=None)
def test_an_event_with_its_hash_made_anew(victim: Victim, seq: int, name: str) -> None:
    row = with_column(victim.at(seq), name, 7 if name == "at" else "{}")
    rows = [*victim.before(seq), sealed(row, row[-2]), *victim.after(seq)]
    for with_head in (True, False):
        found = verdict(victim.attacked(rows, with_head=with_head or seq == EVENTS - 1))
        assert (seq, Damage.EDITED) == found


# --- missing, truncated ---------------------------------------------------------------------------


@given(first=SEQS, count=st.integers(1, EVENTS), are_moved_up=st.booleans())
@settings(deadline=None)
def test_any_run_of_missing_events(
    victim: Victim, first: int, count: int, *, are_moved_up: bool
) -> None:
    last = min(first + count - 1, EVENTS)
    moved_by = first - last - 1 if are_moved_up else 0
    rows = [*victim.before(first), *victim.after(last, moved_by=moved_by)]
    what = Damage.TRUNCATED if last == EVENTS else Damage.MISSING
    assert (first, what) == verdict(victim.attacked(rows))


def test_an_end_that_is_gone_with_the_head_shows_in_the_records(victim: Victim) -> None:
    damage = victim.attacked([], with_head=False)
    assert verdict(damage) == (1, Damage.TRUNCATED)
    assert "sb-1 stands on event 1" in damage.message


# --- reordered, inserted --------------------------------------------------------------------------


@given(one=SEQS, other=SEQS)
@settings(deadline=None)
def test_any_two_events_in_each_others_place(victim: Victim, one: int, other: int) -> None:
    if one == other:
        return
    rows = list(victim.rows)
    rows[one - 1] = placed(victim.at(other), one)
    rows[other - 1] = placed(victim.at(one), other)
    assert (min(one, other), Damage.REORDERED) == verdict(victim.attacked(rows))


@given(source=SEQS, target=SEQS)
@settings(deadline=None)
def test_any_event_that_was_moved(victim: Victim, source: int, target: int) -> None:
    if source == target:
        return
    rows = list(victim.rows)
    rows.insert(target - 1, rows.pop(source - 1))
    numbered = [placed(row, seq) for seq, row in enumerate(rows, start=1)]
    assert (min(source, target), Damage.REORDERED) == verdict(victim.attacked(numbered))


@given(seq=SEQS, place=st.sampled_from([0, -1, -(2**62), EVENTS + 1, 2**62]))
@settings(deadline=None)
def test_any_event_under_a_number_outside(victim: Victim, seq: int, place: int) -> None:
    rows = [*victim.before(seq), placed(victim.at(seq), place), *victim.after(seq)]
    found, what = verdict(victim.attacked(rows))
    # The last one under the next number is where one is missing, or where the end is gone.
    assert (seq, True) == (found, what in (Damage.REORDERED, Damage.TRUNCATED))


@given(seq=SEQS, count=st.integers(1, 3), kind=st.sampled_from(["junk", "copy", "fitting"]))
@settings(deadline=None)
def test_any_inserted_events(victim: Victim, seq: int, count: int, kind: str) -> None:
    before = victim.before(seq)
    prev_hash = before[-1][-1] if before else GENESIS
    template = with_column(victim.at(seq % EVENTS + 1), "actor", "nobody")
    strangers = [placed(template, seq + number) for number in range(count)]
    if kind == "copy":
        strangers = [placed(victim.at(seq % EVENTS + 1), seq + number) for number in range(count)]
    elif kind == "fitting":
        strangers = resealed(strangers, prev_hash)
    rows = [*before, *strangers, *victim.after(seq - 1, moved_by=count)]
    found, what = verdict(victim.attacked(rows))
    # Where the last event was pushed on, the head tells first.
    at_the_end = kind == "fitting" and seq + count > EVENTS
    assert (EVENTS if at_the_end else seq) == found
    assert (Damage.REPLACED if at_the_end else Damage.INSERTED) is what


def test_an_event_before_the_first(victim: Victim) -> None:
    stranger = placed(with_column(victim.at(1), "actor", "nobody"), 0)
    assert verdict(victim.attacked([stranger, *victim.rows])) == (0, Damage.INSERTED)


@given(seq=SEQS)
@settings(deadline=None)
def test_a_second_event_in_one_place(victim: Victim, seq: int) -> None:
    stranger = with_column(victim.at(seq), "actor", "nobody")
    damage = victim.attacked([*victim.rows, stranger], key="INTEGER")
    assert verdict(damage) == (seq, Damage.INSERTED)


def test_an_event_in_a_place_that_is_no_number(victim: Victim) -> None:
    damage = victim.attacked([*victim.rows, placed(victim.at(3), "x")], key="")
    assert verdict(damage) == (EVENTS + 1, Damage.INSERTED)


# --- restarted, computed anew ---------------------------------------------------------------------


@given(seq=st.integers(2, EVENTS), prev_hash=st.sampled_from([GENESIS, "f" * 64]))
@settings(deadline=None)
def test_a_chain_that_was_restarted(victim: Victim, seq: int, prev_hash: str) -> None:
    rows = [*victim.before(seq), *resealed([victim.at(seq), *victim.after(seq)], prev_hash)]
    assert (seq, Damage.RESTARTED) == verdict(victim.attacked(rows))


@given(seq=SEQS, noted=SEQS)
@settings(deadline=None)
def test_a_chain_that_was_computed_anew_is_told_by_a_head_from_elsewhere(
    victim: Victim, seq: int, noted: int
) -> None:
    edited = with_column(victim.at(seq), "reason", "another")
    rows = [*victim.before(seq), *resealed([edited, *victim.after(seq)], victim.at(seq)[-2])]
    victim.attacked(rows)  # by its own head
    victim.path.with_name("head").unlink()
    claims = [Claim(seq=noted, hash=str(victim.at(noted)[-1]), source="the note")]
    with LogReader(victim.path, lenient=True) as log:
        if noted < seq:
            assert proof.verify(log, claims=claims).events == EVENTS
            return
        with pytest.raises(LogDamaged, match=f"event {noted} is another one than the note") as seen:
            proof.verify(log, claims=claims)
        assert (noted, Damage.REPLACED) == verdict(seen.value)


# --- heads from elsewhere -------------------------------------------------------------------------


@pytest.fixture
def log(folder: Path) -> Iterator[EventLog]:
    with EventLog(folder / "byre.db") as made:
        for _ in range(3):
            made.append([host_event()])
        yield made


def test_a_head_that_is_there(log: EventLog) -> None:
    events = list(log.events())
    claims = [Claim(seq=2, hash=events[1].hash), Claim(hash=events[0].hash)]
    assert proof.verify(log, claims=claims).events == 3


def test_a_head_of_a_longer_log(log: EventLog) -> None:
    with pytest.raises(LogDamaged, match="the log ends at 3, and the note is of event 7") as seen:
        proof.verify(log, claims=[Claim(seq=7, hash="a" * 64, source="the note")])
    assert verdict(seen.value) == (4, Damage.TRUNCATED)


def test_a_head_whose_hash_is_nowhere(log: EventLog) -> None:
    with pytest.raises(LogDamaged, match="no event has the hash aaaa") as seen:
        proof.verify(log, claims=[Claim(hash="a" * 64)])
    assert verdict(seen.value) == (None, Damage.REPLACED)


def test_a_head_whose_hash_stands_in_another_place(log: EventLog) -> None:
    first, second, _ = log.events()
    with pytest.raises(LogDamaged, match=f"event 2 is another one than .*: {second.hash}, not "):
        proof.verify(log, claims=[Claim(seq=2, hash=first.hash)])


def test_a_log_that_begins_later_is_proven_from_there(log: EventLog, folder: Path) -> None:
    first, *rest = log.events()
    path = folder / "cut" / "byre.db"
    EventLog(path).close()
    write_rows(path, [event.columns() for event in rest])
    with LogReader(path, lenient=True) as cut:
        start = Noted(first.seq, first.hash)
        found = proof.verify(cut, start=start, claims=[Claim(seq=1, hash=first.hash)])
        assert (2, 3, rest[-1].hash) == (found.events, found.seq, found.hash)
        assert rest == list(proof.intact(cut, start=start))
        with pytest.raises(LogDamaged, match="event 1 is missing"):
            proof.verify(cut)
