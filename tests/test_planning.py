"""Whose choice counts: the lockfile, a person, the database, what is shipped, the heuristic; and what is measured when."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import pytest

import convgen
from convgen import __version__, choices, kept_operators, locking, planning
from convgen.choices import TunedPlan, known_plan
from convgen.driver import Plan, heuristic_plan
from convgen.errors import LockError, LockWarning, NotApplicable, OptionError, VerificationError, WorkspaceLimitError
from convgen.explanation import explain
from convgen.machine import Machine, machine_named
from convgen.operator import CompiledConv
from convgen.pinning import pin, unpin
from convgen.planning import emit_source, plan_for
from convgen.spec import ConvSpec
from convgen.strategies.registry import STRATEGIES
from convgen.tuner import session as tuner
from convgen.tuning import shipped
from convgen.tuning.database import Database
from convgen.tuning.exchange import to_lines
from convgen.tuning.lockfile import LockEntry, write_lock
from convgen.tuning.record import Candidate, Record
from convgen.tuning.space import Config

HOST = Machine.host()
SPEC = ConvSpec(batch=1, in_channels=4, out_channels=40, spatial_size=(9, 8), kernel_size=3, padding=1)
HEURISTIC = heuristic_plan(SPEC, HOST, threads=1)
REFERENCE = Config()


def record(strategy: str, **fields: Any) -> Record:
    defaults = {each.name: each.default(SPEC, HOST) for each in STRATEGIES if each.refusal(SPEC, HOST) is None}
    config = defaults.get(strategy, Config())
    made = Record(
        *(SPEC.to_json(), HOST.fingerprint(), 1, __version__, strategy, config, 1.0, 2.0, 1e-7, "gate A", "2026-01-01"),
    )
    return dataclasses.replace(made, **fields)


@pytest.fixture(autouse=True)
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Database:
    """A database of the test's own, in a working directory without a lockfile, and no defaults."""
    found = Database(tmp_path / "tuning.sqlite")
    monkeypatch.setattr(choices, "database", lambda: found)
    monkeypatch.setattr("convgen.pinning.database", lambda: found)
    monkeypatch.setattr(shipped, "DEFAULTS", tmp_path)
    monkeypatch.setattr(planning, "_spent", 0.0)
    monkeypatch.chdir(tmp_path)
    shipped._read.cache_clear()
    return found


