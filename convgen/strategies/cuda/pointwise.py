"""pointwise: a kernel of one tap is a product of matrices, and the images are those matrices as they lie in memory.

In channels_last the pixels of all images are the rows of one matrix, so that neither an image's size nor its batch is part of
the kernel and no pixel's row and column are worked out. In channels_first neighbouring pixels are read in whole accesses. The
product, and what it costs, are those of ``implicit_gemm``, which tests for padding and copies channels_first images element by
element.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from convgen.gpu import Gpu
from convgen.nests.build import SUMS
from convgen.nests.nest import Nest, axis_letters
from convgen.passes.expand_padding import ExpandPadding
from convgen.passes.fuse_epilogue import FuseEpilogue
from convgen.passes.pipeline import Pass
from convgen.passes.unroll import Unroll
from convgen.spec import ConvSpec
from convgen.strategies.base import Schedule
from convgen.strategies.cuda.base import gpu_nest
from convgen.strategies.cuda.gemm import (
    MATRIX_LANES,
    RUN,
    Factor,
    MatrixShape,
    Product,
    Tiling,
    access_lanes,
)
from convgen.strategies.cuda.implicit_gemm import ImplicitGemm, matrix_shape
from convgen.strategies.cuda.loops import gather_passes, weights_passes
from convgen.transforms.split import Algorithms
from convgen.tuning.space import Config

_PRODUCT = ImplicitGemm()


@dataclass(frozen=True)
class Pointwise:
    """Blocks of threads; see gemm.Tiling."""

    name: str = "pointwise"

    def refusal(self, spec: ConvSpec, gpu: Gpu) -> str | None:
        if not spec.is_pointwise:
            return f"kernel_size={spec.kernel_size} with its padding and stride does not leave pixels where they are"
        return _PRODUCT.refusal(spec, gpu)

    def default(self, spec: ConvSpec, gpu: Gpu) -> Config:
        return _PRODUCT.default(spec, gpu)

    def space(self, spec: ConvSpec, gpu: Gpu) -> tuple[Config, ...]:
        return _PRODUCT.space(spec, gpu)

    def error_bound(self, spec: ConvSpec) -> float:
        return _PRODUCT.error_bound(spec)

    def algorithms(self, spec: ConvSpec, config: Config) -> Algorithms:
        """What numbers rounded to TF32 are held to."""
        return _PRODUCT.algorithms(spec, config)

    def predicted_seconds(self, spec: ConvSpec, config: Config, gpu: Gpu) -> float:
        return _PRODUCT.predicted_seconds(spec, config, gpu)

    def schedule(self, spec: ConvSpec, config: Config, gpu: Gpu) -> Schedule:
        tiling = Tiling.of(config)
        problem = merged(spec, MATRIX_LANES if tiling.matrix else RUN)
        schedule = _weights_schedule if spec.direction == "backward_weights" else _gather_schedule
        return schedule(problem, tiling, matrix_shape(spec, gpu))


def merged(spec: ConvSpec, widest: int) -> ConvSpec:
    """The same memory as images of one pixel each, channels last; or else, channels first, as rows of as many pixels as are read
    at once, ``widest`` or fewer."""
    pixels = math.prod(spec.spatial_size)
    is_last = spec.layout == "channels_last" or pixels == 1
    lanes = access_lanes(spec.dtype, pixels, widest)
    if lanes == 1:
        lanes = access_lanes(spec.dtype, pixels, widest // 2)
    return spec.replace(
        batch=spec.batch * pixels if is_last else spec.batch,
        spatial_size=(1,) if is_last else (pixels // lanes, lanes),
        kernel_size=1,
        stride=1,
        padding=0,
        dilation=1,
        output_padding=0,
        padding_mode="zeros",
        layout="channels_last" if is_last else "channels_first",
    )


def _gather_schedule(problem: ConvSpec, tiling: Tiling, shape: MatrixShape | None) -> Schedule:
    """Forward problems and data gradients."""
    nest = gpu_nest(problem, keeps_made=True)
    group = ("g",) if nest.channels.has_groups else ()
    is_last = problem.layout == "channels_last"
    widest = MATRIX_LANES if tiling.matrix else RUN
    lanes = access_lanes(problem.result_dtype, problem.made_channels) if is_last else 1
    read = access_lanes(problem.dtype, problem.reduced_channels, widest) if is_last else problem.spatial_size[-1]
    if is_last and not tiling.matrix and not read == lanes == RUN:
        read = 1
    product = Product(
        outer=group,
        row=Factor(nest.source, "sum" if is_last else "side", read),
        col=Factor("packed", "side", access_lanes(problem.dtype, problem.made_channels, widest)),
        result="col" if is_last else "row",
        lanes=lanes,
    )
    passes = gather_passes(problem, nest, product, _window_loops(problem, nest), tiling, shape)
    return Schedule(nest, (*_plain_passes(problem, nest), *passes))


def _weights_schedule(problem: ConvSpec, tiling: Tiling, shape: MatrixShape | None) -> Schedule:
    nest = gpu_nest(problem)
    group = ("g",) if nest.channels.has_groups else ()
    plain = nest.plain.name
    is_last = problem.layout == "channels_last"
    widest = MATRIX_LANES if tiling.matrix else RUN
    made, reduced = (
        access_lanes(problem.dtype, count, widest) if is_last else problem.spatial_size[-1] if tiling.matrix else 1
        for count in (problem.made_channels, problem.reduced_channels)
    )
    product = Product(
        outer=group,
        row=Factor(plain, "side" if is_last else "sum", made),
        col=Factor(nest.source, "side" if is_last else "sum", reduced),
        result="col",
    )
    passes = weights_passes(problem, product, _window_loops(problem, nest), tiling, shape)
    return Schedule(nest, (*_plain_passes(problem, nest), *passes))


def _window_loops(problem: ConvSpec, nest: Nest) -> tuple[str, ...]:
    """The loops over what is left of a window: the reduced channels, or its one tap."""
    return ("ic",) if nest.channels.has_reduced else tuple(f"k{letter}" for letter in axis_letters(problem.ndim))


def _plain_passes(problem: ConvSpec, nest: Nest) -> tuple[Pass, ...]:
    """The epilogue in the stores of the sums, nothing padded, and no loops over taps beside channels."""
    fused: tuple[Pass, ...] = (FuseEpilogue("epilogue", SUMS),) if nest.program.has_buffer(SUMS) else ()
    taps = tuple(f"k{letter}" for letter in axis_letters(problem.ndim)) if nest.channels.has_reduced else ()
    return (*fused, ExpandPadding(((nest.source, ()),)), *map(Unroll, taps))
