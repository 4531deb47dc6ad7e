"""Opening the log's SQLite file, its write lock, and SQLite's errors sorted into ours.

May be imported by logreader, eventlog, writer, salvage, backup, putback, proof and history only.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from statemachine import lockholders, schema
from statemachine.errors import ByreError, LogDamaged, LogUnavailable, RefusedError

BUSY_TIMEOUT_MS: Final = 10_000
"""How long a writer waits for another process's commit; commits take milliseconds."""

_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_OF_THE_DISK: Final = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR})
"""What a commit fails with when the file system has no room or the disk fails. No room is not
always FULL: EDQUOT and EFBIG are IOERR_WRITE, and a `-shm` that cannot grow is IOERR_SHMSIZE."""
_WAITED: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_PROTOCOL})
_HINTS: Final = {
    sqlite3.SQLITE_FULL: "the file system is full; make room, nothing that was recorded is lost",
    sqlite3.SQLITE_READONLY: "the file or its file system is read-only, or belongs to someone else",
    sqlite3.SQLITE_CANTOPEN: "its folder is missing, no privilege, or no room for its index",
    sqlite3.SQLITE_IOERR: "the disk under the log fails or is full; see the kernel's messages",
}
_KEEP_A_COPY: Final = "keep a copy of the file; `byre log verify` says what is intact"
_WRITE_LOCK_BYTE: Final = 120
"""Where in `byre.db-shm` the write lock is (sqlite.org/walformat.html, "WAL Locks")."""


def open_log(path: Path, *, read_only: bool, lenient: bool = False) -> sqlite3.Connection:
    """Open a log, making or migrating it unless `read_only`.

    Args:
        path: its file.
        read_only: for questions; a log that is missing has no events.
        lenient: read what can be read of a damaged one.

    Raises:
        LogUnavailable, LogDamaged, RefusedError: see `eventlog.EventLog`.
    """
    with told_apart(path):
        _check_place(path)
        if lenient:
            return _connect_leniently(path)
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


def connect(path: Path, *, read_only: bool, lenient: bool = False) -> sqlite3.Connection:
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
        if lenient:
            # First of all, as the others read the schema. SQLite then goes on with a file that is
            # shorter than its header says, and with a schema that it cannot read as a whole
            # (sqlite.org/pragma.html). Nothing is written to the file.
            connection.execute("PRAGMA writable_schema = ON")
        connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        # FULL: a commit in WAL mode is fsynced before it returns (sqlite.org/pragma.html).
        connection.execute("PRAGMA synchronous = FULL")
    except BaseException:
        connection.close()
        raise
    return connection


def copy(log: Path, target: Path) -> None:
    """Copy a log that may be in use into an empty file, as it is at one moment.

    The copy is no WAL database: it is one file, and can be read where nothing can be written.

    Raises:
        LogUnavailable, LogDamaged: see `told_apart`.
    """
    with (
        told_apart(log),
        contextlib.closing(connect(log, read_only=True)) as source,
        contextlib.closing(connect(target, read_only=False)) as made,
    ):
        # All pages in one step: between two, another process's commit would begin it anew.
        source.backup(made, pages=-1)
        made.execute("PRAGMA journal_mode = DELETE")


@contextlib.contextmanager
def exclusively(path: Path) -> Iterator[None]:
    """Have a log to oneself, in one file without a WAL; nobody else has it open, or can open it.

    Raises:
        LogUnavailable: another process has it open; it is named.
        LogDamaged: it is no log, or too ill for that; nobody can write to it, either.
    """
    with told_apart(path), contextlib.closing(connect(path, read_only=False)) as connection:
        # In WAL mode every connection, readers too, holds a shared lock on the file for as long as
        # it is open. Leaving that mode takes them all away (sqlite.org/wal.html).
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute("BEGIN EXCLUSIVE")
        yield


def set_meta(path: Path, key: str, value: str) -> None:
    """Set one row of a log's table `meta`; for a file that nobody else has open."""
    with told_apart(path), contextlib.closing(connect(path, read_only=False)) as connection:
        connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))


def _cannot_change(path: Path) -> bool:
    """Tell whether a log was closed cleanly and lies where nothing can be written beside it.

    In WAL mode even a reader needs a file beside the database that it can write, unless it is
    promised that nothing changes (sqlite.org/wal.html, "Read-Only Databases"). In a folder that
    only others can write to, the file of a log that is open has a WAL beside it.
    """
    wal = path.with_name(f"{path.name}-wal")
    try:
        if os.statvfs(path).f_flag & os.ST_RDONLY:
            return not (wal.exists() and wal.stat().st_size)
        return not os.access(path.parent, os.W_OK) and not wal.exists()
    except OSError:
        return False


class write_lock:  # noqa: N801 - used as a function; around every commit
    """Hold the write lock for one transaction; commit at the end, roll back on any error."""

    __slots__ = ("_connection",)

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        """Wait for the lock."""
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if error is not None:
            self._roll_back()
            return
        try:
            self._connection.execute("COMMIT")
        except BaseException:
            self._roll_back()
            raise

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):  # what made it fail is the one to tell
                self._connection.execute("ROLLBACK")


def is_of_the_disk(error: LogUnavailable) -> bool:
    """Tell whether it was the disk that failed or had no room, and not a lock or a privilege."""
    return _code_of(error.__cause__) in _OF_THE_DISK


