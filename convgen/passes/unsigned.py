"""unsigned: a copy of signed bytes is kept as unsigned ones, which is what the processor multiplies by signed ones."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from convgen.errors import IRError
from convgen.ir.nodes import (
    Alloc,
    Arith,
    Buffer,
    Const,
    Fma,
    For,
    Index,
    Int,
    Load,
    Program,
    Stage,
    Stmt,
    Store,
    Transpose,
    Value,
    Var,
)
from convgen.ir.rewrite import loops, map_body, reads, statements, stores, variables

OFFSET = 128


@dataclass(frozen=True)
class Unsigned:
    """x[i] = v;  alloc acc: { acc = 0; for r: acc = fma(x[f(r)], w[o, r], acc) }
    →  stage sum_w: for o: offsets[o] = sum over r of -128 * w[o, r]
       x[i] = v + 128;  alloc acc: { acc = offsets[o]; for r: acc = fma(x[f(r)], w[o, r], acc) }   and x is of unsigned bytes

    ``buffer`` is x, int8 in memory of the call; ``weight`` is w; ``sums`` names ``offsets``.

    Requires: x is stored by no transpose, and read in sums that begin with zero and multiply every element of w along all axes
    that their loops move along, all of constant extent, by one of x. Ensures: the same sums.
    """

    buffer: str
    weight: str
    sums: str

    def __call__(self, program: Program) -> Program:
        copy, weight = program.buffer(self.buffer), program.buffer(self.weight)
        if copy.dtype != "int8" or copy.space not in ("workspace", "local") or weight.dtype != "int8":
            raise IRError(f"{self.buffer} and {self.weight} are not a copy and weights of int8")
        fixed: set[tuple[int, ...]] = set()
        stages: list[Stage] = []
        for stage in program.stages:
            body = tuple(self._statement(statement, program, fixed) for statement in stage.body)
            if any(read.buffer == self.buffer for read in reads(stage.body)) and not fixed:
                raise IRError(f"{self.buffer} is read outside of sums")
            views = tuple(replace(v, dtype="uint8") if v.name == self.buffer else v for v in stage.views)
            stages.append(replace(stage, body=body, views=views))
        if len(fixed) != 1:
            raise IRError(f"{self.buffer} is read in {len(fixed)} kinds of sums")
        axes = fixed.pop()
        offsets = Buffer(self.sums, "int32", tuple(weight.shape[axis] for axis in axes), "packed")
        first = next(i for i, s in enumerate(stages) if any(read.buffer == self.sums for read in reads(s.body)))
        stages.insert(first, self._summing(weight, axes))
        buffers = tuple(replace(b, dtype="uint8") if b.name == self.buffer else b for b in program.buffers)
        return replace(program, buffers=(*buffers, offsets), stages=tuple(stages))

    def _statement(self, statement: Stmt, program: Program, fixed: set[tuple[int, ...]]) -> Stmt:
        match statement:
            case Transpose(target) if target == self.buffer:
                raise IRError(f"{self.buffer} is stored by a transpose")
            case Store(buffer, _, value, lanes) if buffer == self.buffer:
                return replace(statement, value=Arith("+", value, Const(OFFSET, "int32", lanes)))
            case Alloc() if any(read.buffer == self.buffer for read in reads(statement.body)):
                return self._sum(statement, program, fixed)
            case _:
                return map_body(statement, lambda body: tuple(self._statement(s, program, fixed) for s in body))

    def _sum(self, alloc: Alloc, program: Program, fixed: set[tuple[int, ...]]) -> Alloc:
        name = alloc.buffer.name
        found = [store.value for store in stores(alloc.body) if any(r.buffer == self.buffer for r in reads((store,)))]
        match found:
            case [Fma(Load(self.buffer, _, 1), Load(self.weight, place, 1), Load(total))] if total == name:
                pass
            case _:
                raise IRError(f"{self.buffer} is not read as the first factor of one sum of {self.weight}")
        moved = {loop.var: loop.extent for loop in loops(alloc.body)}
        axes = tuple(axis for axis, index in enumerate(place) if not variables(index) & set(moved))
        shape = program.buffer(self.weight).shape
        if _size(moved.values()) != _size(extent for axis, extent in enumerate(shape) if axis not in axes):
            raise IRError(f"a sum does not have every element of {self.weight} along the axes of its loops")
        fixed.add(axes)
        begin = Load(self.sums, tuple(place[axis] for axis in axes))
        starts = [s for s in alloc.body if isinstance(s, Store) and s.buffer == name and s.value == Const(0, "int32")]
        if len(starts) != 1 or sum(isinstance(s, Store) and s.buffer == name for s in statements(alloc.body)) != 2:
            raise IRError(f"the sum {name} does not begin with zero")
        return replace(alloc, body=tuple(replace(s, value=begin) if s is starts[0] else s for s in alloc.body))

    def _summing(self, weight: Buffer, axes: tuple[int, ...]) -> Stage:
        names = [f"{self.sums}_{axis}" for axis in range(len(weight.shape))]
        total = Load("total", ())
        term: Value = Load(weight.name, tuple(map(Var, names)))
        body: Stmt = Store("total", (), Fma(term, Const(-OFFSET, "int32"), total))
        for axis in reversed(range(len(names))):
            if axis not in axes:
                body = For(names[axis], weight.shape[axis], (body,))
        place = tuple(Var(names[axis]) for axis in axes)
        begin, end = Store("total", (), Const(0, "int32")), Store(self.sums, place, total)
        nest: Stmt = Alloc(Buffer("total", "int32", (), "register"), (begin, body, end))
        for axis in reversed(axes):
            nest = For(names[axis], weight.shape[axis], (nest,), "parallel" if axis == axes[0] else "serial")
        return Stage(f"sum_{self.weight}", (nest,))


def _size(extents: Iterable[Index]) -> int:
    """The product of extents, all of which are constant."""
    sizes = [extent.value if isinstance(extent, Int) else None for extent in extents]
    if None in sizes:
        raise IRError("a sum is not of constant extent")
    return math.prod(size for size in sizes if size is not None)
