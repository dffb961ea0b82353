"""What tuning found, in one SQLite file that any number of processes share."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Literal, TypeVar

from convgen import options
from convgen.errors import CacheWarning, ExchangeError, OptionError
from convgen.tuning.record import Key, Record, unite
from convgen.tuning.schema import (
    OF_KEY,
    REPLACE,
    SCHEMA_VERSION,
    SELECT,
    ForeignSchema,
    create,
    decode,
    encode,
    key_columns,
    migrate,
    version_of,
)

FILE_NAME = "tuning.sqlite"

_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
# Another process holds the file for longer than we wait; it will not do so forever.
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)

# The end of a claim that is further off, in seconds, is a damaged one or one of a wrong clock.
LONGEST_CLAIM = 24 * 3600.0

_Answer = TypeVar("_Answer")

# Files this process has already warned about.
_warned: dict[Path, object] = {}


class _DamagedFile(sqlite3.DatabaseError):
    """Damage that SQLite itself has not noticed."""

    sqlite_errorcode = sqlite3.SQLITE_CORRUPT


@dataclass(frozen=True)
class _Pending:
    """A record that is to be written, in the place of what it ousts."""

    record: Record
    replaces: bool

    def ousts(self, other: Record) -> bool:
        """Whether another record gives way."""
        same = other.key == self.record.key and other.is_pinned == self.record.is_pinned
        return self.replaces and same

    def write(self, connection: sqlite3.Connection) -> None:
        """Writes it into the tables of this version."""
        if self.replaces:
            pins = "origin = 'pinned'" if self.record.is_pinned else "origin <> 'pinned'"
            connection.execute(f"DELETE FROM results WHERE {OF_KEY} AND {pins}", key_columns(self.record.key))
        rows = connection.execute(f"{SELECT} WHERE id = ?", (self.record.identity,)).fetchall()
        there = [record for record in map(decode, rows) if record is not None]
        connection.execute(REPLACE, encode(unite(there, (self.record,))[0]))


class Database:
    """The records in the SQLite file ``path``, which is made by the first that is stored.

    Every call opens the file anew: nothing is held across a fork, between threads, or when the file is removed. A file of an
    earlier version is read as it is and moved forward by the first that is stored. Nothing that is wrong with the file stops a
    caller: a damaged one is renamed to ``path``.broken and begun anew, what cannot be read counts as absent and what cannot be
    written is kept in memory; one CacheWarning per process and file says so. ``timeout`` is how many seconds to wait for other
    processes. ``close`` tries once more to write what is in memory only.
    """

    def __init__(self, path: str | os.PathLike[str], *, timeout: float = 30.0) -> None:
        self.path = Path(path).absolute()
        self._timeout = timeout
        self._unwritten: dict[str, _Pending] = {}
        self._readable = True
        self._writable = True

    def __enter__(self) -> Database:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def find(self, problem: str, fingerprint: str | None = None) -> tuple[Record, ...]:
        """Returns all records of a problem on a machine, or on any, the oldest first."""
        if fingerprint is None:
            return self._found(" WHERE problem = ?", (problem,))
        return self._found(" WHERE problem = ? AND fingerprint = ?", (problem, fingerprint))

    def records(self) -> tuple[Record, ...]:
        """Returns all records, the oldest first."""
        return self._found("", ())

    def store(self, record: Record) -> None:
        """Adds ``record`` in the place of all with its key, pins aside; of a pin, in the place of the pin with its key."""
        self._pend([_Pending(record, replaces=True)])

    def add(self, records: Iterable[Record]) -> int:
        """Adds records beside those there are, and returns how many are new.

        Of copies of a record the one that came the shortest way is kept: what was measured here stays so.
        """
        known = {record.identity for record in self.records()}
        added = unite(records)
        self._pend([_Pending(record, replaces=False) for record in added])
        return sum(record.identity not in known for record in added)

    def remove(self, records: Iterable[Record]) -> int:
        """Removes records and returns how many; raises OptionError where the file cannot be written."""
        identities = [record.identity for record in records]
        for identity in identities:
            self._unwritten.pop(identity, None)
        if not identities or not self.path.exists():
            return 0

        def delete(connection: sqlite3.Connection) -> int:
            before = connection.total_changes
            connection.executemany("DELETE FROM results WHERE id = ?", [(identity,) for identity in identities])
            return connection.total_changes - before

        try:
            return self._attempt("rw", lambda connection: self._transaction(connection, delete))
        except (sqlite3.Error, OSError, ForeignSchema) as error:
            raise OptionError(f"the tuning database {str(self.path)!r} cannot be written: {error}") from error

    def claim(self, key: Key, owner: str, until: float, is_gone: Callable[[str], bool]) -> float | None:
        """Claims a key until a time (seconds since 1970) and returns None; if another owner's claim stands, returns its end.

        A claim whose time is over, or further off than LONGEST_CLAIM, or whose owner ``is_gone`` gives way. Where the file
        cannot be written, nothing is shared and every claim is granted.
        """

        def attempt(connection: sqlite3.Connection) -> float | None:
            found = connection.execute(f"SELECT owner, until FROM claims WHERE {OF_KEY}", key_columns(key)).fetchone()
            match found:
                case (str(other), float(end)) if 0 < end - time.time() < LONGEST_CLAIM and other != owner:
                    if not is_gone(other):
                        return end
            connection.execute("REPLACE INTO claims VALUES (?, ?, ?, ?, ?, ?, ?)", (*key_columns(key), owner, until))
            return None

        return self._shared(attempt)

    def release(self, key: Key, owner: str) -> None:
        """Ends the owner's claim."""

        def delete(connection: sqlite3.Connection) -> None:
            connection.execute(f"DELETE FROM claims WHERE {OF_KEY} AND owner = ?", (*key_columns(key), owner))

        self._shared(delete)

    def _shared(self, action: Callable[[sqlite3.Connection], _Answer]) -> _Answer | None:
        """What the action returns, None where the file cannot be written."""
        if not self._writable:
            return None
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            return self._attempt("rwc", lambda connection: self._transaction(connection, action))
        except (sqlite3.Error, OSError, ForeignSchema) as error:
            self._writable = _kind(error) in _BUSY
            self._warn(f"cannot be written ({error})")
            return None

    @property
    def is_written(self) -> bool:
        """Whether nothing is in memory only."""
        return not self._unwritten

    def close(self) -> None:
        """Tries once more to write what is in memory only; the database may still be used."""
        if self._unwritten:
            self._write_all()

    def _pend(self, pending: Iterable[_Pending]) -> None:
        for each in pending:
            # The last comes last: it ousts those before it.
            self._unwritten.pop(each.record.identity, None)
            self._unwritten[each.record.identity] = each
        if self._unwritten and self._writable:
            self._write_all()

    def _found(self, condition: str, arguments: tuple[str, ...]) -> tuple[Record, ...]:
        pending = tuple(self._unwritten.values())
        found = self._select(condition, arguments)
        if not pending:
            return tuple(found)
        for each in pending:
            if arguments == (each.record.problem, each.record.fingerprint)[: len(arguments)]:
                found = [*(record for record in found if not each.ousts(record)), each.record]
        return unite(found)

    def _select(self, condition: str, arguments: tuple[str, ...]) -> list[Record]:
        if not self._readable or not os.path.lexists(self.path):
            return []
        try:
            records = self._attempt("rw", lambda connection: _read(connection, condition, arguments))
        except (sqlite3.Error, OSError, ForeignSchema) as error:
            if _kind(error) not in _BUSY:
                self._readable = self._writable = False
            self._warn(f"cannot be read ({error})")
            return []
        if None in records:
            self._warn("holds a damaged record, which is ignored")
        return [record for record in records if record is not None]

    def _write_all(self) -> None:
        pending = tuple(self._unwritten.values())

        def write(connection: sqlite3.Connection) -> None:
            for each in pending:
                each.write(connection)

        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._attempt("rwc", lambda connection: self._transaction(connection, write))
        except ForeignSchema as error:
            self._readable = self._writable = False
            self._warn(f"cannot be used ({error})")
        except (sqlite3.Error, OSError) as error:
            self._writable = _kind(error) in _BUSY
            self._warn(f"cannot be written ({error})")
        else:
            for each in pending:
                # Another thread may have replaced it meanwhile.
                if self._unwritten.get(each.record.identity) is each:
                    del self._unwritten[each.record.identity]

    def _transaction(self, connection: sqlite3.Connection, action: Callable[[sqlite3.Connection], _Answer]) -> _Answer:
        """What the action returns, done wholly or not at all, on the tables of this version."""
        connection.execute("BEGIN IMMEDIATE")
        version = version_of(connection)
        if version is None:
            create(connection)
        elif connection.execute("PRAGMA integrity_check(1)").fetchall() != [("ok",)]:
            # Such tables can swallow a row without an error.
            raise _DamagedFile("its tables contradict each other")
        elif version != SCHEMA_VERSION and migrate(connection, version):
            self._warn("held a damaged record, which is left out")
        answer = action(connection)
        connection.execute("COMMIT")
        return answer

    def _attempt(self, mode: Literal["rw", "rwc"], action: Callable[[sqlite3.Connection], _Answer]) -> _Answer:
        """The result of ``action``; a damaged file is set aside and a new one begun, once."""
        opened = _identity(self.path)
        try:
            return self._with_connection(mode, action)
        except sqlite3.DatabaseError as error:
            if _kind(error) not in _DAMAGE:
                raise
            self._set_aside(opened, error)
        return self._with_connection("rwc", action)

    def _with_connection(self, mode: str, action: Callable[[sqlite3.Connection], _Answer]) -> _Answer:
        # SQLite would wait forever for a pipe, and call a folder a file that cannot be opened.
        if self.path.exists() and not self.path.is_file():
            raise OSError("not a file")
        address = f"{self.path.as_uri()}?mode={mode}"
        with closing(sqlite3.connect(address, uri=True, timeout=self._timeout, isolation_level=None)) as connection:
            connection.text_factory = lambda text: text.decode("utf-8", "replace")
            try:
                return action(connection)
            except UnicodeDecodeError as error:
                # SQLite's message quotes what it cannot parse, whatever its bytes.
                raise _DamagedFile("its schema is not text") from error

    def _set_aside(self, damaged: tuple[int, int] | None, error: sqlite3.Error) -> None:
        """Renames the file, unless another process has done so and the file is no longer the ``damaged`` one."""
        broken = self.path.with_name(f"{self.path.name}.broken")
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return
        with file:
            self._lock(file)
            if _identity(self.path) != damaged:
                return
            # First, so that they are neither applied to the next file nor, by mistake, the next file's own.
            for suffix in ("-journal", "-wal", "-shm"):
                self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
            os.replace(self.path, broken)
        self._warn(f"is damaged ({error}) and was renamed to {broken.name}")

    def _lock(self, file: IO[bytes]) -> None:
        """Locks the file against others that set it aside; raises TimeoutError."""
        end = time.monotonic() + self._timeout
        while True:
            try:
                return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= end:
                    raise TimeoutError(f"another process has been setting it aside for {self._timeout:g} s") from None
            time.sleep(0.01)

    def _warn(self, what: str) -> None:
        token = object()
        if _warned.setdefault(self.path, token) is token:
            consequence = "results stay correct, tuning may have to be repeated"
            warnings.warn(f"the tuning database {str(self.path)!r} {what}; {consequence}", CacheWarning, stacklevel=4)