@pytest.fixture
def tuned(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Budgets of the calls of a tuner that chooses the reference."""
    budgets: list[float] = []

    def tune(spec: ConvSpec, budget: float, **_: object) -> TunedPlan:
        budgets.append(budget)
        return TunedPlan(Plan(spec, "reference", REFERENCE, "database", 1.0), 1.0, 1.0, 0.0, ())

    monkeypatch.setattr(tuner, "tune", tune)
    return budgets


def chosen(**options: Any) -> tuple[str, str]:
    plan = plan_for(SPEC, threads=1, **options)
    return plan.strategy, plan.origin


def test_by_default_nothing_is_measured_and_what_is_known_is_used(database: Database, tuned: list[float]) -> None:
    assert chosen() == (HEURISTIC.strategy, "heuristic")
    database.store(record("reference"))
    assert chosen() == ("reference", "database")
    assert tuned == []


def test_on_tunes_what_is_met_for_the_first_time(monkeypatch: pytest.MonkeyPatch, tuned: list[float]) -> None:
    monkeypatch.setenv("CONVGEN_TUNE", "on")
    monkeypatch.setenv("CONVGEN_TUNE_PROBLEM_BUDGET", "7")
    assert chosen() == ("reference", "database")
    monkeypatch.setenv("CONVGEN_TUNE_BUDGET", "3")
    monkeypatch.setattr(planning, "_spent", 1.0)
    chosen()
    assert tuned == [7.0, 2.0]
    assert planning._spent > 1.0
    monkeypatch.setattr(planning, "_spent", 3.5)
    assert chosen() == (HEURISTIC.strategy, "heuristic")
    assert len(tuned) == 2


def test_on_does_not_tune_what_is_known(
    monkeypatch: pytest.MonkeyPatch, database: Database, tuned: list[float]
) -> None:
    monkeypatch.setenv("CONVGEN_TUNE", "on")
    database.store(record("reference"))
    assert chosen() == ("reference", "database")
    assert tuned == []


def test_a_block_tunes_by_default(tuned: list[float]) -> None:
    with convgen.autotune(10.0):
        assert planning.is_autotuning()
        assert chosen() == ("reference", "database")
    assert 4.0 < tuned[0] <= 5.0
    assert not planning.is_autotuning()


@pytest.mark.parametrize("variable", ["CONVGEN_TUNE=off", "CONVGEN_DETERMINISTIC=1", "CONVGEN_LOCK=some.lock"])
@pytest.mark.parametrize("mode", ["block", "on"])
def test_what_rules_measuring_out(
    monkeypatch: pytest.MonkeyPatch, database: Database, tuned: list[float], variable: str, mode: str
) -> None:
    """Nor is the database asked then."""
    write_lock(Path("some.lock"), [])
    database.store(record("reference"))
    if mode == "on":
        monkeypatch.setenv("CONVGEN_TUNE", "on")
    monkeypatch.setenv(*variable.split("="))
    monkeypatch.setattr(locking, "_warned", {Path("some.lock").absolute(): None})
    with convgen.autotune(10.0):
        assert not planning.is_autotuning()
        assert chosen() == (HEURISTIC.strategy, "heuristic")
    assert tuned == []


def test_a_forbidden_strategy_is_not_chosen(monkeypatch: pytest.MonkeyPatch, database: Database) -> None:
    database.store(record(HEURISTIC.strategy))
    assert chosen()[1] == "database"
    monkeypatch.setenv("CONVGEN_FORBID", HEURISTIC.strategy)
    strategy, origin = chosen()
    assert (strategy != HEURISTIC.strategy, origin) == (True, "heuristic")
    assert convgen.compile(SPEC, HEURISTIC.strategy, 1).plan.origin == "given"
    every = ",".join(strategy.name for strategy in STRATEGIES[:-1])
    monkeypatch.setenv("CONVGEN_FORBID", every)
    assert chosen() == ("reference", "heuristic")
    for name in ("reference", "magic"):
        monkeypatch.setenv("CONVGEN_FORBID", name)
        with pytest.raises(OptionError, match=f"CONVGEN_FORBID='{name}' is not allowed; allowed: pointwise"):
            chosen()


def test_the_limit_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVGEN_WORKSPACE_LIMIT", "0")
    assert convgen.compile(SPEC, threads=1).workspace_bytes == 0
    assert convgen.compile(SPEC, threads=1, workspace_limit=1 << 30).workspace_bytes > 0
    assert chosen() == ("reference", "heuristic")
    assert chosen(workspace_limit=1 << 30)[0] != "reference"
    explanation = explain(SPEC, HOST, 1)
    assert explanation.plan.strategy == "reference"
    assert any(entry.fate == "over the workspace limit of 0 bytes" for entry in explanation.entries)
    assert "reference" in emit_source(SPEC, Path("out")).read_text()
    with pytest.raises(WorkspaceLimitError):
        emit_source(SPEC, Path("out"), strategy="direct")


def locked(strategy: str, **fields: Any) -> LockEntry:
    config = next(each for each in STRATEGIES if each.name == strategy).default(SPEC, HOST)
    return dataclasses.replace(LockEntry(SPEC, HOST.fingerprint(), 1, (strategy, config)), **fields)


def test_a_lockfile_in_the_working_directory_decides(database: Database) -> None:
    database.store(record("direct"))
    write_lock(Path("convgen.lock"), [locked("reference"), locked("direct", machine="of another")])
    assert chosen() == ("reference", "lock")
    assert convgen.compile(SPEC, threads=1).plan.strategy == "reference"
    assert convgen.compile(SPEC, "direct", threads=1).plan.strategy == "direct"
    write_lock(Path("convgen.lock"), [locked("direct")])
    assert chosen() == ("direct", "lock")
    assert chosen(machine=machine_named("generic"))[1] == ("lock" if HOST.isa == "generic" else "heuristic")


def test_weights_that_are_packed_in_each_call_have_their_own_choice() -> None:
    write_lock(Path("convgen.lock"), [locked("direct", streamed=("reference", REFERENCE))])
    assert chosen() == ("direct", "lock")
    assert chosen(constant_weights=False) == ("reference", "lock")
    assert chosen(constant_weights=False, workspace_limit=1 << 30) == ("reference", "lock")


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ([], "lacks it for this machine"),
        ([{"threads": 2}], "lacks it for this machine"),
        ([{"machine": "of another"}], "lacks it for this machine"),
        ([{"choice": ("direct", Config.of(lanes=3))}], "wants direct lanes=3, which is not offered here"),
        ([{"choice": ("magic", REFERENCE)}], "wants magic -, which is not offered here"),
    ],
)
def test_what_a_lockfile_lacks(
    monkeypatch: pytest.MonkeyPatch, database: Database, entries: list[dict[str, Any]], reason: str
) -> None:
    database.store(record("reference"))
    monkeypatch.setattr(locking, "_warned", {})
    write_lock(Path("convgen.lock"), [locked("direct", **fields) for fields in entries])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert chosen() == (HEURISTIC.strategy, "heuristic")
        assert chosen() == (HEURISTIC.strategy, "heuristic")
    assert [entry.category for entry in caught] == [LockWarning]
    assert reason in str(caught[0].message)
    monkeypatch.setenv("CONVGEN_LOCK_STRICT", "1")
    with pytest.raises(LockError, match="problem 'mb1_ic4oc40"):
        chosen()


def test_a_locked_choice_keeps_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVGEN_LOCK_STRICT", "1")
    write_lock(Path("convgen.lock"), [locked("direct"), locked("reference", workspace_limit=0)])
    assert chosen(workspace_limit=0) == ("reference", "lock")
    with pytest.raises(LockError, match="needs more than 1 bytes"):
        chosen(workspace_limit=1)


def test_strict_without_a_lockfile_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVGEN_LOCK_STRICT", "1")
    with pytest.raises(LockError, match=r"CONVGEN_LOCK_STRICT=1 needs a lockfile, and '.*/convgen.lock' is not there"):
        chosen()
    monkeypatch.setenv("CONVGEN_LOCK", "off")
    assert chosen() == (HEURISTIC.strategy, "heuristic")


def test_a_lockfile_that_cannot_be_read_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("convgen.lock").write_text("<<<<<<<")
    with pytest.raises(LockError, match="line 1"):
        chosen()
    monkeypatch.setenv("CONVGEN_LOCK", "none.lock")
    with pytest.raises(LockError, match=r"none.lock' cannot be read"):
        chosen()


def test_a_pin_holds_whatever_is_measured(database: Database) -> None:
    database.store(record("direct"))
    made = pin(SPEC, "reference")
    assert (made.is_pinned, made.verified, made.error < 1e-6) == (True, "gates A and B", True)
    assert chosen() == ("reference", "pinned")
    assert chosen(constant_weights=False) == ("reference", "pinned")
    database.store(record("direct", created="2099-01-01"))
    assert chosen() == ("reference", "pinned")
    pin(SPEC, "direct", threads=1)
    assert chosen() == ("direct", "pinned")
    assert plan_for(SPEC, threads=2).strategy == "reference"
    assert unpin(SPEC, 1) == 1
    assert chosen() == ("reference", "pinned")
    assert (unpin(SPEC), unpin(SPEC)) == (1, 0)
    assert chosen() == ("direct", "database")


def test_a_later_pin_replaces_an_earlier_one(database: Database) -> None:
    pin(SPEC, "reference")
    pin(SPEC, "direct")
    assert [each.strategy for each in database.records()] == ["direct"]


def test_a_pin_that_cannot_be_stored_leaves_the_earlier_one(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier = record("reference", origin="pinned", threads=0, version="0.0.1")
    database.store(earlier)

    def interrupted(_: Record) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(database, "store", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pin(SPEC, "direct")
    assert database.records() == (earlier,)
    pin(SPEC, "direct")
    assert [each.strategy for each in database.records()] == ["direct"], "another version's pin is replaced too"


def test_a_pin_of_an_earlier_version_holds(database: Database) -> None:
    database.store(record("reference", origin="pinned", threads=0, version="0.0.1"))
    database.store(record("direct"))
    assert chosen() == ("reference", "pinned")


def test_a_wrong_kernel_cannot_be_pinned(monkeypatch: pytest.MonkeyPatch, database: Database) -> None:
    right = CompiledConv.__call__
    monkeypatch.setattr(CompiledConv, "__call__", lambda self, *args, **named: right(self, *args, **named) + 1)
    with pytest.raises(VerificationError, match="strategy='reference' computes mb1_ic4"):
        pin(SPEC, "reference")
    assert database.records() == ()


def test_what_does_not_apply_cannot_be_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotApplicable, match="strategy='depthwise' does not apply"):
        pin(SPEC, "depthwise")
    with pytest.raises(NotApplicable, match="accuracy=1e-09 is below what any strategy promises"):
        pin(SPEC.replace(accuracy=1e-9), "direct")
    monkeypatch.setenv("CONVGEN_FORBID", "direct")
    with pytest.raises(NotApplicable, match="strategy='direct' is forbidden"):
        pin(SPEC, "direct")


def test_what_is_not_known_to_have_passed_all_gates_is_not_chosen_for_packing_in_each_call(database: Database) -> None:
    quick = Candidate("reference", REFERENCE, 1e-9)
    database.store(record("direct", candidates=(quick,)))
    assert chosen(constant_weights=False) == ("direct", "database")
    database.store(record("direct", candidates=(dataclasses.replace(quick, passed=True),)))
    assert chosen(constant_weights=False) == ("reference", "database")
    assert chosen() == ("direct", "database")


def test_shipped_results_come_after_the_database(database: Database, tmp_path: Path) -> None:
    given = record("reference", version="0.0.1", candidates=(Candidate("reference", REFERENCE, 1.0),))
    other = dataclasses.replace(given, fingerprint="of another")
    (tmp_path / f"{HOST.fingerprint()}.jsonl").write_text("\n".join(to_lines([given])))
    (tmp_path / "of another.jsonl").write_text("\n".join(to_lines([other])))
    assert chosen() == ("reference", "shipped")
    assert plan_for(SPEC, threads=2).origin == "heuristic"
    assert known_plan(SPEC, HOST, 1) is None, "tune is to measure"
    database.store(record("direct"))
    assert chosen() == ("direct", "database")


def test_what_is_shipped_is_measured_inside_a_block_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tuned: list[float]
) -> None:
    (tmp_path / f"{HOST.fingerprint()}.jsonl").write_text("\n".join(to_lines([record("direct", version="0.0.1")])))
    monkeypatch.setenv("CONVGEN_TUNE", "on")
    assert chosen() == ("direct", "shipped")
    assert tuned == []
    with convgen.autotune(10.0):
        assert chosen() == ("reference", "database")
    assert len(tuned) == 1


@pytest.mark.parametrize(("origin", "gives_way"), [("heuristic", True), ("shipped", True), ("database", False)])
def test_a_kept_operator_gives_way_to_results_of_this_machine(
    monkeypatch: pytest.MonkeyPatch, origin: str, gives_way: bool
) -> None:
    results = [0]
    monkeypatch.setattr(kept_operators, "results_stored", lambda: len(results))
    plan = dataclasses.replace(HEURISTIC, origin=origin)
    monkeypatch.setattr(kept_operators, "compile_spec", lambda *_, **__: CompiledConv(plan, HOST, 1))
    kept_operators.clear_operators()
    key = ("a test of", origin)
    first = kept_operators.kept_operator(key, lambda: SPEC, "auto", 1)
    assert kept_operators.kept_operator(key, lambda: SPEC, "auto", 1) is first
    results.append(1)
    assert (kept_operators.kept_operator(key, lambda: SPEC, "auto", 1) is not first) == gives_way
    kept_operators.clear_operators()


def test_what_is_not_offered_any_more_leaves_the_others(monkeypatch: pytest.MonkeyPatch, database: Database) -> None:
    database.add([record("direct", seconds=0.5), record("reference"), record("magic_of_another_version")])
    assert chosen() == ("direct", "database")
    monkeypatch.setenv("CONVGEN_FORBID", "direct")
    assert chosen() == ("reference", "database")


def test_an_unverified_record_is_not_chosen(database: Database) -> None:
    database.store(record("reference", verified=""))
    assert chosen() == (HEURISTIC.strategy, "heuristic")
