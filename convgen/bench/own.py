"""convgen as a contender: its choice for a problem, with packed weights."""

from __future__ import annotations

import functools
import statistics
import time
from dataclasses import dataclass

from convgen.bench.contender import Array, Contender, Job, from_layout, to_layout
from convgen.choices import TunedPlan
from convgen.errors import OptionError
from convgen.machine import Machine
from convgen.operator import CompiledConv
from convgen.planning import compile_spec
from convgen.runtime.workspace import aligned_empty
from convgen.tuner.session import tune

NAME = "convgen"
# A call that is given its output takes some microseconds longer; results this large cost more to allocate.
_LARGE_RESULT = 1 << 20
_PACKINGS = 3


@dataclass(frozen=True)
class Choice:
    """How the operator is chosen: a strategy's name or "auto", and the seconds to tune a problem first, None for no tuning."""

    strategy: str = "auto"
    tune_seconds: float | None = None

    def check(self) -> None:
        """Raises OptionError where both are asked for."""
        if self.tune_seconds is not None and self.strategy != "auto":
            raise OptionError(f"strategy={self.strategy!r} cannot be tuned; allowed with tuning: 'auto'")


AUTOMATIC = Choice()


def compiled(job: Job, choice: Choice) -> CompiledConv:
    """The operator for a job; raises what compiling and tuning raise."""
    if choice.tune_seconds is None:
        return compile_spec(job.spec, choice.strategy, job.threads)
    found = tune(job.spec, choice.tune_seconds, threads=job.threads)
    assert isinstance(found, TunedPlan)
    return CompiledConv(found.plan, Machine.host(), job.threads)


def own_contender(op: CompiledConv, job: Job) -> Contender:
    """The operator on the job's operands in the problem's own layout."""
    spec = op.spec
    first = to_layout(job.first, spec.layout)
    second = to_layout(job.second, spec.layout) if spec.direction == "backward_weights" else job.second
    packed = second if spec.direction == "backward_weights" else op.pack(second)
    epilogue = {} if job.multipliers is None else {"requantize": job.multipliers}
    result = op(first, packed, **epilogue)
    call = functools.partial(op, first, packed, out=_output(result), **epilogue)

    def computed() -> Array:
        value = call()
        return value if spec.direction == "backward_weights" else from_layout(value, spec.layout)

    return Contender(NAME, spec.layout, call, computed)


def _output(result: Array) -> Array | None:
    return aligned_empty(result.shape, result.dtype) if result.nbytes >= _LARGE_RESULT else None


def packing_seconds(op: CompiledConv, job: Job) -> float | None:
    """The median time of packing the weights once; None where there are none to pack."""
    if op.spec.direction == "backward_weights":
        return None
    times = []
    for _ in range(_PACKINGS):
        start = time.perf_counter()
        op.pack(job.second)
        times.append(time.perf_counter() - start)
    return statistics.median(times)
