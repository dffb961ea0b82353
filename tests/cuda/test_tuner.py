"""The tuner for GPUs with a table of seconds in place of a device, and whole on the driver without one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

import convgen.cuda
from convgen import choices
from convgen.cuda import CudaConv
from convgen.cuda.device import device_numbered
from convgen.cuda.measure import Clock
from convgen.cuda.plans import plan_cuda
from convgen.cuda.tuner import DeviceBench, search
from convgen.errors import CompileError, DeviceError, NotApplicable, VerificationError
from convgen.gpu import gpu_for, gpu_of
from convgen.spec import ConvSpec
from convgen.targets.cuda import driver
from convgen.tuning.database import Database
from convgen.verify import Comparison
from tests.cuda.operators import operator

if TYPE_CHECKING:
    from tests.cuda.fake_driver import FakeDriver

GPU = gpu_of("9.0")
# Large enough that several configurations are promising; nothing of it is compiled.
SPEC = ConvSpec(
    batch=4, in_channels=64, out_channels=64, spatial_size=(16, 16), kernel_size=3, padding=1, layout="channels_last"
)
HEURISTIC = plan_cuda(SPEC, GPU)


@pytest.fixture(autouse=True)
def _own_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = Database(tmp_path / "tuning.sqlite")
    for module in (choices, convgen.cuda.results):
        monkeypatch.setattr(module, "database", lambda: database)


class Table:
    """A bench whose times are a function of the operator; ``wrong`` says of which integers are, ``coarse`` of which reals."""

    def __init__(
        self,
        times: Callable[[CudaConv], float],
        wrong: Callable[[CudaConv], bool] = lambda op: False,
        coarse: Callable[[CudaConv], bool] = lambda op: False,
    ) -> None:
        self.times, self.wrong, self.coarse = times, wrong, coarse
        self.rounds: list[list[CudaConv]] = []

    def flaw(self, op: CudaConv) -> str:
        return "the element (0,) is wrong" if self.wrong(op) else ""

    def seconds(self, ops: Sequence[CudaConv], budget: float) -> tuple[float, ...]:
        self.rounds.append(list(ops))
        return tuple(map(self.times, ops))

    def comparison(self, op: CudaConv) -> Comparison:
        if self.coarse(op):
            return Comparison(1.0, 1.0, (0,), 1e-6, False, "the element (0,) is far off")
        return Comparison(1e-7, 1e-7, (0,), 1e-6, True)


def _is_heuristic(op: CudaConv) -> bool:
    return (op.plan.strategy, op.plan.config) == (HEURISTIC.strategy, HEURISTIC.config)


def test_the_fastest_wins_and_the_baseline_is_always_measured() -> None:
    bench = Table(lambda op: 5.0 if _is_heuristic(op) else 1.0)
    result = search(SPEC, GPU, bench, 60.0)
    assert (result.plan.strategy, result.plan.config) != (HEURISTIC.strategy, HEURISTIC.config)
    assert (result.seconds, result.baseline_seconds, result.speedup) == (1.0, 5.0, 5.0)
    assert _is_heuristic(bench.rounds[0][0])
    assert any(map(_is_heuristic, bench.rounds[-1]))
    assert len(bench.rounds[-1]) > 1


def test_what_is_wrong_never_wins() -> None:
    bench = Table(lambda op: 5.0 if _is_heuristic(op) else 1.0, lambda op: not _is_heuristic(op))
    result = search(SPEC, GPU, bench, 60.0)
    assert (result.plan.strategy, result.plan.config) == (HEURISTIC.strategy, HEURISTIC.config)
    assert all(_is_heuristic(op) for ops in bench.rounds for op in ops)
    assert result.rejected
    assert all("is wrong" in reason for reason in result.rejected)
    with pytest.raises(VerificationError, match=r"no candidate for .* is right"):
        search(SPEC, GPU, Table(lambda op: 1.0, lambda op: True), 60.0)


def test_without_time_the_heuristics_choice_is_kept() -> None:
    result = search(SPEC, GPU, Table(lambda op: 1.0), 0.0)
    assert (result.plan.strategy, result.plan.config) == (HEURISTIC.strategy, HEURISTIC.config)
    assert len(result.candidates) == 1


def test_what_does_not_compile_is_passed_by() -> None:
    class Failing(Table):
        def flaw(self, op: CudaConv) -> str:
            if not _is_heuristic(op):
                raise CompileError("ptxas refuses it")
            return ""

    result = search(SPEC, GPU, Failing(lambda op: 1.0), 60.0)
    assert any("ptxas refuses it" in reason for reason in result.rejected)
    assert len(result.candidates) == 1


def test_what_is_wrong_on_real_numbers_never_wins() -> None:
    bench = Table(lambda op: 5.0 if _is_heuristic(op) else 1.0, coarse=lambda op: not _is_heuristic(op))
    result = search(SPEC, GPU, bench, 60.0)
    assert (result.plan.strategy, result.plan.config) == (HEURISTIC.strategy, HEURISTIC.config)
    assert (result.seconds, result.error) == (5.0, 1e-7)
    rejected = [reason for reason in result.rejected if "on real numbers, the element (0,) is far off" in reason]
    assert len(rejected) == len(bench.rounds[-1]) - 1 > 0
    assert not any(reason.startswith(f"{c.strategy} {c.config}:") for reason in rejected for c in result.candidates)
    with pytest.raises(VerificationError, match=r"no candidate .* on real numbers"):
        search(SPEC, GPU, Table(lambda op: 1.0, coarse=lambda op: True), 60.0)


@pytest.mark.parametrize("where", ["flaw", "seconds", "comparison"])
def test_what_does_not_fit_on_the_device_is_passed_by(where: str) -> None:
    bench = Table(lambda op: 5.0 if _is_heuristic(op) else 1.0)
    asked, code = getattr(bench, where), "CUDA_ERROR_OUT_OF_MEMORY"

    def full(ops: CudaConv | list[CudaConv], *budget: float) -> object:
        if not all(map(_is_heuristic, ops if isinstance(ops, list) else [ops])):
            raise DeviceError("cuMemAlloc", code, "out of memory")
        return asked(ops, *budget)

    setattr(bench, where, full)
    result = search(SPEC, GPU, bench, 60.0)
    assert (result.plan.strategy, result.plan.config) == (HEURISTIC.strategy, HEURISTIC.config)
    assert any("CUDA_ERROR_OUT_OF_MEMORY" in reason for reason in result.rejected)
    code = "CUDA_ERROR_ILLEGAL_ADDRESS"
    with pytest.raises(DeviceError, match="CUDA_ERROR_ILLEGAL_ADDRESS"):
        search(SPEC, GPU, bench, 60.0)


def test_finalists_that_do_not_fit_side_by_side_keep_their_times() -> None:
    class Small(Table):
        def seconds(self, ops: Sequence[CudaConv], budget: float) -> tuple[float, ...]:
            if len(ops) > 1:
                raise DeviceError("cuMemAlloc", "CUDA_ERROR_OUT_OF_MEMORY", "out of memory")
            return super().seconds(ops, budget)

    result = search(SPEC, GPU, Small(lambda op: 5.0 if _is_heuristic(op) else 1.0), 60.0)
    assert (result.seconds, result.baseline_seconds) == (1.0, 5.0)


@pytest.mark.parametrize("failure", [NotApplicable, CompileError])
def test_what_a_small_batch_has_no_kernel_for_is_judged_whole(
    learning: FakeDriver, monkeypatch: pytest.MonkeyPatch, failure: type[Exception]
) -> None:
    from convgen.cuda import tuner

    op = convgen.cuda.compile(operator(strategy="reference").spec.replace(batch=3), "reference")

    def made(plan: object, gpu: object) -> CudaConv:
        raise failure("not for a batch of 2")

    monkeypatch.setattr(tuner, "CudaConv", made)
    comparison = DeviceBench(op.spec, device_numbered()).comparison(op)
    assert comparison.ok
    assert 0.0 < comparison.relative_l2 < 1e-6


def test_tuning_on_a_device_is_remembered_for_it(learning: FakeDriver) -> None:
    spec = operator().spec
    result = convgen.cuda.tune(spec, 0.0)
    assert result.measured
    assert result.error < 1e-6
    (record,) = choices.database().records()
    assert record.verified == "gates A and B"
    assert record.fingerprint == "cuda Fake GPU 132sm 1980-3201MHz driver13010"
    again = convgen.cuda.tune(spec, 0.0)
    assert not again.measured
    assert again.plan == result.plan
    assert convgen.cuda.compile(spec, device=0).plan == result.plan
    with pytest.raises(NotApplicable, match="device=2 is not there; allowed: 0 to 1"):
        convgen.cuda.tune(spec, device=2)


def test_the_clock_flushes_before_each_call(fake: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convgen.cuda.measure, "_FLUSHED_LEAST", 1 << 10)
    fake.calls.clear()
    clock = Clock(device_numbered(), stream=3)
    calls: list[str] = []
    samples = clock.measure([lambda: calls.append("a"), lambda: calls.append("b")], budget=0.0, rounds_min=3)
    assert calls == ["a", "b", "a", "b", "b", "a", "a", "b"]
    assert [sample.count for sample in samples] == [3, 3]
    assert samples[0].median == pytest.approx(0.25e-3)
    flushed = fake.named("cuMemsetD8Async")
    assert len(flushed) == 8
    assert {(nbytes, stream) for _, _, nbytes, stream in flushed} == {(4 << 20, 3)}
    assert fake.events == {}
    names = [name for name, _ in fake.calls if name in ("cuMemsetD8Async", "cuEventRecord", "cuEventSynchronize")]
    assert names == ["cuMemsetD8Async", "cuEventRecord", "cuEventRecord", "cuEventSynchronize"] * 8


def test_facts_of_a_device(fake: FakeDriver) -> None:
    facts = driver.driver().facts(0)
    assert facts.describe() == "Fake GPU, capability 9.0, 132 multiprocessors, driver for CUDA 13.1"
    assert facts.bandwidth == pytest.approx(2 * 3.201e9 * 768)
    assert np.isclose(facts.clock, 1.98e9)


def test_devices_between_those_that_are_known() -> None:
    assert gpu_for((8, 7)).name == "8.6"
    assert gpu_for((9, 0)).name == "9.0"


def test_a_device_that_no_kernels_are_made_for_is_named(fake: FakeDriver) -> None:
    fake.capability = (12, 0)
    spec = operator().spec
    said = r"device=1 is Fake GPU, capability 12\.0, .* there are no kernels; allowed: those of 7\.5, .*10\.0"
    with pytest.raises(NotApplicable, match=said):
        convgen.cuda.compile(spec, device=1)
    with pytest.raises(NotApplicable, match=said):
        convgen.cuda.tune(spec, device=1)


def test_without_a_device_that_is_said(fake: FakeDriver) -> None:
    fake.devices = 0
    with pytest.raises(NotApplicable, match="no CUDA device"):
        convgen.cuda.tune(operator().spec)
