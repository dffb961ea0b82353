"""What every strategy for GPUs must keep to, whatever it does."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest

import convgen.cuda
from convgen.cuda.plans import algorithms_of_cuda_plan, build_cuda_program, lower_cuda, plan_cuda
from convgen.driver import Plan
from convgen.dtypes import DTYPES, OPERAND_DTYPES
from convgen.errors import NotApplicable
from convgen.gpu import Gpu
from convgen.ir.check import check
from convgen.ir.interp import buffer_shape, interpret
from convgen.ir.nodes import Program
from convgen.spec import DIRECTIONS, ConvSpec
from convgen.strategies.accuracy import accuracy_limit
from convgen.strategies.cuda.base import GpuStrategy
from convgen.strategies.cuda.registry import GPU_STRATEGIES, gpu_applicable, gpu_strategy_named
from convgen.targets.cuda.program import ALIGNMENT
from convgen.tuning.space import Config
from convgen.verify import expect_integers, integer_operands
from tests.strategies.cuda.problems import GEOMETRIES, GPU, LARGE_WINDOWS, NARROW, OLD_GPU, ONE_TAP

EPILOGUE = ("bias", "scale", "residual", "relu6", "shift")
PROBLEMS: dict[str, dict[str, Any]] = {
    **GEOMETRIES,
    **{f"depthwise, {name}": {**fields, "layout": "channels_last"} for name, fields in NARROW.items()},
    **{f"large, {name}": fields for name, fields in LARGE_WINDOWS.items()},
    **{f"one tap, {name}": fields for name, fields in ONE_TAP.items()},
    "one tap, channels last": {**ONE_TAP["plain"], "layout": "channels_last"},
    "channels last": {**GEOMETRIES["whole vectors"], "layout": "channels_last", "dtype": "bfloat16"},
    "bytes": {**GEOMETRIES["strides"], "layout": "channels_last", "dtype": "int8"},
    "one number": dict(batch=1, in_channels=1, out_channels=1, spatial_size=(1, 1), kernel_size=1),
    "empty batch": {**GEOMETRIES["whole vectors"], "batch": 0},
    "no channels": {**GEOMETRIES["whole vectors"], "in_channels": 0},
}

every_strategy = pytest.mark.parametrize("strategy", GPU_STRATEGIES, ids=[strategy.name for strategy in GPU_STRATEGIES])
every_problem = pytest.mark.parametrize("fields", PROBLEMS.values(), ids=PROBLEMS)
every_gpu = pytest.mark.parametrize("gpu", [GPU, OLD_GPU], ids=[GPU.name, OLD_GPU.name])


def specs(fields: dict[str, Any]) -> list[ConvSpec]:
    """The problem in every direction, and forward with an epilogue."""
    spec = ConvSpec(**fields)
    return [*(spec.replace(direction=name) for name in DIRECTIONS), spec.replace(epilogue=EPILOGUE)]


def test_the_reference_is_last_and_names_differ() -> None:
    names = [strategy.name for strategy in GPU_STRATEGIES]
    assert names[-1] == "reference"
    assert len(set(names)) == len(names)
    assert all(gpu_strategy_named(name).name == name for name in names)
    with pytest.raises(NotApplicable, match=r"strategy='magic' is unknown for GPUs; allowed: auto, .*direct"):
        gpu_strategy_named("magic")


@every_problem
def test_the_reference_refuses_nothing(fields: dict[str, Any]) -> None:
    for spec in specs(fields):
        assert gpu_applicable(spec, GPU)[-1] is GPU_STRATEGIES[-1]


@every_strategy
@every_problem
def test_a_refusal_is_a_reason(strategy: GpuStrategy, fields: dict[str, Any]) -> None:
    for spec in specs(fields):
        reason = strategy.refusal(spec, GPU)
        if reason is not None:
            assert len(reason) > 10
            with pytest.raises(NotApplicable, match=re.escape(f"{strategy.name!r} does not apply: {reason}")):
                plan_cuda(spec, GPU, strategy.name)


@every_strategy
@every_problem
@every_gpu
def test_the_default_is_first_in_a_space_of_different_configs(
    strategy: GpuStrategy, fields: dict[str, Any], gpu: Gpu
) -> None:
    for spec in specs(fields):
        if strategy.refusal(spec, gpu) is None:
            space = strategy.space(spec, gpu)
            assert strategy.default(spec, gpu) == space[0]
            assert len(set(space)) == len(space)
            assert all(isinstance(config, Config) for config in space)
            assert [Config.parse(str(config)) for config in space] == list(space)
            assert space == strategy.space(spec, gpu)


@every_strategy
@every_problem
@every_gpu
def test_every_config_has_a_cost(strategy: GpuStrategy, fields: dict[str, Any], gpu: Gpu) -> None:
    """And the space is in its order, as far as it may differ; a larger problem costs no less."""
    for spec in specs(fields):
        if strategy.refusal(spec, gpu) is not None:
            continue
        space = strategy.space(spec, gpu)
        seconds = [strategy.predicted_seconds(spec, config, gpu) for config in space]
        assert all(0 <= t < 1 for t in seconds)
        if spec.direction != "backward_weights" or strategy.name != "depthwise":
            assert seconds == sorted(seconds)
        larger = spec.replace(batch=64 * (spec.batch + 8))
        longer = [strategy.predicted_seconds(larger, config, gpu) for config in space]
        assert all(a <= b * (1 + 1e-9) for a, b in zip(seconds, longer, strict=True))


@every_strategy
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_the_error_bound_is_positive_and_grows_with_the_sum(strategy: GpuStrategy, direction: str) -> None:
    for dtype in OPERAND_DTYPES:
        for fields in (GEOMETRIES["whole vectors"], NARROW["whole vectors"], LARGE_WINDOWS["plain"], ONE_TAP["plain"]):
            spec = ConvSpec(**fields, dtype=dtype, direction=direction)
            if strategy.refusal(spec, GPU) is not None:
                continue
            bound = strategy.error_bound(spec)
            longer = spec.replace(batch=64, spatial_size=(40, 50))
            assert bound >= DTYPES[dtype].unit_roundoff
            if dtype.startswith("float"):
                assert 0 < bound <= strategy.error_bound(longer) < 1
                assert strategy.error_bound(spec.replace(dtype="float64")) <= bound


@every_problem
def test_the_choice_is_accurate_enough(fields: dict[str, Any]) -> None:
    for spec in specs(fields):
        for accuracy in ("strict", "fast", 1e-2):
            asked = spec.replace(accuracy=accuracy)
            plan = plan_cuda(asked, GPU)
            assert gpu_strategy_named(plan.strategy).error_bound(asked) <= accuracy_limit(asked)
            assert plan.origin == "heuristic"
            if accuracy == "strict":
                assert not algorithms_of_cuda_plan(plan)


def test_what_no_strategy_promises_is_refused() -> None:
    spec = ConvSpec(**GEOMETRIES["whole vectors"], accuracy=1e-12)
    with pytest.raises(NotApplicable, match=r"accuracy=1e-12 is below what any strategy for GPUs promises here"):
        plan_cuda(spec, GPU)


def test_a_config_that_is_not_offered_is_refused() -> None:
    spec = ConvSpec(**GEOMETRIES["whole vectors"])
    with pytest.raises(NotApplicable, match=r"config='pixels=3 lanes=1' is not one of direct's; allowed: pixels=\d"):
        convgen.cuda.compile(spec, "direct", capability="8.0", config=Config.of(pixels=3, lanes=1))
    offered = gpu_strategy_named("direct").space(spec, GPU)[-1]
    op = convgen.cuda.compile(spec, "direct", capability="8.0", config=offered)
    assert (op.plan.config, op.plan.origin) == (offered, "given")


@every_strategy
@every_problem
def test_memory_is_counted(strategy: GpuStrategy, fields: dict[str, Any]) -> None:
    """Packed and workspace buffers lie behind one another, aligned, inside the bytes that are announced."""
    for spec in specs(fields):
        if strategy.refusal(spec, GPU) is not None:
            continue
        lowered = lower_cuda(Plan(spec, strategy.name, strategy.default(spec, GPU), "given"), GPU)
        for offsets, total in ((lowered.packed, lowered.packed_bytes), (lowered.workspace, lowered.workspace_bytes)):
            end = 0
            for name, offset in sorted(offsets.items(), key=lambda item: item[1]):
                buffer = lowered.program.buffer(name)
                assert offset % ALIGNMENT == 0
                assert offset >= end
                size = math.prod(buffer_shape(buffer, lowered.sizes)) * DTYPES[buffer.dtype].itemsize
                end = offset + size
            assert end <= total < end + ALIGNMENT
        assert lowered.scratch_bytes == lowered.packed_bytes + lowered.workspace_bytes
        for stage in lowered.stages:
            assert 1 <= stage.threads <= 1024
            assert stage.shared_bytes <= GPU.shared_per_block
        packing, rest = (lowered.launches(packing=packing) for packing in (True, False))
        assert len(packing) + len(rest) == len(lowered.launches()) == len(lowered.stages)
        assert all(launch.stage.name.startswith(("pack_", "transform_")) for launch in packing)


# The IR's own interpreter takes a node at a time: one problem of each kind, in every direction.
INTERPRETED: dict[str, dict[str, Any]] = {
    "depthwise": {**NARROW["strides"], "batch": 1, "layout": "channels_last"},
    "implicit_gemm": {**GEOMETRIES["strides"], "batch": 1, "layout": "channels_last", "dtype": "bfloat16"},
    "pointwise": {**ONE_TAP["groups"], "batch": 2, "spatial_size": (2, 4), "dtype": "bfloat16"},
    "winograd": {**GEOMETRIES["whole vectors"], "batch": 1, "in_channels": 2, "out_channels": 3},
    "direct": {**GEOMETRIES["dilation"], "batch": 1, "in_channels": 3},
    "reference": {**GEOMETRIES["transposed"], "batch": 1, "in_channels": 3},
}


@pytest.mark.parametrize("name", INTERPRETED)
@pytest.mark.parametrize("direction", [*DIRECTIONS, "fused"])
def test_every_pass_keeps_the_meaning(name: str, direction: str) -> None:
    """Checked after each pass, and interpreted with threads and tasks in another order."""
    base = ConvSpec(**INTERPRETED[name])
    spec = base.replace(epilogue=EPILOGUE) if direction == "fused" else base.replace(direction=direction)
    strategy = gpu_strategy_named(name)
    if strategy.refusal(spec, GPU) is not None:
        pytest.skip(f"{name} refuses: {strategy.refusal(spec, GPU)}")
    plan = Plan(spec, name, strategy.default(spec, GPU), "given")
    seen: list[str] = []

    def observe(name: str, program: Program) -> None:
        check(program)
        seen.append(name)

    program, sizes = build_cuda_program(plan, GPU, observe)
    assert len(seen) == len(strategy.schedule(spec, plan.config, GPU).passes)
    algorithms = algorithms_of_cuda_plan(plan)
    operands = integer_operands(spec, np.random.default_rng(0), algorithms)
    arrays = dict(zip(spec.operand_shapes, operands.main, strict=False)) | dict(operands.epilogue)
    memory = interpret(program, sizes, arrays, shuffle=np.random.default_rng(1))
    (result,) = [memory[buffer.name] for buffer in program.buffers if buffer.space == "result"]
    comparison = expect_integers(spec, operands, algorithms).check(result.reshape(spec.result_shape))
    assert comparison.ok, comparison.reason
