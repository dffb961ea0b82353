"""Problems drawn at random: whatever a strategy offers for them, on processors of several kinds, becomes a program."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from typing import Any

import pytest

from convgen.descriptor import format_descriptor
from convgen.driver import Plan, build_program
from convgen.errors import ConvgenError, SpecError
from convgen.machine import Machine
from convgen.spec import DIRECTIONS, LAYOUTS, ConvSpec
from convgen.strategies.registry import applicable
from tests.samples import MACHINE

NARROW = dataclasses.replace(MACHINE, name="narrow", isa="generic", vector_bytes=16, vector_registers=16)
WIDE = dataclasses.replace(
    MACHINE, name="wide", l2_bytes=1 << 20, features="+avx2,+fma,+avx512f,+avx512bw,+avx512bf16,+avx512vnni"
)
MACHINES = {"host": Machine.host(), "narrow": NARROW, "wide": WIDE}
PROBLEMS = 12
MODES = ("zeros", "zeros", "reflect", "replicate", "circular")
CHANNELS = (1, 1, 2, 3, 5, 8, 16, 17, 33, 64)
LONGEST = {1: 200, 2: 40, 3: 14}


def draw(source: random.Random) -> ConvSpec:
    """A valid problem; small factors come more often."""
    while True:
        try:
            return _attempt(source)
        except SpecError:
            continue


def _attempt(source: random.Random) -> ConvSpec:
    axes = range(source.choice((1, 2, 2, 3)))

    def each(values: Sequence[int]) -> tuple[int, ...]:
        return tuple(source.choice(values) for _ in axes)

    kernel, dilation, groups = each((1, 1, 2, 3, 3, 5, 7)), each((1, 1, 1, 2, 3)), source.choice((1, 1, 1, 2, 8))
    reach = tuple(step * (taps - 1) for taps, step in zip(kernel, dilation, strict=True))
    dtype = source.choice(("float32", "float32", "bfloat16", "float16", "float64", "int8"))
    padded, transposed = source.random() < 0.6, source.random() < 0.15
    fields: dict[str, Any] = dict(
        batch=source.choice((1, 1, 3)),
        in_channels=groups * source.choice(CHANNELS),
        out_channels=groups * source.choice(CHANNELS),
        spatial_size=tuple(max(length + 1, source.randrange(1, LONGEST[len(axes)])) for length in reach),
        kernel_size=kernel,
        stride=each((1, 1, 1, 2, 3)),
        padding=tuple((source.randint(0, length), source.randint(0, length)) if padded else (0, 0) for length in reach),
        dilation=dilation,
        groups=groups,
        dtype=dtype,
        layout=source.choice(LAYOUTS),
        direction="forward" if dtype == "int8" else source.choice(DIRECTIONS),
        transposed=transposed,
        padding_mode="zeros" if transposed else source.choice(MODES),
        accuracy=source.choice(("fast", "fast", "strict")),
    )
    return ConvSpec(**fields)


@pytest.mark.parametrize("kind", MACHINES)
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 6))])
def test_whatever_is_offered_becomes_a_program(seed: int, kind: str) -> None:
    machine, source, choice = MACHINES[kind], random.Random(f"{seed} {kind}"), random.Random(seed)
    built = 0
    for _ in range(PROBLEMS):
        spec = draw(source)
        for strategy in applicable(spec, machine):
            space = strategy.space(spec, machine)
            for config in choice.sample(space, min(2, len(space))):
                try:
                    assert strategy.predicted_seconds(spec, config, machine) > 0
                    build_program(Plan(spec, strategy.name, config, "given"), machine)
                except (ConvgenError, ValueError, KeyError, IndexError) as error:
                    pytest.fail(f"{format_descriptor(spec)} | {strategy.name} | {config}: {error!r}")
                built += 1
    assert built > PROBLEMS
