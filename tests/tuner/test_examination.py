"""Kernels that are wrong on purpose are caught, by whatever it takes, and never chosen; right ones pass everywhere."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import convgen
from convgen import choices
from convgen.choices import TunedPlan
from convgen.driver import Plan, heuristic_plan
from convgen.errors import VerificationWarning
from convgen.machine import Machine
from convgen.operator import CompiledConv
from convgen.spec import ConvSpec
from convgen.strategies import registry
from convgen.tuner import helper_process
from convgen.tuner.examination import GATES, Gate, Verdict, examine
from convgen.tuner.helper_process import HelperProcess, request_line, start_helper
from convgen.tuner.laboratory import KernelLab
from convgen.tuner.session import HELPED_BUDGET
from convgen.tuning.database import Database
from convgen.tuning.search import Choice
from convgen.tuning.space import Config
from tests.planted import SLIPS, with_planted

HOST = Machine.host()
SPEC = ConvSpec(batch=1, in_channels=4, out_channels=40, spatial_size=(9, 8), kernel_size=3, padding=1)
PROBLEMS: dict[str, dict[str, Any]] = {
    "forward": {},
    "epilogue": dict(epilogue=("bias", "residual", "relu"), layout="channels_last"),
    "data gradient": dict(direction="backward_data"),
    "weight gradient": dict(direction="backward_weights"),
    "int8": dict(dtype="int8"),
    "float16": dict(dtype="float16"),
}


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are in the registry of this process and of its helpers, whose database is empty."""
    database = Database(tmp_path / "tuning.sqlite")
    monkeypatch.setattr(choices, "database", lambda: database)
    monkeypatch.setattr(registry, "STRATEGIES", with_planted())
    monkeypatch.setattr(helper_process, "COMMAND", ("-P", "-c", "import tests.planted; tests.planted.serve()"))


def compiled(spec: ConvSpec, strategy: str) -> CompiledConv:
    return CompiledConv(Plan(spec, strategy, Config(), "measured"), HOST, 1)


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("problem", PROBLEMS)
def test_right_kernels_pass(problem: str, gate: Gate) -> None:
    spec = SPEC.replace(**PROBLEMS[problem])
    verdict = examine(CompiledConv(heuristic_plan(spec, HOST), HOST, 2), gate, fenced=False)
    assert (verdict.ok, verdict.reason) == (True, "")
    assert 0 <= verdict.error < 0.1


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("slip", ["adds_one", "leaves_one_channel_out"])
def test_wrong_numbers_and_what_was_not_written_are_caught_without_fences(slip: str, gate: Gate, planted: None) -> None:
    verdict = examine(compiled(SPEC, slip), gate, fenced=False)
    assert not verdict.ok
    assert verdict.reason.startswith(f"{gate}: ")


def test_an_element_beyond_the_end_is_caught_by_the_poison_there(planted: None) -> None:
    """Without fences too, where what is read spoils the numbers."""
    assert not examine(compiled(SPEC, "reads_one_beyond"), "integers", fenced=False).ok


@pytest.mark.parametrize("slip", ["reads_one_beyond", "reads_far_beyond"])
def test_what_leaves_its_arrays_ends_the_helper_and_not_this_process(slip: str, planted: None) -> None:
    helper = start_helper()
    assert isinstance(helper, HelperProcess)
    try:
        assert helper.is_there(60.0)
        for gate in GATES:
            answer = helper.ask(request_line(Plan(SPEC, "reference", Config(), "measured"), 1, gate), 60.0)
            assert Verdict.from_json(answer).ok, answer
        assert helper.ask(request_line(Plan(SPEC, slip, Config(), "measured"), 1, "integers"), 60.0) == ""
        assert helper.death() == "SIGSEGV"
    finally:
        helper.end()


def test_planted_kernels_are_recorded_reported_and_never_chosen(planted: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """They would win: the clock says that they take no time."""

    def seconds(lab: KernelLab, chosen: Sequence[Choice]) -> tuple[float, ...]:
        return tuple(1e-9 if choice.strategy in SLIPS else 1e-3 for choice in chosen)

    monkeypatch.setattr(KernelLab, "round", seconds)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = convgen.tune(SPEC, 10 * HELPED_BUDGET, threads=1)
    assert isinstance(found, TunedPlan)
    assert found.plan.strategy not in SLIPS
    assert not SLIPS.keys() & {candidate.strategy for candidate in found.candidates}
    assert {reason.partition(" ")[0] for reason in found.rejected} == set(SLIPS)
    assert sum("SIGSEGV" in reason for reason in found.rejected) == 2
    told = [str(each.message) for each in caught if issubclass(each.category, VerificationWarning)]
    assert len(told) == len(SLIPS)
    (record,) = choices.database().records()
    assert record.strategy == found.plan.strategy
    assert record.rejected == found.rejected
    assert record.verified == "gates A and B, guard pages"
