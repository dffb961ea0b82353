"""A driver without a device in the place of the machine's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

import convgen.cuda.measure
from convgen.cuda.calls import DeviceCalls
from convgen.cuda.device import Device, device_numbered
from convgen.cuda.kernels import CudaConv
from convgen.targets.cuda import driver

if TYPE_CHECKING:
    from tests.cuda.fake_driver import FakeDriver


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDriver]:
    """Two fake devices of capability 9.0."""
    pytest.importorskip("cuda.bindings.driver")
    pytest.importorskip("cuda.core")
    from tests.cuda.fake_driver import FakeDriver

    found = FakeDriver(devices=2)
    monkeypatch.setattr(driver, "load_api", lambda: found)
    driver.driver.cache_clear()
    device_numbered.cache_clear()
    yield found
    driver.driver.cache_clear()
    device_numbered.cache_clear()


@pytest.fixture
def learning(fake: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> FakeDriver:
    """A fake driver that learns every operator's kernels as it meets them, and a clock that flushes little."""
    known = CudaConv._calls

    def calls(self: CudaConv, device: Device) -> DeviceCalls:
        fake.knows(self)
        return known(self, device)

    monkeypatch.setattr(CudaConv, "_calls", calls)
    monkeypatch.setattr(convgen.cuda.measure, "_FLUSHED_LEAST", 1 << 10)
    return fake
