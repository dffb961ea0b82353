"""predicate: what a guard around a sum keeps from being read reads as zero, so that the loops of the sum are a perfect nest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from convgen.errors import IRError
from convgen.ir.nodes import (
    Alloc,
    Choose,
    Const,
    Fma,
    For,
    If,
    Less,
    Load,
    PaddedLoad,
    Program,
    Stmt,
    Store,
    Value,
)
from convgen.ir.rewrite import map_value, variables
from convgen.ir.types import compute_dtype


@dataclass(frozen=True)
class Predicate:
    """if c: alloc acc: { acc = 0; for r: if d: acc += x[i] * w[r]; y[i] = acc }
    →  alloc acc: { acc = 0; for r: acc += (x[i] if c and d else 0) * (w[r] if d else 0); if c: y[i] = acc }

    in every stage that begins with ``stage``. A read is tested by the conditions that share a variable with its place. Guards
    stay around stores to memory.

    Requires: guards inside of an alloc, but around stores to memory, are on multiply-adds of which both factors are read at
    places that depend on the guard. Ensures: the same is stored to memory; guards stand around stores to memory alone.
    """

    stage: str = ""

    def __call__(self, program: Program) -> Program:
        scope = _Scope(program)
        stages = tuple(
            replace(stage, body=scope.block(stage.body)) if stage.name.startswith(self.stage) else stage
            for stage in program.stages
        )
        return replace(program, stages=stages)


@dataclass(frozen=True)
class _Scope:
    """Where a statement stands: the guards around it, and for each of the registers how many of them stand around its alloc."""

    program: Program
    guards: tuple[Less, ...] = ()
    registers: Mapping[str, int] = field(default_factory=dict)

    def block(self, body: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
        return tuple(part for statement in body for part in self._statement(statement))

    def _statement(self, statement: Stmt) -> tuple[Stmt, ...]:
        match statement:
            case For(_, _, body):
                return (replace(statement, body=self.block(body)),)
            case If(condition, body):
                return replace(self, guards=(*self.guards, condition)).block(body)
            case Alloc(buffer, body):
                inside = replace(self, registers={**self.registers, buffer.name: len(self.guards)})
                return (Alloc(buffer, inside.block(body)),)
            case Store(buffer, _, value) if buffer in self.registers:
                for guard in self.guards[self.registers[buffer] :]:
                    self._check_neutral(guard, value)
                return (replace(statement, value=map_value(value, lambda index: index, self._tested)),)
            case Store():
                guarded: Stmt = statement
                for guard in reversed(self.guards):
                    guarded = If(guard, (guarded,))
                return (guarded,)
            case _ if self.guards:
                raise IRError(f"a {type(statement).__name__.lower()} stands under a guard")
            case _:
                return (statement,)

    def _check_neutral(self, guard: Less, value: Value) -> None:
        """Where a guard inside of the alloc does not hold, nothing is left to add."""
        match value:
            case Fma(a, b, Load()) if self._depends(a, guard) and self._depends(b, guard):
                pass
            case _:
                raise IRError("a guard in a sum is not on a product of two reads that depend on it")

    def _depends(self, value: Value, guard: Less) -> bool:
        match value:
            case Choose(_, Load() | PaddedLoad() as load, Const(0)):
                return self._depends(load, guard)
            case Load(buffer, index) | PaddedLoad(buffer, index):
                names = frozenset[str]().union(*map(variables, index))
                return buffer not in self.registers and bool(names & (variables(guard.a) | variables(guard.b)))
            case _:
                return False

    def _tested(self, value: Value) -> Value:
        match value:
            case Choose(conditions, Choose(more, load, Const(0) as zero), Const(0)):
                return Choose((*more, *conditions), load, zero)
            case Load(buffer) | PaddedLoad(buffer) if buffer not in self.registers:
                conditions = tuple(guard for guard in self.guards if self._depends(value, guard))
                zero = Const(0.0, compute_dtype(self.program.buffer(buffer).dtype))
                return Choose(conditions, value, zero) if conditions else value
            case _:
                return value
