"""implicit_gemm: the product of windows and weights, or of both images, through shared memory, without a matrix of windows.

Rows are the pixels of all images, columns the made channels, terms the taps and channels of a window (Chetlur et al., "cuDNN:
efficient primitives for deep learning", 2014). Of a weight gradient rows are the made channels, columns the taps and reduced
channels, terms the pixels of all images; a sum is split among several blocks, whose parts are added in order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from convgen.gpu import Gpu
from convgen.nests.build import unfolded_problem
from convgen.nests.classes import gather_classes
from convgen.nests.nest import axis_letters
from convgen.spec import ConvSpec
from convgen.strategies.accuracy import accuracy_limit
from convgen.strategies.base import Schedule, windows_refusal
from convgen.strategies.cuda.base import gpu_nest, plain_passes
from convgen.strategies.cuda.gemm import (
    MATRIX_LANES,
    RUN,
    Factor,
    MatrixShape,
    Product,
    Tiling,
    access_lanes,
    copy_stages,
    tilings,
)
from convgen.strategies.cuda.loops import gather_passes, weights_passes
from convgen.strategies.direct_weights import plain_size
from convgen.strategies.reference import sum_error_bound
from convgen.transforms.split import TF32_UNIT, Algorithms, Split
from convgen.tuning.space import Config

# A sum is split where there are not so many blocks for each multiprocessor, into parts of so many terms or more.
BLOCKS_EACH = 2
FEWEST_TERMS = 128
MOST_PARTS = 64
# Groups with fewer channels leave most of a tile empty.
FEWEST_CHANNELS = 4
# The products that kernels are written for, summed in float32.
MATRIX_SHAPES: dict[str, MatrixShape] = {"bfloat16": (16, 8, 16), "float16": (16, 8, 16), "float32": (16, 8, 8)}
TF32 = Split(1, TF32_UNIT)
# How much faster they are than multiply-adds of float32, of what can be reached.
MATRIX_SPEED = 10
# What starting a kernel takes.
LAUNCH_SECONDS = 3e-6


@dataclass(frozen=True)
class ImplicitGemm:
    """Blocks of threads; see gemm.Tiling."""

    name: str = "implicit_gemm"

    def refusal(self, spec: ConvSpec, gpu: Gpu) -> str | None:
        if spec.groups > 1 and min(spec.made_channels, spec.reduced_channels) < FEWEST_CHANNELS:
            return f"groups={spec.groups} leave fewer than {FEWEST_CHANNELS} channels each"
        if 0 in spec.result_shape or not spec.macs:
            return "there is nothing to sum"
        return windows_refusal(spec)

    def default(self, spec: ConvSpec, gpu: Gpu) -> Config:
        return self.space(spec, gpu)[0]

    def space(self, spec: ConvSpec, gpu: Gpu) -> tuple[Config, ...]:
        rows, cols, _ = extents(spec)
        kinds = (True, False) if matrix_shape(spec, gpu) else (False,)
        found = [
            replace(staged, split=split)
            for matrix in kinds
            for tiling in tilings(rows, cols, matrix=matrix)
            for staged in (replace(tiling, stages=stages) for stages in copy_stages(gpu))
            if staged.shared_bytes(spec.dtype) <= gpu.shared_per_block
            for split in _splits(spec, tiling, gpu)
        ]
        configs = (tiling.config for tiling in found)
        return tuple(sorted(configs, key=lambda config: self.predicted_seconds(spec, config, gpu)))

    def error_bound(self, spec: ConvSpec) -> float:
        rounded = spec.dtype == "float32" and accuracy_limit(spec) >= TF32.relative_error and spec.accuracy != "strict"
        return max(sum_error_bound(spec), TF32.relative_error if rounded else 0.0)

    def algorithms(self, spec: ConvSpec, config: Config) -> Algorithms:
        """What numbers rounded to TF32 are held to."""
        return (TF32,) if spec.dtype == "float32" and config["matrix"] else ()

    def predicted_seconds(self, spec: ConvSpec, config: Config, gpu: Gpu) -> float:
        tiling = Tiling.of(config)
        blocks = blocks_of(spec, tiling)
        waves = math.ceil(blocks / gpu.multiprocessors) / blocks
        terms = extents(spec)[2] / tiling.split
        macs = blocks * tiling.rows * tiling.cols * terms
        seconds = macs * tiling.sum_cost * waves / gpu.peak * gpu.multiprocessors
        moved = spec.bytes_moved + 2 * (tiling.split > 1) * tiling.split * 4 * math.prod(spec.result_shape)
        if spec.dtype == "float64":
            seconds *= 2
        if tiling.matrix:
            seconds /= MATRIX_SPEED / (2 if spec.dtype == "float32" else 1)
        return max(seconds, moved / gpu.bandwidth) + LAUNCH_SECONDS * (1 + (tiling.split > 1))

    def schedule(self, spec: ConvSpec, config: Config, gpu: Gpu) -> Schedule:
        tiling = Tiling.of(config)
        schedule = _weights_schedule if spec.direction == "backward_weights" else _gather_schedule
        return schedule(spec, tiling, matrix_shape(spec, gpu))


def matrix_shape(spec: ConvSpec, gpu: Gpu) -> MatrixShape | None:
    """The (m, n, k) of the matrix units' product for a problem's type, where they keep its accuracy: float32 is rounded to TF32,
    never in "strict"."""
    shape = gpu.matrix_shapes.get(spec.dtype)
    if shape is None or shape != MATRIX_SHAPES.get(spec.dtype):
        return None
    if spec.dtype == "float32" and (spec.accuracy == "strict" or accuracy_limit(spec) < TF32.relative_error):
        return None
    return shape


def extents(spec: ConvSpec) -> tuple[int, int, int]:
    """The rows, columns and terms of the product; of a data gradient with strides those of the largest residue class."""
    taps = math.prod(spec.kernel_size)
    if spec.direction == "backward_weights":
        pixels = spec.batch * math.prod(plain_size(spec))
        return spec.made_channels, taps * spec.reduced_channels, pixels
    classes = gather_classes(unfolded_problem(spec))
    pixels = max((math.prod(axis.count for axis in axes) for axes in classes), default=0)
    terms = max((math.prod(axis.taps for axis in axes) for axes in classes), default=0)
    return spec.batch * pixels, spec.made_channels, terms * spec.reduced_channels


def blocks_of(spec: ConvSpec, tiling: Tiling) -> int:
    """How many blocks a call has, of all residue classes."""
    rows, cols, _ = extents(spec)
    classes = 1 if spec.direction == "backward_weights" else max(1, len(gather_classes(unfolded_problem(spec))))
    return tiling.split * classes * spec.groups * math.ceil(rows / tiling.rows) * math.ceil(cols / tiling.cols)


def _splits(spec: ConvSpec, tiling: Tiling, gpu: Gpu) -> tuple[int, ...]:
    """In how many parts a sum may be worth making: one, and as many as give every multiprocessor its blocks."""
    terms = extents(spec)[2]
    wanted = gpu.multiprocessors * BLOCKS_EACH / blocks_of(spec, tiling)
    parts = min(MOST_PARTS, math.ceil(wanted), terms // FEWEST_TERMS)
    return (1, parts) if parts > 1 else (1,)


def _gather_schedule(spec: ConvSpec, tiling: Tiling, shape: MatrixShape | None) -> Schedule:
    """Forward problems and data gradients."""
    nest = gpu_nest(spec, keeps_made=True)
    terms = (*(f"k{letter}" for letter in axis_letters(spec.ndim)), *(("ic",) if nest.channels.has_reduced else ()))
    group = ("g",) if nest.channels.has_groups else ()
    last = spec.layout == "channels_last"
    lanes = access_lanes(spec.result_dtype, spec.made_channels) if last else 1
    widest = MATRIX_LANES if tiling.matrix else RUN
    windows = access_lanes(spec.dtype, spec.reduced_channels, widest) if last else 1
    if not tiling.matrix and not windows == lanes == RUN:
        windows = 1
    product = Product(
        outer=group,
        row=Factor(nest.source, "sum" if last else "side", windows),
        col=Factor("packed", "side", access_lanes(spec.dtype, spec.made_channels, widest)),
        result="col" if last else "row",
        lanes=lanes,
    )
    return Schedule(nest, (*plain_passes(spec, nest), *gather_passes(spec, nest, product, terms, tiling, shape)))


def _weights_schedule(spec: ConvSpec, tiling: Tiling, shape: MatrixShape | None) -> Schedule:
    nest = gpu_nest(spec)
    channels = nest.channels
    group = ("g",) if channels.has_groups else ()
    columns = (*(f"k{letter}" for letter in axis_letters(spec.ndim)), *(("ic",) if channels.has_reduced else ()))
    plain = nest.plain.name
    last = spec.layout == "channels_last"
    widest = MATRIX_LANES if tiling.matrix else RUN
    made, reduced = (
        access_lanes(spec.dtype, count, widest) if last else 1 for count in (spec.made_channels, spec.reduced_channels)
    )
    product = Product(
        outer=group,
        row=Factor(plain, "side" if last else "sum", made),
        col=Factor(nest.source, "side" if last else "sum", reduced),
        result="col",
    )
    return Schedule(nest, (*plain_passes(spec, nest), *weights_passes(spec, product, columns, tiling, shape)))
