"""winograd: F(m, r) along every axis, a stage a step: transforms in the registers of threads, a matrix product for each point.

(Lavin and Gray, "Fast algorithms for convolutional neural networks", 2016, the non-fused form.) The points of all tiles pass
through memory, which pays where there are channels enough on both sides; what it saves is the multiplications.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

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
from convgen.strategies.bilinear import bilinear_error, general_refusal, shapes
from convgen.strategies.cuda.base import element_passes, gpu_nest, plain_passes
from convgen.strategies.cuda.gemm import Factor, Product, Tiling, access_lanes, copy_stages, product_passes, tilings
from convgen.strategies.winograd import Winograd as CpuWinograd
from convgen.strategies.winograd import outputs_along
from convgen.transforms.split import Algorithms
from convgen.tuning.space import Config

# Results of a tile along an axis, and points that the registers of a thread hold.
OUTPUTS = (4, 2)
MOST_POINTS = 64
MOST_THREADS = 256
THREADS = 128
# The part of the bandwidth that transforms reach, and what starting their kernels takes.
REACHED = 0.75
LAUNCH_SECONDS = 9e-6
# Configurations of a tile's size that are worth measuring.
MOST_CONFIGS = 12


@dataclass(frozen=True)
class Winograd:
    """Tiles of ``m`` results along each axis; the products are those of gemm.Tiling."""

    name: str = "winograd"

    def refusal(self, spec: ConvSpec, gpu: Gpu) -> str | None:
        reason = general_refusal(spec)
        if reason is not None:
            return reason
        if len(gather_classes(unfolded_problem(spec))) > 1:
            return f"stride={spec.stride} leaves residue classes of few taps each"
        if not any(True for _ in self._outputs(spec)):
            return (
                f"kernel_size={spec.kernel_size} with accuracy={spec.accuracy!r} admits no F(m, r) that saves products"
            )
        return None

    def default(self, spec: ConvSpec, gpu: Gpu) -> Config:
        return self.space(spec, gpu)[0]

    def space(self, spec: ConvSpec, gpu: Gpu) -> tuple[Config, ...]:
        found: list[Config] = []
        for m in self._outputs(spec):
            tiles = max(shape.tiles for shape in shapes(spec, outputs_along(m)))
            configs = [
                Config((("m", m), *staged.config.values))
                for tiling in tilings(tiles, spec.made_channels, MOST_THREADS, matrix=False)
                for staged in (replace(tiling, stages=stages) for stages in copy_stages(gpu))
            ]
            found += sorted(configs, key=lambda config: self.predicted_seconds(spec, config, gpu))[:MOST_CONFIGS]
        return tuple(sorted(found, key=lambda config: self.predicted_seconds(spec, config, gpu)))

    def error_bound(self, spec: ConvSpec) -> float:
        """That of the least accurate F(m, r) in the space."""
        return max((bilinear_error(spec, shapes(spec, outputs_along(m))) for m in self._outputs(spec)), default=0.0)

    def predicted_seconds(self, spec: ConvSpec, config: Config, gpu: Gpu) -> float:
        tiling = _tiling(config)
        size = DTYPES[DTYPES[spec.dtype].accumulator].itemsize
        seconds = LAUNCH_SECONDS
        for shape in shapes(spec, outputs_along(config["m"])):
            rows, cols = math.ceil(shape.tiles / tiling.rows), math.ceil(spec.made_channels / tiling.cols)
            blocks = shape.points * spec.groups * rows * cols
            waves = math.ceil(blocks / gpu.multiprocessors) * gpu.multiprocessors
            macs = waves * tiling.rows * tiling.cols * spec.reduced_channels
            cost = tiling.sum_cost * (2 if spec.dtype == "float64" else 1)
            channels = spec.groups * (spec.reduced_channels + spec.made_channels)
            moved = 2 * shape.points * shape.tiles * channels * size + spec.bytes_moved
            seconds += macs * cost / gpu.peak + moved / (REACHED * gpu.bandwidth)
        return seconds

    def schedule(self, spec: ConvSpec, config: Config, gpu: Gpu) -> Schedule:
        tiling, choose = _tiling(config), outputs_along(config["m"])
        classes = gather_classes(unfolded_problem(spec))
        choices = [tuple(map(choose, axes)) for axes in classes]
        nest = staged_bilinear_nest(spec, gpu_nest(spec, keeps_made=True), classes, choices)
        passes: tuple[Pass, ...] = (
            *plain_passes(spec, nest),
            *_transform_passes(nest),
            *element_passes(nest),
            Collapse(("tile",), "row"),
            Collapse(("oc",), "col"),
            Collapse(("c",), "k"),
            *product_passes(_product(spec, nest), tiling),
        )
        return Schedule(nest, passes)

    def algorithms(self, spec: ConvSpec, config: Config) -> Algorithms:
        """Those of the residue class that takes the most points."""
        return max(shapes(spec, outputs_along(config["m"])), key=lambda shape: shape.points).algorithms

    @staticmethod
    def _outputs(spec: ConvSpec) -> Iterator[int]:
        """The m that save products, are accurate enough and fit a thread's registers."""
        accurate = set(CpuWinograd.outputs(spec))
        for m in OUTPUTS:
            if m in accurate and all(shape.points <= MOST_POINTS for shape in shapes(spec, outputs_along(m))):
                yield m


def _tiling(config: Config) -> Tiling:
    return Tiling.of(Config(tuple(pair for pair in config.values if pair[0] != "m")))


def _transform_passes(nest: Nest) -> tuple[Pass, ...]:
    """A thread a tile and channel, with all of its points in registers."""
    inner = {loop.var for stage in nest.program.stages for loop in loops(stage.body)}
    unrolled = [var for var in ("e", "id", "ih", "iw") if var in inner]
    return (*map(Unroll, unrolled), LaunchGrid("transform_", THREADS), LaunchGrid("inverse", THREADS))


def _product(spec: ConvSpec, nest: Nest) -> Product:
    dtype = DTYPES[spec.dtype].accumulator
    lanes = access_lanes(dtype, spec.made_channels)
    group = ("g",) if nest.channels.has_groups else ()
    return Product(
        outer=("point", *group),
        row=Factor("v", "sum"),
        col=Factor("u", "side", lanes),
        result="col",
        lanes=lanes,
    )
