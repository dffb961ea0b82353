"""transpose_blocks: a copy that changes which axis is last is done in squares of elements."""

from __future__ import annotations

from dataclasses import dataclass

from convgen.errors import IRError
from convgen.ir.affine import affine
from convgen.ir.build import ceildiv, divides, mul, sub
from convgen.ir.nodes import For, Index, Load, Program, Stmt, Store, Transpose, Var
from convgen.ir.rewrite import perfect_nest, rewrite_named, substitute, variables


@dataclass(frozen=True)
class TransposeBlocks:
    """for a in A: for b in B: y[b, a] = x[a, b]
    →  for a_block: for b_block: y[b_block * L :L, a_block * L :L] = transposed x[a_block * L :L, b_block * L :L]

    ``outer`` and ``inner`` name the two loops, along the last axis of one buffer each, in the order in which their blocks are
    walked; other loops of the nest, which begins with loop ``nest``, stand between them, but for ``nest`` itself. So only as many
    places of memory are walked at a time as a square has rows.

    Requires: a perfect nest of independent iterations around one copy that moves with each of the two loops on one axis of each
    buffer, by 1. Ensures: the same elements are copied.
    """

    nest: str
    outer: str
    inner: str
    size: int

    def __call__(self, program: Program) -> Program:
        return rewrite_named(program, self.nest, lambda loop: self._blocks(program, loop))

    def _blocks(self, program: Program, loop: For) -> tuple[Stmt, ...]:
        nest, body = perfect_nest((loop,))
        extents = {found.var: found.extent for found in nest}
        match body:
            case (Store(target, place, Load(source, index, 1, None), 1, None),) if target != source:
                pass
            case _:
                raise IRError(f"loop {self.nest} is not a perfect nest around one copy")
        if not {self.outer, self.inner} <= set(extents):
            raise IRError(f"{self.outer} and {self.inner} are not loops of the nest {self.nest}")
        if program.buffer(target).dtype != program.buffer(source).dtype:
            raise IRError(f"{source} and {target} are not of one type")
        across = [name for name in (self.outer, self.inner) if name in variables(place[-1])]
        along = [name for name in (self.outer, self.inner) if name in variables(index[-1])]
        if len(across) != 1 or len(along) != 1 or across == along:
            raise IRError(f"the copy into {target} does not change which of its axes is last")
        column, row = along[0], across[0]
        begins = {name: mul(Var(f"{name}_block"), self.size) for name in (row, column)}
        statement: Stmt = Transpose(
            target,
            tuple(substitute(i, begins) for i in place),
            self._axis(target, place, row, column),
            source,
            tuple(substitute(i, begins) for i in index),
            self._axis(source, index, column, row),
            self.size,
            self._count(extents[row], begins[row]),
            self._count(extents[column], begins[column]),
        )
        order = [found.var for found in nest if found.var not in begins]
        first = 1 if nest[0].var not in begins else 0
        loops = {found.var: found for found in nest}
        for name in reversed((*order[:first], self.outer, *order[first:], self.inner)):
            if name in begins:
                statement = For(f"{name}_block", ceildiv(extents[name], self.size), (statement,))
            else:
                statement = For(name, extents[name], (statement,), loops[name].kind)
        return (statement,)

    def _axis(self, buffer: str, index: tuple[Index, ...], last: str, other: str) -> int:
        """The axis along which ``other`` moves; ``last`` moves along the last one."""
        axes = [axis for axis, i in enumerate(index) if other in variables(i)]
        ends = [axis for axis, i in enumerate(index) if last in variables(i)]
        if len(axes) != 1 or axes[0] == len(index) - 1 or ends != [len(index) - 1]:
            raise IRError(f"{buffer} does not move on one axis each with {last} and {other}")
        if affine(index[-1]).coefficient(Var(last)) != 1 or affine(index[axes[0]]).coefficient(Var(other)) != 1:
            raise IRError(f"{buffer} is not accessed in steps of 1 of {last} and {other}")
        return axes[0]

    def _count(self, extent: Index, begin: Index) -> Index | None:
        """How many rows or columns are left; None where squares come out even."""
        return None if divides(self.size, extent) else sub(extent, begin)
