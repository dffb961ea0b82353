"""direct for small images: one register tile or two are a row, or one a plane, and nothing is copied.

Where the kernel knows how long a row is, it knows which taps of which pixels lie outside of the image, and leaves them out; rows
of taps outside are left out of the loop over them. Of a 3×3 window over 7×7 pixels that is a fifth of the products. Such a
kernel serves images of one size.
"""

from __future__ import annotations

import math

from convgen.dtypes import DTYPES
from convgen.machine import Machine
from convgen.nests.build import build_nest, unfolded_problem
from convgen.nests.classes import gather_classes
from convgen.nests.nest import Nest, axis_letters, pad_mode, spatial_axes, with_bindings, with_constant
from convgen.passes.expand_padding import ExpandPadding
from convgen.passes.parallelize import Parallelize
from convgen.passes.pipeline import Pass
from convgen.passes.prefetch import PrefetchReads
from convgen.passes.register_tile import RegisterTile
from convgen.passes.reorder import Reorder
from convgen.passes.simplify import Simplify
from convgen.passes.skip import Skip
from convgen.passes.tile import Tile
from convgen.passes.trim import Trim
from convgen.passes.unroll import Unroll
from convgen.passes.vectorize import Vectorize
from convgen.spec import ConvSpec
from convgen.strategies.base import Schedule
from convgen.strategies.boxes import kept_share
from convgen.strategies.copies import square_size
from convgen.strategies.direct_images import result_passes
from convgen.strategies.direct_packing import pack_order, pack_weights
from convgen.strategies.dots import dot_of, dot_passes
from convgen.strategies.tiles import PREFETCHED_BYTES, even_pixels, most_rows, tile_prefetches
from convgen.tuning.cost import L2_SHARE, vector_width, waste
from convgen.tuning.space import Config

# Register tiles that a row may be cut into, each of which is a piece of code of its own, and pixels of a row.
MOST_TILES, LONGEST_ROW = 2, 32
# Vector multiply-adds that a kernel may be written out to.
MOST_UPDATES = 1024
# Residue classes, of which each has a kernel of its own.
MOST_CLASSES = 8
# What is left out must be more than this part of the products.
LEAST_OUTSIDE = 0.02
# Fewer reduced channels make inner loops that are too short.
FEWEST_REDUCED = 8


def is_whole(config: Config) -> bool:
    """Whether register tiles are rows or planes of an image that the kernel knows the size of."""
    return bool(config.get("whole", 0))


