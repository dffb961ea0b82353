"""Measurement of callables side by side, so that drifts of the machine fall on all of them alike."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from convgen.errors import OptionError

# Long enough that reading the clock (some 50 ns) and one interrupt do not count.
MIN_SAMPLE_SECONDS = 200e-6
# Calibration of an empty call on a coarse clock ends here.
MAX_REPETITIONS = 1 << 20
# What is written between calls in cold caches, if nobody says how large the last cache is.
FLUSH_BYTES = 128 << 20

CacheState = Literal["warm", "cold"]
CACHE_STATES: tuple[CacheState, ...] = ("warm", "cold")
Clock = Callable[[], float]


@dataclass(frozen=True)
class Sample:
    """Seconds a call took: the median and the quartiles of ``count`` timed runs."""

    median: float
    low: float
    high: float
    count: int


class Stopwatch:
    """Times functions in rounds, each once a round, forwards and backwards in turn.

    Each is called once to warm up, then calibrated: a timed run repeats the call until it lasts 200 µs. With ``settle``, so
    many seconds pass before each timed run, in which threads of the function before it stop waiting busily, and the function is
    called once untimed, so that it finds the caches as it leaves them itself. With ``cache`` "cold" a timed run is one call,
    before which ``flush_bytes`` are written, more than the caches hold, so that it finds nothing of its own there. Raises
    OptionError.
    """

    def __init__(
        self,
        functions: Sequence[Callable[[], object]],
        *,
        settle: float | None = None,
        cache: CacheState = "warm",
        flush_bytes: int = FLUSH_BYTES,
        clock: Clock = time.perf_counter,
    ) -> None:
        if cache not in CACHE_STATES:
            raise OptionError(f"cache={cache!r} is not known; allowed: {', '.join(CACHE_STATES)}")
        self._functions = tuple(functions)
        self._settle = settle
        self._clock = clock
        self._flushed = np.zeros(flush_bytes, np.uint8) if cache == "cold" else None
        self._order = range(len(self._functions))
        for function in self._functions:
            function()
        self._repetitions = [
            1 if self._flushed is not None else _calibrate(function, clock) for function in self._functions
        ]

    def round(self) -> tuple[float, ...]:
        """The seconds of a call of each function, in their order."""
        seconds = [0.0] * len(self._functions)
        for index in self._order:
            self._prepare(index)
            repetitions = self._repetitions[index]
            seconds[index] = _seconds(self._functions[index], repetitions, self._clock) / repetitions
        self._order = self._order[::-1]
        return tuple(seconds)

    def _prepare(self, index: int) -> None:
        if self._settle is not None:
            time.sleep(self._settle)
            self._functions[index]()
        if self._flushed is not None:
            self._flushed += 1


def measure(
    functions: Sequence[Callable[[], object]],
    *,
    budget: float,
    rounds_min: int = 5,
    settle: float | None = None,
    cache: CacheState = "warm",
    clock: Clock = time.perf_counter,
) -> tuple[Sample, ...]:
    """Returns one Sample for each function, in order, from the rounds of a Stopwatch.

    Rounds go on until another one would exceed ``budget`` seconds (warming up included), but there are at least ``rounds_min``.
    Raises OptionError for a budget that is negative or not finite and for fewer than one round, and whatever a function raises.
    """
    if not 0 <= budget < math.inf:
        raise OptionError(f"budget={budget!r} is not allowed; allowed: a finite number of seconds, at least 0")
    if rounds_min < 1:
        raise OptionError(f"rounds_min={rounds_min!r} is not allowed; allowed: at least 1")
    if not functions:
        return ()
    start = clock()
    stopwatch = Stopwatch(functions, settle=settle, cache=cache, clock=clock)
    rounds: list[tuple[float, ...]] = []
    longest = 0.0
    begin = clock()
    while len(rounds) < rounds_min or begin - start + longest <= budget:
        rounds.append(stopwatch.round())
        end = clock()
        longest = max(longest, end - begin)
        begin = end
    return tuple(map(_sample, zip(*rounds, strict=True)))


def _calibrate(function: Callable[[], object], clock: Clock) -> int:
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


def _seconds(function: Callable[[], object], repetitions: int, clock: Clock) -> float:
    begin = clock()
    for _ in range(repetitions):
        function()
    return clock() - begin


def _sample(times: Sequence[float]) -> Sample:
    low, median, high = np.percentile(times, (25, 50, 75))
    return Sample(float(median), float(low), float(high), len(times))
