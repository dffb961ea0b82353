"""flatten: neighbouring axes of a buffer become one."""

from __future__ import annotations

from dataclasses import dataclass, replace

from convgen.errors import IRError
from convgen.ir.affine import affine, rejoined
from convgen.ir.build import add, mul
from convgen.ir.nodes import (
    Buffer,
    Index,
    IndexOp,
    Load,
    PaddedLoad,
    Program,
    Stage,
    Stmt,
    Store,
    Value,
)
from convgen.ir.rewrite import map_body, map_statement


@dataclass(frozen=True)
class Flatten:
    """y[i, v // W, v % W] = x[i, a, b]   →   y[i, v] = x[i, a * W + b]   where y and x have W elements along the last axis

    The last ``axes`` axes of every buffer of ``buffers`` become one, so that vectors may run across rows.

    Requires: the buffers have so many axes and are accessed element by element, without padding. Ensures: the same elements of
    memory are stored and read.
    """

    buffers: tuple[str, ...]
    axes: int

    def __call__(self, program: Program) -> Program:
        shapes: dict[str, tuple[Index, ...]] = {}
        for name in self.buffers:
            shapes[name] = program.buffer(name).shape
            if not 1 <= self.axes <= len(shapes[name]):
                raise IRError(f"axes={self.axes} is more than {name} has")

        def seen(buffer: Buffer) -> Buffer:
            if buffer.name not in shapes:
                return buffer
            return replace(buffer, shape=(*buffer.shape[: -self.axes], mul(*buffer.shape[-self.axes :])))

        def stage(old: Stage) -> Stage:
            body = tuple(self._statement(inner, shapes) for inner in old.body)
            return replace(old, body=body, views=tuple(map(seen, old.views)))

        return replace(program, buffers=tuple(map(seen, program.buffers)), stages=tuple(map(stage, program.stages)))

    def _statement(self, statement: Stmt, shapes: dict[str, tuple[Index, ...]]) -> Stmt:
        def visit(value: Value) -> Value:
            match value:
                case Load(buffer, index, 1, None) if buffer in shapes:
                    return Load(buffer, self._place(index, shapes[buffer]))
                case Load(buffer) | PaddedLoad(buffer) if buffer in shapes:
                    raise IRError(f"{buffer} is read in vectors or with padding")
                case _:
                    return value

        return self._moved(map_statement(statement, lambda index: index, visit), shapes)

    def _moved(self, statement: Stmt, shapes: dict[str, tuple[Index, ...]]) -> Stmt:
        match statement:
            case Store(buffer, index, value, 1, None) if buffer in shapes:
                return Store(buffer, self._place(index, shapes[buffer]), value)
            case Store(buffer) if buffer in shapes:
                raise IRError(f"{buffer} is stored in vectors")
            case _:
                return map_body(statement, lambda body: tuple(self._moved(inner, shapes) for inner in body))

    def _place(self, index: tuple[Index, ...], shape: tuple[Index, ...]) -> tuple[Index, ...]:
        first = len(index) - self.axes
        joined = index[first]
        for part, extent in zip(index[first + 1 :], shape[first + 1 :], strict=True):
            match joined, part:
                case IndexOp("//", x, w), IndexOp("%", y, v) if x == y and w == v == extent:
                    joined = x
                case _:
                    joined = rejoined(affine(add(mul(joined, extent), part))).index()
        return (*index[:first], joined)
