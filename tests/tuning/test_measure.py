"""Measurement under a clock that the measured functions themselves advance."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest

import convgen.tuning.measure
from convgen.errors import OptionError
from convgen.tuning.measure import ATTEMPTS, MIN_SAMPLE_SECONDS, Sample, TimedCall, flushed_by, measure


class Clock:
    """A clock that stands still but for what is called; ``calls`` and ``readings`` (numbers of calls) are its log."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[str] = []
        self.readings: list[int] = []

    def __call__(self) -> float:
        self.readings.append(len(self.calls))
        return self.now

    def function(self, name: str, seconds: Iterator[float]) -> Callable[[], None]:
        def call() -> None:
            self.calls.append(name)
            self.now += next(seconds)

        return call


def forever(seconds: float) -> Iterator[float]:
    while True:
        yield seconds


def test_rounds_are_interleaved_and_turn_around() -> None:
    clock = Clock()
    functions = [clock.function(name, forever(0.5)) for name in "abc"]
    samples = measure(functions, budget=0, rounds_min=3, clock=clock)
    warm_up, calibration, rounds = clock.calls[:3], clock.calls[3:6], clock.calls[6:]
    assert ["".join(part) for part in (warm_up, calibration, rounds)] == ["abc", "abc", "abccbaabc"]
    assert samples == (Sample(0.5, 0.5, 0.5, 3),) * 3


def test_settling_waits_and_calls_once_untimed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("convgen.tuning.measure.time.sleep", lambda seconds: clock.calls.append(f"wait {seconds}"))

    def cold_after_waiting(name: str) -> Callable[[], None]:
        def call() -> None:
            clock.now += 5.0 if clock.calls[-1].startswith("wait") else 1.0
            clock.calls.append(name)

        return call

    clock.calls.append("start")
    samples = measure([cold_after_waiting(n) for n in "ab"], budget=0, rounds_min=2, settle=0.25, clock=clock)
    assert clock.calls[5:] == [word for name in "abba" for word in ("wait 0.25", name, name)]
    assert [sample.median for sample in samples] == [1.0, 1.0]


def test_the_median_withstands_an_interruption_and_the_warm_up_does_not_count() -> None:
    clock = Clock()
    times = iter([100.0, 90.0, 1.0, 2.0, 60.0, 3.0, 4.0])
    (sample,) = measure([clock.function("a", times)], budget=0, rounds_min=5, clock=clock)
    assert sample == Sample(median=3.0, low=2.0, high=4.0, count=5)


def test_rounds_fill_the_budget_and_never_exceed_it() -> None:
    clock = Clock()
    functions = [clock.function(name, forever(0.25)) for name in "ab"]
    samples = measure(functions, budget=10.1, rounds_min=1, clock=clock)
    assert clock.now == 10.0
    assert [sample.count for sample in samples] == [18, 18]


def test_short_calls_are_repeated_until_a_sample_is_long_enough() -> None:
    clock = Clock()
    seconds = 3e-6
    (sample,) = measure([clock.function("a", forever(seconds))], budget=0, rounds_min=1, clock=clock)
    assert sample.median == pytest.approx(seconds)
    runs = [after - before for before, after in itertools.pairwise(clock.readings)]
    assert MIN_SAMPLE_SECONDS <= runs[-2] * seconds <= 1.5 * MIN_SAMPLE_SECONDS


def test_long_calls_are_not_repeated() -> None:
    clock = Clock()
    measure([clock.function("a", forever(MIN_SAMPLE_SECONDS))], budget=0, rounds_min=2, clock=clock)
    assert len(clock.calls) == 1 + 1 + 2


def test_calibration_ends_where_the_clock_does_not_move(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convgen.tuning.measure, "MAX_REPETITIONS", 1000)
    readings = 0

    def clock() -> float:
        # Still while it calibrates: 1, 10 and 100 repetitions. From then on a second between readings.
        nonlocal readings
        readings += 1
        return float(max(0, readings - 7))

    (sample,) = measure([lambda: None], budget=0, rounds_min=1, clock=clock)
    assert sample == Sample(1e-3, 1e-3, 1e-3, 1)


def test_disturbed_runs_are_repeated_and_counted() -> None:
    clock = Clock()
    waits = iter([0.0, 0.0, 0.5, 0.0, 0.0, 0.0, 0.0])
    waited = [0.0]

    def call() -> None:
        wait = next(waits)
        waited[0] += wait
        clock.now += 1.0 + wait

    timed = TimedCall(call, waited=lambda: waited[0], clock=clock)
    timed.calibrate()
    assert [timed.seconds(), timed.seconds()] == [1.0, 1.0]
    assert (timed.runs, timed.disturbed) == (3, 1)


def test_where_all_runs_are_disturbed_the_shortest_counts() -> None:
    clock = Clock()
    lengths = itertools.chain([1.0, 1.0], itertools.cycle([5.0, 3.0, 4.0]))
    timed = TimedCall(clock.function("a", lengths), waited=lambda: clock.now, clock=clock)
    assert timed.seconds() == 3.0
    assert (timed.runs, timed.disturbed) == (ATTEMPTS, ATTEMPTS)


def test_cold_caches_are_written_before_each_single_call() -> None:
    clock = Clock()
    flushed = np.zeros(4, np.uint8)
    seen: list[int] = []

    def call() -> None:
        seen.append(int(flushed[0]))
        clock.now += 1e-6

    timed = TimedCall(call, flushed=flushed, clock=clock)
    assert [timed.seconds() for _ in range(3)] == pytest.approx([1e-6] * 3)
    assert seen == [0, 1, 2, 3]
    assert flushed_by("warm", 4) is None
    with pytest.raises(OptionError, match="cache='hot'"):
        measure([call], budget=0.0, cache="hot")  # type: ignore[arg-type]


def test_no_functions_no_samples() -> None:
    assert measure([], budget=1.0) == ()


def test_an_exception_passes() -> None:
    def fails() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        measure([fails], budget=1.0)


@pytest.mark.parametrize("budget", [-1.0, math.nan, math.inf])
def test_budgets_that_are_refused(budget: float) -> None:
    with pytest.raises(OptionError, match=f"budget={budget}"):
        measure([lambda: None], budget=budget)


def test_at_least_one_round() -> None:
    with pytest.raises(OptionError, match="rounds_min=0"):
        measure([lambda: None], budget=1.0, rounds_min=0)
