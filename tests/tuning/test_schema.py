"""Files of earlier versions are read as they are and moved forward by the first that is stored."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from convgen.tuning import schema
from convgen.tuning.database import Database
from convgen.tuning.record import Candidate, Record
from convgen.tuning.space import Config
from tests.tuning.test_database import PROBLEM, execute, one_warning

# Written by the last convgen that had this version.
VERSION_2 = (Path(__file__).parents[1] / "golden" / "tuning" / "version2.sql").read_text()
FROM_2 = Record(
    problem=PROBLEM.to_json(),
    fingerprint="0123456789abcdef",
    threads=2,
    version="0.1.0",
    strategy="direct",
    config=Config.of(pixels=7, lanes=64),
    seconds=1.25e-3,
    baseline_seconds=0.1,
    error=2e-7,
    verified="gate A",
    created="2025-01-02T03:04:05+00:00",
    candidates=(
        Candidate("direct", Config.of(pixels=7, lanes=64), 1.25e-3),
        Candidate("reference", Config(), 7.0),
    ),
)
NEW = Record(PROBLEM.to_json(), "f" * 16, 1, "1", "direct", Config(), 1.0, 1.0, 0.0, "A", "2026-01-01")


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "tuning.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(VERSION_2)
    return path


def version(path: Path) -> int | None:
    with closing(sqlite3.connect(path)) as connection:
        return schema.version_of(connection)


def test_reading_changes_nothing(old: Path) -> None:
    content = old.read_bytes()
    first, limited = Database(old).records()
    assert first == FROM_2
    assert (limited.strategy, limited.workspace_limit, limited.candidates) == ("reference", 0, ())
    assert Database(old).find(FROM_2.problem, FROM_2.fingerprint) == (first, limited)
    assert Database(old).find(FROM_2.problem, "another") == ()
    assert (old.read_bytes(), [entry.name for entry in old.parent.iterdir()]) == (content, [old.name])


def test_storing_moves_forward_and_loses_nothing(old: Path) -> None:
    before = Database(old).records()
    Database(old).store(NEW)
    assert version(old) == schema.SCHEMA_VERSION
    assert Database(old).records() == (*before, NEW)


def test_a_damaged_row_is_left_out(old: Path) -> None:
    execute(old, "UPDATE results SET seconds = 2.0 WHERE strategy = 'direct'")
    with one_warning(old):
        database = Database(old)
        assert [record.strategy for record in database.records()] == ["reference"]
        database.store(NEW)
    assert [record.strategy for record in Database(old).records()] == ["reference", "direct"]


def test_a_migration_that_is_interrupted_has_not_happened(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = Database(old).records()
    content = old.read_bytes()

    def create_half(connection: sqlite3.Connection) -> None:
        connection.execute("CREATE TABLE schema (version INTEGER NOT NULL)")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(schema, "create", create_half)
        with pytest.raises(KeyboardInterrupt):
            Database(old).store(NEW)
    assert old.read_bytes() == content
    Database(old).store(NEW)
    assert Database(old).records() == (*before, NEW)


def test_many_may_move_it_forward_at_once(old: Path) -> None:
    before = Database(old).records()
    records = [Record(f"{n}", "f", 1, "1", "direct", Config(), 1.0, 1.0, 0.0, "A", f"2026-{n}") for n in range(6)]
    threads = [threading.Thread(target=Database(old).store, args=(record,)) for record in records]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Database(old).records() == (*before, *records)


def test_a_file_that_cannot_be_written_is_read_all_the_same(old: Path) -> None:
    with closing(sqlite3.connect(old, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert Database(old, timeout=0.01).records()[0] == FROM_2
