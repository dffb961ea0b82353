"""The schedule of direct for weight gradients, which sum over batch and pixels.

A register tile is ``pixels`` channels of one operand, broadcast, times ``lanes`` channels of the other, summed over the whole
batch. Lanes run along the channels that are last in the weights (``turned=1``), whose gradients then lie next to each other, or
along the others where those are more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from convgen.dtypes import DTYPES
from convgen.ir.build import minimum, mul, sub
from convgen.ir.nodes import Buffer, Index, Int, Var
from convgen.machine import Machine
from convgen.nests.build import build_nest
from convgen.nests.nest import Nest, axis_letters, pad_mode, spatial_axes
from convgen.passes.block_reduction import BlockReduction
from convgen.passes.collapse import Collapse
from convgen.passes.copy_in import CopiedAxis, CopyIn
from convgen.passes.expand_padding import ExpandPadding
from convgen.passes.flatten import Flatten
from convgen.passes.pack import Pack, PackedAxis
from convgen.passes.parallelize import Parallelize
from convgen.passes.pipeline import Pass
from convgen.passes.reorder import Reorder
from convgen.passes.tile import Tile
from convgen.passes.transpose_blocks import TransposeBlocks
from convgen.passes.trim import Trim
from convgen.passes.unpack import Unpack
from convgen.passes.unpack_at import UnpackAt
from convgen.passes.unroll import Unroll
from convgen.spec import ConvSpec
from convgen.strategies.base import Schedule
from convgen.strategies.copies import vector_passes
from convgen.strategies.direct_images import (
    FEW_CHANNELS,
    channels_last_order,
    image_labels,
    source_copy,
    source_passes,
    turned_loop,
    turning_passes,
    vector_order,
)
from convgen.strategies.direct_weights_dots import (
    INTERLEAVED,
    TERMS,
    pair_passes,
    pair_products,
    parts_residues,
    takes_pixel_dots,
)
from convgen.strategies.dots import FEWEST_LANES, dot_of
from convgen.strategies.tiles import candidate_tiles, register_tile_passes
from convgen.strategies.widening import wide_dtype
from convgen.tuning.cost import LINE_BYTES
from convgen.tuning.space import Config

# The part of the second-level cache for what a register tile passes by; tasks of a block of lanes, and tiles of one at most.
PANEL_SHARE = 0.4
SHARES, MOST_SHARED = 4, 16
# The same where what they pass by is copied, once for each task.
_PACKED_TASKS = (1, 2)
# The loop over the taps of the last axis and a few channels.
_MERGED = "kc"


def weights_schedule(spec: ConvSpec, config: Config, square: int) -> Schedule:
    """The sums of a weight gradient by register tiles; squares of ``square`` elements turn what lies in another order."""
    nest = build_nest(spec)
    lane, tiled = _loops(spec, nest, turned=bool(config.get("turned", 0)))
    letters = axis_letters(spec.ndim)
    taps: tuple[str, ...] = tuple(f"k{letter}" for letter in letters)
    trims = tiled not in taps and not config.get("merged", 0)
    channels = tuple(name for name in ("g", "oc", "ic") if _has(nest, name))
    merged: tuple[Pass, ...] = ()
    if config.get("merged", 0):
        *others, last = taps
        groups_first = tuple(name for name in ("g", "oc") if name in channels)
        merged = (Reorder("conv", (*groups_first, *others, last, "ic")),)
        merged, taps, tiled = (*merged, Collapse((last, "ic"), _MERGED)), tuple(others), _MERGED
        channels = tuple(name for name in channels if name != "ic")
    if tiled not in taps and len(taps) > 1:
        merged, taps = (*merged, Collapse(taps, "k")), ("k",)
    outer = tuple(name for name in (*channels, *taps) if name not in (lane, tiled))
    groups = ("g",) if "g" in outer else ()
    loops = (*groups, "lanes", "tile", *(name for name in outer if name != "g"))
    result = TurnedResult.of(spec, nest, lane, config)
    tasks: tuple[Pass, ...] = (
        Parallelize("conv", tuple(name for name in loops if not (result.is_local and name in taps))),
    )
    if config.get("block", 0):
        tasks = (
            Tile("tile", config["share"], "share", "tile", tail="clamp"),
            Parallelize("conv", (*groups, "lanes", "share")),
            BlockReduction(f"o{letters[0]}", config["block"], "tile", "partial"),
            *(_panel_passes(spec, nest, config) if config.get("packed", 0) else ()),
        )
    if dot_of(config) > 1:
        images = pair_passes(spec, nest, square, turned=bool(config["turned"]))
    else:
        images = (*_image_passes(spec, nest, square, trims=trims), *plain_passes(spec, nest, square))
    passes = (
        *merged,
        *images,
        *result.unpacked(),
        Reorder("conv", (*outer, tiled, lane)),
        Tile(lane, config["lanes"], "lanes", "lane"),
        Tile(tiled, config["pixels"], "tile", "px", tail="overlap"),
        Reorder("conv", (*loops, "px", "lane")),
        *tasks,
        *(Trim(f"o{letters[axis]}") for axis in _padded_axes(spec, nest) if _is_trimmed(spec, nest, trims=trims)),
        *result.turned(square),
        *register_tile_passes("lane", pair_products(spec) if dot_of(config) > 1 else ()),
    )
    return Schedule(nest, passes)


def weights_configs(spec: ConvSpec, machine: Machine) -> tuple[Config, ...]:
    """Register tiles along either channels, by what they are predicted to reach."""
    both = (1, 0) if spec.reduced_channels > 1 and spec.made_channels > 1 else (0,)
    kinds: list[dict[str, int]] = [{"turned": turned} for turned in both]
    if _may_merge(spec):
        kinds.append({"turned": 0, "merged": 1})
    found = []
    for kind in kinds:
        turned = bool(kind["turned"])
        rows = max(1, weights_rows(spec, turned=turned, merged="merged" in kind))
        for pixels, lanes in candidate_tiles(spec, rows, machine, spec.reduced_channels if turned else None):
            config = Config.of(pixels=min(pixels, rows), lanes=lanes, **kind)
            found.append(config)
            if "merged" in kind or not sums_row_of_taps(spec, turned=turned):
                found += _in_blocks(spec, config, math.ceil(rows / config["pixels"]), machine)
    return tuple(dict.fromkeys((*found, *_with_dots(spec, machine))))


def _with_dots(spec: ConvSpec, machine: Machine) -> list[Config]:
    """Tiles of dot products of two pixels, for whole images or blocks of them."""
    if not takes_pixel_dots(spec, machine):
        return []
    found, merged = [], _may_merge(spec) and parts_residues(spec)
    kind = {"turned": 0, "merged": 1} if merged else {"turned": 1}
    rows = weights_rows(spec, turned=not merged, merged=merged)
    for pixels, lanes in candidate_tiles(spec, rows, machine, None if merged else spec.reduced_channels, INTERLEAVED):
        config = Config.of(pixels=min(pixels, rows), lanes=lanes, **kind, dot=TERMS)
        found.append(config)
        if block := _block(spec, config, machine):
            found.append(config.and_also(block=block, share=_shared(math.ceil(rows / config["pixels"]))))
    return [config for config in found if config["lanes"] >= FEWEST_LANES]


def _in_blocks(spec: ConvSpec, config: Config, tiles: int, machine: Machine) -> list[Config]:
    """The same for blocks of images, copied where that helps."""
    packed = _may_pack(spec, config)
    block = _block(spec, config.and_also(packed=1) if packed else config, machine)
    if packed:
        block = block or max(1, plain_size(spec)[0])
        shares = dict.fromkeys(math.ceil(tiles / tasks) for tasks in _PACKED_TASKS)
        return [config.and_also(block=block, share=share, packed=1) for share in shares]
    if block:
        return [config.and_also(block=block, share=_shared(tiles))]
    return []


def _shared(tiles: int) -> int:
    """Tiles of a task that pass by blocks of images."""
    return max(1, min(MOST_SHARED, math.ceil(tiles / SHARES)))


def _may_merge(spec: ConvSpec) -> bool:
    """Whether the channels of an image are few, so that a window's row of them makes a better tile."""
    return 1 < spec.reduced_channels <= FEW_CHANNELS and spec.kernel_size[-1] > 1 and spec.made_channels > 1


