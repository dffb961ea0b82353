"""stage_shared: what all threads of a task read of an operand is collected in memory that they share."""

from __future__ import annotations

from dataclasses import dataclass, replace

from convgen.errors import IRError
from convgen.ir.build import add
from convgen.ir.nodes import Buffer, Fma, For, Index, Int, Load, PaddedLoad, Program, Stmt, Store, Value, Var
from convgen.ir.rewrite import loops, map_statement, rewrite_named, stores, substitute_block, values, variables


@dataclass(frozen=True)
class StageShared:
    """for b: for r: for i: for j: acc[i, j] += f(x[b, r, i]) * g(w[b, r, j])
    →  for b: { for r: for i: s[r, i] = f(x[b, r, i]);  for r: for i: for j: acc[i, j] += s[r, i] * g(w[b, r, j]) }

    ``loop`` is b, ``buffer`` is x, ``into`` is s, a local buffer whose axes are the loops ``axes``, of constant extents; the last
    axis is ``pad`` elements longer, so that columns do not fall on the same bank. The loops of the copy are called ``into``_axis.

    Requires: one factor of the products in the loop reads the buffer, and depends on no loop inside but ``axes``. Ensures: only
    the copy reads it there.
    """

    loop: str
    buffer: str
    into: str
    axes: tuple[str, ...]
    pad: int = 0

    def __call__(self, program: Program) -> Program:
        made: dict[str, Buffer] = {}

        def change(loop: For) -> tuple[Stmt, ...]:
            copy, body, shape = self._staged(loop)
            made[self.into] = Buffer(self.into, program.buffer(self.buffer).dtype, shape, "local")
            return (replace(loop, body=(copy, *body)),)

        changed = rewrite_named(program, self.loop, change)
        return replace(changed, buffers=(*changed.buffers, *made.values()))

    def _staged(self, loop: For) -> tuple[Stmt, tuple[Stmt, ...], tuple[Index, ...]]:
        """The copy, the body that reads it, and its shape."""
        inner = {found.var: found.extent for found in loops(loop.body)}
        extents = [inner.get(axis) for axis in self.axes]
        if not all(isinstance(extent, Int) for extent in extents):
            raise IRError(f"axes={self.axes} of {self.into} are not loops of constant extents in {self.loop}")
        factors = {factor for store in stores(loop.body) for factor in self._factors(store.value)}
        if len(factors) != 1:
            raise IRError(f"{self.buffer} is read by {len(factors)} factors in loop {self.loop}")
        (factor,) = factors
        if _names(factor) & (inner.keys() - set(self.axes)):
            raise IRError(f"what is read of {self.buffer} depends on more than {self.axes}")
        places = tuple(map(Var, self.axes))

        def visit(value: Value) -> Value:
            return Load(self.into, places) if value == factor else value

        body = tuple(map_statement(statement, lambda index: index, visit) for statement in loop.body)
        copy: Stmt = Store(self.into, places, factor)
        renamed = {axis: Var(f"{self.into}_{axis}") for axis in self.axes}
        (copy,) = substitute_block((copy,), dict(renamed))
        shape: list[Index] = []
        for axis, extent in zip(reversed(self.axes), reversed(extents), strict=True):
            assert extent is not None
            copy = For(renamed[axis].name, extent, (copy,))
            shape.insert(0, extent)
        shape[-1] = add(shape[-1], self.pad)
        return copy, body, tuple(shape)

    def _factors(self, value: Value) -> tuple[Value, ...]:
        match value:
            case Fma(a, b, _):
                return tuple(factor for factor in (a, b) if self._reads(factor))
            case _ if self._reads(value):
                raise IRError(f"{self.buffer} is not read as a factor in loop {self.loop}")
            case _:
                return ()

    def _reads(self, value: Value) -> bool:
        return any(isinstance(node, Load | PaddedLoad) and node.buffer == self.buffer for node in values(value))


def _names(value: Value) -> frozenset[str]:
    """The variables of all places and conditions in a value."""
    found: set[str] = set()

    def note(index: Index) -> Index:
        found.update(variables(index))
        return index

    map_statement(Store("", (), value), note)
    return frozenset(found)