def records_in(path: Path) -> tuple[Record, ...]:
    """Returns the records of another database, whatever its version, and leaves the file as it is; damaged ones are left out.

    Raises ExchangeError for what is not a tuning database.
    """
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            found = _read(connection, "", ())
    except (sqlite3.Error, ForeignSchema, UnicodeDecodeError) as error:
        raise ExchangeError(f"path={str(path)!r} is not a tuning database of convgen: {error}") from error
    return unite(record for record in found if record is not None)


def default_path() -> Path:
    """Returns where this user's database is, in the cache directory; raises OptionError where that is a file."""
    return options.cache_dir() / FILE_NAME


def _identity(path: Path) -> tuple[int, int] | None:
    if not path.exists():
        return None
    status = path.stat()
    return (status.st_dev, status.st_ino)


def _read(connection: sqlite3.Connection, condition: str, arguments: tuple[str, ...]) -> list[Record | None]:
    """The records that meet a condition, and None for each that is damaged."""
    version = version_of(connection)
    if version is None:
        return []
    if version == SCHEMA_VERSION:
        return [decode(row) for row in connection.execute(f"{SELECT}{condition} ORDER BY created, id", arguments)]
    # Moved forward in a copy: the file itself may be one that nobody can write.
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as copy:
        connection.backup(copy)
        lost = migrate(copy, version)
        return [*_read(copy, condition, arguments), *[None] * lost]


def _kind(error: Exception) -> int:
    """SQLite's code of an error without its details, which are in the upper bytes; 0 for others."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
