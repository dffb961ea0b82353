"""The schedule of direct for weight gradients with one channel per group (depthwise): there is no channel to share loads with.

A register tile is ``rows`` times ``pixels`` taps of the last two axes times ``lanes`` groups. Both images pass by once for each
tile, so that it has as many taps as there are registers for.
"""

from __future__ import annotations

import math

from convgen.machine import Machine
from convgen.nests.build import build_nest
from convgen.nests.nest import Nest, axis_letters
from convgen.passes.parallelize import Parallelize
from convgen.passes.pipeline import Pass
from convgen.passes.register_tile import RegisterTile
from convgen.passes.reorder import Reorder
from convgen.passes.simplify import Simplify
from convgen.passes.tile import Tile
from convgen.passes.unroll import Unroll
from convgen.passes.vectorize import Vectorize
from convgen.spec import ConvSpec
from convgen.strategies.base import Schedule
from convgen.strategies.direct_images import source_passes, vector_order
from convgen.strategies.direct_weights import TurnedResult, image_bytes, in_place, plain_passes, plain_size, widens
from convgen.strategies.tiles import even_pixels
from convgen.tuning.cost import (
    CALL_SECONDS,
    FMA_LATENCY,
    FMA_PORTS,
    LOAD_PORTS,
    LOOP_CYCLES,
    moving_seconds,
    vector_width,
    waste,
)
from convgen.tuning.rates import rates_of
from convgen.tuning.space import Config

# Registers beside the sums: of the image that is read without padding, and one to spare.
_OTHERS = 2
_VECTORS = (1, 2, 4)
# Of the cycles in which a line comes from the second-level cache, those that arithmetic does not hide.
_EXPOSED = 0.25
# Cycles to test on one side of the image whether a vector lies in it; with several vectors a tap, tests leave the registers.
_TEST_CYCLES, _SPILLED_TEST_CYCLES = 0.25, 3.5
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
        found += [Config.of(rows=even, pixels=pixels, lanes=lanes, copied=copied) for copied in copies]
    return tuple(dict.fromkeys(found))


def taps_seconds(spec: ConvSpec, config: Config, machine: Machine) -> float:
    """The arithmetic, and both images, which pass by once for each tile of taps; the copy of the one with padding."""
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
    if not config["copied"]:
        sides = sum(side > 0 for pair in spec.padding for side in pair)
        step += config["rows"] * config["pixels"] * sides * (_TEST_CYCLES if vectors == 1 else _SPILLED_TEST_CYCLES)
    blocks = waste(spec.groups, config["lanes"]) * spec.groups / config["lanes"]
    seconds = CALL_SECONDS + pixels * blocks * tiles * step / rates.clock
    source, plain = image_bytes(spec)
    copied = 0 if spec.padding_is_zero or not config["copied"] else _COPIES * source
    copied += 2 * (source + plain) if spec.layout == "channels_first" else 0
    return seconds + tiles * moving_seconds(source + plain, machine) + moving_seconds(copied, machine)


def _may_test(spec: ConvSpec) -> bool:
    """Whether padding can be told from the image where it is read."""
    in_place = spec.layout == "channels_last" and not widens(spec)
    return in_place and spec.padding_mode == "zeros" and not spec.padding_is_zero


def taps_schedule(spec: ConvSpec, config: Config, square: int) -> Schedule:
    """The passes for such a tile."""
    nest = build_nest(spec)
    *outer, last = (f"k{letter}" for letter in axis_letters(spec.ndim))
    row = outer.pop() if outer else None
    rows = () if row is None else (row,)
    tasks = ("lanes", *outer, *(("rows",) if rows else ()), "tile")
    inner = (*(("row",) if rows else ()), "px", "lane")
    result = TurnedResult.of(spec, nest, "g", config)
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
        Parallelize("conv", tasks),
        *result.turned(square),
        Simplify(keep_unit_loops=True),
        RegisterTile(inner),
        Vectorize("lane"),
        *(Unroll(name) for name in inner[:-1]),
        Simplify(),
    )
    return Schedule(nest, passes)


def _image_passes(spec: ConvSpec, nest: Nest, square: int, *, copied: bool) -> tuple[Pass, ...]:
    """Zeros around an image that is read in place are chosen where it is read; others are copied with their padding."""
    if copied:
        return source_passes(spec, nest, square, vector_order(spec, nest), always=widens(spec))
    return (in_place(spec, nest),)
