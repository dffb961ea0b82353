"""Verification before a kernel may win: integers and random numbers, with poisoned memory behind fences.

The integers are gate A, random numbers gate B (see verify.py), both at the problem's full size and with as many threads as are
tuned for. Operands, result, workspace and packed weights lie against pages that cannot be touched (``runtime/fences.py``), at
their ends for the integers and at their beginnings for the random numbers, so that whatever is touched outside of them ends
the process; this is for helper processes, and without fences for any other. Results and workspaces hold poison
beforehand, so that whatever is read before it was written spoils the numbers.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np

from convgen.driver import algorithms_of_plan
from convgen.dtypes import DTYPES
from convgen.errors import CompileError, ConvgenError
from convgen.operator import Array, CompiledConv, PackedWeights
from convgen.runtime.fences import LARGE, NOT_A_NUMBER, FencedMemory, Side
from convgen.spec import ConvSpec
from convgen.transforms.split import Algorithms
from convgen.verify import (
    Expectation,
    Operands,
    expect_bounded,
    expect_integers,
    integer_operands,
    normal_operands,
)

Gate = Literal["integers", "random"]
GATES: tuple[Gate, ...] = ("integers", "random")

# Where arrays are fenced, and what is in memory beforehand.
_MEMORY: dict[Gate, tuple[Side, int]] = {"integers": ("end", NOT_A_NUMBER), "random": ("begin", LARGE)}
# Problems whose questions are kept: one is examined after another, by a few fast algorithms each.
_KEPT_QUESTIONS = 6


@dataclass(frozen=True)
class Verdict:
    """Whether a kernel passed, the reason if not, and its relative L2 error.

    ``examined`` is False where it could not be told: such a kernel is not used, and nobody knows that it is wrong.
    """

    ok: bool
    reason: str = ""
    error: float = 0.0
    examined: bool = True

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Verdict:
        """Raises ValueError or TypeError for what is not a verdict."""
        return cls(**json.loads(text))


def examine(op: CompiledConv, gate: Gate, *, fenced: bool) -> Verdict:
    """Runs an operator on a gate's operands: on integers with packed weights, where there are weights, as measured; on random
    numbers with weights as they are.

    With ``fenced``, the process ends where the kernel touches memory that is not its own.
    """
    operands, expected = _question(op.spec, gate, algorithms_of_plan(op.plan))
    side, poison = _MEMORY[gate]
    memory = FencedMemory(side, poison, fenced=fenced)
    is_packed = gate == "integers" and op.spec.direction != "backward_weights"
    try:
        comparison = expected.check(_run(op.with_memory(memory.scratch), operands, memory, is_packed=is_packed))
    except ConvgenError as error:
        return Verdict(False, f"{gate}: {error}", examined=not isinstance(error, CompileError))
    if not comparison.ok:
        return Verdict(False, f"{gate}: {comparison.reason}")
    if not memory.is_intact():
        return Verdict(False, f"{gate}: it writes outside of its arrays")
    return Verdict(True, "", comparison.relative_l2)


def _run(op: CompiledConv, operands: Operands, memory: FencedMemory, *, is_packed: bool) -> Array:
    first, second = map(memory.copied, operands.main)
    epilogue = {name: memory.copied(array) for name, array in operands.epilogue.items()}
    out = memory.empty(op.spec.result_shape, DTYPES[op.spec.result_dtype].numpy)
    weights: Array | PackedWeights = op.pack(second) if is_packed else second
    return op(first, weights, out=out, **epilogue)


@functools.lru_cache(maxsize=_KEPT_QUESTIONS)
def _question(spec: ConvSpec, gate: Gate, algorithms: Algorithms) -> tuple[Operands, Expectation]:
    """Operands, and what kernels of these algorithms must make of them."""
    return _QUESTIONS[gate](spec, algorithms)


def _integers(spec: ConvSpec, algorithms: Algorithms) -> tuple[Operands, Expectation]:
    operands = integer_operands(spec, np.random.default_rng(0), algorithms)
    return operands, expect_integers(spec, operands, algorithms)


def _random(spec: ConvSpec, algorithms: Algorithms) -> tuple[Operands, Expectation]:
    operands = normal_operands(spec, np.random.default_rng(1))
    return operands, expect_bounded(spec, operands, algorithms=algorithms)


_QUESTIONS: dict[Gate, Callable[[ConvSpec, Algorithms], tuple[Operands, Expectation]]] = {
    "integers": _integers,
    "random": _random,
}
