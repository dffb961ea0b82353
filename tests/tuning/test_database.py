"""Whatever is wrong with a database: one warning, no crash, and nothing that was found is lost."""

from __future__ import annotations

import dataclasses
import os
import resource
import sqlite3
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from convgen import options
from convgen.errors import CacheWarning, OptionError
from convgen.spec import ConvSpec
from convgen.tuning.database import Database, default_path
from convgen.tuning.record import Candidate, Record
from convgen.tuning.space import Config

PROBLEM = ConvSpec(batch=1, in_channels=3, out_channels=4, spatial_size=(5, 5), kernel_size=3)
RECORD = Record(
    problem=PROBLEM.to_json(),
    fingerprint="0123456789abcdef",
    threads=2,
    version="0.1.0",
    strategy="direct",
    config=Config.of(pixels=7, lanes=64),
    seconds=1.25e-3,
    baseline_seconds=0.1,
    error=2e-7,
    verified="A",
    created="2025-01-02T03:04:05+00:00",
    candidates=(
        Candidate("direct", Config.of(pixels=7, lanes=64), 1.25e-3, 1.2e-3, 1.3e-3, 40, 1e-3),
        Candidate("reference", Config(), 7.0),
    ),
    rejected=("winograd m=4: 1 of 75 elements are wrong",),
    tools="numba 1",
    host="h",
)
OTHER = dataclasses.replace(
    RECORD, fingerprint="fedcba9876543210", threads=1, created="2025-01-02T03:04:06+00:00", candidates=(), rejected=()
)
PAGE = 4096


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tuning.sqlite"


@pytest.fixture
def filled(path: Path) -> Path:
    Database(path).store(RECORD)
    return path


@contextmanager
def one_warning(path: Path) -> Iterator[None]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    assert [item.category for item in caught] == [CacheWarning], [str(item.message) for item in caught]
    assert str(path) in str(caught[0].message)


