"""Which plan a problem gets, and the public ways to compile and emit it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from convgen.choices import TunedPlan, best_unpacked, known_plan, shipped_plan
from convgen.driver import Plan, check_budget, check_limit, given_plan, heuristic_plan, thread_count
from convgen.errors import OptionError, SpecError
from convgen.locking import Call, active_lock, locked_plan
from convgen.machine import Machine
from convgen.operator import CompiledConv
from convgen.options import debug_level, is_deterministic, lock_path, tune_budget, tune_mode, tune_problem_budget
from convgen.options import workspace_limit as default_workspace_limit
from convgen.source_files import write_source
from convgen.spec import ConvSpec
from convgen.tuning.space import Config

# Of what is left of an autotune budget, the most that one problem may use.
_SHARE = 0.5


@dataclass
class Block:
    """An autotune block: until when it may measure, and whether it is open still."""

    deadline: float
    is_open: bool = True


# The innermost autotune block around the running code.
_block: ContextVar[Block | None] = ContextVar("convgen_autotune_block", default=None)

# Seconds that this process has tuned for on its own accord.
_spent = 0.0


@contextlib.contextmanager
def autotune(budget: float = 60.0) -> Iterator[None]:
    """Inside, problems that were not tuned on this machine are tuned, for ``budget`` seconds in total; outside, nothing is
    measured unless CONVGEN_TUNE=on. With a lockfile in force, CONVGEN_TUNE=off or CONVGEN_DETERMINISTIC=1 nothing is
    measured inside either.

    What the functions have compiled before the block is compiled again with what tuning finds. The block holds for the thread
    that opened it. Raises OptionError.
    """
    check_budget(budget)
    outer = autotune_block()
    block = Block(min(outer.deadline if outer else float("inf"), time.perf_counter() + budget))
    try:
        with within(block):
            yield
    finally:
        block.is_open = False


def autotune_block() -> Block | None:
    """The autotune block around the running code, if one is open."""
    block = _block.get()
    return block if block is not None and block.is_open else None


@contextlib.contextmanager
def within(block: Block | None) -> Iterator[None]:
    """Inside, the block holds as long as it is open."""
    token = _block.set(block)
    try:
        yield
    finally:
        _block.reset(token)


def inherited(block: Block | None) -> contextlib.AbstractContextManager[None]:
    """Inside, the block holds where no other is open: for work that is done later, or by another thread, on behalf of the one
    that opened it."""
    return contextlib.nullcontext() if block is None or autotune_block() is not None else within(block)


def is_autotuning() -> bool:
    """Whether an autotune block with time left is open, and measuring is not ruled out."""
    block = autotune_block()
    return block is not None and time.perf_counter() < block.deadline and tune_mode() != "off" and not _is_fixed()


def _is_fixed() -> bool:
    """Whether choices must not depend on what is measured now."""
    return is_deterministic() or lock_path() is not None


def plan_for(
    spec: ConvSpec,
    *,
    threads: int | None = None,
    workspace_limit: int | None = None,
    machine: Machine | None = None,
    constant_weights: bool = True,
) -> Plan:
    """The plan that "auto" means. With a lockfile in force its choice; else what a person has pinned or tuning has found, here or
    on a machine like this; else the heuristic's. CONVGEN_TUNE=off leaves the heuristic's alone.

    Inside ``autotune``, or with CONVGEN_TUNE=on, an unknown problem is tuned first. ``workspace_limit`` None means
    CONVGEN_WORKSPACE_LIMIT, or any. Raises NotApplicable, WorkspaceLimitError and
    LockError.
    """
    host = Machine.host()
    call = Call(spec, machine or host, thread_count(threads), workspace_limit, constant_weights)
    if tune_mode() != "off" and call.machine == host:
        lock = active_lock()
        return free_plan(call) if lock is None else locked_plan(lock, call)
    return _heuristic(call)


def free_plan(call: Call, *, may_measure: bool = True) -> Plan:
    """The plan without regard to a lockfile."""
    spec, limit = call.spec, call.workspace_limit
    known = None
    if tune_mode() != "off" and not is_deterministic():
        where = (spec, call.machine, call.threads, limit)
        known = known_plan(*where)
        shipped = None if known is not None else shipped_plan(*where)
        # A block asks for measurements of this very machine; otherwise what others have measured saves measuring.
        if known is None and may_measure and (shipped is None or is_autotuning()):
            known = first_sight(lambda budget: _tuned(call, budget))
        known = known or shipped
    if known is None:
        return _heuristic(call)
    return known.plan if call.constant_weights or limit is not None else best_unpacked(known, call.machine)


def _heuristic(call: Call) -> Plan:
    return heuristic_plan(
        call.spec, call.machine, call.workspace_limit, call.threads, constant_weights=call.constant_weights
    )


def first_sight(tune: Callable[[float], TunedPlan | None]) -> TunedPlan | None:
    """What ``tune`` finds in the seconds that it is given, if now is the time to measure a problem met for the first time."""
    global _spent
    begin = time.perf_counter()
    block = autotune_block() if is_autotuning() else None
    left = (block.deadline - begin) * _SHARE if block else tune_budget() - _spent
    if block is None and (tune_mode() != "on" or _is_fixed() or left <= 0):
        return None
    found = tune(max(0.0, left) if block else min(left, tune_problem_budget()))
    if block is None:
        _spent += time.perf_counter() - begin
    return found


def _tuned(call: Call, budget: float) -> TunedPlan:
    # The tuner brings the oracle and the gates along, which a call that measures nothing never needs.
    from convgen.tuner.session import tune

    found = tune(call.spec, budget, threads=call.threads, workspace_limit=call.workspace_limit)
    assert not isinstance(found, list)
    return found


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
    falls back to smaller and slower ways, at last to the reference, which needs nothing; None means CONVGEN_WORKSPACE_LIMIT, or
    any. ``machine`` masks features of this one. "auto" takes weights to be packed once; without ``constant_weights``, as in
    training, packing them in each call counts.

    Raises SpecError, NotApplicable, WorkspaceLimitError, CompileError, LockError, OptionError.
    """
    _check_spec(spec)
    check_limit(workspace_limit)
    if workspace_limit is None:
        workspace_limit = default_workspace_limit()
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

    The file's ``run(*arrays)`` takes the operands in the order of a call. CONVGEN_WORKSPACE_LIMIT holds as for a call.
    """
    _check_spec(spec)
    where = machine or Machine.host()
    _check_config(strategy, config)
    auto = strategy == "auto"
    plan = (
        plan_for(spec, machine=machine)
        if auto
        else given_plan(spec, strategy, config, where, default_workspace_limit())
    )
    return write_source(plan, directory, where)[0]


def _check_config(strategy: str, config: Config | None) -> None:
    if config is not None and strategy == "auto":
        raise OptionError(f"config={str(config)!r} needs a strategy of its own, not strategy='auto'")


def _check_spec(spec: object) -> None:
    if not isinstance(spec, ConvSpec):
        raise SpecError(f"spec is a {type(spec).__name__}; allowed: ConvSpec")
