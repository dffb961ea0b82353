"""The tuner with a table of seconds in place of a clock."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import multiprocessing
import random
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import convgen
from convgen import choices
from convgen.choices import TunedPlan, best_unpacked, known_plan
from convgen.driver import Plan, heuristic_plan, needed_bytes
from convgen.errors import (
    CompileError,
    NoisyMachineWarning,
    OptionError,
    VerificationError,
    VerificationWarning,
    WorkspaceLimitError,
)
from convgen.machine import Machine
from convgen.operator import CompiledConv
from convgen.runtime import host_lock
from convgen.runtime.host_lock import alone_on_this_host
from convgen.spec import ConvSpec
from convgen.strategies.direct import Direct
from convgen.strategies.registry import STRATEGIES
from convgen.tuner import laboratory
from convgen.tuner import session as tuner
from convgen.tuner.examination import Verdict
from convgen.tuner.laboratory import KernelLab
from convgen.tuning.database import Database
from convgen.tuning.search import Choice
from convgen.verify import gate_a

HOST = Machine.host()
SPEC = ConvSpec(batch=1, in_channels=4, out_channels=40, spatial_size=(9, 8), kernel_size=3, padding=1)
Times = Callable[[CompiledConv], float]


@pytest.fixture(autouse=True)
def _own_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = Database(tmp_path / "tuning.sqlite")
    monkeypatch.setattr(choices, "database", lambda: database)


@pytest.fixture
def _no_helpers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuner, "HELPED_BUDGET", math.inf)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, _no_helpers: None) -> Callable[[Times], list[list[str]]]:
    """Takes the seconds of an operator and returns the rounds: what was measured together."""
    rounds: list[list[str]] = []

    def install(times: Times) -> list[list[str]]:
        def run(lab: KernelLab, choices: Sequence[Choice]) -> tuple[float, ...]:
            ops = [lab._op(choice) for choice in choices]
            rounds.append([f"{op.plan.strategy} {op.plan.config}" for op in ops])
            # The clock runs faster from round to round, for all alike.
            return tuple(times(op) / len(rounds) for op in ops)

        monkeypatch.setattr(KernelLab, "round", run)
        return rounds

    return install


def tuned(spec: ConvSpec = SPEC, **options: Any) -> TunedPlan:
    found = convgen.tune(spec, **{"budget": 1000.0, "threads": 1, **options})
    assert not isinstance(found, list)
    return found


def test_the_fastest_wins_and_is_remembered(fake: Callable[[Times], list[list[str]]]) -> None:
    """Wider lanes are faster here, however the model sees it; drifts between rounds decide nothing."""
    baseline = heuristic_plan(SPEC, HOST)
    rounds = fake(lambda op: 1.0 if op.plan.config == baseline.config else 0.9)
    found = tuned()
    assert found.plan.config != baseline.config
    assert found.speedup == pytest.approx(1 / 0.9)
    assert f"{baseline.strategy} {baseline.config}" == rounds[0][0]
    assert len(rounds) >= 2
    known = known_plan(SPEC, HOST, 1)
    assert known is not None
    assert known.plan.config == found.plan.config
    assert convgen.compile(SPEC, threads=1).plan.origin == "database"


def test_of_equals_the_simplest_strategy_is_taken_and_of_its_own_the_heuristics_choice(
    fake: Callable[[Times], list[list[str]]],
) -> None:
    fake(lambda op: 1.0)
    found = tuned()
    tried = {candidate.strategy for candidate in found.candidates}
    assert len(tried) > 1
    simplest = next(strategy.name for strategy in STRATEGIES if strategy.name in tried)
    assert found.plan.strategy == simplest
    baseline = heuristic_plan(SPEC, HOST)
    assert found.plan.config == baseline.config or baseline.strategy != simplest
    assert found.speedup == 1.0


def test_what_was_measured_is_told_with_intervals_and_predictions(fake: Callable[[Times], list[list[str]]]) -> None:
    fake(lambda op: 1.0)
    for candidate in tuned().candidates:
        assert candidate.low is not None
        assert candidate.high is not None
        assert 0 < candidate.low <= candidate.seconds <= candidate.high
        assert candidate.count >= 7
        assert candidate.predicted


def test_a_noisy_machine_is_told_once(
    fake: Callable[[Times], list[list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuner, "_warned_of_noise", [])
    generator = random.Random(0)
    fake(lambda op: generator.uniform(1.0, 2.0))
    with pytest.warns(NoisyMachineWarning, match="times of the same kernel spread by [1-9]"):
        tuned(budget=0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tuned(budget=0.0, force=True)


def test_the_state_of_the_cache_is_named() -> None:
    with pytest.raises(OptionError, match="cache='hot'"):
        tuned(cache="hot")
    assert tuned(budget=0.0, cache="cold").seconds > 0


def test_without_a_budget_only_the_heuristics_choice_is_measured(fake: Callable[[Times], list[list[str]]]) -> None:
    fake(lambda op: 1.0)
    (candidate,) = tuned(budget=0.0).candidates
    baseline = heuristic_plan(SPEC, HOST)
    assert (candidate.strategy, candidate.config) == (baseline.strategy, baseline.config)


def test_what_cannot_win_is_not_compiled(fake: Callable[[Times], list[list[str]]]) -> None:
    fake(lambda op: 1.0)
    spec = SPEC.replace(in_channels=64, out_channels=4)
    assert "reference" not in {candidate.strategy for candidate in tuned(spec).candidates}


def test_wrong_results_and_failures_to_compile_lose(
    fake: Callable[[Times], list[list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    baseline = heuristic_plan(SPEC, HOST)
    genuine = CompiledConv.__call__
    failed: list[str] = []

    def wrong(self: CompiledConv, *args: Any, **named: Any) -> np.ndarray:
        result = genuine(self, *args, **named)
        return result + 1 if self.plan.config == baseline.config else result

    class Failing(CompiledConv):
        def __init__(self, plan: Any, *args: Any) -> None:
            super().__init__(plan, *args)
            if plan.config != baseline.config and not failed:
                failed.append(str(plan.config))
                raise CompileError("this one cannot be compiled")

    monkeypatch.setattr(CompiledConv, "__call__", wrong)
    monkeypatch.setattr(laboratory, "CompiledConv", Failing)
    fake(lambda op: 1.0)
    with pytest.warns(VerificationWarning, match="a kernel is wrong and not used"):
        found = tuned()
    assert len(failed) == 1
    assert found.plan.config != baseline.config
    assert str(found.plan.config) not in failed
    assert found.rejected[0].startswith(f"{baseline.strategy} {baseline.config}: ")
    assert any("this one cannot be compiled" in reason for reason in found.rejected)


def test_only_force_replaces_what_others_have_found(fake: Callable[[Times], list[list[str]]]) -> None:
    fake(lambda op: 1.0)
    tuned(budget=0.0)
    (own,) = choices.database().records()
    other = dataclasses.replace(own, strategy="of another version", origin="imported", candidates=())
    choices.database().store(other)
    assert tuned(budget=0.0).measured
    assert {record.strategy for record in choices.database().records()} == {own.strategy, other.strategy}
    assert tuned(budget=0.0, force=True).measured
    assert {record.strategy for record in choices.database().records()} == {own.strategy}


@pytest.mark.parametrize("is_right", [True, False])
def test_what_packs_weights_in_each_call_is_chosen_among_those_that_passed_all_gates(
    is_right: bool, fake: Callable[[Times], list[list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slowest with packed weights is made to be the fastest without, and is then right or wrong on random numbers."""
    genuine = KernelLab._examined
    baseline = heuristic_plan(SPEC, HOST)

    def examined(lab: KernelLab, op: CompiledConv, gate: Any) -> Verdict:
        if gate == "random" and op.plan.config != baseline.config and not is_right:
            return Verdict(False, "planted")
        return genuine(lab, op, gate)

    monkeypatch.setattr(KernelLab, "_examined", examined)
    for module in (tuner, choices):
        monkeypatch.setattr(module, "unpacked_seconds", lambda candidate, *_: -candidate.seconds)
    fake(lambda op: 1.0 if op.plan.config == baseline.config else 2.0)
    with contextlib.nullcontext() if is_right else pytest.warns(VerificationWarning, match="planted"):
        found = tuned()
    streamed = best_unpacked(found, HOST)
    assert found.plan.config == baseline.config
    assert (streamed.config != baseline.config) == is_right
    passed = {(each.strategy, each.config) for each in found.candidates if each.passed}
    assert {(plan.strategy, plan.config) for plan in (found.plan, streamed)} == passed
    assert len(found.candidates) > len(passed) or not is_right
    assert known_plan(SPEC, HOST, 1) == dataclasses.replace(found, measured=False)


