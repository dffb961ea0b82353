"""What tuning found, in one SQLite file that any number of processes share."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import sqlite3
import warnings
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, TypeVar

from convgen import options
from convgen.errors import CacheWarning
from convgen.tuning.space import Config

SCHEMA_VERSION = 2
FILE_NAME = "tuning.sqlite"

_CREATE_RESULTS = """CREATE TABLE results (
    problem TEXT NOT NULL, fingerprint TEXT NOT NULL, threads INTEGER NOT NULL, version TEXT NOT NULL,
    workspace_limit INTEGER NOT NULL,
    strategy TEXT NOT NULL, config TEXT NOT NULL, seconds REAL NOT NULL, baseline_seconds REAL NOT NULL,
    error REAL NOT NULL, verified TEXT NOT NULL, created TEXT NOT NULL, candidates TEXT NOT NULL,
    digest TEXT NOT NULL, PRIMARY KEY (problem, fingerprint, threads, version, workspace_limit))"""
_CREATE = (
    "CREATE TABLE schema (version INTEGER NOT NULL)",
    f"INSERT INTO schema VALUES ({SCHEMA_VERSION})",
    _CREATE_RESULTS,
)
_COLUMNS = (
    "problem, fingerprint, threads, version, workspace_limit, strategy, config, seconds, baseline_seconds, error, "
    "verified, created, candidates, digest"
)
_SELECT = f"SELECT {_COLUMNS} FROM results"
_REPLACE = f"REPLACE INTO results ({_COLUMNS}) VALUES ({', '.join('?' * 14)})"
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)

# Stored for no limit.
_NO_LIMIT = -1

Key = tuple[str, str, int, str, int]
_Answer = TypeVar("_Answer")

# Files this process has already warned about.
_warned: dict[Path, object] = {}


@dataclass(frozen=True)
class Record:
    """The outcome of tuning one problem on one machine.

    ``problem`` is ``ConvSpec.to_json()``, ``fingerprint`` the machine's, ``version`` convgen's. ``seconds`` is the
    median time of ``strategy`` with ``config``, ``baseline_seconds`` that of the heuristic's choice in the same run,
    ``error`` the relative L2 error against the oracle, ``verified`` the gate that was passed, ``created`` the time of
    storing (UTC, ISO 8601). ``candidates`` holds (strategy, text of the configuration, median seconds) of everything
    measured. ``workspace_limit`` is the limit in bytes under which it was found, if there was one.
    """

    problem: str
    fingerprint: str
    threads: int
    version: str
    strategy: str
    config: Config
    seconds: float
    baseline_seconds: float
    error: float
    verified: str
    created: str
    candidates: tuple[tuple[str, str, float], ...] = ()
    workspace_limit: int | None = None

    @property
    def key(self) -> Key:
        """What a record is found by; of two with the same key the later one counts."""
        return _key(self.problem, self.fingerprint, self.threads, self.version, self.workspace_limit)


def _key(problem: str, fingerprint: str, threads: int, version: str, limit: int | None) -> Key:
    return (problem, fingerprint, threads, version, _NO_LIMIT if limit is None else limit)


class _ForeignSchema(Exception):
    """The file is a database, but not one that this version reads; the message says why."""


class _DamagedFile(sqlite3.DatabaseError):
    """Damage that SQLite itself has not noticed."""

    sqlite_errorcode = sqlite3.SQLITE_CORRUPT


class Database:
    """The records in the SQLite file ``path``, which is made by the first ``store``.

    Every call opens the file anew: nothing is held across a fork, between threads, or when the file is removed.
    Nothing that is wrong with the file stops a caller: a damaged one is renamed to ``path``.broken and begun anew, what
    cannot be read counts as absent and what cannot be written is kept in memory; one CacheWarning per process and file
    says so. ``timeout`` is how many seconds to wait for other processes. ``close`` tries once more to write what is in
    memory only.
    """

    def __init__(self, path: str | os.PathLike[str], *, timeout: float = 5.0) -> None:
        self.path = Path(path).absolute()
        self._timeout = timeout
        self._unwritten: dict[Key, Record] = {}
        self._readable = True
        self._writable = True

    def __enter__(self) -> Database:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def find(
        self, problem: str, fingerprint: str, threads: int, version: str, workspace_limit: int | None = None
    ) -> Record | None:
        """Returns the record stored last under this key, or None."""
        key = _key(problem, fingerprint, threads, version, workspace_limit)
        if key in self._unwritten:
            return self._unwritten[key]
        where = " WHERE problem = ? AND fingerprint = ? AND threads = ? AND version = ? AND workspace_limit = ?"
        return next(iter(self._select(_SELECT + where, key)), None)

    def records(self) -> tuple[Record, ...]:
        """Returns all records, the oldest first."""
        found = {record.key: record for record in self._select(_SELECT)}
        return tuple(sorted((found | self._unwritten).values(), key=lambda record: (record.created, record.key)))

    def store(self, record: Record) -> None:
        """Adds ``record``, in the place of one with the same key."""
        self._unwritten[record.key] = record
        if self._writable:
            self._write_all()

    def close(self) -> None:
        """Tries once more to write what is in memory only; the database may still be used."""
        if self._unwritten:
            self._write_all()

    def _select(self, query: str, arguments: Key | tuple[()] = ()) -> list[Record]:
        if not self._readable or not os.path.lexists(self.path):
            return []
        try:
            rows = self._attempt("rw", lambda connection: _rows(connection, query, arguments))
        except (sqlite3.Error, OSError, _ForeignSchema) as error:
            self._readable = self._writable = False
            self._warn(f"cannot be read ({error})")
            return []
        records = [_decode(row) for row in rows]
        if None in records:
            self._warn("holds a damaged record, which is ignored")
        return [record for record in records if record is not None]

    def _write_all(self) -> None:
        records = tuple(self._unwritten.values())
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._attempt("rwc", lambda connection: _write(connection, records))
        except _ForeignSchema as error:
            self._readable = self._writable = False
            self._warn(f"cannot be used ({error})")
        except (sqlite3.Error, OSError) as error:
            self._writable = False
            self._warn(f"cannot be written ({error})")
        else:
            for record in records:
                # Another thread may have replaced it meanwhile.
                if self._unwritten.get(record.key) is record:
                    del self._unwritten[record.key]

    def _attempt(self, mode: Literal["rw", "rwc"], action: Callable[[sqlite3.Connection], _Answer]) -> _Answer:
        """The result of ``action``; a damaged file is set aside and a new one begun, once."""
        opened = _identity(self.path)
        try:
            return self._with_connection(mode, action)
        except sqlite3.DatabaseError as error:
            # The low byte is the kind of an error, the others its details.
            if (getattr(error, "sqlite_errorcode", 0) & 0xFF) not in _DAMAGE:
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
            fcntl.flock(file, fcntl.LOCK_EX)
            if _identity(self.path) != damaged:
                return
            # First, so that they are neither applied to the next file nor, by mistake, the next file's own.
            for suffix in ("-journal", "-wal", "-shm"):
                self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
            os.replace(self.path, broken)
        self._warn(f"is damaged ({error}) and was renamed to {broken.name}")

    def _warn(self, what: str) -> None:
        token = object()
        if _warned.setdefault(self.path, token) is token:
            consequence = "results stay correct, tuning may have to be repeated"
            warnings.warn(f"the tuning database {str(self.path)!r} {what}; {consequence}", CacheWarning, stacklevel=4)


def default_path() -> Path:
    """Returns where this user's database is, in the cache directory; raises OptionError where that is a file."""
    return options.cache_dir() / FILE_NAME