def execute(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def test_what_is_stored_is_found_by_another(filled: Path) -> None:
    database = Database(filled)
    assert database.find(RECORD.problem, RECORD.fingerprint) == (RECORD,)
    assert database.records() == (RECORD,)


def test_problem_and_machine_are_looked_for(filled: Path) -> None:
    database = Database(filled)
    assert database.find(PROBLEM.replace(dtype="float64").to_json(), RECORD.fingerprint) == ()
    assert database.find(RECORD.problem, "f") == ()


@pytest.mark.parametrize("field", ["threads", "version", "workspace_limit", "origin"])
def test_another_key_stands_beside(filled: Path, field: str) -> None:
    changes = {"threads": 3, "version": "2", "workspace_limit": 0, "origin": "pinned"}
    other = dataclasses.replace(RECORD, created="2026-01-01", **{field: changes[field]})  # type: ignore[arg-type]
    Database(filled).store(other)
    assert Database(filled).find(RECORD.problem, RECORD.fingerprint) == (RECORD, other)


def test_the_same_key_replaces_and_others_do_not(filled: Path) -> None:
    newer = dataclasses.replace(RECORD, config=Config.of(lanes=16, pixels=1), created="2026-01-01T00:00:00+00:00")
    with Database(filled) as database:
        database.store(OTHER)
        database.store(newer)
    assert Database(filled).records() == (OTHER, newer)
    assert Database(filled).find(RECORD.problem, RECORD.fingerprint) == (newer,)


def test_an_empty_configuration_and_no_candidates(path: Path) -> None:
    plain = dataclasses.replace(RECORD, config=Config(), candidates=(), error=0.0)
    Database(path).store(plain)
    assert Database(path).find(RECORD.problem, RECORD.fingerprint) == (plain,)


def test_looking_makes_no_file(tmp_path: Path) -> None:
    database = Database(tmp_path / "none" / "tuning.sqlite")
    assert database.find(RECORD.problem, RECORD.fingerprint) == ()
    assert database.records() == ()
    database.close()
    assert list(tmp_path.iterdir()) == []


def test_the_default_path_is_in_the_cache_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CONVGEN_CACHE_DIR", str(tmp_path / "a ?b#%20"))
    assert default_path().parent == options.cache_dir()
    Database(default_path()).store(RECORD)
    assert default_path().is_file()
    assert Database(default_path()).find(RECORD.problem, RECORD.fingerprint) == (RECORD,)


def test_a_file_removed_meanwhile_is_begun_anew(filled: Path) -> None:
    database = Database(filled)
    assert database.find(RECORD.problem, RECORD.fingerprint) == (RECORD,)
    filled.unlink()
    assert database.find(RECORD.problem, RECORD.fingerprint) == ()
    database.store(OTHER)
    assert Database(filled).records() == (OTHER,)


def test_an_empty_file_is_an_empty_database(path: Path) -> None:
    path.touch()
    assert Database(path).records() == ()
    Database(path).store(RECORD)
    assert Database(path).records() == (RECORD,)


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "text": lambda _: b"not a database, but long enough to be read as the header of one" * 9,
    "short": lambda content: content[:100],
    "one-page": lambda content: content[:PAGE],
    "half-a-page": lambda content: content[: PAGE + PAGE // 2],
    "schema": lambda content: content.replace(b"CREATE TABLE results", b"CREATE \xff\xfe\xfd\xfc\xfb results"),
    "magic": lambda content: b"X" + content[1:],
    "zeros-after-the-header": lambda content: content[:100] + bytes(len(content) - 100),
    "zeros-after-the-first-page": lambda content: content[:PAGE] + bytes(len(content) - PAGE),
    "ones-after-the-first-page": lambda content: content[:PAGE] + b"\xff" * (len(content) - PAGE),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
@pytest.mark.parametrize("first", ["find", "store", "records"])
def test_a_damaged_file_is_set_aside(filled: Path, damage: Callable[[bytes], bytes], first: str) -> None:
    damaged = damage(filled.read_bytes())
    filled.write_bytes(damaged)
    database = Database(filled)
    with one_warning(filled):
        match first:
            case "find":
                assert database.find(RECORD.problem, RECORD.fingerprint) == ()
            case "records":
                assert database.records() == ()
        database.store(OTHER)
        assert database.find(OTHER.problem, OTHER.fingerprint) == (OTHER,)
        assert database.find(RECORD.problem, RECORD.fingerprint) == ()
        assert Database(filled).records() == (OTHER,)
    assert filled.with_name("tuning.sqlite.broken").read_bytes() == damaged


def test_every_single_changed_byte_of_a_record_is_noticed(filled: Path) -> None:
    content = filled.read_bytes()
    start = content.index(RECORD.problem.encode())
    for position in (start, content.index(b'"pixels": 7') + 10, content.index(b"0123456789abcdef") + 3):
        changed = bytearray(content)
        changed[position] ^= 1
        filled.write_bytes(changed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CacheWarning)
            assert Database(filled).records() == ()


def test_tables_that_contradict_each_other_are_not_written_to(filled: Path) -> None:
    Database(filled).store(OTHER)
    execute(
        filled,
        "PRAGMA writable_schema = ON",
        "UPDATE sqlite_master SET rootpage = 2 WHERE name = 'sqlite_autoindex_results_1'",
    )
    with one_warning(filled):
        database = Database(filled)
        database.store(RECORD)
        assert database.records() == (RECORD,)
        assert Database(filled).find(RECORD.problem, RECORD.fingerprint) == (RECORD,)
    assert filled.with_name("tuning.sqlite.broken").exists()


def test_a_damaged_record_is_ignored_and_may_be_replaced(filled: Path) -> None:
    Database(filled).store(OTHER)
    execute(filled, "UPDATE results SET seconds = 0.0 WHERE threads = 2")
    with one_warning(filled):
        database = Database(filled)
        assert database.find(RECORD.problem, RECORD.fingerprint) == ()
        assert database.records() == (OTHER,)
        database.store(RECORD)
        assert Database(filled).find(RECORD.problem, RECORD.fingerprint) == (RECORD,)


SCHEMAS = {
    "newer": ("UPDATE schema SET version = 4",),
    "older": ("UPDATE schema SET version = 0",),
    "no-version": ("DELETE FROM schema",),
    "text-as-version": ("UPDATE schema SET version = 'x'",),
    "foreign": ("DROP TABLE results", "DROP TABLE schema", "CREATE TABLE bookmarks (url TEXT)"),
    "other-columns": ("ALTER TABLE results RENAME COLUMN strategy TO tactic",),
    "other-types": (
        "PRAGMA writable_schema = ON",
        "UPDATE sqlite_master SET sql = replace(sql, 'REAL', 'TEXT') WHERE name = 'results'",
    ),
    "half": ("DROP TABLE results",),
}


@pytest.mark.parametrize("statements", SCHEMAS.values(), ids=SCHEMAS.keys())
@pytest.mark.parametrize("look_first", [True, False])
def test_another_schema_is_left_alone(filled: Path, statements: tuple[str, ...], look_first: bool) -> None:
    execute(filled, *statements)
    content = filled.read_bytes()
    with one_warning(filled), Database(filled) as database:
        if look_first:
            assert database.find(RECORD.problem, RECORD.fingerprint) == ()
        database.store(OTHER)
        assert database.find(OTHER.problem, OTHER.fingerprint) == (OTHER,)
        assert database.records() == (OTHER,)
    assert filled.read_bytes() == content
    assert [entry.name for entry in filled.parent.iterdir()] == [filled.name]


def _directory(path: Path) -> None:
    path.mkdir()


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _file_above(path: Path) -> None:
    path.parent.rmdir()
    path.parent.write_text("a file")


def _dangling_link(path: Path) -> None:
    path.symlink_to(path.parent / "none" / "none")


@pytest.mark.parametrize("obstacle", [_directory, _pipe, _file_above, _dangling_link])
def test_what_cannot_be_a_database_is_kept_in_memory(path: Path, obstacle: Callable[[Path], None]) -> None:
    path = path.parent / "deeper" / path.name
    path.parent.mkdir()
    obstacle(path)
    with one_warning(path):
        for _ in range(2):
            with Database(path) as database:
                assert database.find(RECORD.problem, RECORD.fingerprint) == ()
                database.store(RECORD)
                assert database.find(RECORD.problem, RECORD.fingerprint) == (RECORD,)
                assert database.records() == (RECORD,)


def test_a_damaged_file_that_cannot_be_renamed(filled: Path) -> None:
    filled.write_bytes(b"damaged" * 1000)
    (filled.with_name(filled.name + ".broken") / "full").mkdir(parents=True)
    with one_warning(filled), Database(filled) as database:
        assert database.find(RECORD.problem, RECORD.fingerprint) == ()
        database.store(RECORD)
        assert database.find(RECORD.problem, RECORD.fingerprint) == (RECORD,)
    assert filled.read_bytes() == b"damaged" * 1000


def test_a_journal_goes_with_its_damaged_file(filled: Path) -> None:
    filled.write_bytes(b"damaged" * 1000)
    journal = filled.with_name(filled.name + "-wal")
    journal.write_bytes(b"of the damaged file")
    with one_warning(filled):
        Database(filled).store(RECORD)
    assert not journal.exists()
    assert Database(filled).records() == (RECORD,)


def _refuse_writing(*_: object, **__: object) -> None:
    raise PermissionError(13, "Permission denied")


def test_a_directory_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new" / "tuning.sqlite"
    monkeypatch.setattr(Path, "mkdir", _refuse_writing)
    with one_warning(path):
        database = Database(path)
        database.store(RECORD)
        assert database.find(RECORD.problem, RECORD.fingerprint) == (RECORD,)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_directory_is_still_read(filled: Path) -> None:
    filled.chmod(0o400)
    filled.parent.chmod(0o500)
    try:
        with one_warning(filled):
            database = Database(filled)
            database.store(OTHER)
            assert database.records() == (RECORD, OTHER)
        assert Database(filled).records() == (RECORD,)
    finally:
        filled.parent.chmod(0o700)


def test_a_full_disk(filled: Path) -> None:
    bulky = dataclasses.replace(OTHER, rejected=("x" * (64 << 10),))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (filled.stat().st_size + 100, limits[1]))
    try:
        with one_warning(filled):
            database = Database(filled)
            database.store(bulky)
            assert database.records() == (RECORD, bulky)
            assert Database(filled).records() == (RECORD,)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    database.close()
    assert Database(filled).records() == (RECORD, bulky)


def test_a_locked_database_is_waited_for_and_then_left(filled: Path) -> None:
    with one_warning(filled), closing(sqlite3.connect(filled, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        database = Database(filled, timeout=0.01)
        assert database.find(RECORD.problem, RECORD.fingerprint) == ()
        database.store(OTHER)
        assert database.find(OTHER.problem, OTHER.fingerprint) == (OTHER,)
        other.execute("ROLLBACK")
        database.close()
    assert Database(filled).records() == (RECORD, OTHER)


def test_a_lock_that_is_released_in_time(filled: Path) -> None:
    with closing(sqlite3.connect(filled, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN EXCLUSIVE")
        release = threading.Timer(0.05, other.execute, ("ROLLBACK",))
        release.start()
        Database(filled, timeout=30.0).store(OTHER)
        release.join()
    assert Database(filled).records() == (RECORD, OTHER)


WRITER = """
import dataclasses, sys, warnings
warnings.simplefilter("error")
from convgen.tuning.database import Database
from convgen.tuning.record import Record
from convgen.tuning.space import Config
path, name = sys.argv[1:]
for index in range(15):
    record = Record(f"{name}{index}", "f", 1, "v", "direct", Config.of(pixels=index), 1.0, 1.0, 0.0, "A", "now")
    with Database(path, timeout=60.0) as database:
        database.store(record)
        database.store(dataclasses.replace(record, problem="shared"))
        assert database.find(record.problem, record.fingerprint) == (record,)
"""


@pytest.mark.parametrize("start", ["absent", "damaged"])
def test_processes_may_write_at_once(path: Path, start: str) -> None:
    if start == "damaged":
        path.write_bytes(b"damaged" * 1000)
    program = WRITER if start == "absent" else WRITER.replace('"error"', '"ignore"')
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    names = ("a", "b")
    writers = [
        subprocess.Popen([sys.executable, "-c", program, str(path), name], env=environment, stdin=subprocess.DEVNULL)
        for name in names
    ]
    assert [writer.wait(120) for writer in writers] == [0, 0]
    expected = {f"{name}{index}" for name in names for index in range(15)} | {"shared"}
    assert {record.problem for record in Database(path).records()} == expected


def test_threads_may_store_into_one_object(path: Path) -> None:
    database = Database(path, timeout=60.0)
    records = [dataclasses.replace(RECORD, threads=n) for n in range(1, 9)]
    threads = [threading.Thread(target=database.store, args=(record,)) for record in records]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(record.threads for record in Database(path).records()) == list(range(1, 9))


def test_what_waited_for_others_is_written_with_the_next(filled: Path) -> None:
    with one_warning(filled), closing(sqlite3.connect(filled, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        database = Database(filled, timeout=0.01)
        database.store(OTHER)
        other.execute("ROLLBACK")
        third = dataclasses.replace(OTHER, threads=7)
        database.store(third)
    assert set(Database(filled).records()) == {RECORD, OTHER, third}


def test_records_are_added_beside_and_counted_once(filled: Path) -> None:
    rival = dataclasses.replace(RECORD, strategy="winograd", origin="imported", source="theirs")
    assert Database(filled).add([RECORD, rival, rival, OTHER]) == 2
    assert Database(filled).add([rival]) == 0
    assert set(Database(filled).find(RECORD.problem, RECORD.fingerprint)) == {RECORD, rival}


def test_a_copy_that_came_back_is_the_record_itself(filled: Path) -> None:
    returned = dataclasses.replace(RECORD, origin="merged", source="theirs", host="")
    Database(filled).add([returned])
    assert Database(filled).records() == (RECORD,)


def test_removing(filled: Path) -> None:
    database = Database(filled)
    database.store(OTHER)
    assert database.remove([RECORD, dataclasses.replace(RECORD, threads=9)]) == 1
    assert Database(filled).records() == (OTHER,)
    assert database.remove([]) == 0
    assert Database(filled.with_name("none")).remove([RECORD]) == 0
    with closing(sqlite3.connect(filled, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(OptionError, match="cannot be written: database is locked"):
            Database(filled, timeout=0.01).remove([OTHER])


def test_an_identity_is_the_same_in_every_version() -> None:
    assert RECORD.identity == "bf27c297d93ca5311e5bf0de48488f1b19698928"
    assert dataclasses.replace(RECORD, origin="merged", source="x", host="y").identity == RECORD.identity
    for changed in (
        {"origin": "pinned"},
        {"seconds": 2.0},
        {"config": Config.of(lanes=64, pixels=7)},
        {"rejected": ()},
    ):
        assert dataclasses.replace(RECORD, **changed).identity != RECORD.identity


def test_in_memory_too_the_last_of_a_key_counts(path: Path) -> None:
    path.mkdir()
    with one_warning(path):
        database = Database(path)
        other = dataclasses.replace(RECORD, strategy="winograd")
        for record in (RECORD, other, RECORD):
            database.store(record)
        assert database.records() == (RECORD,)
        database.add([other])
        assert set(database.records()) == {RECORD, other}
        with pytest.raises(OptionError, match="cannot be written: not a file"):
            database.remove([other])
