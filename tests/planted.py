"""Strategies that are wrong on purpose, and a helper process that knows them.

Each is the reference with a slip in its program, and promises to be the fastest of all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from convgen.ir import build
from convgen.ir.nodes import Arith, Const, If, Int, Less, Load, Program, Stmt, Store, Value
from convgen.ir.rewrite import map_body, map_stages, map_statement
from convgen.machine import Machine
from convgen.passes.pipeline import Pass
from convgen.spec import ConvSpec
from convgen.strategies import registry
from convgen.strategies.base import Schedule, Strategy
from convgen.strategies.reference import Reference
from convgen.tuner import helper_process
from convgen.tuning.space import Config

# Elements beyond the end: within a page of it, and far away.
FAR = 1 << 40

Slip = Pass


def adds_one(program: Program) -> Program:
    """All results are one too large."""
    return _stored(program, lambda store: (replace(store, value=Arith("+", store.value, Const(1.0, "float32"))),))


def leaves_one_channel_out(program: Program) -> Program:
    """The last channel keeps whatever was there."""
    channels = program.buffer("output").shape[1]
    return _stored(program, lambda store: (If(Less(store.index[1], build.sub(channels, 1)), (store,)),))


def reads_beyond(distance: int) -> Slip:
    """Elements so far behind those of the weights are read too, and do not count."""

    def visited(value: Value) -> Value:
        match value:
            case Load("weight", index):
                beyond = replace(value, index=(*index[:-1], build.add(index[-1], Int(distance))))
                return Arith("+", value, Arith("*", Const(0.0, "float32"), beyond))
            case _:
                return value

    def slipped(program: Program) -> Program:
        return map_stages(
            program, lambda body: tuple(map_statement(statement, lambda index: index, visited) for statement in body)
        )

    return slipped


SLIPS: dict[str, Slip] = {
    "adds_one": adds_one,
    "leaves_one_channel_out": leaves_one_channel_out,
    "reads_one_beyond": reads_beyond(1),
    "reads_far_beyond": reads_beyond(FAR),
}


@dataclass(frozen=True)
class Planted:
    """The reference with a slip."""

    name: str

    def refusal(self, spec: ConvSpec, machine: Machine) -> str | None:
        return None

    def default(self, spec: ConvSpec, machine: Machine) -> Config:
        return Config()

    def space(self, spec: ConvSpec, machine: Machine) -> tuple[Config, ...]:
        return (Config(),)

    def error_bound(self, spec: ConvSpec) -> float:
        return 0.0

    def predicted_seconds(self, spec: ConvSpec, config: Config, machine: Machine) -> float:
        return 1e-9

    def schedule(self, spec: ConvSpec, config: Config, machine: Machine) -> Schedule:
        genuine = Reference().schedule(spec, config, machine)
        return Schedule(genuine.nest, (*genuine.passes, SLIPS[self.name]))


def with_planted() -> tuple[Strategy, ...]:
    """All strategies and those with slips."""
    return (*registry.STRATEGIES, *map(Planted, SLIPS))


def serve() -> None:
    """Is a helper in whose registry they are."""
    registry.STRATEGIES = with_planted()
    helper_process.main()


def _stored(program: Program, change: Callable[[Store], tuple[Stmt, ...]]) -> Program:
    """Changes every store of a result."""

    def block(body: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
        return tuple(
            inner
            for statement in body
            for inner in (
                change(statement)
                if isinstance(statement, Store) and statement.buffer == "output"
                else (map_body(statement, block),)
            )
        )

    return map_stages(program, block)
