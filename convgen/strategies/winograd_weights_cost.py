"""What weight gradients by Winograd's algorithm cost: transforms, products, the sums kept between blocks of tiles, and bytes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from convgen.dtypes import DTYPES
from convgen.machine import Machine
from convgen.nests.bilinear_weights import gradient_axes
from convgen.spec import ConvSpec
from convgen.strategies.bilinear import LINES_SHARE, transform_cycles
from convgen.transforms.bilinear import AxisAlgorithm
from convgen.transforms.error import relative_error
from convgen.tuning.cost import (
    CALL_SECONDS,
    moving_seconds,
    peak,
    tile_efficiency,
    turning_seconds,
    vector_width,
    waste,
)
from convgen.tuning.rates import rates_of
from convgen.tuning.space import Config

# How many times sums are moved that are stored beyond the second-level cache and read again.
SPILLED_MOVES = 3


@dataclass(frozen=True)
class GradientShape:
    """The algorithms of a weight gradient, one for each axis, and how many tiles both images have."""

    algorithms: tuple[AxisAlgorithm, ...]
    tiles: int

    @property
    def points(self) -> int:
        return math.prod(algorithm.points for algorithm in self.algorithms)

    @property
    def saves(self) -> bool:
        """Whether it takes fewer products than the sums themselves."""
        return self.points < math.prod(a.outputs * a.taps for a in self.algorithms)


def gradient_shape(spec: ConvSpec, algorithms: tuple[AxisAlgorithm, ...]) -> GradientShape:
    """The shape of a problem under algorithms for its axes."""
    along = (
        -(-axis.longest_run // algorithm.taps) * axis.interleaved
        for axis, algorithm in zip(gradient_axes(spec), algorithms, strict=True)
    )
    return GradientShape(algorithms, spec.batch * math.prod(along))


def gradient_error(spec: ConvSpec, shape: GradientShape, tiles: int, shares: int) -> float:
    """The relative L2 error of sums in blocks of ``tiles`` tiles, whose partial sums are added by block, then by share, and the
    rounding of the result."""
    dtype = DTYPES[spec.dtype]
    unit = DTYPES[dtype.accumulator].unit_roundoff
    blocks = -(-shape.tiles // tiles)
    # A sum of a * b terms in blocks of a has the errors of one of a + b.
    length = tiles + -(-blocks // shares) + shares
    stored = dtype.unit_roundoff if dtype.unit_roundoff > unit else 0.0
    return relative_error(shape.algorithms, length, unit) + stored


def gradient_seconds(spec: ConvSpec, machine: Machine, shape: GradientShape, config: Config) -> float:
    """The transforms' and the products' cycles, and the bytes that pass through the caches."""
    width, rates = vector_width(spec, machine), rates_of(machine)
    made, reduced = config["rows"] * config["pixels"], config["columns"] * config["lanes"]
    made_blocks, reduced_blocks = -(-spec.made_channels // made), -(-spec.reduced_channels // reduced)
    tiles = min(config["tiles"], shape.tiles)
    blocks = -(-shape.tiles // tiles)
    size = DTYPES[DTYPES[spec.dtype].accumulator].itemsize
    # Points are of the type that sums have.
    points_spec = spec.replace(dtype=DTYPES[spec.dtype].accumulator)
    vectors = max(1, config["lanes"] // width)
    products = float(shape.points) * shape.tiles * made_blocks * made * reduced_blocks * reduced
    efficiency = tile_efficiency(
        points_spec, machine, pixels=config["pixels"], lanes=config["lanes"], steps=tiles, loops=1
    )
    seconds = products * waste(config["lanes"], min(width, config["lanes"])) / (peak(spec, machine) * efficiency)
    if config["lanes"] < width:
        seconds *= width / config["lanes"]
    # Both operands of a step come from the second-level cache where a block of them overflows the first.
    if tiles * (made + reduced) * size > machine.l1d_bytes:
        steps = products / (config["pixels"] * config["lanes"])
        seconds += LINES_SHARE * steps * (vectors + 1) * rates.line / rates.clock
    sums = shape.points * made * reduced * size
    tasks = made_blocks * reduced_blocks
    held = shape.points * tiles * (made + reduced) * size if config["fused"] else 0
    # Sums are stored, and read again for the transform or the next block; what does not stay in the cache is fetched too.
    spilled = min(1.0, max(0.0, 1 - (machine.l2_bytes - held) / sums))
    kept = 2 * (blocks - 1) * sums * tasks
    seconds += kept / rates.cache + spilled * (kept + SPILLED_MOVES * sums * tasks) / rates.last
    cycles = _image_cycles(shape, machine, width, made, reduced, config, (made_blocks, reduced_blocks))
    seconds += cycles * rates.transform / rates.clock
    # Sums lie ready when they are transformed: it takes no more than its instructions need.
    inverse = transform_cycles([a.output for a in shape.algorithms], machine)
    seconds += inverse * spec.made_channels * -(-spec.reduced_channels // width) / rates.clock
    if not config["fused"]:
        images = shape.points * shape.tiles * size
        whole = images * (made_blocks * made + reduced_blocks * reduced)
        read = images * tasks * (made + reduced)
        rate = rates.last if spec.groups * whole <= machine.l3_bytes else rates.memory
        seconds += (2 * whole + read) / rate / 2
    if config["shares"] > 1:
        seconds += 2 * config["shares"] * sums * tasks / rates.last
    seconds *= spec.groups * waste(spec.groups * config["shares"] * tasks, machine.cores)
    turned = spec.input_bytes + spec.output_bytes if spec.layout == "channels_first" else 0
    return (
        CALL_SECONDS
        + seconds
        + moving_seconds(spec.bytes_moved + spec.weight_bytes, machine)
        + turning_seconds(turned, machine)
    )


def _image_cycles(
    shape: GradientShape, machine: Machine, width: int, made: int, reduced: int, config: Config, blocks: tuple[int, int]
) -> float:
    """Cycles of the transforms of both images: those of a task are made again for each block of the other's channels."""
    made_blocks, reduced_blocks = blocks
    plain = transform_cycles([a.weight for a in shape.algorithms], machine) * made_blocks * -(-made // width)
    source = transform_cycles([a.input for a in shape.algorithms], machine) * reduced_blocks * -(-reduced // width)
    if config["fused"]:
        plain, source = plain * reduced_blocks, source * made_blocks
    return shape.tiles * (plain + source)
