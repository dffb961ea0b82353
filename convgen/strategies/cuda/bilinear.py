"""What the bilinear algorithms of GPUs share: a stage a step, transforms by threads, a matrix product for each point."""

from __future__ import annotations

import math
from dataclasses import replace

from convgen.dtypes import DTYPES
from convgen.gpu import Gpu
from convgen.ir.rewrite import loops
from convgen.nests.bilinear_stages import staged_bilinear_nest
from convgen.nests.build import unfolded_problem
from convgen.nests.classes import gather_classes
from convgen.nests.nest import Nest
from convgen.passes.collapse import Collapse
from convgen.passes.launch_grid import LaunchGrid
from convgen.passes.pipeline import Pass
from convgen.passes.unroll import Unroll
from convgen.spec import ConvSpec
from convgen.strategies.base import Schedule
from convgen.strategies.bilinear import Choose, Shape, general_refusal
from convgen.strategies.cuda.base import element_passes, gpu_nest, plain_passes
from convgen.strategies.cuda.gemm import (
    RUN,
    Factor,
    Product,
    Tiling,
    access_lanes,
    copy_stages,
    product_passes,
    tilings,
)
from convgen.tuning.space import Config

# Threads of a block that transforms tiles.
THREADS = 128
# The part of the bandwidth that transforms reach, and what starting all kernels takes.
REACHED = 0.75
LAUNCH_SECONDS = 9e-6
# Places in arrays are counted in 32 bits.
MOST_ELEMENTS = 2**31 - 1
# Configurations of a tile's size that are worth measuring.
MOST_CONFIGS = 12


def bilinear_refusal(spec: ConvSpec) -> str | None:
    """Why no bilinear algorithm applies to a problem on a GPU, whatever its matrices."""
    if spec.direction == "backward_weights":
        return "direction='backward_weights' has no transform over pixels for GPUs"
    reason = general_refusal(spec)
    if reason is None and len(gather_classes(unfolded_problem(spec))) > 1:
        return f"stride={spec.stride} leaves residue classes of few taps each"
    return reason


def fits_memory(spec: ConvSpec, found: tuple[Shape, ...]) -> bool:
    """Whether the points of all tiles are so few that 32 bits count them."""
    channels = spec.groups * max(spec.reduced_channels, spec.made_channels)
    return all(shape.points * shape.tiles * channels <= MOST_ELEMENTS for shape in found)


def bilinear_configs(spec: ConvSpec, found: tuple[Shape, ...], gpu: Gpu, **fixed: int) -> list[Config]:
    """``fixed`` with the most promising tilings of the products."""
    tiles = max(shape.tiles for shape in found)
    every = [
        replace(tiling, stages=stages)
        for tiling in tilings(tiles, spec.made_channels, matrix=False)
        for stages in copy_stages(gpu)
    ]
    best = sorted(every, key=lambda tiling: bilinear_seconds(spec, found, tiling, gpu))[:MOST_CONFIGS]
    return [Config((*fixed.items(), *tiling.config.values)) for tiling in best]


def tiling_of(config: Config, *fixed: str) -> Tiling:
    """The tiling of the products in a configuration with other choices before it."""
    return Tiling.of(Config(tuple(pair for pair in config.values if pair[0] not in fixed)))


def bilinear_seconds(
    spec: ConvSpec, found: tuple[Shape, ...], tiling: Tiling, gpu: Gpu, *, apart: bool = False
) -> float:
    """The products' multiply-adds, in whole waves of blocks, and the bytes that the transforms read and write."""
    size = DTYPES[DTYPES[spec.dtype].accumulator].itemsize
    seconds = LAUNCH_SECONDS * (1 + apart)
    for shape in found:
        rows, cols = math.ceil(shape.tiles / tiling.rows), math.ceil(spec.made_channels / tiling.cols)
        blocks = shape.points * spec.groups * rows * cols
        waves = math.ceil(blocks / gpu.multiprocessors) * gpu.multiprocessors
        macs = waves * tiling.rows * tiling.cols * spec.reduced_channels
        cost = tiling.sum_cost * (2 if spec.dtype == "float64" else 1)
        channels = spec.groups * (spec.reduced_channels + spec.made_channels)
        moved = 2 * (1 + apart) * shape.points * shape.tiles * channels * size + spec.bytes_moved
        seconds += macs * cost / gpu.peak + moved / (REACHED * gpu.bandwidth)
    return seconds


def bilinear_schedule(spec: ConvSpec, choose: Choose, tiling: Tiling, *, apart: bool = False) -> Schedule:
    """Transforms, products and inverse transforms; ``apart`` in a stage for each axis."""
    classes = gather_classes(unfolded_problem(spec))
    choices = [tuple(map(choose, axes)) for axes in classes]
    nest = staged_bilinear_nest(spec, gpu_nest(spec, keeps_made=True), classes, choices, apart=apart)
    passes: tuple[Pass, ...] = (
        *plain_passes(spec, nest),
        *_transform_passes(nest, apart=apart),
        *element_passes(nest),
        Collapse(("tile",), "row"),
        Collapse(("oc",), "col"),
        Collapse(("c",), "k"),
        *product_passes(_product(spec, nest), tiling),
    )
    return Schedule(nest, passes)


def _transform_passes(nest: Nest, *, apart: bool) -> tuple[Pass, ...]:
    """A thread a tile and channel, with all of its points in registers, or those along one axis."""
    inner = {loop.var for stage in nest.program.stages for loop in loops(stage.body)}
    unrolled = [var for var in (("e",) if apart else ("e", "id", "ih", "iw")) if var in inner]
    return (*map(Unroll, unrolled), LaunchGrid("transform_", THREADS), LaunchGrid("inverse", THREADS))


def _product(spec: ConvSpec, nest: Nest) -> Product:
    dtype = DTYPES[spec.dtype].accumulator
    lanes, terms = access_lanes(dtype, spec.made_channels), access_lanes(dtype, spec.reduced_channels)
    group = ("g",) if nest.channels.has_groups else ()
    return Product(
        outer=("point", *group),
        row=Factor("v", "sum", terms if terms == lanes == RUN else 1),
        col=Factor("u", "side", lanes),
        result="col",
        lanes=lanes,
    )
