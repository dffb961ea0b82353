"""The adjoint of reading with a padding mode: the gradient of a padded image folded back onto the image, axis by axis."""

from __future__ import annotations

from dataclasses import dataclass

from convgen.dtypes import DTYPES
from convgen.ir.build import add, continued, maximum, minimum, mul, sub
from convgen.ir.nodes import (
    Alloc,
    Arith,
    Buffer,
    Choose,
    Const,
    For,
    Index,
    Int,
    Less,
    Load,
    Program,
    Stage,
    Stmt,
    Store,
    Var,
)
from convgen.nests.nest import loops_around


@dataclass(frozen=True)
class FoldedAxis:
    """One axis of a buffer: ``low`` and ``high`` positions of padding around ``size``, read by ``mode``."""

    axis: int
    low: int
    high: int
    size: Index
    mode: str


def fold(program: Program, unfolded: str, result: str, axes: tuple[FoldedAxis, ...]) -> Program:
    """Adds the stages that fold ``unfolded`` (an image with padding on every axis of ``axes``) into ``result``.

    After each axis the partial result is kept in the accumulator's type, so that only the last stage rounds.
    """
    source = program.buffer(unfolded)
    accumulator = DTYPES[source.dtype].accumulator
    buffers, stages = list(program.buffers), list(program.stages)
    shape = list(source.shape)
    name = unfolded
    for folded in axes:
        shape[folded.axis] = folded.size
        last = folded is axes[-1]
        into = result if last else f"folded_{folded.axis}"
        if not last:
            buffers.append(Buffer(into, accumulator, tuple(shape), "workspace"))
        stages.append(_stage(name, into, tuple(shape), folded, accumulator))
        name = into
    return Program(program.name, program.sizes, tuple(buffers), tuple(stages))


def _stage(source: str, into: str, shape: tuple[Index, ...], folded: FoldedAxis, dtype: str) -> Stage:
    names = tuple(f"i{axis}" for axis in range(len(shape)))
    place = tuple(map(Var, names))

    def read(position: Index) -> Load:
        return Load(source, (*place[: folded.axis], position, *place[folded.axis + 1 :]))

    own = place[folded.axis]
    acc = Buffer("acc", dtype, (), "register")
    centre = add(own, folded.low)
    total = add(folded.low, folded.size, folded.high)
    inside = (Less(Int(-1), centre), Less(centre, total))
    body: tuple[Stmt, ...] = (Store("acc", (), Choose(inside, read(centre), Const(0.0, dtype))),)
    borders = max(folded.low, 0) + max(folded.high, 0)
    if borders:
        j = Var("border")
        padded = border_position(j, folded.low, folded.high, folded.size)
        origin = continued(sub(padded, folded.low), folded.size, folded.mode)
        hit = (Less(sub(origin, own), Int(1)), Less(sub(own, origin), Int(1)))
        summed = Arith("+", Load("acc", ()), Choose(hit, read(padded), Const(0.0, dtype)))
        body += (For("border", Int(borders), (Store("acc", (), summed),)),)
    inner = (Alloc(acc, (*body, Store(into, place, Load("acc", ())))),)
    return Stage(f"fold_{folded.axis}", loops_around(inner, tuple(zip(names, shape, strict=True))))


def border_position(j: Index, low: int, high: int, size: Index) -> Index:
    """The j-th position of a padded image that is not the image's own: j itself before it, low + size + (j - low) after it."""
    before = max(low, 0)
    visible = sub(add(size, min(low, 0)), max(-high, 0))
    if not before:
        return add(j, visible)
    after = minimum(maximum(sub(j, before - 1), 0), 1)
    return add(j, mul(after, visible))
