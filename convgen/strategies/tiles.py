"""Register tiles: which are worth trying on a machine, and the passes that make them."""

from __future__ import annotations

import math

from convgen.dtypes import DTYPES
from convgen.machine import Machine
from convgen.nests.build import unfolded_problem
from convgen.nests.classes import gather_classes
from convgen.nests.nest import Nest
from convgen.passes.pipeline import Pass
from convgen.passes.prefetch_tile import PrefetchTile
from convgen.passes.register_tile import RegisterTile
from convgen.passes.simplify import Simplify
from convgen.passes.tile import Tile
from convgen.passes.unroll import Unroll
from convgen.passes.vectorize import Vectorize
from convgen.passes.vectorize_sum import VectorizeSum
from convgen.spec import ConvSpec
from convgen.tuning.cost import L2_SHARE, vector_width, waste

MAX_PIXELS = 16
MAX_VECTORS = 4
# Of so few registers four vectors of weights leave too few for sums of several pixels.
FEW_REGISTERS = 16
# So many tiles lose little in the last one, and the largest tile, whatever the image's size, lets images share their kernels.
PLENTY = 16
# How far ahead of their use weights are asked for that come from beyond the second-level cache.
PREFETCHED_BYTES = 8 << 10
# Tiles that sum fewer taps of a single channel have no time to prefetch their results.
MANY_TAPS = 25
# What a tile of one pixel loses beside one of many, which share their loads of weights.
LOADS_SHARE = 0.3


def _lane_channels(spec: ConvSpec) -> int:
    """How many channels lie along the lanes: those made per group, or the groups themselves where that is one."""
    return spec.groups if spec.made_channels == 1 and spec.groups > 1 else spec.made_channels


def most_taps(spec: ConvSpec) -> int:
    """The taps of the residue class that has the most."""
    return max(math.prod(axis.taps for axis in axes) for axes in gather_classes(unfolded_problem(spec)))


def _lane_bytes(spec: ConvSpec) -> int:
    """The bytes of packed weights for each lane, of the class with the most taps; a weight gradient has none."""
    if spec.direction == "backward_weights":
        return 0
    groups_as_lanes = spec.made_channels == 1 and spec.groups > 1
    terms = most_taps(spec) * (1 if groups_as_lanes else spec.reduced_channels)
    return terms * DTYPES[spec.dtype].itemsize


def most_rows(machine: Machine, vectors: int, others: int = 0) -> int:
    """How many rows of so many vectors the registers hold, beside a row of weights, for several vectors a broadcast, and
    ``others``."""
    return max(1, (machine.vector_registers - vectors - (vectors > 1) - others) // vectors)


def even_pixels(extent: int, most: int) -> int:
    """The pixels of a register tile, up to ``most``, that waste the least of a row of ``extent``."""
    if extent >= PLENTY * most:
        return most
    sizes = range(max(1, min(most, extent) // 2), max(1, min(most, extent)) + 1)
    return min(sizes, key=lambda size: waste(extent, size) * (1 + LOADS_SHARE / size))


def sum_tile(spec: ConvSpec, extent: int, machine: Machine) -> tuple[int, int] | None:
    """(pixels, terms) of a register tile of all made channels, with reduced channels along the lanes, for rows of ``extent``
    pixels; None where made channels are enough to fill lanes, or reduced ones do not."""
    width = vector_width(spec, machine)
    made = spec.made_channels
    if spec.groups > 1 or not made or 2 * made > width or not spec.reduced_channels or spec.reduced_channels % width:
        return None
    # A vector of each made channel's weights and one of the source stand beside the sums.
    most = min(MAX_PIXELS, max(1, (machine.vector_registers - made - 1) // made))
    return even_pixels(extent, most), width


def candidate_tiles(
    spec: ConvSpec, extent: int, machine: Machine, channels: int | None = None, others: int = 0
) -> tuple[tuple[int, int], ...]:
    """(pixels, lanes) of tiles that fill the registers but for ``others``, best first, for rows of ``extent`` pixels;
    ``channels``, by default those made, lie along the lanes.

    A tile of p pixels and v vectors needs p * v accumulators, v registers for weights and, for more than one vector, one for
    the broadcast. Lanes are powers of two, no more than the channels need. Four vectors measured best on ResNet's layers, two
    where there are 16 registers, but lanes that waste channels, or whose weights overflow the second-level cache, come last.
    """
    channels = _lane_channels(spec) if channels is None else channels
    width = vector_width(spec, machine)
    needed = 1 << max(0, channels - 1).bit_length()
    tiles: list[tuple[int, int]] = []
    counts = (MAX_VECTORS, 2, 1) if machine.vector_registers > FEW_REGISTERS else (2, MAX_VECTORS, 1)
    for lanes in dict.fromkeys(min(vectors * width, needed) for vectors in counts):
        vectors = max(1, lanes // width)
        most = min(MAX_PIXELS, most_rows(machine, vectors, others))
        pixels = even_pixels(extent, most)
        # Half as many pixels leave registers for the next tile to begin while the last is stored.
        tiles += [(pixels, lanes), (most, lanes), (even_pixels(extent, most // 2 + 1), lanes)]
    lane_bytes = _lane_bytes(spec)

    def order(tile: tuple[int, int]) -> tuple[float, bool]:
        return _waste(channels, tile[1]), tile[1] * lane_bytes > machine.l2_bytes * L2_SHARE

    return tuple(sorted(dict.fromkeys(tiles), key=order))


def _waste(channels: int, lanes: int) -> float:
    """The part of the lanes' work that is beyond the last channel, in steps that ignore small differences."""
    blocks = -(-channels // lanes) if channels else 1
    return round(1 - channels / (blocks * lanes), 1)


def tile_prefetches(spec: ConvSpec, nest: Nest, machine: Machine) -> tuple[Pass, ...]:
    """Results, and what is added to them, are asked for before a register tile is summed: a store waits for its line as a load
    does, and in a network few images stay in a core's own caches. Those with channels first are written in long rows, which the
    processor foresees within the last cache; tiles of few taps of a single channel have no time for it."""
    if spec.layout == "channels_first" and spec.result_bytes <= machine.l3_bytes:
        return ()
    if spec.reduced_channels == 1 and math.prod(spec.kernel_size) < MANY_TAPS:
        return ()
    return (PrefetchTile((nest.result, "residual")),)


def sum_tile_passes(row: str, terms: int) -> tuple[Pass, ...]:
    """Makes the loops ``px`` and ``row`` a tile of registers, of vectors along ``terms`` reduced channels."""
    return (
        Simplify(keep_unit_loops=True),
        RegisterTile(("px", row)),
        Tile("ic", terms, "ic_block", "ic_lane"),
        VectorizeSum("ic_lane"),
        Unroll(row),
        Unroll("px"),
        Simplify(),
    )


def register_tile_passes(lane: str, dots: tuple[Pass, ...] = ()) -> tuple[Pass, ...]:
    """Makes the loops ``px`` and ``lane`` a tile of registers, of vectors as long as the lane loop, whose terms ``dots`` adds
    several at once."""
    return (
        Simplify(keep_unit_loops=True),
        RegisterTile(("px", lane)),
        *dots,
        Vectorize(lane),
        Unroll("px"),
        Simplify(),
    )
