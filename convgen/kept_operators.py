"""Operators that functions compile once per problem and keep."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from convgen.choices import results_stored
from convgen.driver import Plan
from convgen.operator import CompiledConv
from convgen.planning import compile_spec, is_autotuning
from convgen.spec import ConvSpec

# So many are kept; the oldest go first.
MAX_OPERATORS = 512
# Origins of plans that measurements of this machine go before.
_PROVISIONAL = ("heuristic", "shipped")


class Planned(Protocol):
    """What is kept: an operator of any target."""

    @property
    def plan(self) -> Plan: ...


Kept = TypeVar("Kept", bound=Planned)

# Beside each operator, how many tuning results there were when it was asked for.
_operators: OrderedDict[tuple[Any, ...], tuple[Any, int]] = OrderedDict()
_lock = threading.Lock()
_cleared = 0


def kept_operator(
    key: tuple[Any, ...],
    spec: Callable[[], ConvSpec],
    strategy: str,
    threads: int | None,
    *,
    constant_weights: bool = False,
) -> CompiledConv:
    """The operator kept under ``key``, or one compiled now for the problem that ``spec`` makes; see ``kept``.

    Raises what compile_spec raises.
    """
    return kept(
        key, lambda: compile_spec(spec(), strategy=strategy, threads=threads, constant_weights=constant_weights)
    )


def kept(
    key: tuple[Any, ...], compile_now: Callable[[], Kept], *, may_measure: Callable[[], bool] = is_autotuning
) -> Kept:
    """The operator kept under ``key``, which is never that of another target, or what ``compile_now`` makes.

    What the heuristic chose, or convgen was shipped with, gives way to what tuning has found since, or may find now, if
    ``may_measure``.
    """
    try:
        known = _operators.get(key)
    except TypeError:  # an argument that cannot be hashed is refused by ConvSpec, with its name
        known = None
    found = results_stored()
    if known is not None:
        op: Kept = known[0]
        if op.plan.origin not in _PROVISIONAL or (known[1] == found and not may_measure()):
            return op
    op = compile_now()
    with _lock:
        _operators[key] = op, found
        while len(_operators) > MAX_OPERATORS:
            _operators.popitem(last=False)
    return op


def clear_operators() -> None:
    """Forgets all operators that are kept."""
    global _cleared
    with _lock:
        _operators.clear()
        _cleared += 1


def generation() -> int:
    """Grows when what is kept may have been replaced: by a tuning result, or because all was forgotten."""
    return results_stored() + _cleared
