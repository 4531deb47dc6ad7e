"""The head: which event was the newest when somebody was told so, noted beside the log.

The chain in the log shows every change to what is there. It cannot show that the end is gone: a
log whose WAL was deleted, or that was put back from an older copy, is shorter and intact. So after
each commit its last event is noted in `<root>/head`, one line: the seq and the hash.

It is written after the commit is on disk and never synced itself. So after a power cut it may name
an older event, which the log has, too; never one that the log has not. It costs no fsync. What
cannot be read counts as not noted. May be imported by logends and what stands above it.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs

from statemachine.errors import Damage, LogDamaged
from statemachine.names import LOG_NAME

HEAD_NAME: Final = "head"
_LINE: Final = re.compile(r"(\d{20}) ([0-9a-f]{64})\n")
_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
_LENGTH: Final = 20 + 1 + 64 + 1


@attrs.frozen
class Noted:
    """One event of the log: its place and what it was."""

    seq: int
    hash: str


class Head:
    """The head of one log; `path` is the file it is noted in."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._name = os.fspath(path)  # each commit opens it, and a `Path` takes longer than that
        self.seq = 0
        """Of the newest event that this object was told to note."""
        self._is_kept_open = False
        self._kept: int | None = None

    @classmethod
    def of(cls, log: Path) -> Head:
        """Return the head of a log; a copy under another name has one of its own, if any."""
        return cls(log.with_name(HEAD_NAME if log.name == LOG_NAME else f"{log.name}.{HEAD_NAME}"))

    def read(self) -> Noted | None:
        """Return what was noted last; None if nothing was, or it cannot be read."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            text = os.read(descriptor, _LENGTH)
        except OSError:
            return None
        finally:
            os.close(descriptor)
        found = _LINE.fullmatch(text.decode(errors="replace"))
        return Noted(int(found[1]), found[2]) if found else None

    def check(self, noted: Noted, *, newest: int, found: str) -> None:
        """Check that a log has what was noted of it before it was read.

        Args:
            noted: what `read` returned then.
            newest: the seq of its newest event, 0 for none.
            found: the hash of its event `noted.seq`; "" if it has none.

        Raises:
            LogDamaged: with the seq of the first event that is missing or another one.
        """
        if newest < noted.seq:
            first = newest + 1
            gone = (
                f"event {first} is" if first == noted.seq else f"events {first} to {noted.seq} are"
            )
            msg = f"{gone} missing: the log ends at {newest}, and {noted.seq} was acknowledged"
            hint = "is its WAL gone, or is it an older copy? Put the right files back"
            hint = f"{hint}; {self._way_out}"
            raise LogDamaged(msg, seq=first, what=Damage.TRUNCATED, hint=hint)
        if found != noted.hash:
            msg = f"event {noted.seq} is another one than was acknowledged"
            hint = "the log or its WAL is another root's, or a copy that went its own way"
            hint = f"{hint}; {self._way_out}"
            raise LogDamaged(msg, seq=noted.seq, what=Damage.REPLACED, hint=hint)

    @property
    def _way_out(self) -> str:
        is_of_a_root = self.path.name == HEAD_NAME
        name = LOG_NAME if is_of_a_root else self.path.name.removesuffix(f".{HEAD_NAME}")
        return f"to go on with this one: `byre log restore {self.path.with_name(name)}`"

    def note(self, noted: Noted) -> None:
        """Note an event that is on disk; a failure is none of the commit's.

        Several processes note theirs in any order: an older one is as true as a newer one. The
        line has always the same length and is written at once, so nobody reads half of it.
        """
        self.seq = noted.seq
        line = f"{noted.seq:020d} {noted.hash}\n".encode()
        try:
            descriptor = self._open()
        except OSError:
            return
        try:
            os.pwrite(descriptor, line, 0)
        except OSError:
            return
        finally:
            if self._is_kept_open:
                self._kept = descriptor
            else:
                os.close(descriptor)

    @contextlib.contextmanager
    def kept_open(self) -> Iterator[None]:
        """Leave the file open between two notes, for the length of a `with` block."""
        self._is_kept_open = True
        try:
            yield
        finally:
            self._is_kept_open = False
            kept, self._kept = self._kept, None
            if kept is not None:
                os.close(kept)

    def _open(self) -> int:
        """Return a descriptor of the file; one that is kept is of no use once the file is gone."""
        kept, self._kept = self._kept, None
        if kept is not None:
            if os.fstat(kept).st_nlink:
                return kept
            os.close(kept)
        return os.open(self._name, _FLAGS, 0o600)
