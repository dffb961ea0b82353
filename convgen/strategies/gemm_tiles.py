"""The microkernel of the matrix products: which blockings are worth trying, and the passes that make a register tile."""

from __future__ import annotations

from convgen.dtypes import DTYPES
from convgen.machine import Machine
from convgen.passes.pipeline import Pass
from convgen.passes.register_tile import RegisterTile
from convgen.passes.simplify import Simplify
from convgen.passes.unroll import Unroll
from convgen.passes.vectorize import Vectorize
from convgen.spec import ConvSpec
from convgen.strategies.matrix import matrix_tiles
from convgen.strategies.tiles import even_pixels, most_rows
from convgen.tuning.cost import L2_SHARE, vector_width
from convgen.tuning.space import Config

# A part of an image that is copied, and a panel that is summed in blocks, may each fill so much of the second-level cache.
PART_SHARE = 1 / 8
# Weights up to this part of it stay there from task to task, and tasks have few tiles of pixels and all panels; others are better
# read once, and tasks have many tiles and few panels.
WEIGHTS_SHARE = 1 / 2
SMALL_TASK, LARGE_TASK = (16, 16), (64, 2)
# So many tasks a core are few.
FEW_TASKS = 4
# Sums of fewer terms are not worth storing.
MIN_BLOCK = 64


def gemm_tile_passes(row: str, lane: str, dots: tuple[Pass, ...]) -> tuple[Pass, ...]:
    """Makes the loops ``row`` and ``lane`` a tile of registers: a vector along ``lane`` for each iteration of ``row``; ``dots``
    make several terms one."""
    return (
        Simplify(keep_unit_loops=True),
        RegisterTile((row, lane)),
        *dots,
        Vectorize(lane),
        Unroll(row),
        Simplify(),
    )


def blockings(
    spec: ConvSpec, machine: Machine, terms: int, pixels: int, *, copied: bool, taps: int = 1
) -> tuple[Config, ...]:
    """Configurations of gemm.Blocking for sums of ``terms`` terms at each of the ``taps``, and at least ``pixels`` pixels.

    Lanes lie along made channels in channels_last and along pixels in channels_first; the rows of a tile divide the other of the
    two about evenly. One vector a row would wait for its loads. Where a panel does not fit its share of the cache, sums may be
    made in blocks. ``copied`` says that a task copies its part of the image, which shall then stay in cache.
    """
    width = vector_width(spec, machine)
    last = spec.layout == "channels_last"
    most = 1 << (max(1, spec.made_channels) - 1).bit_length() if last else 1 << (pixels.bit_length() - 1)
    found: list[Config] = []
    for lanes in dict.fromkeys(min(vectors * width, most) for vectors in (4, 2)):
        rows = _rows(machine, max(1, lanes // width), pixels if last else spec.made_channels)
        made, tile = (lanes, rows) if last else (rows, lanes)
        for block in _blocks(machine, terms, lanes * taps * DTYPES[spec.dtype].itemsize):
            strips, panels = _task(spec, machine, tile * (block or terms) if copied else 0)
            shares = spec.batch * spec.groups * -(-spec.made_channels // (made * panels))
            strips = _even_strips(-(-pixels // tile), strips, shares, machine.cores)
            found.append(Config.of(made=made, pixels=tile, strips=strips, panels=panels, block=block))
    return tuple(dict.fromkeys(found))


def matrix_blockings(spec: ConvSpec, machine: Machine, pixels: int) -> list[Config]:
    """Configurations of gemm.Blocking by the matrix unit, for channels_last images of so many pixels that are read in place."""
    found: list[Config] = []
    for tile in matrix_tiles(spec, machine, pixels):
        if spec.reduced_channels % tile["matrix"]:
            continue
        strips, panels = _task(spec, machine, 0)
        shares = spec.batch * spec.groups * -(-spec.made_channels // (tile["lanes"] * panels))
        strips = _even_strips(-(-pixels // tile["pixels"]), strips, shares, machine.cores)
        blocking = Config.of(made=tile["lanes"], pixels=tile["pixels"], strips=strips, panels=panels, block=0)
        unit = {name: value for name, value in tile.values if name not in ("pixels", "lanes")}
        found.append(blocking.and_also(**unit))
    return found


def _rows(machine: Machine, vectors: int, extent: int) -> int:
    """As many rows as the registers hold beside a vector and a broadcast, or somewhat fewer that waste less of the extent."""
    return even_pixels(extent, most_rows(machine, vectors))


def _blocks(machine: Machine, terms: int, size: int) -> tuple[int, ...]:
    """All terms at once, and blocks of them where what the lanes read for a tile, ``size`` bytes a term, overflows a share of
    the cache."""
    most = int(machine.l2_bytes * PART_SHARE) // size
    if terms <= most:
        return (0,)
    block = max(MIN_BLOCK, 1 << max(0, most.bit_length() - 1))
    if terms <= block:
        return (0,)
    return (0, block) if terms * size <= machine.l2_bytes * L2_SHARE else (block,)


def _even_strips(tiles: int, strips: int, shares: int, cores: int) -> int:
    """The tiles of pixels of a task, no more than ``strips``, of an image of so many: where tasks are few, in ``shares`` of the
    panels, there are as many for each core, and alike."""
    parts = -(-tiles // strips)
    if cores == 1 or parts * shares > FEW_TASKS * cores:
        return strips
    while parts < tiles and parts * shares % cores:
        parts += 1
    return -(-tiles // parts)


def _task(spec: ConvSpec, machine: Machine, copied: int) -> tuple[int, int]:
    """How many tiles of pixels, ``copied`` elements each, and how many panels a task has."""
    strips, panels = SMALL_TASK if spec.weight_bytes <= machine.l2_bytes * WEIGHTS_SHARE else LARGE_TASK
    if copied:
        fitting = int(machine.l2_bytes * PART_SHARE) // (copied * DTYPES[spec.dtype].itemsize)
        return max(1, min(SMALL_TASK[0], fitting)), SMALL_TASK[1]
    return strips, panels
