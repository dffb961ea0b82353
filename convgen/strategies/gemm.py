"""The schedule that the matrix products share: panels of made channels times strips of pixels, in blocks of the reduction.

A register tile is ``made`` channels times ``pixels`` neighbouring pixels. Its vectors run along whichever of the two lies next to
each other in the images: channels in channels_last, pixels in channels_first; nothing is transposed. A task is a part of an
image, ``strips`` tiles of pixels long, with up to ``panels`` panels of weights (the loops of Goto and van de Geijn, "Anatomy of
high-performance matrix multiplication", 2008).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from convgen.ir.build import add, floordiv, minimum, mod, mul, sub
from convgen.ir.nodes import Index, Int, Var
from convgen.machine import Machine
from convgen.nests.build import SUMS, build_nest, unfolded_problem
from convgen.nests.classes import gather_classes
from convgen.nests.nest import Nest, axis_letters
from convgen.passes.block_reduction import BlockReduction
from convgen.passes.collapse import Collapse
from convgen.passes.flatten import Flatten
from convgen.passes.fuse_epilogue import FuseEpilogue
from convgen.passes.parallelize import Parallelize
from convgen.passes.pipeline import Pass
from convgen.passes.reorder import Reorder
from convgen.passes.tensorize import LANES
from convgen.passes.tile import Tile
from convgen.spec import MAX_NDIM, ConvSpec
from convgen.strategies.base import Schedule
from convgen.strategies.dots import dot_passes
from convgen.strategies.gemm_tiles import gemm_tile_passes
from convgen.strategies.gemm_weights import panel_passes
from convgen.strategies.matrix import matrix_passes
from convgen.strategies.tiles import tile_prefetches


@dataclass(frozen=True)
class Blocking:
    """A register tile of ``made`` channels times ``pixels``; tiles of pixels, and panels of weights, a task; how many terms of a
    sum are added for all of a task's tiles before the next ones (0: all), and how many by one instruction. ``matrix``,
    ``height`` and ``pieces`` are those of the matrix unit's tiles, see matrix.py."""

    made: int
    pixels: int
    strips: int
    panels: int
    block: int
    dot: int = 1
    matrix: int = 0
    height: int = 0
    pieces: int = 1


@dataclass(frozen=True)
class Reading:
    """How the source is read: ``passes`` make its reads plain, once the loops are in order; ``reduction`` is the loop that is
    blocked, and ``inner`` the passes that need its blocks."""

    passes: tuple[Pass, ...]
    reduction: str
    inner: tuple[Pass, ...] = ()


def gemm_schedule(
    spec: ConvSpec,
    blocking: Blocking,
    read: Callable[[ConvSpec, Nest, Blocking], Reading],
    machine: Machine,
    merged: int = MAX_NDIM,
) -> Schedule:
    """The matrix product of a forward problem or a data gradient whose source is read as ``read`` says.

    Strips of pixels run across the rows of the last ``merged`` spatial axes. If that is the last axis alone, the ``strips`` of a
    task are whole rows, each of as many tiles as it takes.
    """
    nest = build_nest(spec, keeps_made=True)
    reading = read(spec, nest, blocking)
    groups = ("g",) if nest.channels.has_groups else ()
    spatial = tuple(f"o{letter}" for letter in axis_letters(spec.ndim))
    folds = tuple(stage.name for stage in nest.program.stages if stage.name.startswith("fold"))
    lines = merged == 1 < spec.ndim
    tasks = spatial[: -2 if lines else -merged]
    passes = (
        *((FuseEpilogue("epilogue", SUMS),) if nest.program.has_buffer(SUMS) else ()),
        *(Parallelize(name, ("i0",)) for name in folds),
        Tile("oc", blocking.made, "panels", "made"),
        *panel_passes(spec, nest, LANES if blocking.matrix else blocking.made, blocking.dot),
        Reorder("conv", (*groups, "n", *spatial, "panels", "made")),
        *(_lines(spec, blocking) if lines else _strips(spec, nest, blocking, spatial[-merged:])),
        Tile("panels", blocking.panels, "share", "panel", tail="clamp"),
        Parallelize("conv", (*groups, "n", *tasks, "part", "share")),
        *reading.passes,
        *((BlockReduction(reading.reduction, blocking.block, "panel", "partial"),) if blocking.block else ()),
        *reading.inner,
        *_tile_passes(spec, nest, blocking, reading),
        *tile_prefetches(spec, nest, machine),
    )
    return Schedule(nest, passes)


