"""pointwise: a kernel of one tap is a product of matrices, and the images are those matrices as they lie in memory.

In channels_last each pixel's channels are broadcast, where they are, to vectors of made channels. In channels_first vectors
run along the pixels, and what a task reads is first copied to local memory, [reduced channel][pixel], so that neighbouring
channels do not lie on different pages of memory and pixels a stride apart become neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass

from convgen.ir.build import add, minimum, mul, sub
from convgen.ir.nodes import Index, Int, Var
from convgen.machine import Machine
from convgen.nests.nest import Nest, axis_letters
from convgen.passes.copy_in import CopiedAxis, CopyIn
from convgen.passes.expand_padding import ExpandPadding
from convgen.passes.pipeline import Pass
from convgen.passes.tile import Tile
from convgen.passes.unroll import Unroll
from convgen.passes.unsigned import Unsigned
from convgen.passes.vectorize import Vectorize
from convgen.spec import ConvSpec
from convgen.strategies.base import Schedule
from convgen.strategies.copies import vector_passes
from convgen.strategies.dots import adds_bytes, dot_of, with_dots
from convgen.strategies.gemm import Blocking, Reading, fewest_pixels, gemm_schedule, part_of, pixel_position
from convgen.strategies.gemm_cost import (
    SCALAR_COPY_CYCLES,
    gemm_refusal,
    gemm_seconds,
    is_matrix,
    vector_copy_cycles,
)
from convgen.strategies.gemm_tiles import blockings, matrix_blockings
from convgen.strategies.matrix import split_bound, split_passes, splits_of
from convgen.strategies.merging import merged_pixels
from convgen.strategies.reference import sum_error_bound
from convgen.strategies.widening import wide_dtype
from convgen.transforms.split import Algorithms
from convgen.tuning.cost import pixels_made
from convgen.tuning.space import Config


@dataclass(frozen=True)
class Pointwise:
    """Register tiles of ``made`` channels times ``pixels``; see gemm.Blocking."""

    name: str = "pointwise"

    def refusal(self, spec: ConvSpec, machine: Machine) -> str | None:
        if not is_matrix(spec):
            return f"kernel_size={spec.kernel_size} with its padding and stride does not leave the image as it is"
        return gemm_refusal(spec)

    def default(self, spec: ConvSpec, machine: Machine) -> Config:
        return self.space(spec, machine)[0]

    def space(self, spec: ConvSpec, machine: Machine) -> tuple[Config, ...]:
        problem = merged_pixels(spec)
        copied = _is_copied(problem)
        terms, pixels = spec.reduced_channels, fewest_pixels(problem)
        converts = wide_dtype(spec) != spec.dtype
        found = list(blockings(problem, machine, terms, pixels, copied=copied or converts))
        if not copied:
            tiles = blockings(problem, machine, terms, pixels, copied=spec.dtype == "int8")
            found += with_dots((_whole_blocks(tile, terms) for tile in tiles), spec, machine, "made")
            found += matrix_blockings(problem, machine, pixels)
        return tuple(sorted(found, key=lambda config: self.predicted_seconds(spec, config, machine)))

    def error_bound(self, spec: ConvSpec) -> float:
        return max(sum_error_bound(spec), split_bound(spec))

    def algorithms(self, spec: ConvSpec, config: Config) -> Algorithms:
        """What numbers split into pieces are held to."""
        return splits_of(config)

    def predicted_seconds(self, spec: ConvSpec, config: Config, machine: Machine) -> float:
        problem, bytewise = merged_pixels(spec), adds_bytes(spec, config)
        converts = wide_dtype(spec, dot_of(config)) != spec.dtype
        if not _is_copied(problem) and not bytewise and not converts:
            return gemm_seconds(problem, config, machine, loops=1.0)
        copied = pixels_made(problem) * spec.reduced_channels * spec.groups
        cycles = vector_copy_cycles(spec, machine) if bytewise or converts or _is_even(problem) else SCALAR_COPY_CYCLES
        return gemm_seconds(problem, config, machine, copied=copied, copy_cycles=cycles, loops=1.0)

    def schedule(self, spec: ConvSpec, config: Config, machine: Machine) -> Schedule:
        return gemm_schedule(merged_pixels(spec), Blocking(**dict(config.values)), _reading, machine)


def _whole_blocks(config: Config, terms: int) -> Config:
    """The configuration, without blocks of the sum where these are not all of one length."""
    if not config["block"] or terms % config["block"] == 0:
        return config
    return Config.of(**{**dict(config.values), "block": 0})


def _is_copied(spec: ConvSpec) -> bool:
    return spec.layout == "channels_first"


def _is_even(spec: ConvSpec) -> bool:
    """Whether pixels that are neighbours in the result are neighbours in the source, across rows."""
    return spec.ndim == 1 and spec.stride == (1,)


def _reading(spec: ConvSpec, nest: Nest, blocking: Blocking) -> Reading:
    plain: tuple[Pass, ...] = (
        ExpandPadding(((nest.source, ()),)),
        *(Unroll(f"k{letter}") for letter in axis_letters(spec.ndim)),
    )
    if blocking.matrix and (blocking.pieces > 1 or not _is_even(spec)):
        split = split_passes("columns", Config.of(pieces=blocking.pieces))
        return Reading((*plain, *_rows_copy(spec, nest, blocking), *split), "ic")
    if blocking.dot > 1 and spec.dtype == "int8" and not blocking.matrix:
        unsigned = Unsigned("columns", "packed", "offsets")
        return Reading((*plain, *_rows_copy(spec, nest, blocking), unsigned), "ic")
    if not _is_copied(spec):
        widens = wide_dtype(spec, blocking.dot) != spec.dtype
        return Reading((*plain, *(_rows_copy(spec, nest, blocking) if widens else ())), "ic")
    return Reading(plain, "ic", _copy_passes(spec, nest, blocking))


def _rows_copy(spec: ConvSpec, nest: Nest, blocking: Blocking) -> tuple[Pass, ...]:
    """What a task reads: [pixel][reduced channel], or [pixel] of a single channel."""
    part, reduced = part_of(spec, blocking), Int(nest.channels.reduced)
    axes: tuple[CopiedAxis, ...] = (CopiedAxis("px", Int(blocking.strips * blocking.pixels), part.place, part.count),)
    channel: tuple[Index, ...] = ()
    if nest.channels.has_reduced:
        axes, channel = (*axes, CopiedAxis("c", reduced, Var("ic"))), (Var("c"),)
    pixel = pixel_position(spec, add(part.first, "px"))
    place = tuple(mul(position, stride) for position, stride in zip(pixel, spec.stride, strict=True))
    group = (Var("g"),) if nest.channels.has_groups else ()
    copy = CopyIn(
        nest.source,
        "columns",
        "share",
        axes,
        (Var("n"), *place, *group, *channel),
        dtype=wide_dtype(spec, blocking.dot),
    )
    return (copy, *(vector_passes("columns_c", reduced) if channel else ()))


def _copy_passes(spec: ConvSpec, nest: Nest, blocking: Blocking) -> tuple[Pass, ...]:
    """What a task, or a block of its reduction, reads: [reduced channel][pixel]."""
    part = part_of(spec, blocking)
    width = blocking.strips * blocking.pixels
    axes: tuple[CopiedAxis, ...] = (CopiedAxis("px", Int(width), part.place, part.count),)
    channel: tuple[Index, ...] = ()
    if nest.channels.has_reduced:
        reduced, block = nest.channels.reduced, blocking.block
        first = mul("ic_block", block)
        rest = minimum(block, sub(reduced, first)) if block else Int(reduced)
        axes = (CopiedAxis("c", Int(block or reduced), Var("ic"), rest), *axes)
        channel = (add(first, "c"),)
    pixel = pixel_position(spec, add(part.first, "px"))
    place = tuple(mul(position, stride) for position, stride in zip(pixel, spec.stride, strict=True))
    group = (Var("g"),) if nest.channels.has_groups else ()
    even = _is_even(spec)
    # Pixels outermost where each of them has its row and column worked out.
    order = tuple(axis.label for axis in (axes if even else reversed(axes)))
    origin = (Var("n"), *group, *channel, *place)
    copy = CopyIn(
        nest.source, "columns", "ic_block" if blocking.block else "share", axes, origin, order, wide_dtype(spec)
    )
    if not even:
        return (copy,)
    vectors = (
        Tile("columns_px", blocking.pixels, "columns_at", "columns_lane", tail="overlap"),
        Vectorize("columns_lane"),
    )
    return (copy, *vectors)