def test_nothing_right_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = CompiledConv.__call__
    monkeypatch.setattr(CompiledConv, "__call__", lambda self, *args, **named: genuine(self, *args, **named) + 1)
    with pytest.raises(VerificationError, match="no candidate"), pytest.warns(VerificationWarning):
        tuned(budget=0.0)
    assert known_plan(SPEC, HOST, 1) is None


def test_a_kernel_that_could_not_be_examined_is_not_called_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KernelLab, "_examined", lambda *_: Verdict(False, "late", examined=False))
    with (
        pytest.raises(VerificationError, match=r"no candidate .*: late"),
        pytest.warns(VerificationWarning, match=r"a kernel could not be examined and is not used: .*: late"),
    ):
        tuned(budget=0.0)


def test_a_limit_is_kept_and_remembered_beside(fake: Callable[[Times], list[list[str]]]) -> None:
    fake(lambda op: 1.0)
    free = tuned()
    needed = needed_bytes(free.plan, HOST, 1)
    assert needed > 0
    none = tuned(workspace_limit=0)
    assert none.plan.strategy == "reference"
    assert {
        needed_bytes(convgen.compile(SPEC, c.strategy, 1, config=c.config).plan, HOST, 1) for c in none.candidates
    } == {0}
    # What won without a limit is taken where it fits, and nothing is measured again.
    fits = tuned(workspace_limit=needed)
    assert (fits.measured, fits.plan.config) == (False, free.plan.config)
    for limit, strategy in ((None, free.plan.strategy), (needed, free.plan.strategy), (0, "reference")):
        op = convgen.compile(SPEC, threads=1, workspace_limit=limit)
        assert (op.plan.origin, op.plan.strategy) == ("database", strategy)
    between = convgen.compile(SPEC, threads=1, workspace_limit=needed - 1)
    assert between.plan.origin == "heuristic"
    assert between.workspace_bytes < needed


