"""The tables of the tuning database, and the way from the tables of earlier versions to them.

Version 3 keeps one row a record, found by its identity, and the claims of processes that are measuring. Version 2 kept one
row a key.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Mapping
from typing import Any, cast

from convgen.tuning.record import Candidate, Key, Origin, Record, candidate_fields
from convgen.tuning.space import Config

SCHEMA_VERSION = 3

# Stored for no limit.
NO_LIMIT = -1

_KEY = (
    "problem TEXT NOT NULL, fingerprint TEXT NOT NULL, threads INTEGER NOT NULL, version TEXT NOT NULL,\n"
    "    workspace_limit INTEGER NOT NULL,"
)
_RESULTS = f"""CREATE TABLE results (
    id TEXT NOT NULL PRIMARY KEY, {_KEY}
    strategy TEXT NOT NULL, config TEXT NOT NULL, seconds REAL NOT NULL, baseline_seconds REAL NOT NULL,
    error REAL NOT NULL, verified TEXT NOT NULL, created TEXT NOT NULL, candidates TEXT NOT NULL, rejected TEXT NOT NULL,
    tools TEXT NOT NULL, origin TEXT NOT NULL, source TEXT NOT NULL, host TEXT NOT NULL, digest TEXT NOT NULL)"""
_CLAIMS = f"""CREATE TABLE claims (
    {_KEY}
    owner TEXT NOT NULL, until REAL NOT NULL, PRIMARY KEY (problem, fingerprint, threads, version, workspace_limit))"""
_SCHEMA = "CREATE TABLE schema (version INTEGER NOT NULL)"
_INDEX = "CREATE INDEX results_of_problem ON results (problem, fingerprint)"

_RESULTS_2 = """CREATE TABLE results (
    problem TEXT NOT NULL, fingerprint TEXT NOT NULL, threads INTEGER NOT NULL, version TEXT NOT NULL,
    workspace_limit INTEGER NOT NULL,
    strategy TEXT NOT NULL, config TEXT NOT NULL, seconds REAL NOT NULL, baseline_seconds REAL NOT NULL,
    error REAL NOT NULL, verified TEXT NOT NULL, created TEXT NOT NULL, candidates TEXT NOT NULL,
    digest TEXT NOT NULL, PRIMARY KEY (problem, fingerprint, threads, version, workspace_limit))"""

# Version → its tables.
_TABLES: Mapping[int, Mapping[str, str]] = {
    2: {"schema": _SCHEMA, "results": _RESULTS_2},
    SCHEMA_VERSION: {"schema": _SCHEMA, "results": _RESULTS, "claims": _CLAIMS},
}

_COLUMNS = (
    "id, problem, fingerprint, threads, version, workspace_limit, strategy, config, seconds, baseline_seconds, error, "
    "verified, created, candidates, rejected, tools, origin, source, host, digest"
)
_COLUMNS_2 = (
    "problem, fingerprint, threads, version, workspace_limit, strategy, config, seconds, baseline_seconds, error, "
    "verified, created, candidates, digest"
)
SELECT = f"SELECT {_COLUMNS} FROM results"
REPLACE = f"REPLACE INTO results ({_COLUMNS}) VALUES ({', '.join('?' * 20)})"
OF_KEY = "problem = ? AND fingerprint = ? AND threads = ? AND version = ? AND workspace_limit = ?"


class ForeignSchema(Exception):
    """The file is a database, but not one that this version reads; the message says why."""


def key_columns(key: Key) -> tuple[str, str, int, str, int]:
    """A key as its columns hold it."""
    *others, limit = key
    return cast(tuple[str, str, int, str, int], (*others, NO_LIMIT if limit is None else limit))


def version_of(connection: sqlite3.Connection) -> int | None:
    """The version of the tables that are there, None in an empty file; raises ForeignSchema for tables of others."""
    tables = dict(connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'").fetchall())
    if not tables:
        return None
    if not {"schema", "results"} <= tables.keys():
        raise ForeignSchema(f"its tables are {', '.join(sorted(tables))}")
    versions = [version for (version,) in connection.execute("SELECT version FROM schema")]
    if len(versions) != 1 or versions[0] not in _TABLES:
        found = ", ".join(map(str, versions)) or "none"
        raise ForeignSchema(f"its schema version is {found}, this convgen reads {', '.join(map(str, _TABLES))}")
    if tables != _TABLES[versions[0]]:
        raise ForeignSchema("its columns are others")
    return cast(int, versions[0])


def create(connection: sqlite3.Connection) -> None:
    """Makes the tables in an empty file."""
    for statement in (_SCHEMA, _RESULTS, _CLAIMS, _INDEX):
        connection.execute(statement)
    connection.execute("INSERT INTO schema VALUES (?)", (SCHEMA_VERSION,))


def migrate(connection: sqlite3.Connection, version: int) -> int:
    """Moves the tables of an earlier version forward, in the transaction that is open; returns how many rows were damaged."""
    lost = 0
    while version != SCHEMA_VERSION:
        step, version = _STEPS[version]
        lost += step(connection)
    return lost


def _from_2(connection: sqlite3.Connection) -> int:
    records = [_decode_2(row) for row in connection.execute(f"SELECT {_COLUMNS_2} FROM results")]
    connection.execute("DROP TABLE results")
    connection.execute("DROP TABLE schema")
    create(connection)
    connection.executemany(REPLACE, [encode(record) for record in records if record is not None])
    return records.count(None)


# Version → what moves it forward, and to which version.
_STEPS: Mapping[int, tuple[Callable[[sqlite3.Connection], int], int]] = {2: (_from_2, 3)}


def encode(record: Record) -> tuple[object, ...]:
    """The row of a record."""
    row = (
        record.identity,
        *key_columns(record.key),
        record.strategy,
        json.dumps(dict(record.config.values)),
        float(record.seconds),
        float(record.baseline_seconds),
        float(record.error),
        record.verified,
        record.created,
        json.dumps([candidate_fields(candidate) for candidate in record.candidates]),
        json.dumps(record.rejected),
        record.tools,
        record.origin,
        record.source,
        record.host,
    )
    return (*row, _digest(row))


def decode(row: tuple[object, ...]) -> Record | None:
    """The record of a row, or None where the row is not what was written."""
    *columns, digest = row
    if digest != _digest(tuple(columns)):
        return None
    match columns:
        case [
            str(), str(problem), str(fingerprint), int(threads), str(version), int(limit), str(strategy), str(config),
            float(seconds), float(baseline), float(error), str(verified), str(created), str(candidates), str(rejected),
            str(tools), str(origin), str(source), str(host),
        ]:  # fmt: skip
            return Record(
                *(problem, fingerprint, threads, version, strategy, Config(tuple(json.loads(config).items()))),
                *(seconds, baseline, error, verified, created),
                candidates=tuple(map(_candidate, json.loads(candidates))),
                rejected=tuple(json.loads(rejected)),
                workspace_limit=None if limit == NO_LIMIT else limit,
                tools=tools,
                origin=cast(Origin, origin),
                source=source,
                host=host,
            )
        case _:
            return None


def _candidate(fields: dict[str, Any]) -> Candidate:
    # The digest vouches for what candidate_fields made.
    return Candidate(**(fields | {"config": Config(tuple(fields["config"].items()))}))


def _decode_2(row: tuple[object, ...]) -> Record | None:
    *columns, digest = row
    if digest != _digest(tuple(columns)):
        return None
    match columns:
        case [
            str(problem), str(fingerprint), int(threads), str(version), int(limit), str(strategy), str(config),
            float(seconds), float(baseline), float(error), str(verified), str(created), str(candidates),
        ]:  # fmt: skip
            return Record(
                *(problem, fingerprint, threads, version, strategy, Config(tuple(json.loads(config).items()))),
                *(seconds, baseline, error, verified, created),
                candidates=tuple(Candidate(name, Config.parse(text), t) for name, text, t in json.loads(candidates)),
                workspace_limit=None if limit == NO_LIMIT else limit,
            )
        case _:
            return None


def _digest(row: tuple[object, ...]) -> str:
    return hashlib.sha256(repr(row).encode()).hexdigest()
