"""share_loops: a loop nest, such as a copy, is dealt out to the threads of a task, element by element."""

from __future__ import annotations

import math
from dataclasses import dataclass

from convgen.errors import IRError
from convgen.ir.build import add, divides, floordiv, mod, mul
from convgen.ir.nodes import For, If, Index, Int, Less, Program, Stmt
from convgen.ir.rewrite import loops, perfect_nest, rewrite_named, substitute_block
from convgen.passes.distribute import THREAD


@dataclass(frozen=True)
class ShareLoops:
    """for a in A: for b in B: S   →   thread for t in T: for i in A * B / T: S[a = (i T + t) // B, b = (i T + t) % B]

    The perfect nest ``loops``, the last of which neighbouring threads go along, ``lanes`` iterations of it each, is done by
    ``threads`` threads; the loop over lanes is called ``name``_lane and the one over i ``name``_turn.

    Requires: the extents are constant and ``lanes`` divides the last one; iterations are independent of each other. Ensures:
    every iteration runs once.
    """

    loops: tuple[str, ...]
    name: str
    threads: int
    lanes: int = 1

    def __call__(self, program: Program) -> Program:
        every = (loop.var for stage in program.stages for loop in loops(stage.body))
        outermost = next((var for var in every if var in self.loops), self.loops[0])
        return rewrite_named(program, outermost, self._share)

    def _share(self, loop: For) -> tuple[Stmt, ...]:
        nest = perfect_nest((loop,))[0][: len(self.loops)]
        found = {inner.var: inner.extent for inner in nest}
        if set(found) != set(self.loops):
            raise IRError(f"loops {self.loops} are not perfectly nested in {loop.var}")
        body = nest[-1].body
        extents = [extent.value for name in self.loops if isinstance(extent := found[name], Int)]
        if len(extents) < len(self.loops) or extents[-1] % self.lanes:
            raise IRError(f"loops {self.loops} are not of constant extents that {self.lanes} lanes divide")
        extents[-1] //= self.lanes
        total = math.prod(extents)
        turn, lane = f"{self.name}_turn", f"{self.name}_lane"
        number = rest = add(mul(turn, self.threads), THREAD)
        places: dict[str, Index] = {}
        for at in reversed(range(len(self.loops))):
            places[self.loops[at]] = rest if at == 0 else mod(rest, extents[at])
            rest = floordiv(rest, extents[at])
        places[self.loops[-1]] = add(mul(places[self.loops[-1]], self.lanes), lane)
        inner: Stmt = For(lane, Int(self.lanes), substitute_block(body, places))
        if not divides(self.threads, Int(total)):
            inner = If(Less(number, Int(total)), (inner,))
        turns = For(turn, Int(-(-total // self.threads)), (inner,))
        return (For(THREAD, Int(self.threads), (turns,), "thread"),)
