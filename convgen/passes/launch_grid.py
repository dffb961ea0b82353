"""launch_grid: the iterations of a nest become the threads of a grid."""

from __future__ import annotations

from dataclasses import dataclass, replace

from convgen.errors import IRError
from convgen.ir.build import add, ceildiv, floordiv, mod, mul
from convgen.ir.nodes import For, If, Index, Int, Less, Program, Stage, Stmt
from convgen.ir.rewrite import perfect_nest, substitute_block, variables
from convgen.passes.distribute import THREAD

BLOCK = "block"


@dataclass(frozen=True)
class LaunchGrid:
    """for a: for b: S   →   parallel for block: thread for t in T: if block * T + t < A * B: S[a = .., b = ..]

    The perfect nest of every stage that begins with ``stage`` becomes tasks of ``threads`` threads, an iteration each, of which
    neighbours go along the last loop.

    Requires: iterations of the loops are independent, and no extent depends on another loop. Ensures: every iteration runs once.
    """

    stage: str
    threads: int

    def __call__(self, program: Program) -> Program:
        stages = tuple(
            self._launched(stage) if stage.name.startswith(self.stage) else stage for stage in program.stages
        )
        return replace(program, stages=stages)

    def _launched(self, stage: Stage) -> Stage:
        nest, _ = perfect_nest(stage.body)
        if not nest:
            raise IRError(f"stage {stage.name} has no loops to be threads")
        names = {loop.var for loop in nest}
        total: Index = Int(1)
        for loop in nest:
            if variables(loop.extent) & names:
                raise IRError(f"the extent of loop {loop.var} depends on another loop of stage {stage.name}")
            total = mul(total, loop.extent)
        number = rest = add(mul(BLOCK, self.threads), THREAD)
        places: dict[str, Index] = {}
        for loop in reversed(nest):
            places[loop.var] = rest if loop is nest[0] else mod(rest, loop.extent)
            rest = floordiv(rest, loop.extent)
        body: tuple[Stmt, ...] = (If(Less(number, total), substitute_block(nest[-1].body, places)),)
        threads = For(THREAD, Int(self.threads), body, "thread")
        return replace(stage, body=(For(BLOCK, ceildiv(total, self.threads), (threads,), "parallel"),))
