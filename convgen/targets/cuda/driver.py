"""The CUDA driver: its calls with their codes checked, what its devices are, and no more of it than kernels need.

The calls are those of ``cuda.bindings.driver``; whatever has the same functions can stand in for it.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from convgen.errors import DeviceError, MissingDependencyError, NotApplicable
from convgen.targets.cuda.build import INSTALL

_NAME_BYTES = 256
_NO_DEVICE = "CUDA_ERROR_NO_DEVICE"


@dataclass(frozen=True)
class DeviceFacts:
    """What the driver says of a device. Clocks are in Hz, memory in bytes, the memory bus in bits; ``driver`` is the CUDA version
    that the driver knows, 13000 for 13.0."""

    ordinal: int
    name: str
    capability: tuple[int, int]
    multiprocessors: int
    shared_per_block: int
    l2_bytes: int
    clock: float
    memory_clock: float
    memory_bus: int
    driver: int

    @property
    def bandwidth(self) -> float:
        """Bytes a second that the memory moves at its clock, twice in a cycle."""
        return 2 * self.memory_clock * self.memory_bus / 8

    def fingerprint(self) -> str:
        """What measured times hold for: the product, its clocks, and the driver."""
        clocks = f"{self.clock / 1e6:.0f}-{self.memory_clock / 1e6:.0f}MHz"
        return f"cuda {self.name} {self.multiprocessors}sm {clocks} driver{self.driver}"

    def describe(self) -> str:
        """One line for people."""
        major, minor = self.capability
        version = f"{self.driver // 1000}.{self.driver % 1000 // 10}"
        return f"{self.name}, capability {major}.{minor}, {self.multiprocessors} multiprocessors, driver for CUDA {version}"


class Driver:
    """The driver's functions by name, without the code that each returns first; every code but success is a DeviceError."""

    def __init__(self, api: Any) -> None:
        self.api = api

    def call(self, name: str, *arguments: object) -> Any:
        """What a function of the driver returns; raises DeviceError with the name, the code and its text."""
        code, *values = getattr(self.api, name)(*arguments)
        if code:
            raise self._error(name, code)
        return values[0] if len(values) == 1 else tuple(values) or None

    def device_count(self) -> int:
        """How many devices there are. Raises DeviceError."""
        try:
            self.call("cuInit", 0)
        except DeviceError as error:
            if error.code == _NO_DEVICE:
                return 0
            raise
        return int(self.call("cuDeviceGetCount"))

    def facts(self, ordinal: int) -> DeviceFacts:
        """What the device is. Raises DeviceError."""
        device = self.call("cuDeviceGet", ordinal)
        name = bytes(self.call("cuDeviceGetName", _NAME_BYTES, device)).split(b"\0")[0].decode()
        return DeviceFacts(
            ordinal,
            name.strip(),
            (
                self._attribute("COMPUTE_CAPABILITY_MAJOR", device),
                self._attribute("COMPUTE_CAPABILITY_MINOR", device),
            ),
            self._attribute("MULTIPROCESSOR_COUNT", device),
            self._attribute("MAX_SHARED_MEMORY_PER_BLOCK_OPTIN", device),
            self._attribute("L2_CACHE_SIZE", device),
            self._attribute("CLOCK_RATE", device) * 1e3,
            self._attribute("MEMORY_CLOCK_RATE", device) * 1e3,
            self._attribute("GLOBAL_MEMORY_BUS_WIDTH", device),
            int(self.call("cuDriverGetVersion")),
        )

    def _attribute(self, name: str, device: object) -> int:
        attribute = getattr(self.api.CUdevice_attribute, f"CU_DEVICE_ATTRIBUTE_{name}")
        return int(self.call("cuDeviceGetAttribute", attribute, device))

    def _error(self, name: str, code: Any) -> DeviceError:
        _, title = self.api.cuGetErrorName(code)
        _, text = self.api.cuGetErrorString(code)
        return DeviceError(name, _text(title) or str(int(code)), _text(text))


def _text(value: bytes | None) -> str:
    return value.decode() if value else ""


def load_api() -> Any:
    """``cuda.bindings.driver``; raises MissingDependencyError where it, or the driver itself, is not there."""
    try:
        from cuda.bindings import driver
    except ImportError as error:
        message = f"running kernels on GPUs needs cuda-bindings, which is not installed: {INSTALL}"
        raise MissingDependencyError(message) from error
    try:
        driver.cuDriverGetVersion()
    except Exception as error:  # the loader's own kinds, which differ between its versions
        message = "running kernels on GPUs needs NVIDIA's driver (libcuda), which this machine does not have"
        raise MissingDependencyError(message) from error
    return driver


@functools.cache
def driver() -> Driver:
    """The machine's driver with at least one device.

    Raises MissingDependencyError without a driver, NotApplicable without a device, and DeviceError.
    """
    found = Driver(load_api())
    if not found.device_count():
        raise NotApplicable("this machine has NVIDIA's driver but no CUDA device that it may use")
    return found
