"""``convgen db``: results travel from one user's database to another's."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from convgen import __version__
from convgen.descriptor import parse_descriptor
from convgen.machine import Machine
from convgen.tuning.database import Database, default_path
from convgen.tuning.record import Candidate, Record, current_tools
from convgen.tuning.space import Config
from convgen.tuning.t4 import check_t4
from tests.test_cli import TINY, Output, fail, run

SPEC = parse_descriptor(TINY)
HOST = Machine.host().fingerprint()
EMPTY = Config()


def record(strategy: str, seconds: float, count: int = 20, **fields: object) -> Record:
    measured = Candidate(strategy, EMPTY, seconds, 0.99 * seconds, 1.01 * seconds, count)
    made = Record(
        *(
            SPEC.to_json(),
            HOST,
            1,
            __version__,
            strategy,
            EMPTY,
            seconds,
            1.0,
            1e-7,
            "gate A",
            "2026-01-01T00:00:00+00:00",
        ),
        candidates=(measured,),
        tools=current_tools(),
        host="secret",
    )
    return dataclasses.replace(made, **fields)  # type: ignore[arg-type]


MINE = record("direct", 1.0)
THEIRS = record("winograd", 0.5, created="2025-01-01T00:00:00+00:00")
ELSEWHERE = record("direct", 2.0, fingerprint="of another")


@pytest.fixture(autouse=True)
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Database:
    monkeypatch.setenv("CONVGEN_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    found = Database(default_path())
    found.store(MINE)
    return found


@pytest.fixture
def other(tmp_path: Path) -> str:
    """A colleague's database."""
    with Database(tmp_path / "other.sqlite") as found:
        found.store(THEIRS)
        found.store(ELSEWHERE)
    return "other.sqlite"


def test_export_and_import(capsys: Output, monkeypatch: pytest.MonkeyPatch, database: Database) -> None:
    database.store(ELSEWHERE)
    assert "2 records written to all.jsonl" in run(capsys, "db", "export", "-o", "all.jsonl")
    assert len(run(capsys, "db", "export", "--here").splitlines()) == 2
    Path("folder").mkdir()
    assert f"1 records written to folder/{HOST}.jsonl" in run(capsys, "db", "export", "--here", "-o", "folder")
    assert "cannot be written: Is a directory" in fail(capsys, "db", "export", "-o", "folder")
    assert "secret" not in Path("all.jsonl").read_text()
    assert "secret" in run(capsys, "db", "export", "--hosts")
    monkeypatch.setenv("CONVGEN_CACHE_DIR", "elsewhere")
    out = run(capsys, "db", "import", "all.jsonl")
    assert "all.jsonl: 2 records, 2 new" in out
    assert "2 results more, 0 other choices" in out
    assert "all.jsonl: 2 records, 0 new" in run(capsys, "db", "import", "all.jsonl")
    found = Database(default_path()).records()
    assert {each.identity for each in found} == {MINE.identity, ELSEWHERE.identity}
    assert {(each.origin, each.source) for each in found} == {("imported", "all.jsonl")}
    assert "imported" in run(capsys, "db", "list")


def test_an_export_in_t4(capsys: Output) -> None:
    document = json.loads(run(capsys, "db", "export", "--format", "t4"))
    check_t4(document)
    assert [result["configuration"]["strategy"] for result in document["results"]] == ["direct"]


def test_the_evidence_decides_whoever_merges(capsys: Output, tmp_path: Path, database: Database, other: str) -> None:
    """The colleague's result is older and faster; whose database is merged into whose does not matter."""
    out = run(capsys, "db", "merge", other)
    assert "other.sqlite: 2 records, 2 new" in out
    assert "1 results more, 1 other choices" in out
    assert run(capsys, "db", "list").splitlines()[-1].startswith("2 results in ")
    theirs = Database(tmp_path / other)
    before = theirs.path.read_bytes()
    run(capsys, "db", "diff", other)
    assert theirs.path.read_bytes() == before
    theirs.add([MINE])
    assert "2 results in both, 0 of them differ; 0 in the first alone" in run(capsys, "db", "diff", other)


