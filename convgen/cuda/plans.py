"""How a problem is computed on a GPU: the plan, its scheduled program, and that program lowered."""

from __future__ import annotations

from convgen.descriptor import format_descriptor
from convgen.driver import ALIKE, NAMED_CONFIGS, PassObserver, Plan
from convgen.errors import NotApplicable
from convgen.gpu import Gpu
from convgen.ir.interp import check_needs
from convgen.ir.nodes import Program
from convgen.passes.pipeline import run_passes
from convgen.spec import ConvSpec
from convgen.strategies.accuracy import accuracy_limit
from convgen.strategies.base import Inexact
from convgen.strategies.cuda.registry import gpu_applicable, gpu_strategy_named
from convgen.targets.cuda.program import CudaProgram, lower_program
from convgen.transforms.split import Algorithms
from convgen.tuning.space import Config


def plan_cuda(spec: ConvSpec, gpu: Gpu, strategy: str = "auto", config: Config | None = None) -> Plan:
    """The plan asked for by name, or of the strategies' defaults the one that is predicted to be the fastest.

    Raises NotApplicable with a strategy's reason, for a configuration that it does not offer, and where none is accurate enough.
    """
    if strategy == "auto":
        return _heuristic(spec, gpu)
    chosen = gpu_strategy_named(strategy)
    reason = chosen.refusal(spec, gpu)
    if reason is not None:
        raise NotApplicable(f"strategy={strategy!r} does not apply: {reason}")
    if config is None:
        return Plan(spec, strategy, chosen.default(spec, gpu), "given")
    offered = chosen.space(spec, gpu)
    if config not in offered:
        allowed = ", or ".join(map(str, offered[:NAMED_CONFIGS]))
        more = f", or {len(offered) - NAMED_CONFIGS} others" if len(offered) > NAMED_CONFIGS else ""
        raise NotApplicable(f"config={str(config)!r} is not one of {strategy}'s; allowed: {allowed}{more}")
    return Plan(spec, strategy, config, "given")


def _heuristic(spec: ConvSpec, gpu: Gpu) -> Plan:
    limit = accuracy_limit(spec)
    accurate = [strategy for strategy in gpu_applicable(spec, gpu) if strategy.error_bound(spec) <= limit]
    if not accurate:
        raise NotApplicable(f"accuracy={spec.accuracy!r} is below what any strategy for GPUs promises here")
    plans = [Plan(spec, strategy.name, strategy.default(spec, gpu), "heuristic") for strategy in accurate]
    seconds = [s.predicted_seconds(spec, p.config, gpu) for s, p in zip(accurate, plans, strict=True)]
    return next(plan for plan, t in zip(plans, seconds, strict=True) if t <= ALIKE * min(seconds))


def build_cuda_program(plan: Plan, gpu: Gpu, observer: PassObserver | None = None) -> tuple[Program, dict[str, int]]:
    """The scheduled program of a plan and the values of its sizes."""
    schedule = gpu_strategy_named(plan.strategy).schedule(plan.spec, plan.config, gpu)
    program = run_passes(schedule.nest.program, schedule.passes, observer)
    check_needs(program, schedule.nest.sizes)
    return program, dict(schedule.nest.sizes)


def algorithms_of_cuda_plan(plan: Plan) -> Algorithms:
    """The fast algorithms that a plan takes, by which its numbers are judged; none for plain sums."""
    strategy = gpu_strategy_named(plan.strategy)
    return strategy.algorithms(plan.spec, plan.config) if isinstance(strategy, Inexact) else ()


def lower_cuda(plan: Plan, gpu: Gpu) -> CudaProgram:
    """The plan's program as text of the target; raises NotApplicable where a GPU of this kind cannot run it."""
    return lower_program(*build_cuda_program(plan, gpu), gpu)


def cuda_source(plan: Plan, lowered: CudaProgram) -> str:
    """The plan's generated source with its banner."""
    text, gpu = format_descriptor(plan.spec), lowered.gpu
    result = next(buffer.name for buffer in lowered.program.buffers if buffer.space == "result")
    again = f"convgen emit '{text}' --target cuda --capability {gpu.name} --strategy {plan.strategy}"
    facts = (
        f"for GPUs of compute capability {gpu.name}",
        f"strategy  {plan.strategy}, {plan.config}",
        "template  cuda/kernel.py.j2",
        f"again     {again} --config '{plan.config}' -o .",
    )
    return lowered.source(f"convgen: {text}", facts, {**plan.spec.operand_shapes, result: plan.spec.result_shape})
