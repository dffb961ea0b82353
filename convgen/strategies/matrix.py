"""Sums by the processor's matrix unit: which tiles are worth trying, what they cost, and the passes that make them.

Numbers of float32 are split into two pieces of bfloat16 where the error of that is accepted (``pieces=2``).

A register tile is ``pixels`` pixels, in tiles of ``height`` rows, times ``lanes`` made channels, in tiles of 16; a step of it
adds ``matrix`` reduced channels, as many as a row of a tile holds or fewer that waste less.
"""

from __future__ import annotations

import math

from convgen.dtypes import DTYPES
from convgen.ir.check import TILE_BYTES, TILE_ROWS
from convgen.ir.types import TILE_TERMS
from convgen.machine import Machine
from convgen.passes.pieces import Pieces
from convgen.passes.pipeline import Pass
from convgen.passes.simplify import Simplify
from convgen.passes.tensorize import LANES, Tensorize
from convgen.passes.vectorize import Vectorize
from convgen.spec import ConvSpec
from convgen.strategies.accuracy import transform_limit
from convgen.strategies.reference import sum_error_bound
from convgen.transforms.split import Algorithms, Split
from convgen.tuning.cost import waste
from convgen.tuning.space import Config

# Two times two tiles of sums, and two of each factor, are all that there are.
MOST_TILES = 2
# What a row of a product takes, a row that is loaded, and a vector of sums on its way to the result.
ROW_CYCLES, LOAD_CYCLES, FINISH_CYCLES = 1.0, 0.5, 4.0


def split_bound(spec: ConvSpec) -> float:
    """The relative L2 error to expect at most of sums of products of pieces; 0 where the problem's accuracy, or its type, admits
    none."""
    if spec.dtype != "float32" or spec.direction == "backward_weights":
        return 0.0
    bound = math.hypot(Split().relative_error, sum_error_bound(spec))
    return bound if bound <= transform_limit(spec) else 0.0


def pieces_of(config: Config) -> int:
    """Into how many pieces numbers are split."""
    return config.get("pieces", 1)


def splits_of(config: Config) -> Algorithms:
    """What the numbers of a configuration are held to."""
    pieces = pieces_of(config)
    return (Split(pieces),) if pieces > 1 else ()


def split_passes(source: str, config: Config) -> tuple[Pass, ...]:
    """Splits a copy of the image and the packed weights, if a configuration does."""
    pieces = pieces_of(config)
    return (Pieces(source, "packed", pieces, Split(pieces).products),) if pieces > 1 else ()


def matrix_terms(spec: ConvSpec, machine: Machine) -> int:
    """How many terms lie together in a tile; 0 where the machine has no unit for the type, where lanes do not run along made
    channels, or where there is a single term a tap.

    The unit takes denormals of bfloat16 for zeros, which "strict" does not admit.
    """
    if not machine.matrix or spec.direction == "backward_weights" or spec.reduced_channels <= 1:
        return 0
    if (spec.dtype == "bfloat16" and spec.accuracy == "strict") or (spec.made_channels == 1 and spec.groups > 1):
        return 0
    dtype = _tile_dtype(spec) if spec.dtype != "float32" or split_bound(spec) else ""
    return TILE_TERMS.get((dtype, dtype), 0)


def _tile_dtype(spec: ConvSpec) -> str:
    """The type of the elements of tiles."""
    return "bfloat16" if spec.dtype == "float32" else spec.dtype


def matrix_depth(spec: ConvSpec, terms: int) -> int:
    """Terms of a step: the reduced channels in as few steps as possible, rounded up to whole groups of ``terms``."""
    most = TILE_BYTES // DTYPES[_tile_dtype(spec)].itemsize
    steps = math.ceil(spec.reduced_channels / most)
    return terms * math.ceil(spec.reduced_channels / (steps * terms))


def matrix_tiles(spec: ConvSpec, machine: Machine, pixels: int) -> tuple[Config, ...]:
    """Tiles for rows of so many pixels: ``pixels`` and ``lanes`` of a register tile, ``dot``, ``matrix`` and ``height``."""
    terms = matrix_terms(spec, machine)
    if not terms:
        return ()
    blocks = math.ceil(spec.made_channels / LANES)
    lanes = LANES * (MOST_TILES if blocks % MOST_TILES == 0 else 1)
    found = []
    for rows in range(MOST_TILES, 0, -1):
        tiles = math.ceil(pixels / (TILE_ROWS * rows))
        height = math.ceil(pixels / (tiles * rows))
        if height * rows <= pixels:
            depth = matrix_depth(spec, terms)
            config = Config.of(pixels=height * rows, lanes=lanes, dot=terms, matrix=depth, height=height)
            found.append(config.and_also(pieces=Split().pieces) if spec.dtype == "float32" else config)
    return tuple(sorted(dict.fromkeys(found), key=lambda config: waste(pixels, config["pixels"])))


def is_matrix_config(config: Config) -> bool:
    """Whether a configuration is one of the matrix unit."""
    return bool(config.get("matrix", 0))


def matrix_passes(rows: str, lanes: str, reduction: str, height: int, depth: int) -> tuple[Pass, ...]:
    """Makes the loops ``rows`` and ``lanes`` a register tile of the matrix unit."""
    return (
        Simplify(keep_unit_loops=True),
        Tensorize(rows, lanes, reduction, height, depth, "sums"),
        Simplify(keep_unit_loops=True),
        Vectorize(lanes),
        Simplify(),
    )


def matrix_efficiency(config: Config, pixels: int, lanes: int, steps: float, width: int) -> float:
    """Multiply-adds over those that the vector units would make at their peak, two vectors of ``width`` a cycle; ``steps`` are
    the terms of a sum."""
    rows, blocks = pixels // config["height"], lanes // LANES
    weights = config["matrix"] // config["dot"]
    step = max(ROW_CYCLES * pixels * blocks, LOAD_CYCLES * (pixels + blocks * weights))
    step *= len(Split(pieces_of(config)).products)
    cycles = steps / config["matrix"] * step + FINISH_CYCLES * pixels * blocks + LOAD_CYCLES * rows * blocks
    return pixels * lanes * steps / (2 * width * cycles)