def _may_pack(spec: ConvSpec, config: Config) -> bool:
    """Whether the image along the lanes is read at one place for each pixel, and its lanes lie apart."""
    turned = bool(config["turned"])
    if spec.reduced_channels == 1:
        return False
    extent = (spec.reduced_channels if turned else spec.made_channels) * spec.groups
    return config["lanes"] < extent and (not turned or (math.prod(spec.kernel_size) == 1 and spec.padding_is_zero))


def _panel_passes(spec: ConvSpec, nest: Nest, config: Config) -> tuple[Pass, ...]:
    """What a block's tiles pass by, the image along their lanes, next to each other in the worker's own memory."""
    turned, lanes = bool(config["turned"]), config["lanes"]
    letters = axis_letters(spec.ndim)
    first = letters[0]
    channels = spec.reduced_channels if turned else spec.made_channels
    sizes: dict[str, Index] = {f"o{x}": Var(f"O{x.upper()}") for x in letters}
    sizes[f"o{first}"] = Int(config["block"])
    whole = channels % lanes == 0
    count: Index = Int(lanes) if whole else minimum(lanes, sub(channels, mul("lanes", lanes)))
    axes = (
        CopiedAxis("n", Var("N"), Var("n")),
        *(CopiedAxis(name[1:], extent, Var(name)) for name, extent in sizes.items()),
        CopiedAxis("lane", Int(lanes), Var("lane"), count),
    )
    copy = CopyIn(_image_of_lanes(spec, nest, turned=turned), "panel", f"o{first}_block", axes)
    tap = "k" if spec.ndim > 1 else f"k{first}"
    single: tuple[Pass, ...] = (Unroll(tap),) if math.prod(spec.kernel_size) == 1 else ()
    return (*single, copy, *vector_passes("panel_lane", count))


