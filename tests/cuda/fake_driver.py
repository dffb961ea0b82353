"""A CUDA driver without a device: the functions of ``cuda.bindings.driver`` over NumPy memory.

It is as strict as the real one about contexts, shared memory, handles and addresses, records what it is asked, and runs a launch
in the interpreter of PTX, at once. Machine code is not run: ``knows`` tells it the PTX that it was made from.
"""

# The names are the driver's.
# ruff: noqa: N802

from __future__ import annotations

import ctypes
import itertools
import threading
from typing import Any

import numpy as np
from cuda.bindings import driver as real

from convgen.cuda.kernels import CudaConv
from convgen.runtime.workspace import aligned_empty
from convgen.targets.cuda.build import stage_ptx
from convgen.targets.cuda.interp import parse, run
from convgen.targets.cuda.interp.launch import Pointer

_OK = real.CUresult.CUDA_SUCCESS
_PLAIN_SHARED = 48 * 1024
LEGACY = 0


class FakeDriver:
    """``capability`` and ``shared`` are those of every one of ``devices`` devices; ``fails`` maps functions to codes, ``room`` is
    the largest size of memory that it gives."""

    CUdevice_attribute = real.CUdevice_attribute
    CUfunction_attribute = real.CUfunction_attribute
    CUpointer_attribute = real.CUpointer_attribute
    CUevent_flags = real.CUevent_flags

    def __init__(self, *, devices: int = 1, capability: tuple[int, int] = (9, 0), shared: int = 227 * 1024) -> None:
        self.devices = devices
        self.capability = capability
        self.shared = shared
        self.room = 1 << 40
        self.fails: dict[str, Any] = {}
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.launches: list[dict[str, Any]] = []
        self.capturing: set[int] = set()
        self._current = threading.local()
        self.memory: dict[int, tuple[np.ndarray, int]] = {}
        self._ptx: dict[bytes, str] = {}
        self._tokens = itertools.count(1000)
        self._libraries: dict[int, bytes] = {}
        self._kernels: dict[int, tuple[str, str]] = {}
        self._shared: dict[tuple[int, int], int] = {}
        self._functions: dict[int, tuple[int, int]] = {}
        self.events: dict[int, int | None] = {}
        self.times: dict[int, float] = {}
        self.now = 0.0

    def knows(self, op: CudaConv) -> None:
        """Learns the PTX behind the operator's machine code."""
        for stage, cubin in zip(op._lowered.stages, op.cubins, strict=True):
            self._ptx[cubin.code] = stage_ptx(stage, op.gpu)

    @property
    def contexts(self) -> list[int]:
        """The calling thread's contexts, the current one last."""
        found: list[int] = self._current.__dict__.setdefault("contexts", [])
        return found

    def place(self, array: np.ndarray, device: int = 0) -> int:
        """Makes NumPy memory memory of a device, and returns its address."""
        address = int(array.ctypes.data)
        self.memory[address] = (array.reshape(-1).view(np.uint8), device)
        return address

    def named(self, name: str) -> list[tuple[Any, ...]]:
        """The arguments of every call of a function."""
        return [arguments for called, arguments in self.calls if called == name]

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if not name.startswith("cu") or name.startswith("cuGetError"):
            return found

        def recorded(*arguments: Any) -> tuple[Any, ...]:
            self.calls.append((name, arguments))
            code = self.fails.get(name)
            return (code,) if code is not None else found(*arguments)

        return recorded

    # ---- errors and devices

    def cuGetErrorName(self, code: Any) -> tuple[Any, ...]:
        return _OK, code.name.encode()

    def cuGetErrorString(self, code: Any) -> tuple[Any, ...]:
        return _OK, f"what {code.name} means".encode()

    def cuInit(self, flags: int) -> tuple[Any, ...]:
        return (_OK if self.devices else real.CUresult.CUDA_ERROR_NO_DEVICE,)

    def cuDriverGetVersion(self) -> tuple[Any, ...]:
        return _OK, 13010

    def cuDeviceGetCount(self) -> tuple[Any, ...]:
        return _OK, self.devices

    def cuDeviceGet(self, ordinal: int) -> tuple[Any, ...]:
        return (_OK, ordinal) if ordinal < self.devices else (real.CUresult.CUDA_ERROR_INVALID_DEVICE,)

    def cuDeviceGetName(self, length: int, device: int) -> tuple[Any, ...]:
        return _OK, b"Fake GPU".ljust(length, b"\0")

    def cuDeviceGetAttribute(self, attribute: Any, device: int) -> tuple[Any, ...]:
        values = {
            "COMPUTE_CAPABILITY_MAJOR": self.capability[0],
            "COMPUTE_CAPABILITY_MINOR": self.capability[1],
            "MULTIPROCESSOR_COUNT": 132,
            "MAX_SHARED_MEMORY_PER_BLOCK_OPTIN": self.shared,
            "L2_CACHE_SIZE": 1 << 20,
            "CLOCK_RATE": 1_980_000,
            "MEMORY_CLOCK_RATE": 3_201_000,
            "GLOBAL_MEMORY_BUS_WIDTH": 6144,
        }
        return _OK, values[attribute.name.removeprefix("CU_DEVICE_ATTRIBUTE_")]

    # ---- contexts

    def cuDevicePrimaryCtxRetain(self, device: int) -> tuple[Any, ...]:
        return _OK, 50 + device

    def cuCtxGetDevice(self) -> tuple[Any, ...]:
        if not self.contexts:
            return (real.CUresult.CUDA_ERROR_INVALID_CONTEXT,)
        return _OK, self.contexts[-1] - 50

    def cuCtxPushCurrent(self, context: int) -> tuple[Any, ...]:
        self.contexts.append(context)
        return (_OK,)

    def cuCtxPopCurrent(self) -> tuple[Any, ...]:
        return _OK, self.contexts.pop()

    def cuCtxSynchronize(self) -> tuple[Any, ...]:
        return (_OK if self.contexts else real.CUresult.CUDA_ERROR_INVALID_CONTEXT,)

    # ---- kernels

    def cuLibraryLoadData(self, code: bytes, *options: Any) -> tuple[Any, ...]:
        if options != ([], [], 0, [], [], 0) or code not in self._ptx:
            return (real.CUresult.CUDA_ERROR_INVALID_IMAGE,)
        token = next(self._tokens)
        self._libraries[token] = code
        return _OK, token

    def cuLibraryGetKernel(self, library: int, name: bytes) -> tuple[Any, ...]:
        ptx = self._ptx[self._libraries[library]]
        if f".entry {name.decode()}(" not in ptx:
            return (real.CUresult.CUDA_ERROR_NOT_FOUND,)
        token = next(self._tokens)
        self._kernels[token] = (ptx, name.decode())
        return _OK, token

    def cuKernelSetAttribute(self, attribute: Any, value: int, kernel: int, device: int) -> tuple[Any, ...]:
        assert attribute.name == "CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES"
        if value > self.shared:
            return (real.CUresult.CUDA_ERROR_INVALID_VALUE,)
        self._shared[kernel, device] = value
        return (_OK,)

    def cuKernelGetFunction(self, kernel: int) -> tuple[Any, ...]:
        if not self.contexts:
            return (real.CUresult.CUDA_ERROR_INVALID_CONTEXT,)
        token = next(self._tokens)
        self._functions[token] = (kernel, self.contexts[-1] - 50)
        return _OK, token

    def cuLaunchKernel(self, function: int, *rest: Any) -> tuple[Any, ...]:
        gx, gy, gz, bx, by, bz, shared, stream, parameters, extra = rest
        kernel, device = self._functions[function]
        if not self.contexts or self.contexts[-1] - 50 != device:
            return (real.CUresult.CUDA_ERROR_INVALID_CONTEXT,)
        if shared > self._shared.get((kernel, device), _PLAIN_SHARED) or min(gx, gy, gz) < 1 or extra != 0:
            return (real.CUresult.CUDA_ERROR_INVALID_VALUE,)
        ptx, name = self._kernels[kernel]
        module = parse(ptx)
        count = ptx.partition(f".entry {name}(")[2].partition(")")[0].count(".param .u64")
        pointers = (ctypes.c_void_p * count).from_address(parameters)
        values = [ctypes.c_int64.from_address(pointer or 0).value for pointer in pointers]
        launch = {"name": name, "blocks": gx, "threads": bx, "shared": shared, "stream": stream, "values": values}
        self.launches.append(launch)
        arguments = [self._argument(value, device) for value in values]
        run(module, name, grid=(gx, gy, gz), block=(bx, by, bz), arguments=arguments, dynamic_shared=shared, seed=0)
        return (_OK,)

    def _argument(self, value: int, device: int) -> Any:
        for begin, (array, owner) in self.memory.items():
            if begin <= value < begin + array.nbytes and owner == device:
                return Pointer(array, value - begin)
        return np.int64(value)

    # ---- memory

    def cuMemAlloc(self, nbytes: int) -> tuple[Any, ...]:
        if not self.contexts or not nbytes:
            return (real.CUresult.CUDA_ERROR_INVALID_VALUE,)
        if nbytes > self.room:
            return (real.CUresult.CUDA_ERROR_OUT_OF_MEMORY,)
        array = aligned_empty((nbytes,), np.uint8)
        array[:] = 0xFF  # NaN, as what lies in fresh memory might be
        return _OK, self.place(array, self.contexts[-1] - 50)

    def cuMemFree(self, address: int) -> tuple[Any, ...]:
        del self.memory[address]
        return (_OK,)

    def cuMemcpyHtoD(self, target: int, source: int, nbytes: int) -> tuple[Any, ...]:
        ctypes.memmove(target, source, nbytes)
        return (_OK,)

    def cuMemcpyDtoH(self, target: int, source: int, nbytes: int) -> tuple[Any, ...]:
        ctypes.memmove(target, source, nbytes)
        return (_OK,)

    def cuMemsetD8Async(self, address: int, value: int, nbytes: int, stream: int) -> tuple[Any, ...]:
        ctypes.memset(address, value, nbytes)
        return (_OK,)

    def cuPointerGetAttribute(self, attribute: Any, address: int) -> tuple[Any, ...]:
        assert attribute.name == "CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL"
        for begin, (array, device) in self.memory.items():
            if begin <= address < begin + array.nbytes:
                return _OK, device
        return (real.CUresult.CUDA_ERROR_INVALID_VALUE,)

    # ---- streams and events

    def cuStreamIsCapturing(self, stream: int) -> tuple[Any, ...]:
        return _OK, int(stream in self.capturing)

    def cuStreamSynchronize(self, stream: int) -> tuple[Any, ...]:
        if stream in self.capturing:
            return (real.CUresult.CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED,)
        return (_OK,)

    def cuEventCreate(self, flags: int) -> tuple[Any, ...]:
        token = next(self._tokens)
        self.events[token] = None
        return _OK, token

    def cuEventRecord(self, event: int, stream: int) -> tuple[Any, ...]:
        self.events[event] = stream
        self.now += 0.25
        self.times[event] = self.now
        return (_OK,)

    def cuEventDestroy(self, event: int) -> tuple[Any, ...]:
        del self.events[event]
        return (_OK,)

    def cuEventSynchronize(self, event: int) -> tuple[Any, ...]:
        return (_OK,)

    def cuEventElapsedTime(self, begin: int, end: int) -> tuple[Any, ...]:
        return _OK, self.times[end] - self.times[begin]

    def cuStreamWaitEvent(self, stream: int, event: int, flags: int) -> tuple[Any, ...]:
        assert self.events[event] is not None
        return (_OK,)


class FakeArray:
    """A NumPy array that says it lies on a device. ``stream`` is what the interface says of its contents."""

    def __init__(self, fake: FakeDriver, array: np.ndarray, *, device: int = 0, stream: int | None = None) -> None:
        home = aligned_empty(array.shape, array.dtype)
        home[...] = array
        self.array = home
        self.stream = stream
        fake.place(home, device)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        shown = self.array
        return {
            "shape": shown.shape,
            "typestr": shown.dtype.str,
            "data": (int(shown.ctypes.data) if shown.size else 0, not shown.flags.writeable),
            "strides": None if shown.flags.c_contiguous else shown.strides,
            "stream": self.stream,
            "version": 3,
        }
