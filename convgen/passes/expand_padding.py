"""expand_padding: padded loads become ordinary loads with a test or a remapped index."""

from __future__ import annotations

from dataclasses import dataclass

from convgen.ir.build import continued
from convgen.ir.nodes import Choose, Const, Index, Int, Less, Load, PaddedLoad, PaddingMode, Program, Value
from convgen.ir.rewrite import map_stages, map_statement
from convgen.ir.types import compute_dtype


@dataclass(frozen=True)
class ExpandPadding:
    """padded[zeros] x[i]      →  (x[i] if -1 < i < n else 0)
    padded[replicate] x[i]  →  x[min(max(i, 0), n - 1)]
    padded[circular] x[i]   →  x[i % n]
    padded[reflect] x[i]    →  x[n - 1 - |n - 1 - |i||]

    ``axes`` lists, per buffer, the axes that may leave the array; the others are left alone, or, with ``keep``, still padded by a
    pass to come.

    Requires: a reflected index leaves the array by less than its extent. Ensures: no padded loads remain, unless they are kept.
    """

    axes: tuple[tuple[str, tuple[int, ...]], ...]
    keep: bool = False

    def __call__(self, program: Program) -> Program:
        def visit(value: Value) -> Value:
            match value:
                case PaddedLoad(buffer, index, mode):
                    return self._expand(program, buffer, index, mode)
                case _:
                    return value

        return map_stages(
            program, lambda body: tuple(map_statement(statement, lambda i: i, visit) for statement in body)
        )

    def _expand(self, program: Program, buffer: str, index: tuple[Index, ...], mode: PaddingMode) -> Value:
        shape = program.buffer(buffer).shape
        place = list(index)
        conditions: list[Less] = []
        for axis in dict(self.axes).get(buffer, tuple(range(len(shape)))):
            i, n = index[axis], shape[axis]
            if mode == "zeros":
                conditions += [Less(Int(-1), i), Less(i, n)]
            else:
                place[axis] = continued(i, n, mode)
        load: Value = PaddedLoad(buffer, tuple(place), mode) if self.keep else Load(buffer, tuple(place))
        if not conditions:
            return load
        zero = Const(0.0, compute_dtype(program.buffer(buffer).dtype))
        return Choose(tuple(conditions), load, zero)
