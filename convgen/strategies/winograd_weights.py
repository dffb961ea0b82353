"""winograd_weights: the gradient of the weights by F(taps, m) along every axis, in fewer multiplications than the sums take.

A tile of m pixels of the output's gradient meets m + taps - 1 pixels of the input in as many products along an axis, instead of
m taps; what the transforms of both images cost is shared by all channels of the other, and the sums are transformed once (Lavin
and Gray, "Fast algorithms for convolutional neural networks", 2016). Larger m saves more and rounds worse.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass

from convgen.machine import Machine
from convgen.nests.bilinear_weights import GradientBlocking, gradient_axes, gradient_nest
from convgen.nests.classes import AxisClass
from convgen.nests.nest import Nest, spatial_axes
from convgen.passes.expand_padding import ExpandPadding
from convgen.passes.flatten import Flatten
from convgen.passes.pipeline import Pass
from convgen.passes.register_tile import RegisterTile
from convgen.passes.simplify import Simplify
from convgen.passes.transpose_blocks import TransposeBlocks
from convgen.passes.unroll import Unroll
from convgen.passes.vectorize import Vectorize
from convgen.spec import ConvSpec
from convgen.strategies.accuracy import transform_limit
from convgen.strategies.base import Schedule
from convgen.strategies.copies import square_size
from convgen.strategies.direct_images import source_passes, vector_order
from convgen.strategies.direct_weights import plain_passes
from convgen.strategies.tiles import most_rows
from convgen.strategies.winograd_weights_cost import GradientShape, gradient_error, gradient_seconds, gradient_shape
from convgen.transforms.bilinear import AxisAlgorithm
from convgen.transforms.polyphase import runs, spread
from convgen.transforms.split import Algorithms
from convgen.transforms.toom_cook import winograd_gradient
from convgen.tuning.cost import vector_width
from convgen.tuning.space import Config

# Pixels of a tile along an axis: points for more bring too large an error.
PIXELS = (4, 6, 5, 3, 2)
# So many taps at once; more are cut into runs, for more points for one product cost accuracy.
MOST_TAPS = 5
LONGEST_RUN = 4
# A group of fewer channels has none to share a transform.
FEWEST_CHANNELS = 4
# Vectors of reduced channels in a register tile, and how many made channels it may have.
USUAL_VECTORS = 2
ROWS = (16, 8, 6, 4, 2, 1)
# Channels of a task on either side, whose sums stay in the second-level cache.
CHANNELS = (64, 32, 128)
# Tiles of a block: a few, whose points stay in the caches with the sums, to all there are.
BLOCKS = (8, 14, 16, 28, 32, 56, 64, 112, 256, 1024)
# Shares of the tiles at most: each has sums of its own.
MOST_SHARES = 8
# So many configurations are worth measuring.
MOST_CONFIGS = 16


@dataclass(frozen=True)
class WinogradWeights:
    """Tiles of ``m`` pixels along each axis; register tiles of ``pixels`` made channels times ``lanes`` reduced ones, ``rows`` by
    ``columns`` of which are a task, for one of ``shares`` of the tiles, in blocks of ``tiles``."""

    name: str = "winograd_weights"

    def refusal(self, spec: ConvSpec, machine: Machine) -> str | None:
        if spec.direction != "backward_weights":
            return f"direction={spec.direction!r} is left to winograd"
        if spec.dtype == "int8":
            return "dtype='int8' has no fractions"
        if not spec.macs:
            return "there is nothing to sum"
        if spec.reduced_channels < 2:
            return f"groups={spec.groups} leaves a single channel, which shares no transform"
        if spec.groups > 1 and min(spec.made_channels, spec.reduced_channels) < FEWEST_CHANNELS:
            return f"groups={spec.groups} leaves too few channels to share a transform"
        if not _candidates(spec, machine):
            return (
                f"kernel_size={spec.kernel_size} with stride={spec.stride} and accuracy={spec.accuracy!r} admits no F(taps, m)"
                " that saves products"
            )
        return None

    def default(self, spec: ConvSpec, machine: Machine) -> Config:
        return self.space(spec, machine)[0]

    def space(self, spec: ConvSpec, machine: Machine) -> tuple[Config, ...]:
        return _candidates(spec, machine)

    def error_bound(self, spec: ConvSpec) -> float:
        """That of the least accurate F(taps, m) in the space; no configuration has a larger error than is accepted."""
        found = (shape for m in PIXELS if (shape := _shape(spec, m)).saves)
        errors = [gradient_error(spec, shape, shape.tiles, 1) for shape in found]
        return min(max(errors, default=0.0), transform_limit(spec))

    def predicted_seconds(self, spec: ConvSpec, config: Config, machine: Machine) -> float:
        return gradient_seconds(spec, machine, _shape(spec, config["m"]), config)

    def schedule(self, spec: ConvSpec, config: Config, machine: Machine) -> Schedule:
        return gradient_schedule(spec, config, machine)

    def algorithms(self, spec: ConvSpec, config: Config) -> Algorithms:
        return _shape(spec, config["m"]).algorithms


def _shape(spec: ConvSpec, m: int) -> GradientShape:
    return gradient_shape(spec, tuple(along(axis, m) for axis in gradient_axes(spec)))


@functools.lru_cache(maxsize=1024)
def _candidates(spec: ConvSpec, machine: Machine) -> tuple[Config, ...]:
    """Of each tile, fused or not, and of each size of a task, the best block of tiles; the most promising first."""
    found: list[tuple[float, Config]] = []
    for m in PIXELS:
        shape = _shape(spec, m)
        if not shape.saves:
            continue
        for vectors, fused, most in itertools.product((USUAL_VECTORS, 1), (1, 0), CHANNELS):
            tile = _register_tile(spec, machine, vectors, most)
            options = [
                (gradient_seconds(spec, machine, shape, config), config)
                for tiles in _blocks(shape.tiles)
                if _is_accurate(
                    spec, shape, config := _shared(spec, machine, shape, Config.of(m=m, **tile, tiles=tiles), fused)
                )
            ]
            found += [min(options, key=lambda option: option[0])] if options else []
    found.sort(key=lambda option: option[0])
    return tuple(dict.fromkeys(config for _, config in found))[:MOST_CONFIGS]


def _register_tile(spec: ConvSpec, machine: Machine, vectors: int, most: int) -> dict[str, int]:
    """A register tile, and as many of them as even blocks of up to ``most`` channels have."""
    lanes = min(vectors * vector_width(spec, machine), 1 << (spec.reduced_channels - 1).bit_length())
    room = most_rows(machine, vectors)
    pixels = max(size for size in ROWS if size <= room and (size == 1 or size < 2 * spec.made_channels))

    def count(channels: int, size: int) -> int:
        blocks = -(-channels // max(most, size))
        return -(-channels // (blocks * size))

    rows, columns = count(spec.made_channels, pixels), count(spec.reduced_channels, lanes)
    return dict(pixels=pixels, lanes=lanes, rows=rows, columns=columns)


def _blocks(tiles: int) -> list[int]:
    """Sizes of blocks worth a thought, that come out even."""
    return sorted({-(-tiles // -(-tiles // size)) for size in BLOCKS})


def _shared(spec: ConvSpec, machine: Machine, shape: GradientShape, config: Config, fused: int) -> Config:
    """The configuration with as many shares of the tiles as give each core a task."""
    made = -(-spec.made_channels // (config["rows"] * config["pixels"]))
    reduced = -(-spec.reduced_channels // (config["columns"] * config["lanes"]))
    blocks = -(-shape.tiles // config["tiles"])
    shares = min(MOST_SHARES, blocks, -(-machine.cores // (spec.groups * made * reduced)))
    # Each share has a block.
    shares = -(-blocks // -(-blocks // shares))
    return config.and_also(shares=shares, fused=fused)


def _is_accurate(spec: ConvSpec, shape: GradientShape, config: Config) -> bool:
    return gradient_error(spec, shape, config["tiles"], config["shares"]) <= transform_limit(spec)


def along(axis: AxisClass, m: int) -> AxisAlgorithm:
    """F(taps, m) for an axis, for each residue of the taps modulo the stride; one pixel at a time where there is a single tap."""
    pixels = 1 if axis.taps == 1 else min(m, axis.longest_run)
    return spread(_in_runs, axis.taps, pixels, axis.spaced_step)


def _in_runs(taps: int, pixels: int) -> AxisAlgorithm:
    """F(taps, pixels), or those of runs of taps that are short enough."""
    count = 1 if taps <= MOST_TAPS else -(-taps // LONGEST_RUN)
    if count == 1:
        return winograd_gradient(taps, pixels)
    return runs(winograd_gradient, tuple(taps * (i + 1) // count - taps * i // count for i in range(count)), pixels)


def gradient_schedule(spec: ConvSpec, config: Config, machine: Machine) -> Schedule:
    """The nest's transforms and register tiles in vectors, the result turned in squares of registers."""
    algorithms = _shape(spec, config["m"]).algorithms
    blocking = GradientBlocking(
        pixels=config["pixels"],
        lanes=config["lanes"],
        rows=config["rows"],
        columns=config["columns"],
        tiles=config["tiles"],
        shares=config["shares"],
        vector=min(config["lanes"], vector_width(spec, machine)),
        fused=bool(config["fused"]),
    )
    nest = gradient_nest(spec, algorithms, blocking)
    square = square_size(spec.dtype, machine)
    passes: tuple[Pass, ...] = (
        *_image_passes(spec, nest, square),
        Flatten((nest.result,), spec.ndim),
        TransposeBlocks("turn_c", "turn_c", "turn_tap", square),
        Simplify(keep_unit_loops=True),
        RegisterTile(("px", "lane")),
        Vectorize("lane"),
        Vectorize("c_lane"),
        Vectorize("k_lane"),
        Vectorize("y_lane"),
        Unroll("px"),
        Unroll("e"),
        Simplify(),
    )
    return Schedule(nest, passes)


def _image_passes(spec: ConvSpec, nest: Nest, square: int) -> tuple[Pass, ...]:
    """Padding is tested where a tile is read; only another layout is copied first."""
    if spec.layout == "channels_first":
        return (*source_passes(spec, nest, square, vector_order(spec, nest)), *plain_passes(spec, nest, square))
    rank = len(nest.program.buffer(nest.source).shape)
    return (ExpandPadding(((nest.source, spatial_axes(spec, rank)),)),)