def plain_as_read(spec: ConvSpec, nest: Nest) -> str:
    """The buffer that the other image is read from."""
    return "plain" if spec.layout == "channels_first" or widens(spec) else nest.plain.name


def source_as_read(spec: ConvSpec, nest: Nest) -> str:
    """The buffer that the image with padding is read from, where it may be copied: its copy, if there is a reason for one."""
    copy = source_copy(spec, nest, vector_order(spec, nest), always=widens(spec))
    return nest.source if copy is None else "padded"


def _image_of_lanes(spec: ConvSpec, nest: Nest, *, turned: bool) -> str:
    """The buffer that vectors are read from: an image, or its copy with channels last."""
    return source_as_read(spec, nest) if turned else plain_as_read(spec, nest)


def sums_row_of_taps(spec: ConvSpec, *, turned: bool) -> bool:
    """Whether a register tile's rows are taps of the last axis: few channels are not turned."""
    return not turned and max(1, spec.reduced_channels) < spec.kernel_size[-1]


def plain_size(spec: ConvSpec) -> tuple[int, ...]:
    """The spatial size of the image that is read without padding."""
    return spec.spatial_size if spec.transposed else spec.output_size


def image_bytes(spec: ConvSpec) -> tuple[int, int]:
    """The sizes in bytes of the image that is read with its padding and of the other."""
    sizes = spec.input_bytes, spec.output_bytes
    return sizes[::-1] if spec.transposed else sizes


def panel_bytes(spec: ConvSpec, config: Config) -> int:
    """What a register tile passes by: of the image along its lanes whole lines, unless they are copied next to each other."""
    itemsize = DTYPES[spec.dtype if dot_of(config) > 1 else DTYPES[spec.dtype].accumulator].itemsize
    channels = spec.reduced_channels if config.get("turned", 0) else max(spec.made_channels, config["lanes"])
    run = config["lanes"] * itemsize
    if not config.get("packed", 0):
        run = max(run, min(LINE_BYTES, channels * spec.groups * itemsize))
    return spec.batch * math.prod(plain_size(spec)) * run


def _block(spec: ConvSpec, config: Config, machine: Machine) -> int:
    """Rows (planes, steps of pixels) of all images that fit the second-level cache with their sums; 0 where all do."""
    first = plain_size(spec)[0]
    steps = math.ceil(first / dot_of(config)) if spec.ndim == 1 else first
    panel, budget = panel_bytes(spec, config), machine.l2_bytes * PANEL_SHARE
    return 0 if panel <= budget or steps < 2 else max(1, int(budget * steps / panel))


def weights_rows(spec: ConvSpec, *, turned: bool, merged: bool = False) -> int:
    """The extent of the loop that register tiles have rows along: channels, or taps of the last axis where those are more, or,
    ``merged``, both."""
    if turned:
        return spec.made_channels
    if merged:
        return spec.reduced_channels * spec.kernel_size[-1]
    return max(spec.reduced_channels, spec.kernel_size[-1])


def _loops(spec: ConvSpec, nest: Nest, *, turned: bool) -> tuple[str, str]:
    """The loop of the lanes and that of a register tile's rows."""
    if turned:
        return "ic", "oc"
    more_channels = nest.channels.has_reduced and spec.reduced_channels >= spec.kernel_size[-1]
    tiled = "ic" if more_channels else f"k{axis_letters(spec.ndim)[-1]}"
    return "oc" if nest.channels.has_made else "g", tiled


def _has(nest: Nest, loop: str) -> bool:
    channels = nest.channels
    return {"g": channels.has_groups, "oc": channels.has_made, "ic": channels.has_reduced}[loop]


def _is_trimmed(spec: ConvSpec, nest: Nest, *, trims: bool) -> bool:
    """Whether the image is read in place, and pixels whose window lies outside are left out, as ``trims`` allows."""
    order = vector_order(spec, nest)
    in_place = order == tuple(range(len(order))) and pad_mode(spec) == "zeros"
    return trims and in_place and not widens(spec)


