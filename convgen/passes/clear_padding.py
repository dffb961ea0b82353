"""clear_padding: a copy with zeros around it is cleared first, and then only what lies inside is copied."""

from __future__ import annotations

from dataclasses import dataclass

from convgen.errors import IRError
from convgen.ir.affine import affine
from convgen.ir.build import add, maximum, minimum, sub
from convgen.ir.nodes import Const, For, Index, Int, Load, PaddedLoad, Program, Stmt, Store, Var
from convgen.ir.rewrite import rewrite_named, substitute, variables
from convgen.ir.types import compute_dtype


@dataclass(frozen=True)
class ClearPadding:
    """for a in A: xc[a] = padded[zeros] x[a + s]
    →  for clear_a in A: xc[clear_a] = 0;  for a in min(A, n - s) - max(0, -s): xc[a + max(0, -s)] = x[a + max(0, -s) + s]

    ``loop`` is the outermost of the copy's loops; ``axes`` are those of x that may be left.

    Requires: the loops are a perfect nest around one store of a load padded with zeros, at whose place each variable is an index
    of its own; along each of the axes x is read at one of the variables plus what is fixed. Ensures: the same copy; nothing is
    tested for each element.
    """

    loop: str
    axes: tuple[int, ...]

    def __call__(self, program: Program) -> Program:
        def change(loop: For) -> tuple[Stmt, ...]:
            return self._split(program, loop)

        return rewrite_named(program, self.loop, change)

    def _split(self, program: Program, loop: For) -> tuple[Stmt, ...]:
        nest, store, read = self._copy(loop)
        clear: Stmt = Store(
            store.buffer,
            tuple(substitute(index, {inner.var: Var(f"clear_{inner.var}") for inner in nest}) for index in store.index),
            Const(0.0, compute_dtype(program.buffer(read.buffer).dtype)),
        )
        for inner in reversed(nest):
            clear = For(f"clear_{inner.var}", inner.extent, (clear,))
        first, counts = self._inside(program, nest, read)
        moved: dict[str, Index] = {var: add(start, var) for var, start in first.items()}
        copied: Stmt = Store(
            store.buffer,
            tuple(substitute(index, moved) for index in store.index),
            Load(read.buffer, tuple(substitute(index, moved) for index in read.index)),
        )
        for inner in reversed(nest):
            copied = For(inner.var, counts.get(inner.var, inner.extent), (copied,))
        return clear, copied

    def _copy(self, loop: For) -> tuple[list[For], Store, PaddedLoad]:
        nest: list[For] = []
        statement: Stmt = loop
        while isinstance(statement, For) and len(statement.body) == 1:
            nest.append(statement)
            statement = statement.body[0]
        match statement:
            case Store(_, index, PaddedLoad(_, _, "zeros") as read) if set(index) == {Var(inner.var) for inner in nest}:
                return nest, statement, read
            case _:
                raise IRError(f"loop {self.loop} is not a copy padded with zeros")

    def _inside(self, program: Program, nest: list[For], read: PaddedLoad) -> tuple[dict[str, Index], dict[str, Index]]:
        """Where the loops that may leave the buffer begin, and how often they run."""
        extents = {inner.var: inner.extent for inner in nest}
        shape = program.buffer(read.buffer).shape
        first: dict[str, Index] = {}
        counts: dict[str, Index] = {}
        for axis in self.axes:
            moving = sorted(variables(read.index[axis]) & set(extents))
            form = affine(read.index[axis])
            rest = form.without(Var(moving[0])).index() if moving else Int(0)
            single = len(moving) == 1 and form.coefficient(Var(moving[0])) == 1 and moving[0] not in variables(rest)
            if not single or moving[0] in first:
                raise IRError(f"axis {axis} of {read.buffer} is not read at a loop's variable plus what is fixed")
            (var,) = moving
            first[var] = maximum(0, sub(0, rest))
            last = minimum(extents[var], sub(shape[axis], rest))
            counts[var] = maximum(0, sub(last, first[var]))
        return first, counts
