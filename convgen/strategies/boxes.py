"""Boxes of result pixels: what a task computes from a copy of the source that stays in the second-level cache."""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass

from convgen.dtypes import DTYPES
from convgen.machine import Machine
from convgen.nests.build import unfolded_problem
from convgen.nests.classes import AxisClass, gather_classes
from convgen.spec import ConvSpec
from convgen.tuning.cost import L2_SHARE, peak, waste
from convgen.tuning.rates import rates_of
from convgen.tuning.space import Config

# Into how many parts an axis may be cut: one that is alone, or the rows of images; widths, and the axes of volumes.
PARTS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 48, 64, 96, 128, 256, 1024, 4096)
FEW_PARTS = (1, 2, 4, 8, 16, 32)
CUTS = {1: (PARTS,), 2: (PARTS, FEW_PARTS), 3: (FEW_PARTS, FEW_PARTS, (1, 2))}
# Times that an evicted part of a result is moved: fetched, and written back half done, at the pace of scattered lines.
REWRITES = 6.0


@dataclass(frozen=True)
class Box:
    """``result`` pixels along each spatial axis, ``source`` positions that they read, and how many boxes cover the result.

    ``is_wide`` says that a box holds whole rows. ``run`` is how many pixels are cut into register tiles together: those of a
    row, or of all rows that are whole; the fewest of all residue classes.
    """

    result: tuple[int, ...]
    source: tuple[int, ...]
    count: int
    is_wide: bool
    run: int


