"""reference: the naive nest as it is, with the padding tested at every read. It refuses nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass

from convgen.dtypes import DTYPES
from convgen.ir.nodes import For, Program
from convgen.machine import Machine
from convgen.nests.build import SUMS, build_nest
from convgen.nests.folded_gather import build_folded_gather
from convgen.nests.nest import spatial_axes
from convgen.passes.expand_padding import ExpandPadding
from convgen.passes.fuse_epilogue import FuseEpilogue
from convgen.passes.parallelize import Parallelize
from convgen.passes.pipeline import Pass
from convgen.passes.simplify import Simplify
from convgen.spec import ConvSpec
from convgen.strategies.base import Schedule
from convgen.transforms.error import plain_error
from convgen.tuning.rates import rates_of
from convgen.tuning.space import Config

# One scalar multiply-add with its tests for padding.
MAC_CYCLES = 8


@dataclass(frozen=True)
class Reference:
    """The definition of the problem as seven nested loops, compiled. It needs no scratch memory."""

    name: str = "reference"

    def refusal(self, spec: ConvSpec, machine: Machine) -> str | None:
        return None

    def default(self, spec: ConvSpec, machine: Machine) -> Config:
        return Config()

    def space(self, spec: ConvSpec, machine: Machine) -> tuple[Config, ...]:
        return (Config(),)

    def error_bound(self, spec: ConvSpec) -> float:
        return sum_error_bound(spec)

    def predicted_seconds(self, spec: ConvSpec, config: Config, machine: Machine) -> float:
        return spec.macs * MAC_CYCLES / rates_of(machine).clock

    def schedule(self, spec: ConvSpec, config: Config, machine: Machine) -> Schedule:
        folds = spec.direction == "backward_data" and spec.padding_mode != "zeros"
        nest = build_folded_gather(spec) if folds else build_nest(spec)
        passes: list[Pass] = []
        if nest.program.has_buffer(SUMS):
            passes.append(FuseEpilogue("epilogue", SUMS))
        passes += [Parallelize(stage, (loop,)) for stage, loop in outermost_loops(nest.program)]
        rank = len(nest.program.buffer(nest.source).shape)
        passes += [ExpandPadding(((nest.source, spatial_axes(spec, rank)),)), Simplify()]
        return Schedule(nest, tuple(passes))


def outermost_loops(program: Program) -> tuple[tuple[str, str], ...]:
    """(stage, outermost loop) of every stage that is one nest."""
    return tuple(
        (stage.name, loop.var)
        for stage in program.stages
        if stage.name != "epilogue" and len(stage.body) == 1 and isinstance(loop := stage.body[0], For)
    )


def sum_error_bound(spec: ConvSpec) -> float:
    """The relative L2 error of plain sums to expect at most, by the model that fast algorithms are judged by too: partial sums of
    1, 2, .. K products in the accumulator's type, one after another, and the rounding of the result."""
    dtype = DTYPES[spec.dtype]
    unit = DTYPES[dtype.accumulator].unit_roundoff
    terms = max(1, spec.macs // max(1, math.prod(spec.result_shape)))
    return plain_error(terms, unit) + (dtype.unit_roundoff if dtype.unit_roundoff > unit else 0.0)
