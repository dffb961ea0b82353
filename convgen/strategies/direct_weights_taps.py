"""The schedule of direct for weight gradients with one channel per group (depthwise): there is no channel to share loads with.

A register tile is ``rows`` times ``pixels`` taps of the last two axes times ``lanes`` groups. Both images pass by once for each
tile, so that it has as many taps as there are registers for.
"""

from __future__ import annotations

import math

from convgen.dtypes import DTYPES
from convgen.machine import Machine
from convgen.nests.build import build_nest
from convgen.nests.nest import Nest, axis_letters
from convgen.passes.block_reduction import BlockReduction
from convgen.passes.parallelize import Parallelize
from convgen.passes.pipeline import Pass
from convgen.passes.prefetch import PrefetchReads
from convgen.passes.register_tile import RegisterTile
from convgen.passes.reorder import Reorder
from convgen.passes.simplify import Simplify
from convgen.passes.split_border import SplitBorder
from convgen.passes.tile import Tile
from convgen.passes.unroll import Unroll
from convgen.passes.vectorize import Vectorize
from convgen.spec import ConvSpec
from convgen.strategies.base import Schedule
from convgen.strategies.copies import square_size
from convgen.strategies.direct_images import source_passes, vector_order
from convgen.strategies.direct_weights import (
    PANEL_SHARE,
    TurnedResult,
    image_bytes,
    in_place,
    plain_as_read,
    plain_passes,
    plain_size,
    source_as_read,
    widens,
)
from convgen.strategies.tiles import even_pixels
from convgen.tuning.cost import (
    CALL_SECONDS,
    FMA_LATENCY,
    FMA_PORTS,
    LINE_BYTES,
    LOAD_PORTS,
    LOOP_CYCLES,
    moving_seconds,
    vector_width,
)
from convgen.tuning.rates import rates_of
from convgen.tuning.space import Config

# Registers beside the sums: of the image that is read without padding, and one to spare.
_OTHERS = 2
_VECTORS = (1, 2, 4)
# Into how many tasks blocks of lanes may be shared out that pass by the images in blocks of rows.
_TASKS = (1, 2, 4, 8)
# Of the cycles in which a line comes from the second-level cache, those that arithmetic does not hide.
_EXPOSED = 0.25
# Images move more slowly by blocks of lanes: by how much a line alone, and what a task leaves to others.
_APART = 0.3
# So long before its use a line from memory is asked for.
_AHEAD_CYCLES = 400
# How many times a padded image is moved to be copied.
_COPIES = 6


def sums_taps(spec: ConvSpec) -> bool:
    """Whether a weight gradient has one channel per group, of many groups."""
    return spec.groups > 1 and spec.made_channels == 1 and spec.reduced_channels == 1


