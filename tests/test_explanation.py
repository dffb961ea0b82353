"""Every candidate has a fate, and the fates are those of what was stored."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from convgen import __version__
from convgen.bench.roofline import Roofline
from convgen.choices import database
from convgen.cli import main
from convgen.driver import Plan, heuristic_plan, needed_bytes
from convgen.errors import LockWarning
from convgen.explanation import NAMED, Entry, Explanation, explain
from convgen.machine import Machine
from convgen.report.layers import report_layer
from convgen.report.page import render_page
from convgen.spec import ConvSpec
from convgen.strategies.direct import Direct
from convgen.strategies.registry import STRATEGIES, strategy_named
from convgen.tuning.lockfile import LockEntry, write_lock
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


def pinned(record: Record, config: Config) -> Record:
    """A pin for the same problem, of which nothing was measured."""
    return dataclasses.replace(
        record, origin="pinned", config=config, created="2026-02-02", seconds=0.0, baseline_seconds=0.0, candidates=()
    )


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
    database().store(pinned(record, SLOWER))
    found = explain(SPEC, HOST, 1)
    assert (found.plan.origin, found.chosen.config) == ("pinned", SLOWER)
    assert found.provenance.startswith("pinned by a person")
    # What was measured is told all the same, relative to the pin.
    assert found.seconds == 1.25e-4
    assert entry_of(found, "direct", WINNER).fate == "measured 20.0% faster"


@pytest.fixture
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lockfile in force that holds another choice than the fastest."""
    path = tmp_path / "convgen.lock"
    write_lock(path, [LockEntry(SPEC, HOST.fingerprint(), 1, ("direct", SLOWER))])
    monkeypatch.setenv("CONVGEN_LOCK", str(path))
    return path


@pytest.mark.parametrize("is_pinned", [False, True])
def test_a_lock_is_the_provenance_whatever_the_database_says(record: Record, lock: Path, is_pinned: bool) -> None:
    if is_pinned:
        database().store(pinned(record, TIED))
    found = explain(SPEC, HOST, 1)
    assert (found.plan.origin, found.chosen.config) == ("lock", SLOWER)
    assert found.provenance == f"locked by the lockfile {str(lock)!r}"
    assert (found.seconds, found.error) == (1.25e-4, None)
    assert entry_of(found, "direct", WINNER).fate == "measured 20.0% faster"


def test_a_lock_that_agrees_with_what_was_measured_is_told_before_it(record: Record, lock: Path) -> None:
    write_lock(lock, [LockEntry(SPEC, HOST.fingerprint(), 1, ("direct", WINNER))])
    found = explain(SPEC, HOST, 1)
    assert found.provenance.startswith(f"locked by the lockfile {str(lock)!r}; measured on here, 2026-01-02")
    assert (found.seconds, found.error) == (1e-4, 1e-7)


def test_what_a_lock_lacks_and_what_is_switched_off_is_told(
    record: Record, lock: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_lock(lock, [])
    with pytest.warns(LockWarning):
        assert explain(SPEC, HOST, 1).provenance.startswith(
            f"the cost model's choice: the lockfile {str(lock)!r} lacks"
        )
    monkeypatch.setenv("CONVGEN_LOCK", "off")
    for name, value in (("CONVGEN_DETERMINISTIC", "1"), ("CONVGEN_TUNE", "off")):
        monkeypatch.setenv(name, value)
        found = explain(SPEC, HOST, 1)
        assert found.plan.origin == "heuristic"
        assert found.provenance.startswith(f"the cost model's choice: {name}={value}")


def test_command_and_report_tell_of_the_lock(
    record: Record, lock: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["explain", TEXT, "--threads", "1"]) == 0
    out = capsys.readouterr().out
    assert f"locked by the lockfile {str(lock)!r}" in out
    assert f"choice      direct {SLOWER}" in out
    assert "of the peak" in out
    roofline = Roofline(1e11, ((1 << 10, 1e10), (1 << 20, 1e10)))
    layer = report_layer("", 1, SPEC, HOST, 1, roofline, {})
    assert layer.position is not None
    assert layer.position.seconds == 1.25e-4
    page = render_page("net", [layer], HOST, 1, roofline, None)
    assert "locked by the lockfile" in page
    assert "measured on here" not in page


def test_the_command_prints_all_of_it(record: Record, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", TEXT, "--threads", "1"]) == 0
    out = capsys.readouterr().out
    for part in ("direct", "a tie (+0.5%)", "FLOP/B", "of the peak", "guard pages", "KiB", "1.0e-07 on random numbers"):
        assert part in out
    assert main(["explain", "nonsense"]) == 2
