"""relayout: a workspace buffer keeps its elements in another order of axes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from convgen.errors import IRError
from convgen.ir.nodes import Index, Load, Program, Stage, Stmt, Store, Value
from convgen.ir.rewrite import map_body, map_statement


@dataclass(frozen=True)
class Relayout:
    """s[i, j] = v; ... s[i, j]   →   s[j, i] = v; ... s[j, i]   for order (1, 0)

    Requires: a workspace buffer accessed element by element. Ensures: the same elements are stored and read.
    """

    buffer: str
    order: tuple[int, ...]

    def __call__(self, program: Program) -> Program:
        old = program.buffer(self.buffer)
        if old.space != "workspace" or sorted(self.order) != list(range(len(old.shape))):
            raise IRError(f"{self.buffer} is not a workspace buffer with the axes {sorted(self.order)}")
        new = replace(old, shape=tuple(old.shape[axis] for axis in self.order))
        stages = tuple(map(self._stage, program.stages))
        buffers = tuple(new if buffer is old else buffer for buffer in program.buffers)
        return replace(program, buffers=buffers, stages=stages)

    def _stage(self, stage: Stage) -> Stage:
        views = tuple(
            replace(view, shape=self._place(view.shape)) if view.name == self.buffer else view for view in stage.views
        )
        return replace(stage, body=tuple(map(self._statement, stage.body)), views=views)

    def _place(self, index: tuple[Index, ...]) -> tuple[Index, ...]:
        return tuple(index[axis] for axis in self.order)

    def _value(self, value: Value) -> Value:
        match value:
            case Load(buffer, index, 1, None) if buffer == self.buffer:
                return Load(buffer, self._place(index))
            case Load(buffer) if buffer == self.buffer:
                raise IRError(f"{self.buffer} is read in vectors")
            case _:
                return value

    def _statement(self, statement: Stmt) -> Stmt:
        return self._moved(map_statement(statement, lambda index: index, self._value))

    def _moved(self, statement: Stmt) -> Stmt:
        match statement:
            case Store(buffer, index, value, 1, None) if buffer == self.buffer:
                return Store(buffer, self._place(index), value)
            case Store(buffer) if buffer == self.buffer:
                raise IRError(f"{self.buffer} is stored in vectors")
            case _:
                return map_body(statement, lambda body: tuple(map(self._moved, body)))
