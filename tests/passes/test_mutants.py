"""The property of test_meaning.py notices when a pass is wrong: each mutant is a slip that is easily made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from convgen.ir import build
from convgen.ir.nodes import For, Index, Int, Less, Stage, Stmt, Store, Value
from convgen.passes import expand_padding, launch_grid, pad, predicate, share_loops, simplify, split_sum, tile
from convgen.passes.fuse_epilogue import FuseEpilogue
from convgen.passes.pack import Pack, PackedAxis
from convgen.passes.register_tile import TileNest
from convgen.passes.relayout import Relayout
from convgen.passes.reorder import Reorder
from convgen.passes.unpack import Unpack
from convgen.passes.unroll import Unroll
from convgen.passes.vectorize import _Lanes
from tests.passes.test_meaning import run_property

EXAMPLES = 300


def wrong_blocks(a: Index | str | int, factor: Index | str | int) -> Index:
    return build.mul(a, factor + 1 if isinstance(factor, int) else factor)


def transposed(store: Callable[..., Store]) -> Callable[..., Store]:
    def stored(self: FuseEpilogue, places: dict[str, Index], value: Value, epilogue: Store) -> Store:
        return store(self, dict(zip(places, reversed(places.values()), strict=True)), value, epilogue)

    return stored


def place_is_block(index: Index, part: PackedAxis) -> Index:
    return index if part.part == "whole" else build.floordiv(index, part.factor)


def one_lane_more(count: Callable[[_Lanes, Less], Index | None]) -> Callable[[_Lanes, Less], Index | None]:
    def counted(lanes: _Lanes, condition: Less) -> Index | None:
        found = count(lanes, condition)
        return None if found is None else build.add(found, 1)

    return counted


def last_copy_lost(self: Unroll, loop: For) -> tuple[Stmt, ...]:
    assert isinstance(loop.extent, Int)
    return (replace(loop, extent=Int(loop.extent.value - 1)),)


def extents_stay(self: Reorder, body: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
    """Names change places without their extents."""
    loop = body[0]
    if len(body) != 1 or not isinstance(loop, For) or not isinstance(inner := loop.body[0], For):
        return body
    return (For(inner.var, loop.extent, (For(loop.var, inner.extent, inner.body),)),)


def unmoved_copy(self: Unpack, target: object) -> Stage:
    return Stage("unpack", ())


MUTANTS: dict[str, tuple[str, object, str, object]] = {
    "blocks are one too far apart": ("Tile", tile, "mul", wrong_blocks),
    "undecided guards are dropped": ("Simplify", simplify, "_decided", lambda condition, ranges: True),
    "the place in a block is its number": ("Pack", Pack, "_position", staticmethod(place_is_block)),
    "a partial vector has a lane too many": ("Vectorize", _Lanes, "_lane_count", one_lane_more(_Lanes._lane_count)),
    "guards are always dropped": ("RegisterTile", TileNest, "_safe_without", lambda self, guard, store: True),
    "the last copy is lost": ("Unroll", Unroll, "_unroll", last_copy_lost),
    "the copy begins too late": ("Pad", pad, "sub", lambda a, b: build.sub(build.sub(a, b), 1)),
    "both edges are one too far out": ("ExpandPadding", expand_padding, "Less", lambda a, b: Less(a, build.add(b, 1))),
    "extents stay where they were": ("Reorder", Reorder, "_reorder", extents_stay),
    "nothing is copied back": ("Unpack", Unpack, "_copy_stage", unmoved_copy),
    "only stores move": ("Relayout", Relayout, "_value", lambda self, value: value),
    "the last threads are not launched": ("LaunchGrid", launch_grid, "ceildiv", build.floordiv),
    "every thread goes along the first loop": ("LaunchGrid", launch_grid, "mod", lambda a, b: build.add(a)),
    "what is kept out of a sum is read": ("Predicate", predicate._Scope, "_depends", lambda self, value, guard: False),
    "neighbours are counted twice": ("ShareLoops", share_loops, "floordiv", lambda a, b: build.add(a)),
    "parts overlap": ("SplitSum", split_sum, "mul", lambda a, b: build.add(a)),
    "the epilogue runs at transposed places": ("FuseEpilogue", FuseEpilogue, "_store", transposed(FuseEpilogue._store)),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_mutant_is_noticed(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, owner, name, replacement = MUTANTS[mutant]
    monkeypatch.setattr(owner, name, replacement)
    with pytest.raises(Exception, match=r"changed|lies outside"):
        run_property(kind, EXAMPLES, shrink=False)