def test_merging_takes_exports_too(capsys: Output, other: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run(capsys, "db", "export", "-o", "mine.jsonl")
    monkeypatch.setenv("CONVGEN_CACHE_DIR", "elsewhere")
    run(capsys, "db", "merge", "mine.jsonl", other)
    assert len(Database(default_path()).records()) == 3


def test_diff_shows_other_choices(capsys: Output, other: str) -> None:
    out = run(capsys, "db", "diff", other, status=1)
    assert "winograd" in out
    assert "1 results in both, 1 of them differ; 1 in the first alone, 0 in the second alone" in out
    run(capsys, "db", "export", "-o", "mine.jsonl")
    assert "1 of them differ" in run(capsys, "db", "diff", "mine.jsonl", other, status=1)
    assert "0 of them differ" in run(capsys, "db", "diff", "mine.jsonl")


@pytest.mark.parametrize("action", ["import", "merge", "diff"])
def test_bad_files_are_named_by_line_and_nothing_is_taken(capsys: Output, database: Database, action: str) -> None:
    run(capsys, "db", "export", "-o", "good.jsonl")
    lines = Path("good.jsonl").read_text().splitlines()
    Path("bad.jsonl").write_text("\n".join([*lines, lines[1].replace("winograd", "direct")[:-2]]))
    assert "bad.jsonl, line 3: this is not JSON" in fail(capsys, "db", action, "good.jsonl", "bad.jsonl")
    assert database.records() == (MINE,)


def test_what_is_no_database_is_left_alone(capsys: Output, tmp_path: Path) -> None:
    path = tmp_path / "notes.sqlite"
    path.write_bytes(b"SQLite format 3\0 it says")
    assert "is not a tuning database of convgen" in fail(capsys, "db", "merge", str(path))
    assert [entry.name for entry in tmp_path.glob("notes*")] == ["notes.sqlite"]
    assert "cannot be read" in fail(capsys, "db", "import", "none.jsonl")
    assert "cannot be written" in fail(capsys, "db", "export", "-o", "/dev/null/x")


@pytest.mark.parametrize(
    ("option", "removed"),
    [
        (("--other-versions",), {"old"}),
        (("--older-than", "36500"), set()),
        (("--older-than", "0"), {"mine", "old", "elsewhere", "unknown"}),
        (("--fingerprint", "of another"), {"elsewhere"}),
        (("--other-machines",), {"elsewhere"}),
        (("--unknown",), {"unknown"}),
        (("--unknown", "--other-versions"), {"unknown", "old"}),
    ],
)
def test_prune(capsys: Output, database: Database, option: tuple[str, ...], removed: set[str]) -> None:
    records = {
        "mine": MINE,
        "old": record("direct", 1.0, version="0.0.1"),
        "elsewhere": ELSEWHERE,
        "unknown": record("magic", 1.0, threads=7),
        "undated": record("direct", 1.0, threads=8, created="yesterday"),
        "pin": record("direct", 0.0, origin="pinned", version="0.0.1", fingerprint="of another"),
    }
    for each in records.values():
        database.store(each)
    assert run(capsys, "db", "prune", *option, "--dry-run").startswith(f"{len(removed)} records would be removed")
    assert len(database.records()) == len(records)
    assert run(capsys, "db", "prune", *option).startswith(f"{len(removed)} records removed")
    assert set(database.records()) == {each for name, each in records.items() if name not in removed}


@pytest.mark.parametrize("days", ["-1", "365001", "99999999999", "9" * 400])
def test_prune_refuses_what_is_no_age(capsys: Output, days: str) -> None:
    assert f"older_than={days} is not valid; allowed: integers from 0 to" in fail(
        capsys, "db", "prune", f"--older-than={days}"
    )


def test_prune_needs_to_be_told_what(capsys: Output) -> None:
    assert "needs to be told what to remove" in fail(capsys, "db", "prune")


def test_pin_and_unpin(capsys: Output, database: Database) -> None:
    assert "pinned reference -" in run(capsys, "db", "pin", TINY, "--strategy", "reference")
    out = run(capsys, "db", "list")
    assert "pinned" in out
    assert " any reference" in out
    assert "strategy='pointwise' does not apply" in fail(capsys, "db", "pin", TINY, "--strategy", "pointwise")
    assert "config='lanes=3' is not one of direct's" in fail(
        capsys, "db", "pin", TINY, "--strategy", "direct", "--config", "lanes=3"
    )
    assert run(capsys, "db", "unpin", TINY).startswith("1 pins removed")
    assert database.records() == (MINE,)


def test_a_pin_that_cannot_be_stored_is_an_error(capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Database, "is_written", False)
    assert "cannot be written; allowed for a pin" in fail(capsys, "db", "pin", TINY, "--strategy", "reference")