@functools.lru_cache(maxsize=4096)
def choose_box(problem: ConvSpec, pixels: int, lanes: int, machine: Machine, *, by_rows: bool = False) -> Box:
    """The box that is expected to be fastest for register tiles of ``pixels`` times ``lanes``, ``by_rows`` for those that stay
    within a row.

    It weighs copying the border between boxes, pixels that are computed twice, reading all weights for every box, what
    overflows the second-level cache, and cores without work.
    """
    axes = _axes(problem)
    options = [
        sorted({-(-size // part) for part in parts if part <= size}, reverse=True)
        for (size, _, _), parts in zip(axes, CUTS[len(axes)], strict=True)
    ]
    least = min(pixels, math.prod(size for size, _, _ in axes[-1 if by_rows else -2 :]))
    steps = kept_steps(problem)
    boxes = [_box(sizes, axes, steps, by_rows=by_rows) for sizes in itertools.product(*options)]
    allowed = [box for box in boxes if box.run >= least]
    return min(allowed, key=lambda box: _seconds(problem, box, pixels, lanes, machine))


def is_by_rows(config: Config) -> bool:
    """Whether register tiles stay within rows; with zeros around them, rows of taps outside are left out, or taps of a line."""
    return bool(config.get("by_rows", 0))


def box_extent(problem: ConvSpec) -> int:
    """The most pixels that a register tile of a box may have."""
    return max(1, math.prod(size for size, _, _ in _axes(problem)[-2:]))


def row_extent(problem: ConvSpec) -> int:
    """The most pixels that a register tile may have that stays within a row."""
    return max(1, _axes(problem)[-1][0])


def source_size(problem: ConvSpec) -> tuple[int, ...]:
    """The spatial size of the image that is read: for a data gradient that of the output's."""
    unfolded = unfolded_problem(problem)
    return unfolded.output_size if unfolded.direction == "backward_data" else unfolded.spatial_size


def kept_steps(problem: ConvSpec) -> tuple[int, ...]:
    """How far apart the positions are, along each axis, that a copy of the source keeps: a stride beyond a window of one tap
    leaves out those between. What is copied in vectors, or turned in squares, has no gaps; nor has what a weight gradient reads
    by several taps, whose loops are one."""
    taps_are_one_loop = problem.direction == "backward_weights" and math.prod(problem.kernel_size) > 1
    if problem.transposed or problem.direction == "backward_data" or taps_are_one_loop:
        return (1,) * problem.ndim
    axes = zip(problem.kernel_size, problem.stride, problem.padding, strict=True)
    *outer, last = (stride if taps == 1 and sides == (0, 0) else 1 for taps, stride, sides in axes)
    vectors_elsewhere = problem.layout == "channels_last" and (problem.groups > 1 or problem.reduced_channels != 1)
    return (*outer, last if vectors_elsewhere else 1)


@functools.lru_cache(maxsize=4096)
def inside_share(problem: ConvSpec, pixels: int) -> float:
    """The part of the products that is left if rows of taps outside of the image are left out; along a single axis, taps that lie
    outside for all of so many neighbouring pixels."""
    if problem.ndim == 1:
        return _inside_line(problem, pixels)
    unfolded, sizes = unfolded_problem(problem), source_size(problem)
    all_taps = inside = 0
    for axes in gather_classes(unfolded):
        rows, inner = 1, 1
        for axis, size in zip(axes[:-1], sizes[:-1], strict=True):
            rows *= axis.count * axis.taps
            inner *= _inside_axis(axis, size)
        row = axes[-1].count * axes[-1].taps
        all_taps += rows * row
        inside += inner * row
    return inside / all_taps if all_taps else 1.0


@functools.lru_cache(maxsize=4096)
def kept_share(spec: ConvSpec) -> float:
    """The part of the products whose source lies inside of the image."""
    sizes = source_size(spec)
    taps = inside = 0
    for axes in gather_classes(unfolded_problem(spec)):
        taps += math.prod(axis.count * axis.taps for axis in axes)
        inside += math.prod(_inside_axis(axis, size) for axis, size in zip(axes, sizes, strict=True))
    return inside / taps if taps else 1.0


def _inside_axis(axis: AxisClass, size: int) -> int:
    """How many of the pairs of a result and a tap read inside of so many source positions."""
    inside, step = 0, axis.source_step
    for tap in range(axis.taps):
        # Result q reads low + q * step.
        low = tap * axis.tap_source_step + axis.offset
        inside += max(0, min(axis.count, -(-(size - low) // step)) - max(0, -(low // step)))
    return inside


def _inside_line(problem: ConvSpec, pixels: int) -> float:
    unfolded, (size,) = unfolded_problem(problem), source_size(problem)
    taps = inside = 0
    for (axis,) in gather_classes(unfolded):
        tiles, step = -(-axis.count // pixels), pixels * axis.source_step
        span = (pixels - 1) * axis.source_step
        for tap in range(axis.taps):
            # Tile t reads from low + t * step to as much as span beyond.
            low = tap * axis.tap_source_step + axis.offset
            first, end = max(0, -(-(-low - span) // step)), min(tiles, -(-(size - low) // step))
            inside += max(0, end - first)
        taps += axis.taps * tiles
    return inside / taps if taps else 1.0


def copies_blocks(problem: ConvSpec, lanes: int) -> bool:
    """Whether each block of lanes has a copy of its own, because it alone reads it: where lanes run along groups, evenly."""
    return problem.made_channels == 1 and problem.groups > 1 and problem.groups % lanes == 0


def copies_of_box(problem: ConvSpec, lanes: int) -> int:
    """How many copies of a box are made, one after the other."""
    return problem.groups // lanes if copies_blocks(problem, lanes) else 1


def box_source_bytes(problem: ConvSpec, box: Box, lanes: int) -> int:
    """The bytes of the copy that a box, or each block of a box, is computed from."""
    groups = lanes if copies_blocks(problem, lanes) else problem.groups
    return math.prod(box.source) * problem.reduced_channels * groups * DTYPES[problem.dtype].itemsize


def rewritten_bytes(problem: ConvSpec, pixels: int, lanes: int, held: float, machine: Machine) -> float:
    """What is moved because so many result pixels are written in turns, some ``lanes`` channels at a time, and have left the
    second-level cache, of which ``held`` bytes are taken, before their next turn."""
    made = problem.made_channels * problem.groups
    if problem.layout == "channels_first" or made <= lanes:
        return 0.0
    written = float(pixels * made * DTYPES[problem.dtype].itemsize)
    return REWRITES * written if held + written > machine.l2_bytes * L2_SHARE else 0.0


def _axes(problem: ConvSpec) -> list[tuple[int, int, tuple[AxisClass, ...]]]:
    """For each axis the fewest and the most pixels of a residue class, and the classes."""
    combined = gather_classes(unfolded_problem(problem))
    classes = [tuple(dict.fromkeys(axes[a] for axes in combined)) for a in range(problem.ndim)]
    counts = [[c.count for c in found if c.count] or [1] for found in classes]
    return [(min(count), max(count), found) for count, found in zip(counts, classes, strict=True)]


def _box(
    sizes: tuple[int, ...],
    axes: list[tuple[int, int, tuple[AxisClass, ...]]],
    steps: tuple[int, ...],
    *,
    by_rows: bool,
) -> Box:
    is_wide = len(axes) > 1 and sizes[-1] == axes[-1][0] and not by_rows
    result = (*sizes[:-1], axes[-1][1]) if is_wide else sizes
    kept = (step > 1 for step in steps)
    source = tuple(
        size if alone else _reach(size, classes)
        for alone, size, (_, _, classes) in zip(kept, result, axes, strict=True)
    )
    count = math.prod(-(-most // size) for size, (_, most, _) in zip(result, axes, strict=True))
    return Box(result, source, count, is_wide, math.prod(sizes[-2:]) if is_wide else sizes[-1])


def _reach(result: int, classes: tuple[AxisClass, ...]) -> int:
    """The source positions between the first and the last that so many result pixels read."""
    return max(
        ((result - 1) * c.source_step + max(0, c.taps - 1) * abs(c.tap_source_step) + 1 for c in classes), default=1
    )


def _seconds(problem: ConvSpec, box: Box, pixels: int, lanes: int, machine: Machine) -> float:
    tasks = max(1, problem.batch * box.count)
    result = math.prod(box.result)
    made, itemsize = problem.made_channels * problem.groups, DTYPES[problem.dtype].itemsize
    classes = math.prod(problem.stride) if problem.writes_with_stride else 1
    terms = math.prod(problem.kernel_size) * problem.reduced_channels / classes
    compute = result * waste(box.run, pixels) * terms * made / peak(problem, machine)
    copied = box_source_bytes(problem, box, lanes)
    block = min(lanes, made) * itemsize
    held = copied + terms * block + (result * block if problem.layout == "channels_first" else 0)
    room = machine.l2_bytes * L2_SHARE
    moved = 2.0 * copied * copies_of_box(problem, lanes)
    if held > room:
        moved += copied * (1 + made / lanes)
    if copied + problem.weight_bytes > room:
        moved += problem.weight_bytes / 2
    moved += rewritten_bytes(problem, result, lanes, held, machine)
    moved /= rates_of(machine).memory
    rounds = -(-tasks // machine.cores) * machine.cores
    return rounds * classes * (compute + moved)
