"""``convgen verify``: gates A, B and C of every strategy that applies."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field

import numpy as np

from convgen.cli.problems import Source, read_source
from convgen.cli.report import Column, print_line, print_table, progress, shape
from convgen.driver import algorithms_of_plan
from convgen.errors import NotApplicable, SpecError
from convgen.machine import Machine
from convgen.operator import CompiledConv
from convgen.planning import compile_spec
from convgen.spec import ConvSpec
from convgen.strategies.registry import STRATEGIES, strategy_named
from convgen.verify import Comparison, gate_a, gate_b, gate_c

# Reduced images keep their borders and a row that no tile divides; larger ones only make the oracle slower.
REDUCED_SIZE = 9
_DIRECTIONS = ("forward", "backward_data", "backward_weights")
_COLUMNS: tuple[Column, ...] = (
    ("problem", "left"),
    ("strategy", "left"),
    ("A", "left"),
    ("B", "left"),
    ("C", "left"),
    ("rel. L2 (B)", "right"),
    ("result", "left"),
)


@dataclass(frozen=True)
class _Verdict:
    """What the gates say of one strategy on one problem; no gates if it refuses the problem."""

    spec: ConvSpec
    strategy: str
    gates: dict[str, Comparison] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return all(comparison.ok for comparison in self.gates.values())

    @property
    def reasons(self) -> list[str]:
        failed = [(name, comparison) for name, comparison in self.gates.items() if not comparison.ok]
        return [f"{self.spec}: {self.strategy}: gate {name}: {comparison.reason}" for name, comparison in failed]

    def row(self) -> tuple[str, ...]:
        gates = [_word(self.gates[name].ok) if name in self.gates else "-" for name in "ABC"]
        error = f"{self.gates['B'].relative_l2:.1e}" if "B" in self.gates else "-"
        return (shape(self.spec), self.strategy, *gates, error, _word(self.ok) if self.gates else "not applicable")


def run_verify(arguments: argparse.Namespace) -> int:
    """Verifies and prints a table; returns 1 if a gate fails. Raises NotApplicable if there is nothing to verify."""
    source = read_source(arguments.source, batch=arguments.batch, layout=arguments.layout, dtype=arguments.dtype)
    is_reduced = source.kind != "problem" and not arguments.full
    specs = _specs(source, is_reduced)
    names = (
        tuple(s.name for s in STRATEGIES) if arguments.strategy == "all" else (strategy_named(arguments.strategy).name,)
    )
    verdicts = []
    with progress(f"verifying {source.name}", len(specs) * len(names)) as advance:
        for spec in specs:
            for name in names:
                verdicts.append(_judge(spec, name, arguments.seed))
                advance(f"{name} {spec}")
    if not any(verdict.gates for verdict in verdicts):
        reason = strategy_named(names[0]).refusal(specs[0], Machine.host())
        raise NotApplicable(f"strategy={arguments.strategy!r} applies to none of the problems: {reason}")
    if is_reduced:
        print_line(
            f"{source.name} with images reduced to {REDUCED_SIZE} or the kernel's reach; --full keeps their sizes"
        )
    print_table(_COLUMNS, [verdict.row() for verdict in verdicts])
    return _conclude(verdicts)


def _conclude(verdicts: list[_Verdict]) -> int:
    for reason in (reason for verdict in verdicts for reason in verdict.reasons):
        print_line(reason)
    judged = [verdict for verdict in verdicts if verdict.gates]
    failed = sum(not verdict.ok for verdict in judged)
    print_line(f"{len(judged)} verified, {len(judged) - failed} passed, {failed} failed")
    return 1 if failed else 0


def _specs(source: Source, is_reduced: bool) -> list[ConvSpec]:
    specs = [problem.spec for problem in source.problems]
    return list(dict.fromkeys(map(_reduced, specs))) if is_reduced else specs


def _reduced(spec: ConvSpec) -> ConvSpec:
    reach = [dilation * (kernel - 1) + 1 for kernel, dilation in zip(spec.kernel_size, spec.dilation, strict=True)]
    size = [min(full, max(REDUCED_SIZE, least)) for full, least in zip(spec.spatial_size, reach, strict=True)]
    try:
        return spec.replace(spatial_size=size)
    except SpecError:  # cropping or reflecting padding may need the whole image
        return spec


def _judge(spec: ConvSpec, strategy: str, seed: int) -> _Verdict:
    if strategy_named(strategy).refusal(spec, Machine.host()) is not None:
        return _Verdict(spec, strategy)

    def rng() -> np.random.Generator:
        return np.random.default_rng(seed)

    op = compile_spec(spec, strategy)
    algorithms = algorithms_of_plan(op.plan)
    gates = {"A": gate_a(spec, op, rng(), algorithms), "B": gate_b(spec, op, rng(), algorithms)}
    operators = _all_directions(spec, strategy)
    if operators is not None:
        gates["C"] = gate_c(spec, *operators, rng(), rounded=any(algorithms_of_plan(each.plan) for each in operators))
    return _Verdict(spec, strategy, gates)


def _all_directions(spec: ConvSpec, strategy: str) -> tuple[CompiledConv, CompiledConv, CompiledConv] | None:
    """The three operators of the adjoint identity, where there is one and the strategy has them all."""
    if spec.direction != "forward" or spec.epilogue.steps:
        return None
    specs = [spec.replace(direction=direction) for direction in _DIRECTIONS]
    if any(strategy_named(strategy).refusal(each, Machine.host()) is not None for each in specs):
        return None
    forward, data, weights = (compile_spec(each, strategy) for each in specs)
    return forward, data, weights


def _word(ok: bool) -> str:
    return "pass" if ok else "FAIL"
