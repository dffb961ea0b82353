"""From a problem to an operator: choose a plan, lower it, compile it."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from convgen.descriptor import format_descriptor
from convgen.errors import NotApplicable, OptionError, WorkspaceLimitError
from convgen.ir.interp import check_needs
from convgen.ir.nodes import Program
from convgen.machine import Machine
from convgen.options import debug_level, forbidden_strategies
from convgen.passes.pipeline import run_passes
from convgen.runtime.threads import max_threads
from convgen.spec import ConvSpec
from convgen.strategies.accuracy import accuracy_limit
from convgen.strategies.base import Strategy, algorithms_of
from convgen.strategies.packing_cost import packing_seconds
from convgen.strategies.registry import STRATEGIES, applicable, rank, strategy_named
from convgen.targets.cpu.program import BannerText, CpuProgram, lower_program, scratch_bytes
from convgen.transforms.split import Algorithms
from convgen.tuning.space import Config

PassObserver = Callable[[str, Program], None]

# Below this much work (some 10 µs of one core) a second thread costs more than it brings.
MIN_PARALLEL_MACS = 500_000
# Predictions that differ by no more than this factor are alike.
ALIKE = 1.05
# Limits that a message may name, for results of the size of one.
ACCURACIES = tuple(digit * 10.0**exponent for exponent in range(-17, 1) for digit in (1, 1.5, 2, 3, 5, 7))
# A message names so many configurations.
NAMED_CONFIGS = 6


@dataclass(frozen=True)
class Plan:
    """How a problem is computed, and why so.

    ``origin`` is "database" (it won a measurement here or on a machine like this), "shipped" (the same, with convgen), "pinned"
    (by a person), "lock" (by the lockfile), "measured" (a candidate of a measurement), "heuristic" or "given"; ``seconds`` is
    the measured median, if there is one.
    """

    spec: ConvSpec
    strategy: str
    config: Config
    origin: str
    seconds: float | None = None


def heuristic_plan(
    spec: ConvSpec,
    machine: Machine,
    workspace_limit: int | None = None,
    threads: int | None = None,
    *,
    constant_weights: bool = True,
) -> Plan:
    """Of the strategies' defaults the one that is predicted to be the fastest, of such as are alike the first in the registry, so
    that images of many sizes get the same; where it does not fit the workspace limit, of all configurations that do. Weights
    that are not constant are packed in each call, which counts.

    Raises NotApplicable if no strategy is accurate enough and WorkspaceLimitError if none is small enough.
    """
    strategies = accurate_strategies(spec, machine)
    defaults = [(strategy, strategy.default(spec, machine)) for strategy in strategies]
    seconds = [strategy.predicted_seconds(spec, config, machine) for strategy, config in defaults]
    if not constant_weights:
        packing = (packing_seconds(strategy, spec, config, machine) for strategy, config in defaults)
        seconds = [call + pack for call, pack in zip(seconds, packing, strict=True)]
    strategy, config = next(pair for pair, t in zip(defaults, seconds, strict=True) if t <= ALIKE * min(seconds))
    best = Plan(spec, strategy.name, config, "heuristic")
    if fits(best, machine, workspace_limit, threads):
        return best
    return _smaller_plan(spec, strategies, "heuristic", machine, workspace_limit, threads)


def _smaller_plan(
    spec: ConvSpec,
    strategies: Sequence[Strategy],
    origin: str,
    machine: Machine,
    workspace_limit: int | None,
    threads: int | None,
) -> Plan:
    """The configuration that is predicted to be the fastest of those that fit; raises WorkspaceLimitError."""
    choices = [(strategy, config) for strategy in strategies for config in strategy.space(spec, machine)]
    plans = [Plan(spec, strategy.name, config, origin) for strategy, config in rank(spec, machine, choices)]
    for plan in plans:
        if fits(plan, machine, workspace_limit, threads):
            return plan
    smallest = min(needed_bytes(plan, machine, worker_count(spec, threads)) for plan in plans)
    raise WorkspaceLimitError(
        f"workspace_limit={workspace_limit} bytes is too small; the smallest variant needs {smallest}"
    )


def fits(plan: Plan, machine: Machine, workspace_limit: int | None, threads: int | None) -> bool:
    """Whether a call, with weights that are not given packed, needs no more scratch memory than the limit."""
    if workspace_limit is None:
        return True
    return needed_bytes(plan, machine, worker_count(plan.spec, threads)) <= workspace_limit


@functools.lru_cache(maxsize=1024)
def needed_bytes(plan: Plan, machine: Machine, workers: int) -> int:
    """``CpuProgram.scratch_bytes`` of a plan."""
    return scratch_bytes(*build_program(plan, machine, lambda *_: None), workers)


def worker_count(spec: ConvSpec, threads: int | None) -> int:
    """How many threads a call takes part in when so many (None: the default number) are allowed."""
    return thread_count(threads) if spec.macs >= MIN_PARALLEL_MACS else 1


def accurate_strategies(spec: ConvSpec, machine: Machine) -> tuple[Strategy, ...]:
    """The strategies that apply, are not forbidden (CONVGEN_FORBID) and whose error bound is within the problem's accuracy;
    raises NotApplicable if none is.

    "strict" admits plain sums alone; "fast" what Winograd's F(4, 3) reaches (see accuracy_limit). The reference, which refuses
    nothing, cannot be forbidden.
    """
    limit = accuracy_limit(spec)
    forbidden = _forbidden()
    candidates = tuple(strategy for strategy in applicable(spec, machine) if strategy.name not in forbidden)
    chosen = tuple(strategy for strategy in candidates if strategy.error_bound(spec) <= limit)
    if not chosen:
        allowed = next(limit for limit in ACCURACIES if _admits(spec, limit, machine))
        raise NotApplicable(
            f"accuracy={spec.accuracy!r} is below what any strategy promises here; allowed: {allowed:g} or more"
        )
    return chosen


def _forbidden() -> tuple[str, ...]:
    names = forbidden_strategies()
    allowed = [strategy.name for strategy in STRATEGIES[:-1]]
    for name in names:
        if name not in allowed:
            raise OptionError(f"CONVGEN_FORBID={name!r} is not allowed; allowed: {', '.join(allowed)}")
    return names


def _admits(spec: ConvSpec, accuracy: float, machine: Machine) -> bool:
    """Whether any strategy is so accurate."""
    looser = spec.replace(accuracy=accuracy)
    return any(strategy.error_bound(looser) <= accuracy for strategy in applicable(looser, machine))


def given_plan(
    spec: ConvSpec,
    strategy: str,
    config: Config | None,
    machine: Machine,
    workspace_limit: int | None = None,
    threads: int | None = None,
) -> Plan:
    """The plan that a caller asks for by name: without ``config`` the strategy's default, or the best configuration that fits.

    Raises NotApplicable with the strategy's reason and WorkspaceLimitError where none fits; a ``config`` that is given is not
    held against the limit.
    """
    chosen = strategy_named(strategy)
    reason = chosen.refusal(spec, machine)
    if reason is not None:
        raise NotApplicable(f"strategy={strategy!r} does not apply: {reason}")
    if config is None:
        plan = Plan(spec, strategy, chosen.default(spec, machine), "given")
        if fits(plan, machine, workspace_limit, threads):
            return plan
        return _smaller_plan(spec, (chosen,), "given", machine, workspace_limit, threads)
    offered = chosen.space(spec, machine)
    if config not in offered:
        allowed = ", or ".join(map(str, offered[:NAMED_CONFIGS]))
        more = f", or {len(offered) - NAMED_CONFIGS} others" if len(offered) > NAMED_CONFIGS else ""
        raise NotApplicable(f"config={str(config)!r} is not one of {strategy}'s; allowed: {allowed}{more}")
    return Plan(spec, strategy, config, "given")


def algorithms_of_plan(plan: Plan) -> Algorithms:
    """The fast algorithms that a plan takes, by which its numbers are judged; none for plain sums."""
    return algorithms_of(strategy_named(plan.strategy), plan.spec, plan.config)


def build_program(plan: Plan, machine: Machine, observer: PassObserver | None = None) -> tuple[Program, dict[str, int]]:
    """The scheduled program of a plan and the values of its sizes."""
    strategy: Strategy = strategy_named(plan.strategy)
    schedule = strategy.schedule(plan.spec, plan.config, machine)
    if observer is None and debug_level() >= 3:
        observer = _print_program
    program = run_passes(schedule.nest.program, schedule.passes, observer)
    check_needs(program, schedule.nest.sizes)
    return program, dict(schedule.nest.sizes)


def _print_program(name: str, program: Program) -> None:
    from convgen.ir.printer import format_program

    print(f"# after {name}\n{format_program(program)}")


def lower(plan: Plan, machine: Machine, workers: int = 1) -> CpuProgram:
    """The plan's program as text of the target, not yet compiled, with memory for that many workers."""
    program, sizes = build_program(plan, machine)
    return lower_program(program, sizes, machine, workers)


