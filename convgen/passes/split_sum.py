"""split_sum: a sum of many terms is made in parts, which are added in order at last."""

from __future__ import annotations

from dataclasses import dataclass, replace

from convgen.errors import IRError
from convgen.ir.build import add, ceildiv, mul
from convgen.ir.nodes import (
    Alloc,
    Arith,
    Buffer,
    Const,
    For,
    If,
    Int,
    Less,
    Load,
    Program,
    Stage,
    Stmt,
    Store,
    Var,
)
from convgen.ir.rewrite import map_body, perfect_nest, reads, substitute_block

PART = "part"


@dataclass(frozen=True)
class SplitSum:
    """stage s: for a: alloc acc: { acc = 0; for k in K: acc += f(k); y[a] = g(acc) }
    →  stage s:     for part in P: for a: alloc acc: { acc = 0; for k in K / P: acc += f(part * K / P + k); p[part, a] = acc }
       stage sum_s: for sum_a: alloc acc: { acc = 0; for part in P: acc += p[part, sum_a]; y[sum_a] = g(acc) }

    of every stage that begins with ``stage``; ``into`` is p, in the workspace (known as split-K for matrix products).
    Parts have a multiple of ``multiple`` terms; the last ones may have fewer, or none.

    Requires: such stages are perfect nests around an alloc of one scalar, which begins with zero, is summed by the loop ``loop``
    and then stored once to a buffer that all of them share. Ensures: the same terms are added, part by part, in the same order.
    """

    stage: str
    loop: str
    parts: int
    into: str = "partial"
    multiple: int = 1

    def __call__(self, program: Program) -> Program:
        if self.parts < 2:
            raise IRError(f"parts={self.parts} of loop {self.loop} must be at least 2")
        stages: list[Stage] = []
        sums: dict[str, Buffer] = {}
        for stage in program.stages:
            if not stage.name.startswith(self.stage):
                stages.append(stage)
                continue
            partial, whole, buffer = self._split(program, stage)
            sums[buffer.name] = buffer
            stages += [partial, whole]
        return replace(program, buffers=(*program.buffers, *sums.values()), stages=tuple(stages))

    def _split(self, program: Program, stage: Stage) -> tuple[Stage, Stage, Buffer]:
        nest, body = perfect_nest(stage.body)
        match body:
            case (
                Alloc(Buffer(name, dtype, ()), (Store(first, (), Const(0)) as zero, For() as loop, Store() as last)),
            ):
                var, extent, update = loop.var, loop.extent, loop.body
            case _:
                raise IRError(f"stage {stage.name} is not a nest around one sum")
        if var != self.loop or first != name or name not in {read.buffer for read in reads((last,))}:
            raise IRError(f"stage {stage.name} does not sum along {self.loop}, or does not store the sum")
        target = program.buffer(last.buffer)
        buffer = Buffer(self.into, dtype, (Int(self.parts), *target.shape), "workspace")
        register = Buffer(name, dtype, (), "register")
        # The multiple is outermost, where divisions by what divides it see it.
        count = ceildiv(extent, self.parts * self.multiple)
        length = mul(count, self.multiple)
        term = add(mul(mul(PART, count), self.multiple), self.loop)
        shorter: tuple[Stmt, ...] = (If(Less(term, extent), substitute_block(update, {self.loop: term})),)
        place = (Var(PART), *last.index)
        partial = Alloc(register, (zero, For(self.loop, length, shorter), Store(self.into, place, Load(name, ()))))
        added = Store(name, (), Arith("+", Load(name, ()), Load(self.into, place)))
        whole = Alloc(register, (zero, For(PART, Int(self.parts), (added,)), last))
        return (
            replace(stage, body=(For(PART, Int(self.parts), _around(nest, partial)),)),
            replace(stage, name=f"sum_{stage.name}", body=_renamed(_around(nest, whole), nest)),
            buffer,
        )


def _around(nest: tuple[For, ...], alloc: Alloc) -> tuple[Stmt, ...]:
    body: tuple[Stmt, ...] = (alloc,)
    for loop in reversed(nest):
        body = (replace(loop, body=body),)
    return body


def _renamed(body: tuple[Stmt, ...], nest: tuple[For, ...]) -> tuple[Stmt, ...]:
    """The loops under names of their own: schedules refer to those of the parts."""
    names = {loop.var: f"sum_{loop.var}" for loop in nest}

    def again(statement: Stmt) -> Stmt:
        changed = map_body(statement, lambda inner: tuple(map(again, inner)))
        return replace(changed, var=names.get(changed.var, changed.var)) if isinstance(changed, For) else changed

    return tuple(map(again, substitute_block(body, {old: Var(new) for old, new in names.items()})))
