"""From a time to a place in the log: which seqs can be of a time, exactly, in a few look-ups.

`seq` and `at` rise together but where the clock was set back. The database notes these places in
`clock_steps`, so between two of them a time is found by halving. Without that table (a log that an
older byre wrote and that is open for reading only) every seq is possible.

Reads only. May be imported by search and `reconciler`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from statemachine.logreader import LogReader

Between = tuple[int, int]
"""The first seq and the last one, both taken in; none when the first is the larger one."""


def seq_range(log: LogReader, *, since: int | None, until: int | None) -> Between:
    """Return the smallest range that has every event of a time; others may be in it, too.

    Args:
        log: an open log.
        since: UTC in ns; None for no bound.
        until: events before this time, UTC in ns; None for no bound.
    """
    # Each by itself: SQLite looks through the whole table for both at once.
    [(first,)] = log.rows("SELECT coalesce(min(seq), 1) FROM events")
    first = max(first, log.begins_after().seq + 1)  # what is in an archive may be being deleted
    last = log.last_seq()
    if since is None and until is None:
        return first, last
    if not log.rows("SELECT 1 FROM sqlite_master WHERE name = 'clock_steps'"):
        return first, last
    lows, highs = [], []
    for begin, end in _stretches(log, first, last):
        # Within one stretch no time is smaller than the one before it.
        low = begin if since is None else _first(begin, end, _is_from(log, since))
        high = end if until is None else _first(begin, end, _is_from(log, until)) - 1
        if low <= high:
            lows.append(low)
            highs.append(high)
    return (min(lows), max(highs)) if lows else (last + 1, last)


def _stretches(log: LogReader, first: int, last: int) -> Iterator[Between]:
    """Yield the parts of the log in which the clock was not set back."""
    begin = first
    for (step,) in log.rows("SELECT seq FROM clock_steps WHERE seq > ? ORDER BY seq", first):
        if step > last:
            break
        yield begin, step - 1
        begin = step
    if begin <= last:
        yield begin, last


def _is_from(log: LogReader, moment: int) -> Callable[[int], bool]:
    def is_from(seq: int) -> bool:
        """Tell whether the event in a place, or the next one that is left, is of that time on."""
        rows = log.rows("SELECT at FROM events WHERE seq >= ? ORDER BY seq LIMIT 1", seq)
        return not rows or rows[0][0] >= moment

    return is_from


def _first(begin: int, end: int, holds: Callable[[int], bool]) -> int:
    """Return the first number for which something holds, `end` + 1 if for none."""
    low, high = begin, end + 1
    while low < high:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle + 1
    return low
