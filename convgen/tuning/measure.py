"""Measurement of callables side by side, so that drifts of the machine fall on all of them alike."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from convgen.errors import OptionError

# Long enough that reading the clock (some 50 ns) and one interrupt do not count.
MIN_SAMPLE_SECONDS = 200e-6
# Calibration of an empty call on a coarse clock ends here.
MAX_REPETITIONS = 1 << 20
# What is written between calls for cold caches, where nobody says how large the last one is.
FLUSH_BYTES = 128 << 20

# A timed run counts as disturbed if threads have waited for a processor for more than this part of it, and is repeated so often.
DISTURBED = 0.02
ATTEMPTS = 6

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


class TimedCall:
    """Times one function, in runs that are long enough.

    It is called once to warm up, then calibrated: a timed run repeats the call until it lasts 200 µs. With ``settle``, so
    many seconds pass before each timed run, in which threads of the function before it stop waiting busily, and the function is
    called once untimed, so that it finds the caches as it leaves them itself. With ``flushed`` a timed run is one call, before
    which this array is written: if the caches cannot hold it, the function finds nothing of its own there. With ``waited``, which
    returns the seconds that threads have waited for a processor, a run that other programs disturbed is repeated, and if all
    are disturbed the shortest counts; ``disturbed`` and ``runs`` count them.
    """

    def __init__(
        self,
        function: Callable[[], object],
        *,
        settle: float | None = None,
        flushed: NDArray[np.uint8] | None = None,
        waited: Callable[[], float] | None = None,
        clock: Clock = time.perf_counter,
    ) -> None:
        self._function = function
        self._waited = waited
        self._settle = settle
        self._flushed = flushed
        self._clock = clock
        function()
        self._repetitions: int | None = None
        self.runs = 0
        self.disturbed = 0

    def seconds(self) -> float:
        """The seconds of a call in one timed run."""
        if self._repetitions is None:
            self.calibrate()
        assert self._repetitions is not None
        if self._waited is None:
            return self._run(self._repetitions) / self._repetitions
        shortest = math.inf
        for _ in range(ATTEMPTS):
            before = self._waited()
            elapsed = self._run(self._repetitions)
            self.runs += 1
            shortest = min(shortest, elapsed)
            if self._waited() - before <= DISTURBED * elapsed:
                return elapsed / self._repetitions
            self.disturbed += 1
        return shortest / self._repetitions

    def _run(self, repetitions: int) -> float:
        if self._settle is not None:
            time.sleep(self._settle)
            self._function()
        if self._flushed is not None:
            self._flushed += 1
        return _seconds(self._function, repetitions, self._clock)

    def calibrate(self) -> None:
        """Finds out how often to call, which the first timed run does otherwise."""
        self._repetitions = 1 if self._flushed is not None else _calibrate(self._function, self._clock)


def flushed_by(cache: CacheState, nbytes: int) -> NDArray[np.uint8] | None:
    """What is written before each call: as many bytes for a "cold" cache, nothing for a "warm" one; raises OptionError."""
    if cache not in CACHE_STATES:
        raise OptionError(f"cache={cache!r} is not known; allowed: {', '.join(CACHE_STATES)}")
    return np.zeros(nbytes, np.uint8) if cache == "cold" else None


def measure(
    functions: Sequence[Callable[[], object]],
    *,
    budget: float,
    rounds_min: int = 5,
    settle: float | None = None,
    cache: CacheState = "warm",
    clock: Clock = time.perf_counter,
) -> tuple[Sample, ...]:
    """Returns one Sample for each function, in order, of TimedCalls.

    A round times every function once, forwards and backwards in turn; rounds go on until another one would exceed ``budget``
    seconds (warming up included), but there are at least ``rounds_min``. With ``cache`` "cold", FLUSH_BYTES are written before
    each call. Raises OptionError for a budget that is negative or not finite, for fewer than one round and for an unknown state
    of the cache, and whatever a function raises.
    """
    if not 0 <= budget < math.inf:
        raise OptionError(f"budget={budget!r} is not allowed; allowed: a finite number of seconds, at least 0")
    if rounds_min < 1:
        raise OptionError(f"rounds_min={rounds_min!r} is not allowed; allowed: at least 1")
    if not functions:
        return ()
    flushed = flushed_by(cache, FLUSH_BYTES)
    start = clock()
    calls = [TimedCall(function, settle=settle, flushed=flushed, clock=clock) for function in functions]
    for call in calls:
        call.calibrate()
    times: list[list[float]] = [[] for _ in functions]
    order = range(len(functions))
    rounds = 0
    longest = 0.0
    begin = clock()
    while rounds < rounds_min or begin - start + longest <= budget:
        for index in order:
            times[index].append(calls[index].seconds())
        order = order[::-1]
        rounds += 1
        end = clock()
        longest = max(longest, end - begin)
        begin = end
    return tuple(map(_sample, times))


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


def _sample(times: list[float]) -> Sample:
    low, median, high = np.percentile(times, (25, 50, 75))
    return Sample(float(median), float(low), float(high), len(times))