def taps_configs(spec: ConvSpec, machine: Machine) -> tuple[Config, ...]:
    """Tiles of as many taps as registers hold, for vectors of several lengths; zeros around the image ``copied`` with it, or
    chosen where it is read."""
    width = vector_width(spec, machine)
    height = spec.kernel_size[-2] if spec.ndim > 1 else 1
    copies = (0, 1) if _may_test(spec) else (1,)
    found: list[Config] = []
    for vectors in _VECTORS:
        lanes = min(vectors * width, 1 << (spec.groups - 1).bit_length())
        used = math.ceil(lanes / width)
        most = max(1, (machine.vector_registers - _OTHERS * used) // used)
        pixels = even_pixels(spec.kernel_size[-1], most)
        rows = max(1, min(height, most // pixels))
        even = math.ceil(height / math.ceil(height / rows))
        for copied in copies:
            config = Config.of(rows=even, pixels=pixels, lanes=lanes, copied=copied)
            found += [config, *_in_blocks(spec, config, machine)]
    return tuple(dict.fromkeys(found))


def _in_blocks(spec: ConvSpec, config: Config, machine: Machine) -> list[Config]:
    """The same for ``share`` blocks of lanes a task, which pass by so many rows (planes) of both images that stay in the
    second-level cache meanwhile."""
    if spec.ndim == 1:
        return []
    lanes, (outer, *inner) = config["lanes"], plain_size(spec)
    blocks = math.ceil(spec.groups / lanes)
    itemsize = DTYPES[DTYPES[spec.dtype].accumulator].itemsize
    found = []
    for share in dict.fromkeys(math.ceil(blocks / tasks) for tasks in _TASKS):
        pixels = math.prod(inner) * (1 + math.prod(spec.stride))
        row = pixels * min(spec.groups, share * lanes) * itemsize
        rows = max(1, min(outer, int(machine.l2_bytes * PANEL_SHARE / row)))
        found.append(config.and_also(block=rows, share=share))
    return found


def taps_seconds(spec: ConvSpec, config: Config, machine: Machine) -> float:
    """The arithmetic, and both images, which pass by once for each tile of taps, or once in blocks of rows; the copy of the one
    with padding."""
    rates = rates_of(machine)
    height = spec.kernel_size[-2] if spec.ndim > 1 else 1
    vectors = math.ceil(config["lanes"] / vector_width(spec, machine))
    sums = config["rows"] * config["pixels"] * vectors
    images = plain_size(spec)
    pixels = spec.batch * math.prod(images)
    tiles = math.ceil(height / config["rows"]) * math.ceil(spec.kernel_size[-1] / config["pixels"])
    tiles *= math.prod(spec.kernel_size[:-2])
    step = max(sums / FMA_PORTS, (sums + vectors) / LOAD_PORTS, FMA_LATENCY)
    step += _EXPOSED * vectors * (1 + config["rows"]) * rates.line + LOOP_CYCLES / max(1, images[-1])
    blocks = math.ceil(spec.groups / config["lanes"])
    source, plain = image_bytes(spec)
    block = config.get("block", 0)
    if block:
        # Sums are kept and fetched between blocks.
        step += 2 * sums / max(1, block * math.prod(images[1:]))
        tasks, passes, together = math.ceil(blocks / config["share"]), 1, config["share"] / blocks
    else:
        tasks, passes, together = blocks * tiles, tiles, 1 / blocks
    idle = math.ceil(tasks / machine.cores) * machine.cores / max(1, tasks)
    seconds = CALL_SECONDS + pixels * blocks * tiles * step / rates.clock * idle
    copied = 0 if spec.padding_is_zero or not config["copied"] else _COPIES * source
    copied += 2 * (source + plain) if spec.layout == "channels_first" else 0
    lane_bytes = config["lanes"] * DTYPES[DTYPES[spec.dtype].accumulator].itemsize
    apart = (1 + LINE_BYTES / lane_bytes) * (1 + _APART * (1 - together))
    return seconds + passes * apart * moving_seconds(source + plain, machine) + moving_seconds(copied, machine)


def _may_test(spec: ConvSpec) -> bool:
    """Whether padding can be told from the image where it is read."""
    in_place = spec.layout == "channels_last" and not widens(spec)
    return in_place and spec.padding_mode == "zeros" and not spec.padding_is_zero


def taps_schedule(spec: ConvSpec, config: Config, machine: Machine) -> Schedule:
    """The passes for such a tile."""
    nest, square = build_nest(spec), square_size(spec.dtype, machine)
    *outer, last = (f"k{letter}" for letter in axis_letters(spec.ndim))
    row = outer.pop() if outer else None
    rows = () if row is None else (row,)
    tasks = ("lanes", *outer, *(("rows",) if rows else ()), "tile")
    inner = (*(("row",) if rows else ()), "px", "lane")
    result = TurnedResult.of(spec, nest, "g", config)
    block = config.get("block", 0)
    rows_of_image = f"o{axis_letters(spec.ndim)[0]}"
    parallel: tuple[Pass, ...] = (Parallelize("conv", tasks),)
    if block:
        parallel = (
            Tile("lanes", config["share"], "share", "lanes", tail="clamp"),
            Parallelize("conv", ("share",)),
            BlockReduction(rows_of_image, block, "lanes", "partial", each="n"),
        )
    borders = zip(axis_letters(spec.ndim), nest.low, nest.high, strict=True)
    tested = () if config["copied"] else tuple(f"o{letter}" for letter, *sides in borders if any(sides))
    tiles: tuple[Pass, ...] = (
        Tile("g", config["lanes"], "lanes", "lane"),
        Tile(last, config["pixels"], "tile", "px", tail="overlap"),
        *(Tile(name, config["rows"], "rows", "row", tail="overlap") for name in rows),
    )
    passes = (
        *_image_passes(spec, nest, square, copied=bool(config["copied"])),
        *plain_passes(spec, nest, square),
        *result.unpacked(),
        Reorder("conv", (*outer, *rows, last, "g")),
        *tiles,
        Reorder("conv", (*tasks, *inner)),
        *parallel,
        *result.turned(square),
        Simplify(keep_unit_loops=True),
        RegisterTile(inner),
        Vectorize("lane"),
        *(Unroll(name) for name in inner[:-1]),
        Simplify(),
        *map(SplitBorder, tested),
        Simplify(),
        *(_prefetches(spec, nest, config, machine) if block else ()),
    )
    return Schedule(nest, passes)


def _prefetches(spec: ConvSpec, nest: Nest, config: Config, machine: Machine) -> tuple[Pass, ...]:
    """Images from beyond the second-level cache are asked for ahead of their use: the lines of a block of lanes lie apart. With
    a stride too many lines are read once and no more: memory is the limit, not how late they are asked for."""
    if sum(image_bytes(spec)) <= machine.l2_bytes or any(stride > 1 for stride in spec.stride):
        return ()
    letters = axis_letters(spec.ndim)
    loops = tuple(dict.fromkeys((f"o{letters[-1]}", f"o{letters[0]}")))
    vectors = math.ceil(config["lanes"] / vector_width(spec, machine))
    ahead = max(1, _AHEAD_CYCLES // (config["rows"] * config["pixels"] * vectors)) * spec.groups
    return (
        PrefetchReads(plain_as_read(spec, nest), ahead, loops),
        PrefetchReads(source_as_read(spec, nest) if config["copied"] else nest.source, ahead, loops),
    )


def _image_passes(spec: ConvSpec, nest: Nest, square: int, *, copied: bool) -> tuple[Pass, ...]:
    """Zeros around an image that is read in place are chosen where it is read; others are copied with their padding."""
    if copied:
        return source_passes(spec, nest, square, vector_order(spec, nest), always=widens(spec))
    return (in_place(spec, nest),)
