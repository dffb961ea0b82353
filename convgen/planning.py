"""Which plan a problem gets, and the public ways to compile and emit it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

from convgen.choices import best_unpacked, known_plan
from convgen.driver import Plan, check_budget, check_limit, given_plan, heuristic_plan, thread_count
from convgen.errors import OptionError, SpecError
from convgen.machine import Machine
from convgen.operator import CompiledConv
from convgen.options import debug_level, tune_mode
from convgen.source_files import write_source
from convgen.spec import ConvSpec
from convgen.tuning.space import Config

# Of what is left of an autotune budget, the most that one problem may use.
_SHARE = 0.5

# Until when the autotune blocks around the running code may measure.
_deadline: ContextVar[float] = ContextVar("convgen_autotune_deadline", default=0.0)


@contextlib.contextmanager
def autotune(budget: float = 60.0) -> Iterator[None]:
    """Inside, problems met for the first time are tuned, for ``budget`` seconds in total; outside, nothing is ever measured.

    What the functions have compiled before the block is compiled again with what tuning finds. The block holds for the thread
    that opened it. Raises OptionError.
    """
    check_budget(budget)
    outer = _deadline.get() or float("inf")
    token = _deadline.set(min(outer, time.perf_counter() + budget))
    try:
        yield
    finally:
        _deadline.reset(token)


def is_autotuning() -> bool:
    """Whether an autotune block with time left is open."""
    return time.perf_counter() < _deadline.get() and tune_mode() == "on"


def plan_for(
    spec: ConvSpec,
    *,
    threads: int | None = None,
    workspace_limit: int | None = None,
    machine: Machine | None = None,
    constant_weights: bool = True,
) -> Plan:
    """The plan that "auto" means: the database's if it knows the problem (and CONVGEN_TUNE is not off), else the heuristic's.

    Inside ``autotune`` an unknown problem is tuned first. Raises NotApplicable and WorkspaceLimitError.
    """
    host = Machine.host()
    where = machine or host
    count = thread_count(threads)
    if tune_mode() != "off" and where == host:
        known = known_plan(spec, where, count, workspace_limit)
        if known is None and is_autotuning():
            # The tuner brings the oracle and the gates along, which a call outside of autotune never needs.
            from convgen.tuner import tune

            left = _deadline.get() - time.perf_counter()
            found = tune(spec, max(0.0, left * _SHARE), threads=count, workspace_limit=workspace_limit)
            assert not isinstance(found, list)
            known = found
        if known is not None:
            limited = constant_weights or workspace_limit is not None
            return known.plan if limited else best_unpacked(known, where)
    return heuristic_plan(spec, where, workspace_limit, count, constant_weights=constant_weights)


def compile_spec(
    spec: ConvSpec,
    strategy: str = "auto",
    threads: int | None = None,
    workspace_limit: int | None = None,
    *,
    config: Config | None = None,
    machine: Machine | None = None,
    constant_weights: bool = True,
) -> CompiledConv:
    """Compiles a problem into an operator; see CompiledConv for how it is called.

    ``strategy`` "auto" takes what the database knows, else the heuristic's choice; a name takes that strategy with ``config`` or
    its default. ``threads`` None means CONVGEN_NUM_THREADS or all cores. ``workspace_limit``, in bytes, is never exceeded: "auto"
    falls back to smaller and slower ways, at last to the reference, which needs nothing. ``machine`` masks features of this one.
    "auto" takes weights to be packed once; without ``constant_weights``, as in training, packing them in each call counts.
    Raises SpecError, NotApplicable, WorkspaceLimitError, CompileError, OptionError.
    """
    _check_spec(spec)
    check_limit(workspace_limit)
    where = machine or Machine.host()
    _check_config(strategy, config)
    if strategy == "auto":
        plan = plan_for(
            spec,
            threads=threads,
            workspace_limit=workspace_limit,
            machine=machine,
            constant_weights=constant_weights,
        )
    else:
        plan = given_plan(spec, strategy, config, where, workspace_limit, threads)
    if debug_level() >= 1:
        print(f"convgen: {spec}: {plan.strategy} {plan.config} ({plan.origin})")
    start = time.perf_counter()
    op = CompiledConv(plan, where, thread_count(threads), workspace_limit)
    if debug_level() >= 2:
        print(f"convgen: compiled in {time.perf_counter() - start:.3f} s")
    if debug_level() >= 4:
        print(op.source)
    if debug_level() >= 5:
        print(op.inspect_llvm())
    return op


def emit_source(
    spec: ConvSpec,
    directory: str | Path,
    *,
    strategy: str = "auto",
    config: Config | None = None,
    machine: Machine | None = None,
) -> Path:
    """Writes the generated source of a problem into ``directory`` and returns the file, which runs with numpy and numba alone.

    The file's ``run(*arrays)`` takes the operands in the order of a call.
    """
    _check_spec(spec)
    where = machine or Machine.host()
    _check_config(strategy, config)
    auto = strategy == "auto"
    plan = plan_for(spec, machine=machine) if auto else given_plan(spec, strategy, config, where)
    return write_source(plan, directory, where)[0]


def _check_config(strategy: str, config: Config | None) -> None:
    if config is not None and strategy == "auto":
        raise OptionError(f"config={str(config)!r} needs a strategy of its own, not strategy='auto'")


def _check_spec(spec: object) -> None:
    if not isinstance(spec, ConvSpec):
        raise SpecError(f"spec is a {type(spec).__name__}; allowed: ConvSpec")
