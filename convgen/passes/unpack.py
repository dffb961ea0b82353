"""unpack: a result is computed in another order of axes and copied into its own at the end."""

from __future__ import annotations

from dataclasses import dataclass, replace

from convgen.errors import IRError
from convgen.ir.nodes import Buffer, For, Load, Program, Stage, Stmt, Store, Var
from convgen.ir.rewrite import loop_names, map_body, reads, stores


@dataclass(frozen=True)
class Unpack:
    """y[i, j] = v   →   yb[j, i] = v;   stage unpack_y: y[i, j] = yb[j, i]   for order (1, 0)

    ``order`` lists the axes of the buffer in the order of the copy, ``labels`` name them in its loops.

    Requires: the buffer is stored element by element and never read. Ensures: only unpack_y stores to the buffer, every element
    once.
    """

    buffer: str
    into: str
    order: tuple[int, ...]
    labels: tuple[str, ...] = ()

    def __call__(self, program: Program) -> Program:
        target = program.buffer(self.buffer)
        if sorted(self.order) != list(range(len(target.shape))):
            raise IRError(f"order={self.order} is not a permutation of the axes of {self.buffer}")
        for stage in program.stages:
            if any(read.buffer == self.buffer for read in reads(stage.body)):
                raise IRError(f"{self.buffer} is read by stage {stage.name}")
            if any(store.buffer == self.buffer and store.lanes > 1 for store in stores(stage.body)):
                raise IRError(f"{self.buffer} is stored in vectors by stage {stage.name}")
        copy = Buffer(self.into, target.dtype, tuple(target.shape[axis] for axis in self.order), "workspace")
        stages = tuple(replace(stage, body=tuple(map(self._redirect, stage.body))) for stage in program.stages)
        return replace(program, buffers=(*program.buffers, copy), stages=(*stages, self._copy_stage(target)))

    def _redirect(self, statement: Stmt) -> Stmt:
        match statement:
            case Store(buffer, index, value) if buffer == self.buffer:
                return Store(self.into, tuple(index[axis] for axis in self.order), value)
            case _:
                return map_body(statement, lambda body: tuple(map(self._redirect, body)))

    def _copy_stage(self, target: Buffer) -> Stage:
        names = loop_names(self.into, self.labels, len(target.shape))
        value = Load(self.into, tuple(Var(names[axis]) for axis in self.order))
        statement: Stmt = Store(self.buffer, tuple(map(Var, names)), value)
        for name, extent in zip(reversed(names), reversed(target.shape), strict=True):
            statement = For(name, extent, (statement,))
        return Stage(f"unpack_{self.buffer}", (statement,))