def _padded_axes(spec: ConvSpec, nest: Nest) -> tuple[int, ...]:
    return tuple(axis for axis in range(spec.ndim) if nest.low[axis] or nest.high[axis])


def _image_passes(spec: ConvSpec, nest: Nest, square: int, *, trims: bool) -> tuple[Pass, ...]:
    """The image that is read with its padding: copied, or as it is."""
    order = vector_order(spec, nest)
    if not _is_trimmed(spec, nest, trims=trims):
        return source_passes(spec, nest, square, order, always=widens(spec))
    return (in_place(spec, nest),)


def in_place(spec: ConvSpec, nest: Nest) -> Pass:
    """The image is read where it is: zeros around it become choices."""
    axes = spatial_axes(spec, len(nest.program.buffer(nest.source).shape))
    return ExpandPadding(((nest.source, tuple(axes[axis] for axis in _padded_axes(spec, nest))),))


def plain_passes(spec: ConvSpec, nest: Nest, square: int) -> tuple[Pass, ...]:
    """The image that is read without padding, with its channels last."""
    plain = nest.plain
    if spec.layout == "channels_last":
        return _widened_plain(spec, nest, plain) if widens(spec) else ()
    order = channels_last_order(spec, len(plain.shape))
    layout = tuple(map(PackedAxis, order))
    named = image_labels(spec, nest.channels.has_groups, nest.channels.has_made)
    labels = tuple(named[axis] for axis in order)
    pack = Pack(plain.name, "plain", layout, "workspace", labels)
    loops = f"plain_{labels[-1]}", f"plain_{named[-1]}"
    turned = turning_passes("plain_n", *loops, square)
    return (pack, *turned, Parallelize(f"pack_{plain.name}", ("plain_n", *turned_loop(*loops))))


def widens(spec: ConvSpec) -> bool:
    """Whether 16-bit images are copied as float32; those that are turned keep their type."""
    return spec.layout == "channels_last" and wide_dtype(spec) != spec.dtype


def _widened_plain(spec: ConvSpec, nest: Nest, plain: Buffer) -> tuple[Pass, ...]:
    labels = image_labels(spec, nest.channels.has_groups, nest.channels.has_made)
    layout = tuple(PackedAxis(axis) for axis in range(len(plain.shape)))
    pack = Pack(plain.name, "plain", layout, "workspace", labels, wide_dtype(spec))
    tasks = Parallelize(f"pack_{plain.name}", tuple(f"plain_{label}" for label in labels[:2]))
    return (pack, tasks, *vector_passes(f"plain_{labels[-1]}", plain.shape[-1]))


@dataclass(frozen=True)
class TurnedResult:
    """How the gradient is made with its lanes next to each other, [channels][taps][lanes], where it is not so itself: each
    task collects its own part, if that is one of whole lanes, or there is a stage for all of it."""

    nest: Nest
    labels: tuple[str, ...]
    lane: str
    merged: int
    part: tuple[Index, ...]

    @staticmethod
    def of(spec: ConvSpec, nest: Nest, lane: str, config: Config) -> TurnedResult:
        volume = math.prod(spec.kernel_size)
        axes = tuple(name for name in ("g", "oc", "ic") if _has(nest, name))
        has_taps = volume > 1 or not axes
        labels = (*axes, *(("k",) if has_taps else ()))
        part: tuple[Index, ...] = ()
        whole = spec.reduced_channels % config["lanes"] == 0 and not config.get("block", 0)
        if lane == "ic" and has_taps and whole:
            groups = (Int(1),) if _has(nest, "g") else ()
            part = (*groups, Int(config["pixels"]), Int(volume), Int(config["lanes"]))
        return TurnedResult(nest, labels, lane, spec.ndim + (not has_taps), part)

    @property
    def is_local(self) -> bool:
        """Whether a task writes all taps of its part of the gradient."""
        return bool(self.part)

    def unpacked(self) -> tuple[Pass, ...]:
        """The passes before loops are tiled."""
        flat = Flatten((self.nest.result,), self.merged)
        if self.labels[-1] == self.lane:
            return (flat,)
        others = tuple(axis for axis, label in enumerate(self.labels) if label != self.lane)
        order = (*others, self.labels.index(self.lane))
        return (flat, Unpack(self.nest.result, "unpacked", order, self.labels))

    def turned(self, square: int) -> tuple[Pass, ...]:
        """The passes after it."""
        if self.labels[-1] == self.lane:
            return ()
        first, across, along = (f"unpacked_{label}" for label in (self.labels[0], self.lane, self.labels[-1]))
        stage = f"unpack_{self.nest.result}"
        turn = TransposeBlocks(first, across, along, square)
        if self.is_local:
            return (UnpackAt(stage, "tile", self.part), turn)
        return (turn, Parallelize(stage, (f"{first}_block" if first == across else first,)))
