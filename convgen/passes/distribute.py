"""distribute: the work of a task is dealt out to its threads."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from convgen.errors import IRError
from convgen.ir.build import add, floordiv, mod, mul
from convgen.ir.nodes import Alloc, Buffer, For, Index, Int, Load, Program, Stmt, Store, Value, Var
from convgen.ir.rewrite import loops, map_body, map_statement, rewrite_loops, substitute_block

THREAD = "thread"


@dataclass(frozen=True)
class ThreadAxis:
    """A loop of outer * threads * inner iterations: a thread has ``outer`` runs of ``inner`` neighbours, and neighbouring threads
    have neighbouring runs. The loops inside a thread are called ``loop``_outer and ``loop``_inner."""

    loop: str
    outer: int
    threads: int
    inner: int

    @property
    def extent(self) -> int:
        return self.outer * self.threads * self.inner

    def place(self, number: Index) -> Index:
        """The loop's variable, from the number of the thread along it."""
        run = add(mul(f"{self.loop}_outer", self.threads), number)
        return add(mul(run, self.inner), f"{self.loop}_inner")


@dataclass(frozen=True)
class Distribute:
    """alloc acc[A, B]: { for r: for a: for b: acc[a, b] += ... }
    →  alloc acc[T, A', B']: { thread for t: for r: for a': for b': acc[t, a', b'] += ... }

    ``axes`` are the loops that are dealt out, the last one to neighbouring threads; a statement of the stages that begin with
    ``stage`` that holds them all becomes the threads' work, inside the loops ``around``, which all threads go through together.

    Requires: registers are accessed at the loops' variables alone, and no iteration depends on another of the loops' iterations.
    Ensures: each accumulator sees the same operations in the same order.
    """

    stage: str
    axes: tuple[ThreadAxis, ...]
    around: tuple[str, ...] = ()

    def __call__(self, program: Program) -> Program:
        stages = tuple(
            replace(stage, body=self._block(stage.body, frozenset())) if stage.name.startswith(self.stage) else stage
            for stage in program.stages
        )
        return replace(program, stages=stages)

    @property
    def threads(self) -> int:
        return math.prod(axis.threads for axis in self.axes)

    def _block(self, body: tuple[Stmt, ...], registers: frozenset[str]) -> tuple[Stmt, ...]:
        """The block of a task; ``registers`` are those that its threads have parts of."""
        names = {axis.loop for axis in self.axes}
        result: list[Stmt] = []
        for statement in body:
            match statement:
                case Alloc(buffer, inner):
                    if buffer.space == "register":
                        result.append(Alloc(self._of_threads(buffer), self._block(inner, registers | {buffer.name})))
                    else:
                        result.append(Alloc(buffer, self._block(inner, registers)))
                case For(var, _, inner, kind) if kind == "parallel" or var in self.around:
                    result.append(replace(statement, body=self._block(inner, registers)))
                case _ if names <= {loop.var for loop in loops((statement,))}:
                    result.append(For(THREAD, Int(self.threads), self._thread(statement, registers), "thread"))
                case _:
                    result.append(statement)
        return tuple(result)

    def _of_threads(self, buffer: Buffer) -> Buffer:
        """Registers with an axis of threads, and two for each of the loops."""
        if len(buffer.shape) < len(self.axes) or buffer.shape[: len(self.axes)] != tuple(
            Int(axis.extent) for axis in self.axes
        ):
            raise IRError(f"register {buffer.name} does not begin with the axes {[axis.loop for axis in self.axes]}")
        own = (Int(size) for axis in self.axes for size in (axis.outer, axis.inner))
        return replace(buffer, shape=(Int(self.threads), *own, *buffer.shape[len(self.axes) :]))

    def _thread(self, statement: Stmt, registers: frozenset[str]) -> tuple[Stmt, ...]:
        body: tuple[Stmt, ...] = (self._registers(statement, registers),)
        number: Index = Var(THREAD)
        for axis in reversed(self.axes):
            along = number if axis is self.axes[0] else mod(number, axis.threads)
            number = floordiv(number, axis.threads)
            place = axis.place(along)

            def deal(loop: For, axis: ThreadAxis = axis, place: Index = place) -> tuple[Stmt, ...]:
                if loop.extent != Int(axis.extent):
                    raise IRError(f"loop {axis.loop} has not {axis.extent} iterations")
                inner = substitute_block(loop.body, {axis.loop: place})
                return (
                    For(f"{axis.loop}_outer", Int(axis.outer), (For(f"{axis.loop}_inner", Int(axis.inner), inner),)),
                )

            body = rewrite_loops(body, axis.loop, deal)
        return body

    def _registers(self, statement: Stmt, registers: frozenset[str]) -> Stmt:
        """The statement with registers accessed by the thread's number and places of its own."""
        own = tuple(Var(f"{axis.loop}_{part}") for axis in self.axes for part in ("outer", "inner"))
        whole = tuple(Var(axis.loop) for axis in self.axes)

        def place(index: tuple[Index, ...]) -> tuple[Index, ...]:
            return (Var(THREAD), *own, *index[len(whole) :]) if index[: len(whole)] == whole else index

        def visit(value: Value) -> Value:
            match value:
                case Load(buffer, index) if buffer in registers:
                    return replace(value, index=place(index))
                case _:
                    return value

        def stored(inner: Stmt) -> Stmt:
            if isinstance(inner, Store):
                return replace(inner, index=place(inner.index)) if inner.buffer in registers else inner
            return map_body(inner, lambda body: tuple(map(stored, body)))

        return stored(map_statement(statement, lambda index: index, visit))