def source_of(plan: Plan, lowered: CpuProgram) -> str:
    """The plan's generated source with its banner."""
    result = next(buffer.name for buffer in lowered.program.buffers if buffer.space == "result")
    return lowered.source(_banner(plan), {**plan.spec.operand_shapes, result: plan.spec.result_shape})


def _banner(plan: Plan) -> BannerText:
    text = format_descriptor(plan.spec)
    return BannerText(
        f"convgen: {text}",
        (
            f"strategy  {plan.strategy}, {plan.config}",
            "template  cpu/kernel.py.j2",
            f"again     convgen emit '{text}' --strategy {plan.strategy} --config '{plan.config}' -o .",
        ),
    )


def thread_count(threads: int | None) -> int:
    """The number of threads asked for, or the default; raises OptionError."""
    if threads is None:
        return max_threads()
    try:
        count = 0 if isinstance(threads, bool) else operator.index(threads)
    except TypeError:
        count = 0
    if count < 1:
        raise OptionError(f"threads={threads!r} is not valid; allowed: an integer of 1 or more")
    return count


def check_limit(limit: object) -> None:
    """Raises OptionError for what is not a workspace limit."""
    if limit is not None and (type(limit) is not int or limit < 0):
        raise OptionError(f"workspace_limit={limit!r} is not valid; allowed: bytes, 0 or more, or None")


def check_budget(budget: float) -> None:
    """Raises OptionError for what is not a finite number of seconds."""
    if type(budget) not in (int, float) or not 0 <= budget < float("inf"):
        raise OptionError(f"budget={budget!r} is not valid; allowed: seconds, 0 or more")
