"""The questions that every strategy for GPUs answers, and what their schedules share."""

from __future__ import annotations

from typing import Protocol

from convgen.gpu import Gpu
from convgen.nests.build import SUMS, build_nest, unfolded_problem, weight_axes
from convgen.nests.classes import gather_classes
from convgen.nests.nest import Nest, spatial_axes, with_bindings, with_constant
from convgen.passes.expand_padding import ExpandPadding
from convgen.passes.fuse_epilogue import FuseEpilogue
from convgen.passes.launch_grid import LaunchGrid
from convgen.passes.pack import Pack, PackedAxis
from convgen.passes.pipeline import Pass
from convgen.spec import ConvSpec
from convgen.strategies.base import Schedule
from convgen.tuning.space import Config

# Threads of a block that computes one element each.
PLAIN_THREADS = 256


class GpuStrategy(Protocol):
    """One way to compute a convolution on a GPU; the questions are those of ``strategies.base.Strategy``.

    ``predicted_seconds`` estimates a call with packed weights; only ratios, also to other strategies', mean anything.
    """

    @property
    def name(self) -> str: ...

    def refusal(self, spec: ConvSpec, gpu: Gpu) -> str | None: ...

    def default(self, spec: ConvSpec, gpu: Gpu) -> Config: ...

    def space(self, spec: ConvSpec, gpu: Gpu) -> tuple[Config, ...]: ...

    def error_bound(self, spec: ConvSpec) -> float: ...

    def predicted_seconds(self, spec: ConvSpec, config: Config, gpu: Gpu) -> float: ...

    def schedule(self, spec: ConvSpec, config: Config, gpu: Gpu) -> Schedule: ...


def gpu_nest(spec: ConvSpec, *, keeps_made: bool = False) -> Nest:
    """The naive nest with all sizes but the batch as constants: what pixels a thread has is found by dividing by them, and a
    division by a constant is a multiplication."""
    nest = with_bindings(build_nest(spec, keeps_made=keeps_made))
    for name in tuple(nest.sizes):
        if name != "N":
            nest = with_constant(nest, name)
    return nest


def plain_passes(spec: ConvSpec, nest: Nest) -> tuple[Pass, ...]:
    """The epilogue in the stores of the sums, and the padding in the open."""
    fused: tuple[Pass, ...] = (FuseEpilogue("epilogue", SUMS),) if nest.program.has_buffer(SUMS) else ()
    rank = len(nest.program.buffer(nest.source).shape)
    return (*fused, ExpandPadding(((nest.source, spatial_axes(spec, rank)),)))


def element_passes(nest: Nest, *others: str) -> tuple[Pass, ...]:
    """A thread an element for the stages that fold a gradient back, and for those that begin with ``others``."""
    folds = any(stage.name.startswith("fold_") for stage in nest.program.stages)
    return tuple(LaunchGrid(stage, PLAIN_THREADS) for stage in (*(("fold_",) if folds else ()), *others))


def packed_weights(spec: ConvSpec, nest: Nest) -> Pass:
    """[group][taps][reduced][made], or [taps][group] where groups make one channel: what neighbouring threads read lies side by
    side."""
    axes = weight_axes(spec, nest.channels)
    rank = len(nest.program.buffer("weight").shape)
    group, reduced, made = ((axes[name],) if name in axes else () for name in ("g", "ic", "oc"))
    taps = range(rank - spec.ndim, rank)
    order = (*group, *taps, *reduced, *made) if made else (*taps, *reduced, *group)
    return Pack("weight", "packed", tuple(map(PackedAxis, order)))


def result_row(spec: ConvSpec) -> int:
    """How many pixels a row of the result has; of a data gradient with strides the largest residue class."""
    return max((axes[-1].count for axes in gather_classes(unfolded_problem(spec))), default=0)
