"""implicit_gemm: the product of windows and weights, or of both images, through shared memory, without a matrix of windows.

Rows are the pixels of all images, columns the made channels, terms the taps and channels of a window (Chetlur et al., "cuDNN:
efficient primitives for deep learning", 2014). Of a weight gradient rows are the made channels, columns the taps and reduced
channels, terms the pixels of all images; a sum is split among several blocks, whose parts are added in order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from convgen.gpu import Gpu
from convgen.nests.build import unfolded_problem, weight_axes
from convgen.nests.classes import gather_classes
from convgen.nests.nest import Nest, axis_letters
from convgen.passes.collapse import Collapse
from convgen.passes.pack import Pack, PackedAxis
from convgen.passes.pipeline import Pass
from convgen.passes.reorder import Reorder
from convgen.spec import ConvSpec
from convgen.strategies.base import Schedule, windows_refusal
from convgen.strategies.cuda.base import element_passes, gpu_nest, plain_passes
from convgen.strategies.cuda.gemm import Factor, Product, Tiling, access_lanes, product_passes, tilings
from convgen.strategies.direct_weights import plain_size
from convgen.strategies.reference import sum_error_bound
from convgen.tuning.space import Config

# Blocks with fewer threads do not hide how long memory takes.
FEWEST_THREADS = 64
MOST_THREADS = 256
# A sum is split where there are not so many blocks for each multiprocessor, into parts of so many terms or more.
BLOCKS_EACH = 2
FEWEST_TERMS = 128
MOST_PARTS = 64
# Groups with fewer channels leave most of a tile empty.
FEWEST_CHANNELS = 4
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
        rows, cols, terms = extents(spec)
        found = []
        for tiling in tilings(spec, rows, cols, terms, MOST_THREADS):
            if tiling.shared_bytes(spec.dtype) <= gpu.shared_per_block:
                found += [replace(tiling, split=split) for split in _splits(spec, tiling, gpu)]
        configs = (
            Config.of(rows=t.rows, cols=t.cols, depth=t.depth, row_tile=t.row_tile, col_tile=t.col_tile, split=t.split)
            for t in found
        )
        return tuple(sorted(configs, key=lambda config: self.predicted_seconds(spec, config, gpu)))

    def error_bound(self, spec: ConvSpec) -> float:
        return sum_error_bound(spec)

    def predicted_seconds(self, spec: ConvSpec, config: Config, gpu: Gpu) -> float:
        tiling = Tiling.of(config)
        blocks = blocks_of(spec, tiling)
        waves = math.ceil(blocks / gpu.multiprocessors) / blocks
        terms = extents(spec)[2] / tiling.split
        macs = blocks * tiling.rows * tiling.cols * terms
        # A multiply-add for each pair of a thread's rows and columns, and a quarter of a load for each of them.
        cost = 1 + (tiling.row_tile + tiling.col_tile) / (2 * tiling.row_tile * tiling.col_tile) + 8 / tiling.threads
        seconds = macs * cost * waves / gpu.peak * gpu.multiprocessors
        moved = spec.bytes_moved + 2 * (tiling.split > 1) * tiling.split * 4 * math.prod(spec.result_shape)
        if spec.dtype == "float64":
            seconds *= 2
        return max(seconds, moved / gpu.bandwidth) + LAUNCH_SECONDS * (1 + (tiling.split > 1))

    def schedule(self, spec: ConvSpec, config: Config, gpu: Gpu) -> Schedule:
        tiling = Tiling.of(config)
        return (
            _weights_schedule(spec, tiling) if spec.direction == "backward_weights" else _gather_schedule(spec, tiling)
        )


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


def _gather_schedule(spec: ConvSpec, tiling: Tiling) -> Schedule:
    """Forward problems and data gradients."""
    nest = gpu_nest(spec, keeps_made=True)
    letters = axis_letters(spec.ndim)
    pixels = ("n", *(f"o{letter}" for letter in letters))
    terms = (*(f"k{letter}" for letter in letters), *(("ic",) if nest.channels.has_reduced else ()))
    group = ("g",) if nest.channels.has_groups else ()
    last = spec.layout == "channels_last"
    lanes = access_lanes(spec.result_dtype, spec.made_channels) if last else 1
    product = Product(
        outer=group,
        row=Factor(nest.source, "sum" if last else "side"),
        col=Factor("packed", "side", access_lanes(spec.dtype, spec.made_channels)),
        result="col" if last else "row",
        lanes=lanes,
    )
    passes: tuple[Pass, ...] = (
        *plain_passes(spec, nest),
        _packed_weights(spec, nest),
        Reorder("conv", (*group, *pixels, "oc")),
        Collapse(pixels, "row"),
        Collapse(("oc",), "col"),
        Collapse(terms, "k"),
        *product_passes(product, tiling),
        *element_passes(nest, "pack_"),
    )
    return Schedule(nest, passes)


def _packed_weights(spec: ConvSpec, nest: Nest) -> Pass:
    """[group][taps][reduced][made]: what a row of the product's terms meets lies side by side."""
    axes = weight_axes(spec, nest.channels)
    rank = len(nest.program.buffer("weight").shape)
    group = (axes["g"],) if "g" in axes else ()
    reduced = (axes["ic"],) if "ic" in axes else ()
    order = (*group, *range(rank - spec.ndim, rank), *reduced, axes["oc"])
    return Pack("weight", "packed", tuple(map(PackedAxis, order)))


def _weights_schedule(spec: ConvSpec, tiling: Tiling) -> Schedule:
    nest = gpu_nest(spec)
    letters = axis_letters(spec.ndim)
    pixels = ("n", *(f"o{letter}" for letter in letters))
    channels = nest.channels
    group = ("g",) if channels.has_groups else ()
    columns = (*(f"k{letter}" for letter in letters), *(("ic",) if channels.has_reduced else ()))
    plain = next(b.name for b in nest.program.buffers if b.space == "operand" and b.name != nest.source)
    last = spec.layout == "channels_last"
    product = Product(
        outer=group,
        row=Factor(plain, "side" if last else "sum", access_lanes(spec.dtype, spec.made_channels) if last else 1),
        col=Factor(nest.source, "side" if last else "sum"),
        result="col",
    )
    passes: tuple[Pass, ...] = (
        *plain_passes(spec, nest),
        Reorder("conv", (*group, "oc", *columns)),
        Collapse(("oc",), "row"),
        Collapse(columns, "col"),
        Collapse(pixels, "k"),
        *product_passes(product, tiling),
    )
    return Schedule(nest, passes)
