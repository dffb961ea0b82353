"""Every candidate has a fate, and the fates are those of what was stored."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from convgen import __version__
from convgen.choices import database
from convgen.cli import main
from convgen.driver import Plan, heuristic_plan, needed_bytes
from convgen.explanation import NAMED, Entry, Explanation, explain
from convgen.machine import Machine
from convgen.spec import ConvSpec
from convgen.strategies.direct import Direct
from convgen.strategies.registry import STRATEGIES, strategy_named
from convgen.tuning.record import Candidate, Record, current_tools
from convgen.tuning.space import Config

HOST = Machine.host()
TEXT = "mb1_ic16oc32_ih14oh14kh3ph1"
SPEC = ConvSpec(batch=1, in_channels=16, out_channels=32, spatial_size=(14, 14), kernel_size=3, padding=1)
CONFIGS = Direct().space(SPEC, HOST)
WINNER, TIED, SLOWER, WRONG = CONFIGS[:4]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVGEN_CACHE_DIR", str(tmp_path))


@pytest.fixture
def record() -> Record:
    """A stored result: direct won, one was as fast, one slower and one wrong."""
    stored = Record(
        problem=SPEC.to_json(),
        fingerprint=HOST.fingerprint(),
        threads=1,
        version=__version__,
        strategy="direct",
        config=WINNER,
        seconds=1e-4,
        baseline_seconds=2e-4,
        error=1e-7,
        verified="gates A and B, guard pages",
        created="2026-01-02T03:04:05+00:00",
        candidates=(
            Candidate("direct", WINNER, 1e-4, 0.9e-4, 1.1e-4, 21, 1e-4),
            Candidate("direct", TIED, 1.005e-4, 1e-4, 1.1e-4, 21, 1e-4),
            Candidate("direct", SLOWER, 1.25e-4, 1.2e-4, 1.3e-4, 7, 1e-4),
        ),
        rejected=(f"direct {WRONG}: integers: 3 elements are wrong",),
        tools=current_tools(),
        host="here",
    )
    database().store(stored)
    return stored


def entry_of(found: Explanation, strategy: str, config: Config | None = None) -> Entry:
    return next(e for e in found.entries if e.strategy == strategy and config in (None, e.config))


def test_without_measurements_the_cost_model_is_told() -> None:
    found = explain(SPEC, HOST, 1)
    plan = heuristic_plan(SPEC, HOST)
    assert (found.plan.strategy, found.plan.config) == (plan.strategy, plan.config)
    assert "nothing has been measured" in found.provenance
    assert found.chosen.fate == "chosen"
    assert {entry.strategy for entry in found.entries} == {strategy.name for strategy in STRATEGIES}
    assert entry_of(found, "fft").fate.startswith("refused: kernel_size=(3, 3)")
    assert entry_of(found, "reference").fate.endswith("times as long")
    assert min(entry.predicted for entry in found.entries if entry.predicted is not None) <= 1.0


def test_fates_of_what_was_measured(record: Record) -> None:
    found = explain(SPEC, HOST, 1)
    assert found.record == record
    assert entry_of(found, "direct", WINNER).is_chosen
    assert entry_of(found, "direct", TIED).fate == "a tie (+0.5%): the simpler was taken"
    assert entry_of(found, "direct", SLOWER).fate == "measured 25.0% slower"
    assert entry_of(found, "direct", WRONG).fate == "failed: integers: 3 elements are wrong"
    assert entry_of(found, "reference").fate.endswith("not measured")
    for part in ("measured on here", "2026-01-02", __version__, "guard pages"):
        assert part in found.provenance


def test_few_configurations_are_named_and_all_are_counted(record: Record) -> None:
    found = explain(SPEC, HOST, 1)
    for name, left in found.others:
        named = [entry for entry in found.entries if entry.strategy == name]
        assert len(named) + left == len(strategy_named(name).space(SPEC, HOST))
        assert sum(entry.measured is None and not entry.fate.startswith("failed") for entry in named) <= NAMED + 1


def test_another_number_of_threads_is_not_explained_by_it(record: Record) -> None:
    assert explain(SPEC, HOST, 3).record is None


def test_limits_of_accuracy_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    strict = explain(SPEC.replace(accuracy="strict"), HOST, 1)
    assert entry_of(strict, "winograd").fate.startswith(("refused", "not accurate enough"))
    wanted = needed_bytes(Plan(SPEC, "direct", CONFIGS[0], "given"), HOST, 1)
    limited = explain(SPEC, HOST, 1, wanted - 1)
    assert entry_of(limited, "direct", CONFIGS[0]).fate == f"over the workspace limit of {wanted - 1} bytes"
    monkeypatch.setenv("CONVGEN_FORBID", "direct")
    assert entry_of(explain(SPEC, HOST, 1), "direct").fate == "forbidden"


def test_bounds_that_are_too_large_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Direct, "error_bound", lambda self, spec: 0.5)
    assert entry_of(explain(SPEC, HOST, 1), "direct").fate.startswith("not accurate enough: error bound 5.0e-01, ")


def test_a_pin_is_the_provenance(record: Record) -> None:
    database().store(dataclasses.replace(record, origin="pinned", config=SLOWER, created="2026-02-02"))
    found = explain(SPEC, HOST, 1)
    assert (found.plan.origin, found.chosen.config) == ("pinned", SLOWER)
    assert found.provenance.startswith("pinned by a person")


def test_the_command_prints_all_of_it(record: Record, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", TEXT, "--threads", "1"]) == 0
    out = capsys.readouterr().out
    for part in ("direct", "a tie (+0.5%)", "FLOP/B", "of the peak", "guard pages", "KiB", "1.0e-07 on random numbers"):
        assert part in out
    assert main(["explain", "nonsense"]) == 2
