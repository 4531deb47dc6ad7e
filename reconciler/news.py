"""What the log has that a running reconciler has not taken in: mostly what others declared.

Its own commits it is told of by the log itself, as they are made, and takes in at once. Others' are
seen by the head of the log: when it names an event that this process did not write, the log is
read, in the thread that saw it. A commit of our own that does not follow on what was taken in says
the same. So one of the two tells of every event, in whichever order the processes note theirs.

What this module does not do: it wakes nobody. Safe for several threads; may be imported by daemon.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from reconciler.known import Known
from statemachine.commits import Commit
from statemachine.errors import ByreError
from statemachine.eventlog import EventLog
from statemachine.record import Record


class News:
    """The news of one log.

    Args:
        log: of which it is told.
        known: what is known already.
        learn: takes in records.
    """

    def __init__(
        self, log: EventLog, known: Known, learn: Callable[[Sequence[Record]], None]
    ) -> None:
        self._log = log
        self._known = known
        self._learn = learn
        self._lock = threading.Lock()
        """For who reads the log; a commit waits for nobody."""
        self._seen_seq = 0

    def begin(self) -> None:
        """Begin after the newest event: for who reads all records next, and looks at all disks.

        Raises:
            LogUnavailable, LogDamaged: the log cannot be read.
        """
        self._seen_seq = self._log.last_seq()

    def take_in(self, commit: Commit) -> bool:
        """Take in a commit of our own; False if the log has to be read as well."""
        self._learn(commit.moved)
        if commit.was_asked or commit.before != self._seen_seq:
            return False
        self._seen_seq = commit.head.seq
        return True

    def is_any_by_the_head(self) -> bool:
        """Tell whether the head names an event that is neither our own nor taken in.

        Not enough when nobody noted a commit: whoever made it may have been killed before that.
        """
        noted = self._log.head.read()
        return noted is None or noted.seq > max(self._seen_seq, self._log.head.seq)

    def is_any(self) -> bool:
        """Tell whether the log has more than what was taken in."""
        try:
            return self._log.last_seq() != self._seen_seq
        except ByreError:
            return True  # whoever reads it says what is wrong

    def read(self) -> list[str]:
        """Take in what is new, and return the disks for which somebody asked for something.

        What our own workers recorded needs no look; they look themselves until all is done.

        Raises:
            LogUnavailable, LogDamaged: it cannot be read now; it is news again the next time.
        """
        with self._lock:
            newest, changed = self._log.changed_since(self._seen_seq)
            # What this process committed itself it knows already.
            news = [each.disk for each in changed if not self._known.has(each.disk, each.seq)]
            self._learn([record for name in news if (record := self._log.record(name))])
            # A worker may have seen more.
            self._seen_seq = max(self._seen_seq, newest)
        return [each.disk for each in changed if each.was_asked]
