"""Seconds of calls on a device: by events on a stream, with the second-level cache flushed before each."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from convgen.cuda.device import Device, Memory
from convgen.tuning.measure import Sample

# Memory written before each call: many times the cache, and so much that the host has started the call before it is written.
_FLUSHED_CACHES = 4
_FLUSHED_LEAST = 1 << 30


class Clock:
    """Times calls on a stream of a device.

    Every timed call begins after memory of several times the second-level cache has been written, so that it finds nothing there;
    that takes the device longer than starting the call takes the host, whose time is so left out.
    """

    def __init__(self, device: Device, stream: int = 0) -> None:
        self._device = device
        self._stream = stream
        self._flushed = Memory(device, max(_FLUSHED_CACHES * device.facts.l2_bytes, _FLUSHED_LEAST))

    def seconds(self, call: Callable[[], object]) -> float:
        """What one call takes, once everything before it on the stream is done. Raises DeviceError."""
        driver, stream = self._device.driver, self._stream
        with self._device.active():
            begin, end = driver.call("cuEventCreate", 0), driver.call("cuEventCreate", 0)
            try:
                driver.call("cuMemsetD8Async", self._flushed.address, 0, self._flushed.nbytes, stream)
                driver.call("cuEventRecord", begin, stream)
                call()
                driver.call("cuEventRecord", end, stream)
                driver.call("cuEventSynchronize", end)
                return float(driver.call("cuEventElapsedTime", begin, end)) / 1e3
            finally:
                driver.call("cuEventDestroy", begin)
                driver.call("cuEventDestroy", end)

    def measure(
        self, calls: Sequence[Callable[[], object]], *, budget: float, rounds_min: int = 5, rounds_max: int = 50
    ) -> tuple[Sample, ...]:
        """One Sample for each call, in order. All are timed once a round, forwards and backwards in turn, after an untimed one.

        Rounds end after ``budget`` seconds of the host's clock, or ``rounds_max``, but not before ``rounds_min``. Raises
        DeviceError, and whatever a call raises.
        """
        for call in calls:
            self.seconds(call)
        times: list[list[float]] = [[] for _ in calls]
        order = range(len(calls))
        deadline = time.perf_counter() + budget
        for done in range(rounds_max):
            if done >= rounds_min and time.perf_counter() >= deadline:
                break
            for index in order:
                times[index].append(self.seconds(calls[index]))
            order = order[::-1]
        return tuple(map(_sample, times))


def _sample(times: list[float]) -> Sample:
    low, median, high = np.percentile(times, (25, 50, 75))
    return Sample(float(median), float(low), float(high), len(times))
