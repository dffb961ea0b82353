"""A driver without a device in the place of the machine's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from convgen.cuda.device import device_numbered
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
