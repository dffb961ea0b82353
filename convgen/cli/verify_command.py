"""``convgen verify``: gates A, B and C of every strategy that applies."""

from __future__ import annotations

import argparse
import functools
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from convgen.cli.problems import Source, read_source
from convgen.cli.report import Column, print_line, print_table, progress, shape
from convgen.cuda.kernels import CudaConv
from convgen.cuda.plans import algorithms_of_cuda_plan, plan_cuda
from convgen.driver import algorithms_of_plan
from convgen.errors import NotApplicable, SpecError
from convgen.gpu import Gpu, gpu_of
from convgen.machine import Machine
from convgen.planning import compile_spec
from convgen.spec import ConvSpec
from convgen.strategies.cuda.registry import GPU_STRATEGIES, gpu_strategy_named
from convgen.strategies.registry import STRATEGIES, strategy_named
from convgen.transforms.split import Algorithms
from convgen.verify import Comparison, Run, gate_a, gate_b, gate_c

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
    bench = _bench(arguments)
    names = bench.names if arguments.strategy == "all" else (bench.named(arguments.strategy),)
    verdicts = []
    with progress(f"verifying {source.name}", len(specs) * len(names)) as advance:
        for spec in specs:
            for name in names:
                verdicts.append(_judge(bench, spec, name, arguments.seed))
                advance(f"{name} {spec}")
    if not any(verdict.gates for verdict in verdicts):
        reason = bench.refusal(specs[0], names[0])
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


class _Bench(Protocol):
    """What is verified: the strategies of a target, and calls of what they make."""

    @property
    def names(self) -> tuple[str, ...]: ...

    def named(self, name: str) -> str:
        """The name again; raises NotApplicable for one that there is not."""
        ...

    def refusal(self, spec: ConvSpec, strategy: str) -> str | None: ...

    def compiled(self, spec: ConvSpec, strategy: str) -> tuple[Run, Algorithms]:
        """The strategy's default for the problem as a function of its operands, and what its numbers are held to."""
        ...


@dataclass(frozen=True)
class _CpuBench:
    machine: Machine

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(strategy.name for strategy in STRATEGIES)

    def named(self, name: str) -> str:
        return strategy_named(name).name

    def refusal(self, spec: ConvSpec, strategy: str) -> str | None:
        return strategy_named(strategy).refusal(spec, self.machine)

    def compiled(self, spec: ConvSpec, strategy: str) -> tuple[Run, Algorithms]:
        op = compile_spec(spec, strategy)
        return op, algorithms_of_plan(op.plan)


@dataclass(frozen=True)
class _CudaBench:
    """Kernels for GPUs, whose PTX is interpreted: no device is needed."""

    gpu: Gpu
    seed: int

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(strategy.name for strategy in GPU_STRATEGIES)

    def named(self, name: str) -> str:
        return gpu_strategy_named(name).name

    def refusal(self, spec: ConvSpec, strategy: str) -> str | None:
        return gpu_strategy_named(strategy).refusal(spec, self.gpu)

    def compiled(self, spec: ConvSpec, strategy: str) -> tuple[Run, Algorithms]:
        op = CudaConv(plan_cuda(spec, self.gpu, strategy), self.gpu)
        return functools.partial(op.interpret, seed=self.seed), algorithms_of_cuda_plan(op.plan)


def _bench(arguments: argparse.Namespace) -> _Bench:
    if arguments.target == "cuda":
        return _CudaBench(gpu_of(arguments.capability), arguments.seed)
    return _CpuBench(Machine.host())


def _judge(bench: _Bench, spec: ConvSpec, strategy: str, seed: int) -> _Verdict:
    if bench.refusal(spec, strategy) is not None:
        return _Verdict(spec, strategy)

    def rng() -> np.random.Generator:
        return np.random.default_rng(seed)

    run, algorithms = bench.compiled(spec, strategy)
    gates = {"A": gate_a(spec, run, rng(), algorithms), "B": gate_b(spec, run, rng(), algorithms)}
    operators = _all_directions(bench, spec, strategy)
    if operators is not None:
        (forward, _), (data, _), (weights, _) = operators
        rounded = any(algorithms for _, algorithms in operators)
        gates["C"] = gate_c(spec, forward, data, weights, rng(), rounded=rounded)
    return _Verdict(spec, strategy, gates)


def _all_directions(bench: _Bench, spec: ConvSpec, strategy: str) -> list[tuple[Run, Algorithms]] | None:
    """The three operators of the adjoint identity, where there is one and the strategy has them all."""
    if spec.direction != "forward" or spec.epilogue.steps:
        return None
    specs = [spec.replace(direction=direction) for direction in _DIRECTIONS]
    if any(bench.refusal(each, strategy) is not None for each in specs):
        return None
    return [bench.compiled(each, strategy) for each in specs]


def _word(ok: bool) -> str:
    return "pass" if ok else "FAIL"
