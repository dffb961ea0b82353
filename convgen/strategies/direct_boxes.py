"""direct in boxes: a task copies the part of an image that it needs, padded, and computes all channels from it, or those that
alone read it.

The copy stays in the second-level cache and no padded image is ever in memory; results of channels_first problems are
collected block by block of channels and turned on their way out.
"""

from __future__ import annotations

from dataclasses import replace

from convgen.ir.build import as_index
from convgen.ir.nodes import Index, Int, Var
from convgen.nests.build import unfolded_problem
from convgen.nests.classes import gather_classes
from convgen.nests.nest import Nest, axis_letters, pad_mode, spatial_axes
from convgen.passes.collapse import Collapse
from convgen.passes.compute_at import ComputeAt
from convgen.passes.expand_padding import ExpandPadding
from convgen.passes.parallelize import Parallelize
from convgen.passes.pipeline import Pass
from convgen.passes.reorder import Reorder
from convgen.passes.tile import Tile
from convgen.passes.trim import Trim
from convgen.passes.unpack_at import UnpackAt
from convgen.spec import ConvSpec
from convgen.strategies.boxes import Box, copies_blocks, is_by_rows, source_size
from convgen.strategies.direct_images import (
    keeps_result_apart,
    residual_passes,
    result_parts,
    result_passes,
    source_copy,
    source_order,
    turning_passes,
    unpacked_loops,
)
from convgen.strategies.dots import dot_of
from convgen.tuning.space import Config


def is_boxed(spec: ConvSpec) -> bool:
    """Whether there is anything to copy: reads that leave the source, or channels that are not last."""
    grouped_lanes = spec.made_channels == 1 and spec.groups > 1 and spec.reduced_channels != 1
    has_channels = spec.groups > 1 or spec.reduced_channels != 1
    if grouped_lanes or (spec.layout == "channels_first" and has_channels):
        return True
    return any(
        axis.lowest < 0 or axis.highest >= size
        for axes in gather_classes(unfolded_problem(spec))
        for axis, size in zip(axes, source_size(spec), strict=True)
    )


def boxed(
    spec: ConvSpec, nest: Nest, box: Box, config: Config, square: int, weights: tuple[Pass, ...]
) -> tuple[Nest, tuple[Pass, ...]]:
    """The nest with the box's sizes, and the passes up to register tiles."""
    letters = axis_letters(spec.ndim)
    sizes = _sizes(box, letters)
    program = replace(nest.program, sizes=(*nest.program.sizes, *sizes))
    nest = replace(nest, program=program, sizes={**nest.sizes, **sizes})
    copy = source_copy(spec, nest, source_order(spec, nest, config), config.get("matrix", dot_of(config)), always=True)
    assert copy is not None
    lane = "oc" if nest.channels.has_made else "g"
    groups = ["g"] if nest.channels.has_groups and nest.channels.has_made else []
    block = f"{lane}_block"
    cut = letters[:-1] if box.is_wide else letters
    parts = tuple(f"part_{letter}" for letter in cut)
    inner = [f"in_{letter}" if letter in cut else f"o{letter}" for letter in letters]
    # Results that are written with a stride, or folded, are turned as whole images.
    turned = keeps_result_apart(spec, nest) and not spec.writes_with_stride
    # By rows, the taps of all axes but the last that lie outside of the image are left out; the copy has the last one's padding.
    spatial = spatial_axes(spec, len(copy.order))
    # Along a single axis it is those that lie outside for all pixels of a register tile.
    trimmed = range(max(1, len(letters) - 1)) if is_by_rows(config) and pad_mode(spec) == "zeros" else ()
    rows = [axis for axis in trimmed if nest.low[axis] or nest.high[axis]]
    widened = (("px", config["pixels"]),) if len(letters) == 1 else ()
    trims = tuple(Trim(f"k{letters[axis]}", widened) for axis in rows)
    tasks, copied_at, moved = ("n", *parts), parts[-1], copy
    if copies_blocks(spec, config["lanes"]):
        tasks, copied_at = (*tasks, block), block
        extents = dict(enumerate(copy.extents)) | {copy.order[-1]: Int(config["lanes"])}
        moved = replace(copy, extents=tuple(extents.values()))
    local = dict(enumerate(moved.extents)) | {0: Int(1)}
    local |= {axis: Var(f"L{letter.upper()}") for axis, letter in zip(spatial, letters, strict=True)}
    return nest, (
        *(result_parts(spec, nest) if turned else result_passes(spec, nest, square)),
        *((ExpandPadding(((nest.source, tuple(spatial[axis] for axis in rows)),), keep=True),) if rows else ()),
        copy.pad(),
        *weights,
        *(Tile(f"o{x}", Var(f"R{x.upper()}"), f"part_{x}", f"in_{x}", "overlap") for x in cut),
        Reorder("conv", ("n", *parts, *groups, block, *inner, f"{lane}_lane")),
        Parallelize("conv", tasks),
        ComputeAt(copy.stage, copied_at, tuple(local[axis] for axis in copy.order)),
        *moved.moves(square, whole=False),
        *(_turned(spec, nest, box, config["lanes"], square) if turned else ()),
        *_tiles(inner, box, config["pixels"]),
        *trims,
    )


def _sizes(box: Box, letters: str) -> dict[str, int]:
    """RH, RW: a box's pixels; LH, LW: the extents of its copy."""
    result = {f"R{x.upper()}": size for x, size in zip(letters, box.result, strict=True)}
    return result | {f"L{x.upper()}": size for x, size in zip(letters, box.source, strict=True)}


def _turned(spec: ConvSpec, nest: Nest, box: Box, lanes: int, square: int) -> tuple[Pass, ...]:
    """Each block of channels of a box is collected in a worker's memory and written from there."""
    channels = nest.channels
    lane = "oc" if channels.has_made else "g"
    pixels: tuple[Index, ...] = tuple(as_index(f"R{letter.upper()}") for letter in axis_letters(spec.ndim))
    groups = (Int(1),) if channels.has_groups and channels.has_made else ()
    channel, width = unpacked_loops(spec, nest)
    return (
        *residual_passes(spec, nest, square),
        UnpackAt(f"unpack_{nest.result}", f"{lane}_block", (Int(1), *pixels, *groups, Int(lanes))),
        *turning_passes("unpacked_n", channel, width, square),
    )


def _tiles(inner: list[str], box: Box, pixels: int) -> tuple[Pass, ...]:
    flat = inner[-1]
    merge: tuple[Pass, ...] = ()
    if box.is_wide:
        flat = "flat"
        merge = (Collapse(tuple(inner[-2:]), flat),)
    return (*merge, Tile(flat, pixels, "tile", "px", tail="overlap"))
