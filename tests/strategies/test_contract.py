"""What every strategy of the registry must keep to, whatever it does."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import convgen
from convgen.driver import Plan, algorithms_of_plan, build_program, lower
from convgen.dtypes import DTYPES, OPERAND_DTYPES
from convgen.errors import NotApplicable
from convgen.ir.check import check
from convgen.ir.interp import buffer_shape, interpret
from convgen.ir.nodes import Program
from convgen.machine import Machine, machine_named
from convgen.spec import DIRECTIONS, ConvSpec
from convgen.strategies.base import Strategy
from convgen.strategies.registry import STRATEGIES, applicable, strategy_named
from convgen.tuning.space import Config
from convgen.verify import Comparison, expect_integers, integer_operands

HOST = Machine.host()
# Vectors of 16 bytes keep the interpreter's programs small.
SMALL = machine_named("generic")

BASE: dict[str, Any] = dict(batch=1, in_channels=3, out_channels=5, spatial_size=(3, 4), kernel_size=2)
PROBLEMS: dict[str, dict[str, Any]] = {
    "plain": dict(batch=2),
    "padded rows": dict(spatial_size=(9,), kernel_size=3, padding=((2, 1),), stride=2),
    "pointwise": dict(kernel_size=1),
    "channels last": dict(layout="channels_last", padding=((1, 0), (0, 0)), dtype="float64"),
    "reflect": dict(padding=((1, 0), (0, 1)), padding_mode="reflect", layout="channels_last", in_channels=2),
    "depthwise": dict(groups=3, out_channels=3, stride=2),
    "depthwise rows": dict(
        groups=5, in_channels=5, spatial_size=(7,), kernel_size=3, dilation=2, padding=((2, 3),), layout="channels_last"
    ),
    "depthwise window": dict(
        groups=6,
        in_channels=6,
        out_channels=6,
        spatial_size=(5, 6),
        kernel_size=(3, 5),
        padding=((1, 1), (3, 2)),
        layout="channels_last",
    ),
    "depthwise circular": dict(
        groups=3, out_channels=3, kernel_size=3, padding=1, padding_mode="circular", layout="channels_last"
    ),
    "depthwise strides": dict(
        groups=4,
        in_channels=4,
        out_channels=4,
        spatial_size=(5, 7),
        kernel_size=3,
        stride=2,
        padding=1,
        layout="channels_last",
    ),
    "multiplier": dict(groups=3, out_channels=6, dilation=2),
    "groups": dict(groups=2, in_channels=4, out_channels=6),
    "transposed": dict(transposed=True, stride=2, spatial_size=(2, 3), output_padding=1, in_channels=2),
    "volume": dict(spatial_size=(2, 1, 3), padding=((0, 0), (1, 0), (0, 0)), in_channels=2),
    "one number": dict(in_channels=1, out_channels=1, spatial_size=(1, 1), kernel_size=1, batch=1),
    "empty batch": dict(batch=0),
    "no channels": dict(in_channels=0),
    "int8": dict(dtype="int8"),
}
# Of each space, so many configurations are interpreted: the first, and others evenly apart.
MOST_INTERPRETED = 3
EPILOGUE = ("bias", "scale", "residual", "relu6", "shift")

every_strategy = pytest.mark.parametrize("strategy", STRATEGIES, ids=[strategy.name for strategy in STRATEGIES])
every_problem = pytest.mark.parametrize("fields", PROBLEMS.values(), ids=PROBLEMS)


def specs(fields: dict[str, Any]) -> list[ConvSpec]:
    """The problem in every direction, and forward with an epilogue."""
    spec = ConvSpec(**{**BASE, **fields})
    return [*(spec.replace(direction=name) for name in DIRECTIONS), spec.replace(epilogue=EPILOGUE)]


def interpreted(program: Program, sizes: dict[str, int], plan: Plan, seed: int) -> Comparison:
    """What the program makes of integers against what it must; the order of tasks is shuffled."""
    spec, algorithms = plan.spec, algorithms_of_plan(plan)
    operands = integer_operands(spec, np.random.default_rng(seed), algorithms)
    names = list(spec.operand_shapes)
    arrays = dict(zip(names, operands.main, strict=False)) | dict(operands.epilogue)
    memory = interpret(program, sizes, arrays, shuffle=np.random.default_rng(seed))
    (result,) = [memory[buffer.name] for buffer in program.buffers if buffer.space == "result"]
    return expect_integers(spec, operands, algorithms).check(result.reshape(spec.result_shape))


def test_the_reference_is_last_and_names_differ() -> None:
    names = [strategy.name for strategy in STRATEGIES]
    assert names[-1] == "reference"
    assert len(set(names)) == len(names)
    assert all(strategy_named(name).name == name for name in names)
    with pytest.raises(NotApplicable, match=r"strategy='magic' is unknown; allowed: auto, .*direct"):
        strategy_named("magic")


@every_problem
def test_the_reference_refuses_nothing(fields: dict[str, Any]) -> None:
    for spec in specs(fields):
        assert STRATEGIES[-1].refusal(spec, HOST) is None
        assert applicable(spec, HOST)[-1] is STRATEGIES[-1]


@every_strategy
@every_problem
def test_a_refusal_is_a_reason(strategy: Strategy, fields: dict[str, Any]) -> None:
    for spec in specs(fields):
        reason = strategy.refusal(spec, HOST)
        assert reason is None or len(reason) > 10
        if reason is not None:
            with pytest.raises(NotApplicable, match=re.escape(reason)):
                convgen.compile(spec, strategy.name)


@every_strategy
@every_problem
@pytest.mark.parametrize("machine", [HOST, SMALL], ids=["host", "generic"])
def test_the_default_is_first_in_a_space_of_different_configs(
    strategy: Strategy, fields: dict[str, Any], machine: Machine
) -> None:
    for spec in specs(fields):
        if strategy.refusal(spec, machine) is None:
            space = strategy.space(spec, machine)
            assert strategy.default(spec, machine) == space[0]
            assert len(set(space)) == len(space)
            assert all(isinstance(config, Config) for config in space)
            assert space == strategy.space(spec, machine)


@every_strategy
@every_problem
def test_every_config_has_a_cost(strategy: Strategy, fields: dict[str, Any]) -> None:
    for spec in specs(fields):
        for machine in (HOST, SMALL):
            if strategy.refusal(spec, machine) is not None:
                continue
            for config in strategy.space(spec, machine):
                seconds = strategy.predicted_seconds(spec, config, machine)
                longer = strategy.predicted_seconds(spec.replace(batch=spec.batch + 8), config, machine)
                assert 0 <= seconds < 1
                assert seconds < longer or spec.macs == longer == 0


@every_strategy
@every_problem
def test_every_config_means_the_problem(strategy: Strategy, fields: dict[str, Any]) -> None:
    """Checked after each pass, and interpreted: the machine's vectors are short, so that programs are small."""
    for spec in specs(fields):
        if strategy.refusal(spec, SMALL) is not None:
            continue
        space = strategy.space(spec, SMALL)
        for seed, config in enumerate(space[:: -(-len(space) // MOST_INTERPRETED)]):
            seen: list[str] = []

            def observe(name: str, program: Program, seen: list[str] = seen) -> None:
                check(program)
                seen.append(name)

            plan = Plan(spec, strategy.name, config, "given")
            program, sizes = build_program(plan, SMALL, observe)
            assert len(seen) == len(strategy.schedule(spec, config, SMALL).passes)
            comparison = interpreted(program, sizes, plan, seed)
            assert comparison.ok, f"{spec} {config}: {comparison.reason}"


@every_strategy
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_the_error_bound_is_positive_and_grows_with_the_sum(strategy: Strategy, direction: str) -> None:
    for dtype in OPERAND_DTYPES:
        spec = ConvSpec(**{**BASE, "kernel_size": 5, "spatial_size": (9, 9)}, dtype=dtype, direction=direction)
        if strategy.refusal(spec, HOST) is not None:
            continue
        bound = strategy.error_bound(spec)
        longer = spec.replace(batch=8, in_channels=300, out_channels=500)
        assert bound >= DTYPES[dtype].unit_roundoff
        if dtype.startswith("float"):
            assert 0 < bound < strategy.error_bound(longer) < 1
            assert strategy.error_bound(spec.replace(dtype="float64")) <= bound


@every_strategy
@every_problem
def test_memory_is_counted(strategy: Strategy, fields: dict[str, Any]) -> None:
    """Packed and workspace buffers lie behind one another, 64-byte aligned, inside the bytes that are announced."""
    for spec in specs(fields):
        if strategy.refusal(spec, HOST) is not None:
            continue
        lowered = lower(Plan(spec, strategy.name, strategy.default(spec, HOST), "given"), HOST)
        for offsets, total in ((lowered.packed, lowered.packed_bytes), (lowered.workspace, lowered.workspace_bytes)):
            end = 0
            for name, offset in sorted(offsets.items(), key=lambda item: item[1]):
                buffer = lowered.program.buffer(name)
                assert offset % 64 == 0
                assert offset >= end
                elements = int(np.prod(buffer_shape(buffer, lowered.sizes), dtype=np.int64))
                end = offset + elements * DTYPES[buffer.dtype].itemsize
            assert end <= total < end + 64


@every_strategy
@pytest.mark.parametrize("batch", [1, 4])
def test_announced_workspace_is_what_an_operator_holds(strategy: Strategy, batch: int) -> None:
    wide = ConvSpec(**{**BASE, "batch": batch, "kernel_size": 5, "spatial_size": (9, 9)}, padding=1)
    point = wide.replace(padding=0, kernel_size=1)
    depthwise = wide.replace(groups=3, out_channels=3, layout="channels_last")
    gradient = wide.replace(direction="backward_weights")
    spec = next(spec for spec in (wide, point, depthwise, gradient) if strategy.refusal(spec, HOST) is None)
    op = convgen.compile(spec, strategy.name, threads=1)
    operands = integer_operands(op.spec, np.random.default_rng(0))
    op(*operands.main)
    assert op._pool.allocated_bytes == op.workspace_bytes
