"""implicit_gemm: the product of weights and windows without a matrix of windows.

A task copies the rows that its pixels read, with their padding, to local memory, where a window's element is found by adding
tap and pixel; several panels of weights meet it there. In channels_last the channels of neighbouring taps follow each other, so
that a row of a window is one loop. In channels_first vectors run along the pixels of a row; where pixels are a stride apart, the
copy keeps each residue of the column by itself, so that vectors find neighbours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from convgen.ir.build import add, floordiv, minimum, mod, mul, sub
from convgen.ir.nodes import Index, Int, Var
from convgen.machine import Machine
from convgen.nests.build import unfolded_problem
from convgen.nests.classes import AxisClass, gather_classes
from convgen.nests.nest import Nest, axis_letters, pad_mode, spatial_axes
from convgen.passes.clear_padding import ClearPadding
from convgen.passes.collapse import Collapse
from convgen.passes.copy_in import CopiedAxis, CopyIn
from convgen.passes.expand_padding import ExpandPadding
from convgen.passes.flatten import Flatten
from convgen.passes.order_sum import OrderSum
from convgen.passes.pipeline import Pass
from convgen.passes.tile import Tile
from convgen.passes.unroll import Unroll
from convgen.passes.vectorize import Vectorize
from convgen.spec import ConvSpec
from convgen.strategies.base import Schedule
from convgen.strategies.gemm import (
    Blocking,
    Reading,
    gemm_schedule,
    part_of,
    pixel_extents,
    pixel_position,
)
from convgen.strategies.gemm_cost import gemm_refusal, gemm_seconds, is_matrix
from convgen.strategies.gemm_tiles import blockings
from convgen.strategies.reference import sum_error_bound
from convgen.strategies.widening import wide_dtype
from convgen.tuning.cost import vector_width
from convgen.tuning.space import Config

# With fewer channels, a row of a window rather than its channels is the innermost loop.
FEW_CHANNELS = 16
# What copying rows of so few channels costs more: they begin anywhere in a vector.
SHORT_ROWS = 2.0
# A row of so many taps is unrolled.
MAX_UNROLLED = 16
# What copying costs: an element that is tested for padding, and a vector that is not.
ELEMENT_CYCLES = 2.5
VECTOR_CYCLES = 4.0


@dataclass(frozen=True)
class ImplicitGemm:
    """Register tiles of ``made`` channels times ``pixels``; see gemm.Blocking."""

    name: str = "implicit_gemm"

    def refusal(self, spec: ConvSpec, machine: Machine) -> str | None:
        reason = gemm_refusal(spec)
        if reason is not None:
            return reason
        if is_matrix(spec):
            return "windows of one pixel need no rows around them"
        if spec.layout == "channels_last" and spec.groups > 1 and spec.reduced_channels == 1:
            return f"groups={spec.groups} of one reduced channel leave nothing that lies side by side"
        if len(gather_classes(unfolded_problem(spec))) > 1:
            return f"stride={spec.stride} leaves each class of pixels taps of its own"
        if spec.layout == "channels_first" and spec.stride[-1] > 1 and spec.padding_mode != "zeros":
            return f"stride={spec.stride} with padding_mode={spec.padding_mode!r} would read columns that no window has"
        return None

    def default(self, spec: ConvSpec, machine: Machine) -> Config:
        return self.space(spec, machine)[0]

    def space(self, spec: ConvSpec, machine: Machine) -> tuple[Config, ...]:
        problem = unfolded_problem(spec)
        result = problem.output_size if problem.direction == "forward" else problem.spatial_size
        pixels = result[-1] if spec.layout == "channels_first" else math.prod(result[-2:])
        taps = math.prod(spec.kernel_size)
        found = blockings(problem, machine, spec.reduced_channels, max(1, pixels), copied=False, taps=taps)
        return tuple(sorted(found, key=lambda config: self.predicted_seconds(spec, config, machine)))

    def error_bound(self, spec: ConvSpec) -> float:
        return sum_error_bound(spec)

    def predicted_seconds(self, spec: ConvSpec, config: Config, machine: Machine) -> float:
        width = vector_width(spec, machine)
        cycles = ELEMENT_CYCLES if not _is_cleared(spec) else VECTOR_CYCLES / width
        few = spec.reduced_channels < FEW_CHANNELS
        loops = math.prod(spec.kernel_size[:-1]) * (1 if few else spec.kernel_size[-1])
        copied = _copied_elements(spec, config) * (SHORT_ROWS if few else 1.0)
        return gemm_seconds(spec, config, machine, copied=copied, copy_cycles=cycles, loops=loops, streams=False)

    def schedule(self, spec: ConvSpec, config: Config, machine: Machine) -> Schedule:
        if spec.layout == "channels_first":
            return gemm_schedule(spec, Blocking(**dict(config.values)), _reading_lines, machine, merged=1)
        return gemm_schedule(spec, Blocking(**dict(config.values)), _reading_strips, machine, merged=2)


@dataclass(frozen=True)
class _Axis:
    """One spatial axis: pixel i and tap k are at i * step + k * reach + start of the source, and at i * step + k * reach + shift
    of a copy that begins with the first element read; ``span`` is what the taps add to the last pixel."""

    name: str
    step: int
    reach: int
    offset: int
    taps: int

    @property
    def shift(self) -> int:
        return max(0, -(self.taps - 1) * self.reach)

    @property
    def span(self) -> int:
        return abs((self.taps - 1) * self.reach)

    def place(self, pixel: Index) -> Index:
        """Where a window's tap lies in the copy, for a pixel counted from the copy's first."""
        return add(mul(pixel, self.step), mul(f"k{self.name}", self.reach), self.shift)

    def origin(self, first: Index, label: str) -> Index:
        """Which element of the source the copy has at a place."""
        return add(mul(first, self.step), label, self.offset - self.shift)

    def length(self, pixels: Index) -> Index:
        """How much of the source so many pixels read."""
        return add(mul(sub(pixels, 1), self.step), self.span + 1)


def _axes(spec: ConvSpec) -> tuple[_Axis, ...]:
    (classes,) = gather_classes(unfolded_problem(spec))

    def named(letter: str, axis: AxisClass) -> _Axis:
        return _Axis(letter, axis.source_step, axis.tap_source_step, axis.offset, axis.taps)

    return tuple(named(letter, axis) for letter, axis in zip(axis_letters(spec.ndim), classes, strict=True))


def _is_cleared(spec: ConvSpec) -> bool:
    """Whether the copy is made of zeros and vectors of the source: it is padded with zeros, and its columns and the taps that are
    copied one by one are neighbours."""
    axes = _axes(spec)
    apart = spec.layout == "channels_first" and axes[-1].step > 1
    return pad_mode(spec) == "zeros" and not apart and all(axis.reach == 1 for axis in axes[:-2])


def _copied_elements(spec: ConvSpec, config: Config) -> float:
    """Elements of the source that all tasks copy, those that neighbouring tasks share more than once."""
    problem = unfolded_problem(spec)
    axes = _axes(spec)
    (classes,) = gather_classes(problem)
    height, width = (1, 1, *(axis.count for axis in classes))[-2:]
    tiles = config["strips"] * (1 if spec.layout == "channels_first" and spec.ndim > 1 else config["pixels"])
    if spec.ndim == 1:
        lines, parts, row = 1.0, width / tiles, tiles * axes[-1].step + axes[-1].span
    else:
        lines = min(height, tiles if spec.layout == "channels_first" else tiles / width + 1)
        parts = max(1.0, height / lines if spec.layout == "channels_first" else height * width / tiles)
        lines = (lines - 1) * axes[-2].step + axes[-2].span + 1
        row = (width - 1) * axes[-1].step + axes[-1].span + 1
    planes = math.prod(axis.count * axis.taps for axis in classes[:-2])
    return spec.batch * spec.groups * spec.reduced_channels * planes * parts * lines * row


def _leading(axes: tuple[_Axis, ...], merged: int) -> tuple[tuple[CopiedAxis, ...], tuple[Index, ...]]:
    """Axes whose pixels are tasks of their own: their taps are copied one by one."""
    leading = axes[:-merged]
    copied = tuple(CopiedAxis(f"t{axis.name}", Int(axis.taps), Var(f"k{axis.name}")) for axis in leading)
    origin = tuple(
        add(mul(f"o{axis.name}", axis.step), mul(f"t{axis.name}", axis.reach), axis.offset) for axis in leading
    )
    return copied, origin


def _index(nest: Nest, channel: str, spatial: tuple[Index, ...], *, last: bool) -> tuple[Index, ...]:
    channels: tuple[Index, ...] = (Var("g"),) if nest.channels.has_groups else ()
    channels += (Var(channel),) if nest.channels.has_reduced else ()
    return (Var("n"), *spatial, *channels) if last else (Var("n"), *channels, *spatial)


def _channel(nest: Nest) -> tuple[CopiedAxis, ...]:
    return (CopiedAxis("c", Int(nest.channels.reduced), Var("ic")),) if nest.channels.has_reduced else ()


def _reading_strips(spec: ConvSpec, nest: Nest, blocking: Blocking) -> Reading:
    """channels_last: [row][column][channel], pixels across rows."""
    axes = _axes(spec)
    problem = unfolded_problem(spec)
    part = part_of(problem, blocking, merged=2)
    most = blocking.strips * blocking.pixels
    copied, origin = _leading(axes, 2)
    if spec.ndim == 1:
        (column,) = axes
        copied += (CopiedAxis("q", column.length(Int(most)), column.place(part.place), column.length(part.count)),)
        origin += (column.origin(part.first, "q"),)
    else:
        row, column = axes[-2:]
        width = pixel_extents(problem)[-1]
        pixel = pixel_position(problem, add(part.place, part.first), merged=2)
        first = floordiv(part.first, width)
        lines = add(sub(floordiv(sub(add(part.first, part.count), 1), width), first), 1)
        bound = minimum(add(floordiv(add(most - 2, width), width), 1), pixel_extents(problem)[-2])
        copied += (CopiedAxis("r", row.length(bound), row.place(sub(pixel[0], first)), row.length(lines)),)
        copied += (CopiedAxis("q", column.length(width), column.place(pixel[1])),)
        origin += (row.origin(first, "r"), column.origin(Int(0), "q"))
    copied += _channel(nest)
    few = nest.channels.has_reduced and nest.channels.reduced < FEW_CHANNELS
    copy = CopyIn(nest.source, "rows", "share", copied, _index(nest, "c", origin, last=True), dtype=wide_dtype(spec))
    merge: tuple[Pass, ...] = ()
    if few and column.reach == 1:
        merge = (Collapse((f"k{column.name}", "ic"), "k"),)
    # Groups lie between the columns and their channels.
    run = few and not nest.channels.has_groups
    passes = (copy, *_filled(spec, nest, copied, runs=run), *merge)
    return Reading(passes, "k" if merge else "ic" if nest.channels.has_reduced else f"k{column.name}")


def _reading_lines(spec: ConvSpec, nest: Nest, blocking: Blocking) -> Reading:
    """channels_first: [channel][row][residue][column], vectors along a row."""
    axes = _axes(spec)
    column = axes[-1]
    problem = unfolded_problem(spec)
    if spec.ndim == 1:
        part = part_of(problem, blocking, merged=1)
        copied, origin = _leading(axes, 1)
        first, pixel, count = part.first, part.place, part.count
        width: Index = Int(blocking.strips * blocking.pixels)
    else:
        row = axes[-2]
        copied, origin = _leading(axes, 2)
        height, width = pixel_extents(problem)[-2:]
        start = mul("part", blocking.strips)
        lines = minimum(blocking.strips, sub(height, start))
        bound = minimum(blocking.strips, height)
        copied += (CopiedAxis("r", row.length(bound), row.place(Var("line")), row.length(lines)),)
        origin += (row.origin(start, "r"),)
        begin = mul("strip", blocking.pixels)
        begin = begin if blocking.pixels == 1 else minimum(begin, sub(width, blocking.pixels))
        first, pixel, count = Int(0), add(begin, "px"), width
    if column.step == 1:
        copied += (CopiedAxis("q", column.length(width), column.place(pixel), column.length(count)),)
        origin += (column.origin(first, "q"),)
    else:
        step, ahead = column.step, mul(f"k{column.name}", column.reach)
        reach = column.span // step
        copied += (CopiedAxis("residue", Int(min(step, column.span + 1)), mod(ahead, step)),)
        copied += (CopiedAxis("q", add(width, reach), add(pixel, floordiv(ahead, step)), add(count, reach)),)
        origin += (add(mul(first, step), mul("q", step), "residue", column.offset),)
    copied = (*_channel(nest), *copied)
    copy = CopyIn(nest.source, "rows", "share", copied, _index(nest, "c", origin, last=False), dtype=wide_dtype(spec))
    few = nest.channels.has_reduced and nest.channels.reduced < FEW_CHANNELS and column.taps > 1
    taps = tuple(f"k{axis.name}" for axis in axes)
    inner: tuple[Pass, ...] = ()
    if few and column.taps <= MAX_UNROLLED:
        inner = (OrderSum((*taps[:-1], "ic", taps[-1])), Unroll(taps[-1]))
    passes = (copy, *_filled(spec, nest, copied, runs=False), *inner)
    return Reading(passes, "ic" if nest.channels.has_reduced else taps[0])


def _filled(spec: ConvSpec, nest: Nest, copied: tuple[CopiedAxis, ...], *, runs: bool) -> tuple[Pass, ...]:
    """The copy itself: zeros first, then what lies inside in vectors; another padding, or columns a stride apart, one by one.

    With ``runs`` the last two axes are one in both places.
    """
    spatial = spatial_axes(spec, len(nest.program.buffer(nest.source).shape))
    names = tuple(f"rows_{axis.label}" for axis in copied)
    if not _is_cleared(spec):
        return (ExpandPadding(((nest.source, spatial),)),)
    passes: tuple[Pass, ...] = (ClearPadding(names[0], spatial),)
    last = names[-1]
    if runs:
        last = "rows_run"
        passes += (
            Collapse(names[-2:], last),
            Collapse((f"clear_{names[-2]}", f"clear_{names[-1]}"), f"clear_{last}"),
            Flatten((nest.source, "rows"), 2),
        )
    return (
        *passes,
        Tile(last, 32, f"{last}_at", f"{last}_lane"),
        Vectorize(f"{last}_lane"),
        Tile(f"clear_{last}", 32, f"clear_{last}_at", f"clear_{last}_lane"),
        Vectorize(f"clear_{last}_lane"),
    )