def _identity(path: Path) -> tuple[int, int] | None:
    if not path.exists():
        return None
    status = path.stat()
    return (status.st_dev, status.st_ino)


def _rows(connection: sqlite3.Connection, query: str, arguments: Key | tuple[()]) -> list[tuple[object, ...]]:
    return connection.execute(query, arguments).fetchall() if _has_schema(connection) else []


def _write(connection: sqlite3.Connection, records: tuple[Record, ...]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    if not _has_schema(connection):
        for statement in _CREATE:
            connection.execute(statement)
    elif connection.execute("PRAGMA integrity_check(1)").fetchall() != [("ok",)]:
        # Such tables can swallow a row without an error.
        raise _DamagedFile("its tables contradict each other")
    connection.executemany(_REPLACE, [_encode(record) for record in records])
    connection.execute("COMMIT")


def _has_schema(connection: sqlite3.Connection) -> bool:
    """Whether the tables are there; False in an empty file. Raises _ForeignSchema for any others."""
    tables = dict(connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'").fetchall())
    if not tables:
        return False
    if not {"schema", "results"} <= tables.keys():
        raise _ForeignSchema(f"its tables are {', '.join(sorted(tables))}")
    versions = [version for (version,) in connection.execute("SELECT version FROM schema")]
    if versions != [SCHEMA_VERSION]:
        found = ", ".join(map(str, versions)) or "none"
        raise _ForeignSchema(f"its schema version is {found}, this convgen reads {SCHEMA_VERSION}")
    if tables["results"] != _CREATE_RESULTS:
        raise _ForeignSchema("its columns are others")
    return True


def _encode(record: Record) -> tuple[object, ...]:
    row = (
        *record.key,
        record.strategy,
        json.dumps(dict(record.config.values)),
        float(record.seconds),
        float(record.baseline_seconds),
        float(record.error),
        record.verified,
        record.created,
        json.dumps(record.candidates),
    )
    return (*row, _digest(row))


def _decode(row: tuple[object, ...]) -> Record | None:
    """Returns the record, or None where the row is not what was written."""
    *columns, digest = row
    if digest != _digest(tuple(columns)):
        return None
    match columns:
        case [
            str(problem), str(fingerprint), int(threads), str(version), int(limit), str(strategy), str(config),
            float(seconds), float(baseline), float(error), str(verified), str(created), str(candidates),
        ]:  # fmt: skip
            chosen = Config(tuple(json.loads(config).items()))
            measured = tuple((name, text, time) for name, text, time in json.loads(candidates))
            key = (problem, fingerprint, threads, version)
            given = None if limit == _NO_LIMIT else limit
            return Record(*key, strategy, chosen, seconds, baseline, error, verified, created, measured, given)
        case _:
            return None


def _digest(row: tuple[object, ...]) -> str:
    return hashlib.sha256(repr(row).encode()).hexdigest()
