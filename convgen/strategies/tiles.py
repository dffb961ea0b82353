"""Register tiles: which are worth trying on a machine, and the passes that make them."""

from __future__ import annotations

from convgen.dtypes import DTYPES
from convgen.machine import Machine
from convgen.passes.pipeline import Pass
from convgen.passes.register_tile import RegisterTile
from convgen.passes.simplify import Simplify
from convgen.passes.unroll import Unroll
from convgen.passes.vectorize import Vectorize
from convgen.spec import ConvSpec

MAX_PIXELS = 16
MAX_VECTORS = 4


def lane_channels(spec: ConvSpec) -> int:
    """How many channels lie along the lanes: those made per group, or the groups themselves where that is one."""
    inner, outer = spec.in_channels // spec.groups, spec.out_channels // spec.groups
    made = (
        inner
        if (spec.direction == "backward_data") != (spec.direction == "backward_weights" and spec.transposed)
        else outer
    )
    return spec.groups if made == 1 and spec.groups > 1 else made


def candidate_tiles(channels: int, dtype: str, machine: Machine) -> tuple[tuple[int, int], ...]:
    """(pixels, lanes) of tiles that fill the registers, best first.

    A tile of p pixels and v vectors needs p * v accumulators, v registers for weights and, for more than one vector, one for
    the broadcast. Lanes are powers of two, no more than the channels need: ResNet's layers measured best at four vectors.
    """
    width = machine.vector_bytes // DTYPES[DTYPES[dtype].accumulator].itemsize
    needed = 1 << max(0, channels - 1).bit_length()
    tiles: list[tuple[int, int]] = []
    for vectors in (4, 2, 1):
        lanes = min(vectors * width, needed)
        pixels = min(MAX_PIXELS, (machine.vector_registers - vectors) // vectors)
        tiles += [(count, lanes) for count in (pixels, pixels - 1) if count >= 1]
    order = sorted(dict.fromkeys(tiles), key=lambda tile: _waste(channels, tile[1]))
    return tuple(order)


def _waste(channels: int, lanes: int) -> float:
    """The part of the lanes' work that is beyond the last channel, in steps that ignore small differences."""
    blocks = -(-channels // lanes) if channels else 1
    return round(1 - channels / (blocks * lanes), 1)


def register_tile_passes(lane: str) -> tuple[Pass, ...]:
    """Makes the loops ``px`` and ``lane`` a tile of registers, of vectors as long as the lane loop."""
    return (
        Simplify(keep_unit_loops=True),
        RegisterTile(("px", lane)),
        Vectorize(lane),
        Unroll("px"),
        Simplify(),
    )
