"""The one connection that writes to the log: trusted before each use, replaced after a failure.

`transact` is one transaction, on disk when it returns. When there is no room, the reserve is given
up and the transaction tried again at once. After any failure of the disk the connection is closed,
and the next transaction begins with a new one and a look at the end of the log.

Why that is enough when an fsync fails once: the kernel then takes the pages for clean, though they
are not on disk, and a second fsync alone would succeed and prove nothing. SQLite does not count the
frames of a failed commit; the next commit writes over them, and so the same pages are dirty again
and written by its own fsync. A checkpoint that failed is made again from its beginning
(sqlite.org/src: wal.c, sqlite3WalFrames and walCheckpoint). An fsync that succeeds proves nothing
where the file system was given up at that moment, so that is looked at as well.
May be imported by eventlog only.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from statemachine import database
from statemachine.errors import LogDamaged, LogUnavailable
from statemachine.head import Head
from statemachine.logends import check_end
from statemachine.reserve import RESERVE_NAME, Reserve

if TYPE_CHECKING:
    import sqlite3

T = TypeVar("T")


class Writer:
    """Writes to one log. Not thread safe: its caller lets one thread in at a time.

    Args:
        path: the log; made or migrated when it has to be.
        reserve_bytes: how much room is kept for when there is none; 0 for none.

    Raises:
        LogUnavailable, LogDamaged, RefusedError: see `eventlog.EventLog`.
    """

    def __init__(self, path: Path, *, reserve_bytes: int) -> None:
        self._path = path
        self._name = os.fspath(path)  # each commit looks, and a `Path` takes longer than the call
        self._reserve = Reserve(path.with_name(RESERVE_NAME), size_bytes=reserve_bytes)
        before = database.identities(self._name)[0]
        self._connection: sqlite3.Connection | None = database.open_log(path, read_only=False)
        self._files = database.identities(self._name)
        if before not in (None, self._files[0]):
            self.close()
            raise LogUnavailable(f"{path} was replaced while it was opened", hint="try again")
        self._reserve.keep()

    def close(self) -> None:
        """Close the connection; idempotent."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def transact(
        self, work: Callable[[sqlite3.Connection], T], *, may_use_reserve: bool = True
    ) -> T:
        """Do some work in one transaction and return what it returns, when that is on disk.

        Args:
            work: gets the connection, with the write lock held. May be called twice: the first
                time then left nothing.
            may_use_reserve: whether it is worth the reserve when there is no room.

        Raises:
            LogUnavailable: it cannot be written now. Nothing was written, as far as anybody can
                read; after a failed fsync a power cut may bring it back. Where the file system
                was given up meanwhile, it can be read until that is mounted again.
            LogDamaged: its end is not what was written, or the file is another one.
        """
        try:
            result = self._try(work)
        except LogUnavailable as error:
            if not database.is_of_the_disk(error):
                raise
            self.close()  # while others have the log open, this writes nothing
            if not may_use_reserve or not self._reserve.give_up():
                raise
            result = self._try_again(work)
        self._reserve.keep()
        return result

    def alone(self, work: Callable[[sqlite3.Connection], object]) -> None:
        """Do some work outside of any transaction; raises what `transact` raises."""
        with database.told_apart(self._path):
            work(self._trusted())

    def _try_again(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return self._try(work)
        except LogUnavailable:
            self.close()
            raise

    def _try(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            connection = self._trusted()
            with database.write_lock(connection):
                result = work(connection)
            self._refuse_read_only()
        except database.RAISED as error:
            raise database.sorted_out(error, self._path) from error
        return result

    def _refuse_read_only(self) -> None:
        """Acknowledge nothing on a file system that was given up while it was synced.

        ext4 whose journal is aborted in the middle of an fsync may call that fsync a success: the
        transaction that it waits for is over, and was not written (jbd2_complete_transaction in
        fs/jbd2/journal.c). The file system is read-only from then on.
        """
        if os.statvfs(self._name).f_flag & os.ST_RDONLY:
            self.close()
            msg = f"{self._path}: its file system became read-only; what was written may be lost"
            raise LogUnavailable(msg, hint="see the kernel's log; check the file system")

    def _trusted(self) -> sqlite3.Connection:
        """Return the connection, a new one after a failure; the file must be the one opened."""
        if database.identities(self._name) != self._files:
            msg = f"{self._path} or its WAL was replaced or removed while it was open"
            hint = "end every byre of this root, put the right files back, and start again"
            raise LogDamaged(msg, hint=hint)
        if self._connection is None:
            noted = Head.of(self._path).read()
            connection = database.open_log(self._path, read_only=False)
            try:
                check_end(connection, self._path, noted)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection
