"""Putting another file in the place of a log: nobody has it open, nothing of it is lost.

The old log is brought into one file and moved aside, with its head, never deleted. Until the new
head is noted, the old one stays in its place, too: it tells of events that are not there. So who
opens the log in between is refused, and so is everybody after a crash. Doing it again completes
it.

What it does not do: it does not judge the new file. May be imported by `reconciler.restore`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from statemachine import database
from statemachine.backup import sync
from statemachine.errors import LogDamaged, LogUnavailable
from statemachine.head import Head, Noted
from statemachine.logreader import LogReader

_BESIDE = ("-wal", "-shm", "-journal")
"""What SQLite keeps beside a database, by the ending (sqlite.org/tempfiles.html)."""


def newest_of(log: Path) -> tuple[Noted | None, str]:
    """Return the newest event that a log is known to have had, and its root id.

    A damaged or missing one says what it can: the note of its head is enough.
    """
    noted, root_id = Head.of(log).read(), ""
    try:
        with LogReader(log, lenient=True) as opened:
            root_id = opened.root_id if log.exists() else ""
            for event in opened.select("ORDER BY seq DESC LIMIT 1"):
                if noted is None or event.seq > noted.seq:
                    noted = Noted(event.seq, event.hash)
    except (LogDamaged, LogUnavailable):
        return noted, root_id
    return noted, root_id


def put_back(new: Path, log: Path, aside: Path, head: Noted) -> None:
    """Put a whole file in the place of a log.

    Args:
        new: the file, on the same file system; it has another name afterwards.
        log: where it belongs; the old one may be missing or damaged.
        aside: the folder that the old one is moved to; made when there is one.
        head: of the new file.

    Raises:
        LogUnavailable: another process has the log open, or the file system failed. What was
            moved by then is in `aside`; doing it again completes it.
    """
    noted = Head.of(log)
    with database.told_apart(log):
        sync(new)
        if noted.read() is None:
            noted.note(head)  # while the log is away, a new one must not be made in its place
        with _alone(log), _moved(log, aside):
            new.replace(log)
            sync(log.parent)
    noted.note(head)
    if noted.read() != head:
        msg = f"{noted.path} cannot be written, and tells of the log of before"
        raise LogUnavailable(msg, hint="see what is in its place, then restore again")


@contextlib.contextmanager
def _alone(log: Path) -> Iterator[None]:
    """Keep everybody else out of a log, and bring it into one file; not of a damaged one."""
    if not log.exists():
        yield
        return
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(LogDamaged):
            stack.enter_context(database.exclusively(log))
        yield


@contextlib.contextmanager
def _moved(log: Path, aside: Path) -> Iterator[None]:
    """Have the old log, its head and what is beside it in a folder; back again after an error."""
    if not log.exists():
        yield
        return
    aside.mkdir(mode=0o700)
    moved: list[Path] = []
    try:
        for place in (log, *(log.with_name(f"{log.name}{ending}") for ending in _BESIDE)):
            with contextlib.suppress(FileNotFoundError):
                place.rename(aside / place.name)
                moved.append(place)
        _copy_head(log, aside)
        sync(aside)
        yield
    except BaseException:
        for place in moved:
            (aside / place.name).rename(place)
        Head.of(aside / log.name).path.unlink(missing_ok=True)
        aside.rmdir()
        raise


def _copy_head(log: Path, aside: Path) -> None:
    noted = Head.of(log).read()
    if noted is not None:
        Head.of(aside / log.name).note(noted)
