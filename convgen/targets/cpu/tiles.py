"""The matrix unit's operations as a template writes them: AMX, or what stands in for it where there is none.

A stage's tiles are numbered in the order of their allocs. Operations know the tiles' numbers; emulated ones also the shapes, and
get the address at which all tiles are kept as their first operand.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from convgen.dtypes import DTYPES
from convgen.errors import IRError
from convgen.ir.nodes import Alloc, Index, Int, Stage
from convgen.ir.rewrite import statements

# The unit has so many tiles.
TILES = 8
TILE_KINDS = frozenset(
    f"{unit}tile_{kind}" for unit in ("", "emulated_") for kind in ("config", "release", "zero", "load", "store", "dot")
)
_DOTS = {"bfloat16": "tdpbf16ps", "int8": "tdpbssd"}


@dataclass(frozen=True)
class Tiles:
    """The tiles of a buffer: the number of the first, how many there are along each axis, rows and bytes a row."""

    first: int
    counts: tuple[int, ...]
    rows: int
    row_bytes: int

    def number(self, index: tuple[Index, ...]) -> int:
        """The number of a tile."""
        number = 0
        for place, count in zip(index, self.counts, strict=True):
            assert isinstance(place, Int)
            number = number * count + place.value
        return self.first + number


def tiles_of(stage: Stage) -> dict[str, Tiles]:
    """The tiles of each buffer of a stage; raises IRError for more than there are."""
    found: dict[str, Tiles] = {}
    number = 0
    for statement in statements(stage.body):
        if isinstance(statement, Alloc) and statement.buffer.space == "tile":
            *counts, rows, columns = (extent.value for extent in statement.buffer.shape if isinstance(extent, Int))
            itemsize = DTYPES[statement.buffer.dtype].itemsize
            found[statement.buffer.name] = Tiles(number, tuple(counts), rows, columns * itemsize)
            number += math.prod(counts)
    if number > TILES:
        raise IRError(f"stage {stage.name} has {number} tiles, and the matrix unit {TILES}")
    return found


def tile_text(kind: str, storage: str, pattern: tuple[int, ...]) -> tuple[str, str, str]:
    """The result, the operands and the lambda of an operation; ``pattern`` is made by lower.py."""
    numbers = ", ".join(map(str, pattern))
    size = DTYPES[storage].itemsize if storage else 0
    match kind:
        case "tile_config":
            return "types.void", "", f"lambda b: tile_config(b, ({numbers},))"
        case "tile_release":
            return "types.void", "", 'lambda b: tile_call(b, "tilerelease")'
        case "tile_zero":
            return "types.void", "", f'lambda b: tile_call(b, "tilezero", byte({numbers}))'
        case "tile_load" | "tile_store":
            name = {"tile_load": "tileloadd64", "tile_store": "tilestored64"}[kind]
            emit = f'lambda b, base, i, step: tile_move(b, "{name}", {numbers}, base, i, step, {size})'
            return "types.void", "i64, i64, i64", emit
        case "tile_dot":
            operands = ", ".join(f"byte({number})" for number in pattern)
            return "types.void", "", f'lambda b: tile_call(b, "{_DOTS[storage]}", {operands})'
        case "emulated_tile_config":
            return "i64", "", f"lambda b: emulated_tiles(b, {TILES})"
        case "emulated_tile_zero":
            return "types.void", "i64,", f"lambda b, tiles: emulated_zero(b, tiles, {numbers})"
        case "emulated_tile_load" | "emulated_tile_store":
            stores = kind == "emulated_tile_store"
            emit = (
                f"lambda b, tiles, base, i, step: emulated_move(b, tiles, {numbers}, base, i, step, {size}, {stores})"
            )
            return "types.void", "i64, i64, i64, i64", emit
        case "emulated_tile_dot":
            return "types.void", "i64,", f'lambda b, tiles: emulated_dot(b, tiles, {numbers}, "{storage}")'
        case _:
            raise IRError(f"{kind} is no operation on tiles")
