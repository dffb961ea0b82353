"""The schedule of direct for weight gradients, which sum over batch and pixels.

A register tile is ``pixels`` channels of one operand, broadcast, times ``lanes`` channels of the other, summed over the whole
batch. Lanes run along the channels that are last in the weights (``turned=1``), whose gradients then lie next to each other, or
along the others where those are more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from convgen.ir.nodes import Index, Int
from convgen.machine import Machine
from convgen.nests.build import build_nest
from convgen.nests.nest import Nest, axis_letters, pad_mode, spatial_axes
from convgen.passes.collapse import Collapse
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
from convgen.spec import ConvSpec
from convgen.strategies.base import Schedule
from convgen.strategies.direct_images import (
    channels_last_order,
    image_labels,
    source_passes,
    turned_loop,
    turning_passes,
    vector_order,
)
from convgen.strategies.tiles import candidate_tiles, register_tile_passes
from convgen.tuning.space import Config


def weights_schedule(spec: ConvSpec, config: Config, square: int) -> Schedule:
    """The sums of a weight gradient by register tiles; squares of ``square`` elements turn what lies in another order."""
    nest = build_nest(spec)
    lane, tiled = _loops(spec, nest, turned=bool(config.get("turned", 0)))
    letters = axis_letters(spec.ndim)
    taps: tuple[str, ...] = tuple(f"k{letter}" for letter in letters)
    merged: tuple[Pass, ...] = ()
    if tiled not in taps and len(taps) > 1:
        merged, taps = (Collapse(taps, "k"),), ("k",)
    channels = tuple(name for name in ("g", "oc", "ic") if _has(nest, name))
    outer = tuple(name for name in (*channels, *taps) if name not in (lane, tiled))
    tasks = (*(("g",) if "g" in outer else ()), "lanes", "tile", *(name for name in outer if name != "g"))
    result = TurnedResult.of(spec, nest, lane, config)
    passes = (
        *merged,
        *_image_passes(spec, nest, square, trims=tiled not in taps),
        *plain_passes(spec, nest, square),
        *result.unpacked(),
        Reorder("conv", (*outer, tiled, lane)),
        Tile(lane, config["lanes"], "lanes", "lane"),
        Tile(tiled, config["pixels"], "tile", "px", tail="overlap"),
        Reorder("conv", (*tasks, "px", "lane")),
        Parallelize("conv", tuple(name for name in tasks if not (result.is_local and name in taps))),
        *result.turned(square),
        *register_tile_passes("lane"),
    )
    return Schedule(nest, passes)


def weights_configs(spec: ConvSpec, machine: Machine) -> tuple[Config, ...]:
    """Register tiles along either channels, by what they are predicted to reach."""
    both = (1, 0) if spec.reduced_channels > 1 and spec.made_channels > 1 else (0,)
    found = []
    for turned in both:
        rows = max(1, weights_rows(spec, turned=bool(turned)))
        for pixels, lanes in candidate_tiles(spec, rows, machine, spec.reduced_channels if turned else None):
            found.append(Config.of(pixels=min(pixels, rows), lanes=lanes, turned=turned))
    return tuple(dict.fromkeys(found))


def weights_rows(spec: ConvSpec, *, turned: bool) -> int:
    """The extent of the loop that register tiles have rows along: channels, or taps of the last axis where those are more."""
    if turned:
        return spec.made_channels
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


def _image_passes(spec: ConvSpec, nest: Nest, square: int, *, trims: bool) -> tuple[Pass, ...]:
    """The image that is read with its padding: copied, or, where zeros would be added that ``trims`` can leave out, as it is."""
    order = vector_order(spec, nest)
    in_place = order == tuple(range(len(order))) and pad_mode(spec) == "zeros"
    if not in_place or not trims:
        return source_passes(spec, nest, square, order)
    padded = tuple(axis for axis in range(spec.ndim) if nest.low[axis] or nest.high[axis])
    axes = spatial_axes(spec, len(order))
    letters = axis_letters(spec.ndim)
    return (
        ExpandPadding(((nest.source, tuple(axes[axis] for axis in padded)),)),
        *(Trim(f"o{letters[axis]}") for axis in padded),
    )


def plain_passes(spec: ConvSpec, nest: Nest, square: int) -> tuple[Pass, ...]:
    """The image that is read without padding, with its channels last."""
    if spec.layout == "channels_last":
        return ()
    plain = next(b for b in nest.program.buffers if b.space == "operand" and b.name != nest.source)
    order = channels_last_order(spec, len(plain.shape))
    layout = tuple(map(PackedAxis, order))
    named = image_labels(spec, nest.channels.has_groups, nest.channels.has_made)
    labels = tuple(named[axis] for axis in order)
    pack = Pack(plain.name, "plain", layout, "workspace", labels)
    loops = f"plain_{labels[-1]}", f"plain_{named[-1]}"
    turned = turning_passes("plain_n", *loops, square)
    return (pack, *turned, Parallelize(f"pack_{plain.name}", ("plain_n", *turned_loop(*loops))))


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
        if lane == "ic" and has_taps and spec.reduced_channels % config["lanes"] == 0:
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