def is_of_a_text(error: LogDamaged) -> bool:
    """Tell whether it was a text that is no UTF-8, and not a page that cannot be read."""
    return _is_no_text(error.__cause__)


def _is_no_text(error: BaseException | None) -> bool:
    # The module raises the second one itself, without SQLite's code.
    is_of_the_module = isinstance(error, sqlite3.OperationalError) and not _code_of(error)
    return isinstance(error, UnicodeDecodeError) or is_of_the_module


def identities(name: str) -> tuple[tuple[int, int] | None, ...]:
    """Return (device, inode) of a log and of its WAL, None for one that is missing.

    As long as a connection is open both stay the same, unless somebody replaces them: what is
    written then goes to files that have no name any more.
    """
    return _identity(name), _identity(f"{name}-wal")


def _identity(name: str) -> tuple[int, int] | None:
    try:
        status = os.lstat(name)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


RAISED: Final = (sqlite3.Error, UnicodeDecodeError, OSError)
"""What SQLite and the file system raise, and `sorted_out` makes errors of ours of."""


def sorted_out(error: BaseException, path: Path) -> ByreError:
    """Return one of `RAISED` as an error that says what to do."""
    if isinstance(error, sqlite3.Error):
        return _sorted(error, path)
    if isinstance(error, OSError):
        msg = f"{path}: {error.strerror or error}"
        return LogUnavailable(msg, hint="choose another state root with --root")
    # Not even SQLite's message can be read.
    return LogDamaged(f"{path}: a text in it is no UTF-8", hint=_KEEP_A_COPY)


class told_apart:  # noqa: N801 - used as a function; around every commit
    """Turn what SQLite and the file system raise into errors that say what to do."""

    __slots__ = ("_path",)

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        """Nothing is needed at the beginning."""

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, RAISED):
            raise sorted_out(error, self._path) from error


def _code_of(error: BaseException | None) -> int:
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _sorted(error: sqlite3.Error, path: Path) -> ByreError:
    code = _code_of(error)
    message = f"{path}: {error}"
    if code in _DAMAGED or _is_no_text(error):
        return LogDamaged(message, hint=_KEEP_A_COPY)
    if code == sqlite3.SQLITE_ERROR and "no such table" in str(error):
        return LogDamaged(message, hint="a table of the log is missing; restore a copy")
    if code in _WAITED:
        return LogUnavailable(f"{message}, {BUSY_TIMEOUT_MS / 1000:g} s long", hint=_who(path))
    return LogUnavailable(message, hint=_HINTS.get(code, ""))


def _who(path: Path) -> str:
    """Name who holds the write lock, or else the file."""
    shared = path.with_name(f"{path.name}-shm")
    found = lockholders.holders(shared, byte=_WRITE_LOCK_BYTE) or lockholders.holders(path)
    holder = "; ".join(found) or "see who has the file open"
    return f"another process holds the write lock: {holder}; end it, or let it go on"


def _empty() -> sqlite3.Connection:
    """Return a log without events, in memory: what a root that was never used has to say."""
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    schema.migrate(connection)
    return connection


def _connect_leniently(path: Path) -> sqlite3.Connection:
    """Open a log of which parts may be gone, for reading."""
    if not path.exists():
        return _empty()
    connection = connect(path, read_only=True, lenient=True)
    try:
        is_new = _check(connection, path)
    except BaseException:
        connection.close()
        raise
    if is_new:
        connection.close()
        return _empty()
    return connection


def _check_place(path: Path) -> None:
    """Refuse what is no file: SQLite would follow a link, and keep the WAL behind it."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if stat.S_ISREG(mode):
        return
    if stat.S_ISLNK(mode):
        found = f"a symlink to {os.readlink(path)}"  # noqa: PTH115 - the text as it is
    else:
        found = "a folder" if stat.S_ISDIR(mode) else "a special file"
    msg = f"{path} is {found}; a log is a regular file"
    raise LogDamaged(msg, hint="it was left as it is; put the log back, or choose another root")


def _make(path: Path) -> None:
    """Make the folder, 0700, and the file, 0600; what exists stays as it is."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists():
        os.close(os.open(path, os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))


def _check(connection: sqlite3.Connection, path: Path) -> bool:
    """Refuse what is no log, or too new a one; True for a file that nothing was written to."""
    # In this order: another process may make the log between the two, and does so in one commit.
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    application = int(connection.execute("PRAGMA application_id").fetchone()[0])
    is_new = application == 0 and not tables
    if application != schema.APPLICATION_ID and not is_new:
        msg = f"{path} is not a log of byre (application id {application:#x})"
        raise LogDamaged(msg, hint="it was left as it is; choose another state root")
    version = schema.version_of(connection)
    if version < 1 and not is_new:
        msg = f"{path} has schema {version}; there are 1 to {schema.SCHEMA_VERSION}"
        raise LogDamaged(msg, hint="somebody set PRAGMA user_version; restore a copy")
    if version > schema.SCHEMA_VERSION:
        msg = f"{path} has schema {version}; this byre knows up to {schema.SCHEMA_VERSION}"
        raise RefusedError(msg, hint="use the newer byre; nothing was changed")
    return is_new


def _prepare(connection: sqlite3.Connection) -> None:
    if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        connection.execute("PRAGMA journal_mode = WAL")
    if schema.version_of(connection) < schema.SCHEMA_VERSION:
        schema.migrate(connection)
