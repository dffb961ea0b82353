"""parallelize: outermost loops become the tasks of a stage."""

from __future__ import annotations

from dataclasses import dataclass, replace

from convgen.errors import IRError
from convgen.ir.nodes import For, Program, Stmt
from convgen.ir.rewrite import reads, stores, variables


@dataclass(frozen=True)
class Parallelize:
    """for a: for b: S   →   parallel for a: parallel for b: S

    Requires: in stages whose name begins with ``stage`` the loops are the outermost ones, in this order; no memory buffer is
    both read and stored at places that do not depend on every one of them. Ensures: iterations may run in any order.
    """

    stage: str
    loops: tuple[str, ...]

    def __call__(self, program: Program) -> Program:
        memory = {buffer.name for buffer in program.buffers}
        return replace(
            program,
            stages=tuple(
                replace(stage, body=self._mark(stage.body, self.loops, memory))
                if stage.name.startswith(self.stage)
                else stage
                for stage in program.stages
            ),
        )

    def _mark(self, body: tuple[Stmt, ...], names: tuple[str, ...], memory: set[str]) -> tuple[Stmt, ...]:
        if not names:
            return body
        if len(body) != 1 or not isinstance(body[0], For) or body[0].var != names[0]:
            raise IRError(f"loop {names[0]} of stage {self.stage} is not outermost")
        loop = body[0]
        places = [(store.buffer, store.index) for store in stores(loop.body) if store.buffer in memory]
        for read in reads(loop.body):
            if any(buffer == read.buffer and index != read.index for buffer, index in places):
                raise IRError(f"{read.buffer} is read and stored at different places of stage {self.stage}")
        for buffer, index in places:
            if not any(loop.var in variables(i) for i in index):
                raise IRError(f"iterations of {loop.var} store to the same place of {buffer}")
        return (replace(loop, kind="parallel", body=self._mark(loop.body, names[1:], memory)),)