def whole_configs(spec: ConvSpec, machine: Machine) -> tuple[Config, ...]:
    """The configurations for which rows are short enough; of tiles of rows (``whole=1``) and of planes (``whole=2``)."""
    if not _applies(spec):
        return ()
    width = vector_width(spec, machine)
    found: list[Config] = []
    # Each row meets all weights if these stay in cache, or each block of weights all rows.
    order = int(spec.weight_bytes <= machine.l2_bytes * L2_SHARE)
    for axes in (2, 1)[2 - min(2, spec.ndim) :]:
        extents, least = _extents(spec, axes), _extents(spec, axes, fewest=True)
        if axes > 1 and extents != least:
            continue
        for vectors in (4, 2, 1):
            most = most_rows(machine, vectors)
            row = extents[-1]
            pixels = min(even_pixels(row, most), least[-1]) if axes == 1 else row
            rows = math.prod(extents[:-1])
            if pixels * rows > most or -(-row // pixels) > MOST_TILES or vectors * width >= 2 * spec.made_channels:
                continue
            taps = math.prod(spec.kernel_size[-axes:])
            if taps * pixels * -(-row // pixels) * rows * vectors > MOST_UPDATES:
                continue
            found.append(Config.of(pixels=pixels * rows, lanes=vectors * width, pixels_first=order, whole=axes))
    return tuple(found)


def whole_schedule(spec: ConvSpec, config: Config, machine: Machine) -> Schedule:
    """Register tiles of rows or planes times ``lanes`` made channels; of an image whose channels are last."""
    axes, lanes = config["whole"], config["lanes"]
    letters = axis_letters(spec.ndim)
    inner, outer = letters[-axes:], letters[:-axes]
    nest = with_bindings(build_nest(spec))
    for letter in inner:
        nest = with_constant(with_constant(nest, f"O{letter.upper()}"), f"I{letter.upper()}")
    spatial = spatial_axes(spec, len(nest.program.buffer(nest.source).shape))
    pixels = config["pixels"] // math.prod(_extents(spec, axes)[:-1])
    loops = (*(f"o{letter}" for letter in inner[:-1]), "px", "oc_lane")
    taps = tuple(f"k{letter}" for letter in inner)
    tasks = _tasks(nest, outer, config)
    padded = tuple(spatial[a] for a in range(spec.ndim) if nest.low[a] or nest.high[a])
    passes: tuple[Pass, ...] = (
        *result_passes(spec, nest, square_size(spec.dtype, machine)),
        ExpandPadding(((nest.source, padded),)),
        *(Trim(f"k{letters[a]}") for a in range(len(outer)) if nest.low[a] or nest.high[a]),
        Tile("oc", lanes, "oc_block", "oc_lane"),
        pack_weights(spec, nest, lanes, dot_of(config)),
        *pack_order(spec, nest),
        Tile(f"o{inner[-1]}", pixels, "tile", "px", tail="overlap"),
        Reorder("conv", (*tasks, "tile", *loops)),
        Parallelize("conv", tasks),
        Simplify(keep_unit_loops=True),
        RegisterTile(loops),
        *dot_passes("ic", dot_of(config), spec.reduced_channels),
        Vectorize("oc_lane"),
        *(Unroll(loop) for loop in ("tile", *loops[:-1], *taps)),
        Skip(),
        Simplify(),
        *_prefetches(spec, config, machine),
        *tile_prefetches(spec, nest, machine),
    )
    return Schedule(nest, passes)


def row_waste(spec: ConvSpec, config: Config) -> float:
    """Pixels in tiles over pixels of a row."""
    *rows, row = _extents(spec, config["whole"])
    return waste(row, config["pixels"] // math.prod(rows))


def _prefetches(spec: ConvSpec, config: Config, machine: Machine) -> tuple[Pass, ...]:
    """Weights that a tile of a whole plane meets once are asked for ahead of their use, if they come from beyond the cache; rows
    after the first find them in it."""
    if config["whole"] == 1 or spec.weight_bytes <= machine.l2_bytes * L2_SHARE:
        return ()
    return (PrefetchReads("packed", PREFETCHED_BYTES // DTYPES[spec.dtype].itemsize),)


def _applies(spec: ConvSpec) -> bool:
    if spec.direction == "backward_weights" or spec.layout != "channels_last" or pad_mode(spec) != "zeros":
        return False
    if spec.reduced_channels < FEWEST_REDUCED or spec.made_channels < FEWEST_REDUCED or 0 in spec.result_shape:
        return False
    if _extents(spec, 1)[-1] > LONGEST_ROW or len(gather_classes(unfolded_problem(spec))) > MOST_CLASSES:
        return False
    return 0 < kept_share(spec) < 1 - LEAST_OUTSIDE


def _extents(spec: ConvSpec, axes: int, *, fewest: bool = False) -> tuple[int, ...]:
    """The most results of a residue class along the last axes, or the fewest."""
    classes, choose = gather_classes(unfolded_problem(spec)), min if fewest else max
    return tuple(choose((found[a].count for found in classes), default=1) for a in range(spec.ndim))[-axes:]


def _tasks(nest: Nest, outer: str, config: Config) -> tuple[str, ...]:
    """The loops around register tiles: each block of weights meets all pixels, or with ``pixels_first`` each row all weights."""
    groups = ("g",) if nest.channels.has_groups else ()
    rows = tuple(f"o{letter}" for letter in outer)
    if config["pixels_first"]:
        return ("n", *rows, *groups, "oc_block")
    return (*groups, "oc_block", "n", *rows)
