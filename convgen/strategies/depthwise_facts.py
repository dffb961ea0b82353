"""What the kernels of depthwise know about the sizes they run with, so that only reads near an image's border are tested."""

from __future__ import annotations

from convgen.ir.build import add, mul
from convgen.ir.nodes import Index, Int, Less, Var
from convgen.nests.build import unfolded_problem
from convgen.nests.classes import gather_classes
from convgen.nests.nest import Nest, axis_letters
from convgen.passes.assume import Assume
from convgen.spec import ConvSpec


def assume_tiles(spec: ConvSpec, nest: Nest, tile: tuple[int, ...]) -> tuple[Assume, ...]:
    """For every stage: along each axis of ``tile`` (the last ones), results are at least as many as the tile's, and reads leave
    the source by no more than the nest says."""
    classes = gather_classes(unfolded_problem(spec))
    bound = len(classes) > 1
    letters = axis_letters(spec.ndim)
    found = []
    for i, axes in enumerate(classes):
        facts: tuple[Less, ...] = ()
        for a, extent in zip(range(spec.ndim)[-len(tile) :], tile, strict=True):
            axis, name = axes[a], letters[a]
            count: Index = Var(f"count_{name}" if bound else f"O{name.upper()}")
            offset: Index = Var(f"offset_{name}") if bound else Int(axis.offset)
            reach = (axis.taps - 1) * axis.tap_source_step
            last = add(mul(add(count, -1), axis.source_step), offset, max(0, reach))
            facts += (
                Less(Int(extent - 1), count),
                Less(Int(-1 - nest.low[a]), add(offset, min(0, reach))),
                Less(last, add(f"I{name.upper()}", nest.high[a])),
            )
        found.append(Assume(f"conv{i}" if bound else "conv", facts))
    return tuple(found)


def smallest_tile(spec: ConvSpec) -> tuple[int, ...]:
    """The most results that a tile may have along each axis: those of the smallest residue class."""
    classes = gather_classes(unfolded_problem(spec))
    return tuple(max(1, min((axes[a].count for axes in classes), default=1)) for a in range(spec.ndim))