def _tile_passes(spec: ConvSpec, nest: Nest, blocking: Blocking, reading: Reading) -> tuple[Pass, ...]:
    """The register tile, by the vector units or the matrix unit."""
    if blocking.matrix:
        return matrix_passes(*_micro(spec), reading.reduction, blocking.height, blocking.matrix)
    return gemm_tile_passes(*_micro(spec), dot_passes(reading.reduction, blocking.dot, nest.channels.reduced))


def _strips(spec: ConvSpec, nest: Nest, blocking: Blocking, spatial: tuple[str, ...]) -> tuple[Pass, ...]:
    """Strips of pixels across rows: part, panels, strip, and the register tile."""
    flat = spatial[0] if len(spatial) == 1 else "flat"
    images = tuple(b.name for b in nest.program.buffers if b.name in (nest.result, "residual"))
    rows: tuple[Pass, ...] = ()
    if len(spatial) > 1:
        rows += (Collapse(spatial, flat),)
        rows += (Flatten(images, len(spatial)),) if spec.layout == "channels_first" else ()
    return (
        *rows,
        Tile(flat, blocking.pixels, "strips", "px", tail="overlap"),
        Reorder("conv", ("strips", "panels", *_micro(spec))),
        Tile("strips", blocking.strips, "part", "strip", tail="clamp"),
        Reorder("conv", ("panels", "strip")),
    )


def _lines(spec: ConvSpec, blocking: Blocking) -> tuple[Pass, ...]:
    """Rows of an image: part, panels, line, strip, and the register tile."""
    return (
        Tile("ow", blocking.pixels, "strip", "px", tail="overlap"),
        Tile("oh", blocking.strips, "part", "line", tail="clamp"),
        Reorder("conv", ("panels", "line", "strip", *_micro(spec))),
    )


def _micro(spec: ConvSpec) -> tuple[str, str]:
    """The loops of a register tile, that of the lanes last."""
    return ("px", "made") if spec.layout == "channels_last" else ("made", "px")


@dataclass(frozen=True)
class Part:
    """The pixels of a task: the number of the first one, how many there are, and the place among them of a tile's pixel px."""

    first: Index
    count: Index
    place: Index


def part_of(spec: ConvSpec, blocking: Blocking, merged: int = MAX_NDIM) -> Part:
    """What a task of ``gemm_schedule`` has of the pixels of an image, or of its last ``merged`` axes."""
    total: Index = Int(1)
    for extent in reversed(pixel_extents(spec)[-merged:]):
        total = mul(extent, total)

    def start(tile: Index) -> Index:
        """The first pixel of a tile: Tile's rule for one that overlaps the one before."""
        first = mul(tile, blocking.pixels)
        return first if blocking.pixels == 1 else minimum(first, sub(total, blocking.pixels))

    first = start(mul("part", blocking.strips))
    tile = start(add(mul("part", blocking.strips), "strip"))
    count = minimum(blocking.strips * blocking.pixels, sub(total, first))
    return Part(first, count, sub(add(tile, "px"), first))


def pixel_extents(spec: ConvSpec) -> tuple[Index, ...]:
    """The spatial sizes of the result, or of a residue class of it."""
    many = len(gather_classes(unfolded_problem(spec))) > 1
    return tuple(Var(f"count_{letter}" if many else f"O{letter.upper()}") for letter in axis_letters(spec.ndim))


def pixel_position(spec: ConvSpec, number: Index, merged: int = MAX_NDIM) -> tuple[Index, ...]:
    """The coordinates of a pixel of the result, along its last ``merged`` axes, from its number."""
    place: list[Index] = []
    extents = pixel_extents(spec)[-merged:]
    for axis, extent in reversed(tuple(enumerate(extents))):
        place.insert(0, number if axis == 0 else mod(number, extent))
        number = floordiv(number, extent)
    return tuple(place)


def fewest_pixels(spec: ConvSpec) -> int:
    """The pixels of an image, of the smallest residue class: a register tile has no more."""
    counts = [math.prod(axis.count for axis in axes) for axes in gather_classes(unfolded_problem(spec))]
    return max(1, min(counts, default=1))
