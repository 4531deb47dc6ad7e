"""Finding the events that a question asks for, by the index that fits, page by page.

Every question has one of four ways, and memory is bounded by a page in each:

- a correlation id: the few events that may begin its story by their own index, and from each the
  events of its disk as long as the story goes on;
- a disk: the index (disk, generation, version), which has the order of `seq`;
- rare types: the index of these, each entry of which ends with `seq`; several are merged by it.
  Not several with another filter: a type of which nothing passes it would be looked through whole
  before the first answer. The other types are every third event, and are met by `seq`;
- anything else: the table by `seq`, a stretch at a time.

A time becomes a range of `seq` first. What the index does not decide is checked row by row; a `+`
before such a column keeps SQLite from choosing an index for it (sqlite.org/optoverview.html).

Reads only. May be imported by history, summary and `reconciler`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Final, Protocol

import attrs

from statemachine.events import Event, EventType
from statemachine.logreader import PAGE_EVENTS, LogReader
from statemachine.questions import (
    OUTCOMES,
    Question,
    fits,
    folding,
    in_data,
    wanted_uid,
)
from statemachine.schema import COMMON_TYPES, CORRELATION_CHARS, IS_RARE, MAY_BEGIN, SELECT_EVENTS
from statemachine.seqtimes import Between, seq_range

STRETCH_EVENTS: Final = 100_000
"""How many rows one query looks through; between two of them an interrupt is heard."""
SEQS_AT_ONCE: Final = 500
COMMON: Final = frozenset(COMMON_TYPES)


class Archived(Protocol):
    """Events that were taken out of the live log, to be asked before it."""

    def events(
        self,
        *,
        after: int = 0,
        until: int | None = None,
        earlier_than: int | None = None,
        newest_first: bool = False,
    ) -> Iterator[Event]:
        """Yield events by `seq`, or against it, in bounded memory; see `Archive.events`."""
        ...


def search(
    log: LogReader,
    question: Question,
    *,
    archives: Iterable[Archived] = (),
    page: int = PAGE_EVENTS,
) -> Iterator[Event]:
    """Yield every event that fits a question, in order; what is appended meanwhile is left out.

    Args:
        log: an open log.
        question: which events, and in which order.
        archives: what went before the live log, oldest first.
        page: how many events are read at a time.
    """
    before = [_of_archive(each, question) for each in archives]
    live = _search_live(log, question, page)
    if question.newest_first:
        return itertools.chain(live, *reversed(before))
    return itertools.chain(*before, live)


def _of_archive(archive: Archived, question: Question) -> Iterator[Event]:
    found = archive.events(
        after=question.after,
        until=None if question.before is None else question.before - 1,
        earlier_than=question.until,
        newest_first=question.newest_first,
    )
    return (event for event in found if fits(question, event))


def _search_live(log: LogReader, question: Question, page: int) -> Iterator[Event]:
    low, high = seq_range(log, since=question.since, until=question.until)
    low = max(low, question.after + 1)
    high = high if question.before is None else min(high, question.before - 1)
    if low > high:
        return iter(())
    types = tuple(filter(question.takes_type, _types(log))) if question.names_types else None
    if types == ():
        return iter(())
    looking = _Looking(log=log, question=question, between=(low, high), types=types, page=page)
    correlation = question.correlation or ""
    if len(correlation) >= CORRELATION_CHARS:
        found = _by_story(looking, correlation)
    elif question.disk is not None:
        found = _by_disk(looking, question.disk)
    elif types is not None and _are_indexed(types, question):
        found = _by_types(looking, types)
    else:
        found = _by_seq(looking)
    if question.text and not question.text.isascii():  # SQLite's `lower` knows ASCII only
        return (event for event in found if fits(question, event))
    return found


@attrs.frozen(kw_only=True)
class _Looking:
    """One search of the live log: what all ways of it need."""

    log: LogReader
    question: Question
    between: Between
    types: tuple[str, ...] | None
    """Those of the log that may fit; None when all may."""
    page: int

    @property
    def direction(self) -> str:
        return "DESC" if self.question.newest_first else "ASC"


def _are_indexed(types: tuple[str, ...], question: Question) -> bool:
    """Tell whether the index of types is the way to all of some."""
    return COMMON.isdisjoint(types) and (len(types) == 1 or not _has_rest(question))


def _has_rest(question: Question) -> bool:
    """Tell whether something is asked for that no index of types or of `seq` decides."""
    is_by_consequence = bool(question.outcome and OUTCOMES[question.outcome][1])
    rest = (question.generation, question.trigger, question.actor, question.on_behalf_of)
    given = any(each is not None for each in rest) or question.correlation or question.text
    return bool(given) or is_by_consequence


# --- the ways -------------------------------------------------------------------------------------


def _by_disk(looking: _Looking, disk: str) -> Iterator[Event]:
    question, (low, high) = looking.question, looking.between
    terms = _Terms("disk = ?", disk)
    if question.generation is not None:
        terms.add("generation = ?", question.generation)
    if low > 1:
        terms.add("+seq >= ?", low)
    terms.add("+seq <= ?", high)
    _add_rest(terms, looking, place=False)
    direction, sign = looking.direction, "<" if question.newest_first else ">"
    # Of one generation the versions alone have the order; SQLite would sort by both.
    if question.generation is None:
        order = f"generation {direction}, version {direction}"
        beyond = f"(generation, version) {sign} (?, ?)"
    else:
        order, beyond = f"version {direction}", f"version {sign} ?"
    where = f"WHERE {terms}"
    place: list[object] = []
    while True:
        bound = f"ORDER BY {order} LIMIT {looking.page}"
        found = looking.log.select(f"{where} {bound}", *terms.values, *place)
        yield from found
        if len(found) < looking.page:
            return
        where = f"WHERE {terms} AND {beyond}"
        place = [found[-1].version]
        if question.generation is None:
            place.insert(0, found[-1].generation)


def _by_types(looking: _Looking, types: tuple[str, ...]) -> Iterator[Event]:
    question, (low, high) = looking.question, looking.between
    rest = _Terms()
    _add_rest(rest, attrs.evolve(looking, types=None))
    one = f"{SELECT_EVENTS} WHERE type = ? AND {IS_RARE} AND seq BETWEEN ? AND ?{rest.more}"
    # Each part comes in the order of its index, and SQLite merges them as they are.
    query = " UNION ALL ".join([one] * len(types))
    query += f" ORDER BY seq {looking.direction} LIMIT {looking.page}"
    while low <= high:
        values = [value for each in types for value in (each, low, high, *rest.values)]
        found = [Event(*row) for row in looking.log.rows(query, *values)]
        yield from found
        if len(found) < looking.page:
            return
        if question.newest_first:
            high = found[-1].seq - 1
        else:
            low = found[-1].seq + 1


def _types(log: LogReader) -> Iterator[str]:
    """Yield the types that the log has, those of a newer version too, by jumps in the index.

    The common ones are no part of the index, and it is not looked whether there is one of each.
    """
    yield from COMMON_TYPES
    found = ""
    query = f"SELECT type FROM events WHERE type > ? AND {IS_RARE} ORDER BY type LIMIT 1"  # noqa: S608 - constants
    while rows := log.rows(query, found):
        found = rows[0][0]
        yield found


def _by_seq(looking: _Looking) -> Iterator[Event]:
    question, (low, high) = looking.question, looking.between
    rest = _Terms("seq BETWEEN ? AND ?")
    _add_rest(rest, looking)
    where = f"WHERE {rest} ORDER BY seq {looking.direction} LIMIT {looking.page}"
    while low <= high:
        if question.newest_first:
            begin, end = max(low, high - STRETCH_EVENTS + 1), high
        else:
            begin, end = low, min(high, low + STRETCH_EVENTS - 1)
        found = looking.log.select(where, begin, end, *rest.values)
        yield from found
        is_full = len(found) == looking.page
        if question.newest_first:
            high = (found[-1].seq if is_full else begin) - 1
        else:
            low = (found[-1].seq if is_full else end) + 1


def _by_story(looking: _Looking, correlation: str) -> Iterator[Event]:
    seqs = sorted(_story(looking.log, correlation), reverse=looking.question.newest_first)
    low, high = looking.between
    seqs = [seq for seq in seqs if low <= seq <= high]
    rest = _Terms()
    _add_rest(rest, looking)
    for begin in range(0, len(seqs), SEQS_AT_ONCE):
        some = seqs[begin : begin + SEQS_AT_ONCE]
        where = f"WHERE seq IN ({', '.join('?' * len(some))}){rest.more}"
        where += f" ORDER BY seq {looking.direction}"
        yield from looking.log.select(where, *some, *rest.values)


def _story(log: LogReader, correlation: str) -> set[int]:
    """Return the seqs of all events whose correlation id begins so."""
    beginning = f"substr(correlation_id, 1, {CORRELATION_CHARS}) = ? AND {MAY_BEGIN}"
    columns = "seq, disk, generation, version, correlation_id"
    query = f"SELECT {columns} FROM events WHERE {beginning} ORDER BY seq"  # noqa: S608 - constants
    found: set[int] = set()
    for seq, disk, generation, version, each in log.rows(query, correlation[:CORRELATION_CHARS]):
        if each.startswith(correlation) and seq not in found:
            found.update(_story_of_disk(log, correlation, disk, (generation, version)))
    return found


def _story_of_disk(
    log: LogReader, correlation: str, disk: str, place: tuple[int, int]
) -> Iterator[int]:
    """Yield the seqs of a story from its first event on a disk.

    The outcome of what was begun for it may stand behind the next request; an intent that is
    begun for another one ends it, as a disk is worked on once at a time.
    """
    query = (
        "SELECT seq, generation, version, correlation_id, type FROM events "
        "WHERE disk = ? AND (generation, version) >= (?, ?) "
        "ORDER BY generation, version LIMIT 100"
    )
    while rows := log.rows(query, disk, *place):
        for seq, _, _, each, event_type in rows:
            if each.startswith(correlation):
                yield seq
            elif event_type == EventType.TRANSITION_STARTED:
                return
        place = (rows[-1][1], rows[-1][2] + 1)


# --- terms ----------------------------------------------------------------------------------------


class _Terms:
    """Terms of a WHERE clause, and their values."""

    def __init__(self, first: str = "", *values: object) -> None:
        self._terms = [first] if first else []
        self.values: list[object] = list(values)

    def add(self, term: str, *values: object) -> None:
        self._terms.append(term)
        self.values += values

    def __str__(self) -> str:
        return " AND ".join(self._terms)

    @property
    def more(self) -> str:
        """The terms behind others."""
        return "".join(f" AND {term}" for term in self._terms)


def _add_rest(terms: _Terms, looking: _Looking, *, place: bool = True) -> None:
    """Add what no index decides; `place`: the disk and the generation, too."""
    question = looking.question
    given: list[tuple[str, object]] = [
        ("+at >= ?", question.since),
        ("+at < ?", question.until),
        ("json_extract(data, '$.trigger') = ?", question.trigger),
        ("json_extract(data, '$.on_behalf_of') = ?", question.on_behalf_of),
    ]
    if place:
        given += [("+disk = ?", question.disk), ("+generation = ?", question.generation)]
    uid = wanted_uid(question)
    if uid is None:
        given.append(("+actor = ?", question.actor))
    else:
        given.append(("json_extract(data, '$.by.uid') = ?", uid))
    for term, value in given:
        if value is not None:
            terms.add(term, value)
    if question.correlation:
        terms.add(
            "substr(correlation_id, 1, ?) = ?", len(question.correlation), question.correlation
        )
    if question.outcome is not None and OUTCOMES[question.outcome][1]:
        terms.add("json_extract(data, '$.consequence') = ?", OUTCOMES[question.outcome][1])
    if looking.types is not None:
        terms.add(f"+type IN ({', '.join('?' * len(looking.types))})", *looking.types)
    if question.text and question.text.isascii():
        fold = folding(question.text)
        forms = sorted(map(fold, in_data(question.text)))
        term = " OR ".join(["instr(lower(reason), ?)", *["instr(lower(data), ?)"] * len(forms)])
        terms.add(f"({term})", fold(question.text), *forms)
