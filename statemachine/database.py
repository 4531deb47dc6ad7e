"""Opening the log's SQLite file, its write lock, and SQLite's errors sorted into ours.

May be imported by eventlog and history only.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from statemachine import schema
from statemachine.errors import ByreError, LogDamaged, LogUnavailable, RefusedError

BUSY_TIMEOUT_MS: Final = 10_000
"""How long a writer waits for another process's commit; commits take milliseconds."""

_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_HINTS: Final = {
    sqlite3.SQLITE_BUSY: "another process holds the write lock; see who has the file open",
    sqlite3.SQLITE_FULL: "the file system is full; make room, nothing that was recorded is lost",
    sqlite3.SQLITE_READONLY: "the file or its file system is read-only, or belongs to someone else",
    sqlite3.SQLITE_CANTOPEN: "the file or its folder is missing, or no privilege to open it",
    sqlite3.SQLITE_IOERR: "the disk under the log fails or is full; see the kernel's messages",
}


def open_log(path: Path, *, read_only: bool) -> sqlite3.Connection:
    """Open a log, making or migrating it unless `read_only`.

    Raises:
        LogUnavailable, LogDamaged, RefusedError: see `eventlog.EventLog`.
    """
    with told_apart(path):
        if not read_only:
            _make(path)
        elif not path.exists():
            return _empty()
        connection = connect(path, read_only=read_only)
        try:
            is_new = _check(connection, path)
            if not read_only:
                _prepare(connection)
        except BaseException:
            connection.close()
            raise
    if is_new and read_only:  # whoever makes it has not come far, or died on the way
        connection.close()
        return _empty()
    return connection


def connect(path: Path, *, read_only: bool) -> sqlite3.Connection:
    """Open a connection with our settings; transactions are begun by hand."""
    mode = "ro" if read_only else "rw"
    if read_only and _cannot_change(path):
        mode = "ro&immutable=1"
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        # FULL: a commit in WAL mode is fsynced before it returns (sqlite.org/pragma.html).
        connection.execute("PRAGMA synchronous = FULL")
    except BaseException:
        connection.close()
        raise
    return connection


def _cannot_change(path: Path) -> bool:
    """Tell whether a log was closed cleanly and lies on a read-only file system.

    In WAL mode even a reader needs a file beside the database that it can write, unless it is
    promised that nothing changes (sqlite.org/wal.html, "Read-Only Databases").
    """
    wal = path.with_name(f"{path.name}-wal")
    try:
        is_read_only = bool(os.statvfs(path).f_flag & os.ST_RDONLY)
        return is_read_only and not (wal.exists() and wal.stat().st_size)
    except OSError:
        return False


@contextlib.contextmanager
def write_lock(connection: sqlite3.Connection) -> Iterator[None]:
    """Hold the write lock for one transaction; commit at the end, roll back on any error."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def told_apart(path: Path) -> Iterator[None]:
    """Turn what SQLite and the file system raise into errors that say what to do."""
    try:
        yield
    except sqlite3.Error as error:
        raise _sorted(error, path) from error
    except OSError as error:
        msg = f"{path}: {error.strerror or error}"
        raise LogUnavailable(msg, hint="choose another state root with --root") from error


def _sorted(error: sqlite3.Error, path: Path) -> ByreError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    message = f"{path}: {error}"
    if code in _DAMAGED:
        hint = "keep a copy of the file; `byre log verify` says what is intact"
        return LogDamaged(message, hint=hint)
    if code == sqlite3.SQLITE_ERROR and "no such table" in str(error):
        return LogDamaged(message, hint="a table of the log is missing; restore a copy")
    return LogUnavailable(message, hint=_HINTS.get(code, ""))


def _empty() -> sqlite3.Connection:
    """Return a log without events, in memory: what a root that was never used has to say."""
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    schema.migrate(connection)
    return connection


def _make(path: Path) -> None:
    """Make the folder, 0700, and the file, 0600; what exists stays as it is."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists():
        os.close(os.open(path, os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))


def _check(connection: sqlite3.Connection, path: Path) -> bool:
    """Refuse what is no log, or too new a one; True for a file that nothing was written to."""
    application = int(connection.execute("PRAGMA application_id").fetchone()[0])
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    is_new = application == 0 and not tables
    if application != schema.APPLICATION_ID and not is_new:
        msg = f"{path} is not a log of byre (application id {application:#x})"
        raise LogDamaged(msg, hint="it was left as it is; choose another state root")
    version = schema.version_of(connection)
    if version > schema.SCHEMA_VERSION:
        msg = f"{path} has schema {version}; this byre knows up to {schema.SCHEMA_VERSION}"
        raise RefusedError(msg, hint="use the newer byre; nothing was changed")
    return is_new


def _prepare(connection: sqlite3.Connection) -> None:
    if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        connection.execute("PRAGMA journal_mode = WAL")
    if schema.version_of(connection) < schema.SCHEMA_VERSION:
        schema.migrate(connection)
