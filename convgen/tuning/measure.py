"""Measurement of callables side by side, so that drifts of the machine fall on all of them alike."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from convgen.errors import OptionError

# Long enough that reading the clock (some 50 ns) and one interrupt do not count.
MIN_SAMPLE_SECONDS = 200e-6
# Calibration of an empty call on a coarse clock ends here.
MAX_REPETITIONS = 1 << 20


@dataclass(frozen=True)
class Sample:
    """Seconds a call took: the median and the quartiles of ``count`` timed runs."""

    median: float
    low: float
    high: float
    count: int


def measure(
    functions: Sequence[Callable[[], object]],
    *,
    budget: float,
    rounds_min: int = 5,
    settle: float | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[Sample, ...]:
    """Returns one Sample for each function, in order.

        Each is called once to warm up, then calibrated: a timed run repeats the call until it lasts 200 µs. A round times
        every function once, forwards and backwards in turn; rounds go on until another one would exceed ``budget`` seconds
        (warming up included), but there are at least ``rounds_min``. With ``settle``, so many seconds pass before each timed
    run, in which threads of the function before it stop waiting busily, and the function is called once untimed, so that it
    finds the caches as it leaves them itself. Raises OptionError for a budget that is negative or
        not finite and for fewer than one round, and whatever a function raises.
    """
    if not 0 <= budget < math.inf:
        raise OptionError(f"budget={budget!r} is not allowed; allowed: a finite number of seconds, at least 0")
    if rounds_min < 1:
        raise OptionError(f"rounds_min={rounds_min!r} is not allowed; allowed: at least 1")
    if not functions:
        return ()
    start = clock()
    for function in functions:
        function()
    repetitions = [_calibrate(function, clock) for function in functions]
    times: list[list[float]] = [[] for _ in functions]
    order = range(len(functions))
    rounds = 0
    longest = 0.0
    begin = clock()
    while rounds < rounds_min or begin - start + longest <= budget:
        for index in order:
            if settle is not None:
                time.sleep(settle)
                functions[index]()
            times[index].append(_seconds(functions[index], repetitions[index], clock) / repetitions[index])
        order = order[::-1]
        rounds += 1
        end = clock()
        longest = max(longest, end - begin)
        begin = end
    return tuple(map(_sample, times))


def _calibrate(function: Callable[[], object], clock: Callable[[], float]) -> int:
    """How often to call ``function`` in a row so that it lasts long enough to be timed."""
    repetitions = 1
    while repetitions < MAX_REPETITIONS:
        elapsed = _seconds(function, repetitions, clock)
        if elapsed >= MIN_SAMPLE_SECONDS:
            break
        # A little more than needed, at most tenfold at once: the first runs are too short to be trusted.
        factor = 1.1 * MIN_SAMPLE_SECONDS / elapsed if elapsed > 0 else math.inf
        repetitions = min(MAX_REPETITIONS, math.ceil(repetitions * min(10.0, max(1.5, factor))))
    return repetitions


def _seconds(function: Callable[[], object], repetitions: int, clock: Callable[[], float]) -> float:
    begin = clock()
    for _ in range(repetitions):
        function()
    return clock() - begin


def _sample(times: list[float]) -> Sample:
    low, median, high = np.percentile(times, (25, 50, 75))
    return Sample(float(median), float(low), float(high), len(times))