@pytest.mark.parametrize("limit", [-1, 1.5, True, "1"])
def test_a_bad_limit_is_named(limit: Any) -> None:
    with pytest.raises(OptionError, match="workspace_limit="):
        tuned(workspace_limit=limit)


def test_a_list_gives_a_list_and_equals_are_tuned_once(fake: Callable[[Times], list[list[str]]]) -> None:
    fake(lambda op: 1.0)
    seen: list[int] = []
    other = SPEC.replace(out_channels=3)
    found = convgen.tune([SPEC, other, SPEC], 0.0, threads=1, observer=lambda i, _: seen.append(i))
    assert isinstance(found, list)
    assert [result.plan.spec for result in found] == [SPEC, other, SPEC]
    assert seen == [0, 1, 2]
    assert found[0] is found[2]


@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
@pytest.mark.parametrize("direction", ["forward", "backward_data", "backward_weights"])
def test_a_smaller_budget_gives_another_kernel_never_a_failure(direction: str, layout: str) -> None:
    """Limits from what the heuristic wants down to nothing: each is kept, and each result is right."""
    spec = SPEC.replace(direction=direction, layout=layout, padding_mode="reflect", in_channels=2, spatial_size=(5, 4))
    needed = convgen.compile(spec, threads=1).workspace_bytes
    for limit in (needed, needed - 1, needed // 4, 0):
        op = convgen.compile(spec, threads=1, workspace_limit=limit)
        assert op.workspace_bytes <= limit
        assert gate_a(spec, op, np.random.default_rng(0)).ok


def test_a_named_strategy_falls_back_to_its_smaller_configurations() -> None:
    spec = SPEC.replace(out_channels=33)
    plans = [Plan(spec, "direct", config, "given") for config in Direct().space(spec, HOST)]
    sizes = {needed_bytes(plan, HOST, 1) for plan in plans}
    assert len(sizes) > 1
    op = convgen.compile(spec, "direct", 1, workspace_limit=min(sizes))
    assert (op.plan.strategy, op.workspace_bytes) == ("direct", min(sizes))
    with pytest.raises(WorkspaceLimitError, match=f"the smallest variant needs {min(sizes)}"):
        convgen.compile(spec, "direct", 1, workspace_limit=min(sizes) - 1)


def test_a_fork_in_the_middle_of_tuning_does_not_stop_the_child(fake: Callable[[Times], list[list[str]]]) -> None:
    fake(lambda op: 1.0)
    with host_lock._threads[0]:
        child = multiprocessing.get_context("fork").Process(target=tuned, kwargs={"budget": 0.0})
        child.start()
        child.join(60)
    code = child.exitcode
    child.kill()
    assert code == 0


def test_the_machine_is_calibrated_where_something_is_measured_and_there_is_time(
    fake: Callable[[Times], list[list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuner, "CALIBRATED_BUDGET", 20.0)
    calibrated: list[bool] = []

    def calibrate(machine: Machine) -> None:
        # It takes its own turn.
        with alone_on_this_host():
            calibrated.append(True)

    monkeypatch.setattr(tuner, "calibrate", calibrate)
    fake(lambda op: 1.0)
    tuned(budget=0.0)
    assert calibrated == []
    tuned(budget=tuner.CALIBRATED_BUDGET)
    assert calibrated == [], "all is known"
    tuned(budget=tuner.CALIBRATED_BUDGET, force=True)
    assert calibrated == [True]


def test_what_is_known_waits_for_nobody(
    fake: Callable[[Times], list[list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuner, "CALIBRATED_BUDGET", 20.0)
    fake(lambda op: 1.0)
    tuned(budget=0.0)
    with ThreadPoolExecutor(1) as other, host_lock._threads[0]:
        found = other.submit(tuned, budget=tuner.CALIBRATED_BUDGET)
        assert not found.result(30).measured


@pytest.mark.slow
def test_tuning_with_helpers_leaves_none_behind() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        found = convgen.tune(SPEC.replace(out_channels=64), budget=tuner.HELPED_BUDGET, threads=2)
    assert not isinstance(found, list)
    assert found.measured
