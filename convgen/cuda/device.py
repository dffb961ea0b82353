"""A device in use: its context, the kernels loaded on it, launches on streams, and memory of its own."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from convgen.errors import DeviceError, NotApplicable, OptionError
from convgen.gpu import GPUS, Gpu, gpu_for
from convgen.targets.cuda.build import Cubin
from convgen.targets.cuda.driver import DeviceFacts, Driver, driver
from convgen.targets.cuda.program import CudaProgram, Launch

# What a block may share without the driver being asked for more.
_PLAIN_SHARED = 48 * 1024
# CU_STREAM_PER_THREAD: another stream in each thread.
_PER_THREAD_STREAM = 2
# A call that no context is current for answers this.
_NO_CONTEXT = "CUDA_ERROR_INVALID_CONTEXT"
_OUT_OF_MEMORY = "CUDA_ERROR_OUT_OF_MEMORY"


@dataclass(frozen=True)
class LoadedLaunch:
    """A kernel of a call, loaded: its handle, and the launch."""

    function: Any
    launch: Launch


class Memory:
    """Bytes on a device, given back when nobody holds them any more."""

    def __init__(self, device: Device, nbytes: int) -> None:
        self.nbytes = nbytes
        self.address = 0
        if nbytes:
            with device.active():
                self.address = int(device.driver.call("cuMemAlloc", nbytes))
            weakref.finalize(self, _free, device, self.address).atexit = False


def _free(device: Device, address: int) -> None:
    # The context may be gone by now, and its memory with it.
    with contextlib.suppress(DeviceError), device.active():
        device.driver.call("cuMemFree", address)


class Device:
    """A device of this machine, by its primary context, which the other libraries of a process use too."""

    def __init__(self, driver: Driver, ordinal: int) -> None:
        self.driver = driver
        self.facts: DeviceFacts = driver.facts(ordinal)
        self._handle = driver.call("cuDeviceGet", ordinal)
        self._context = driver.call("cuDevicePrimaryCtxRetain", self._handle)
        self._functions: dict[tuple[str, bytes], Any] = {}
        self._scratch: dict[tuple[int, int], list[Memory]] = {}
        self._turns: dict[tuple[int, int], threading.Lock] = {}
        self._lock = threading.Lock()
        self._thread = threading.local()

    @property
    def ordinal(self) -> int:
        """Its number among the devices that the process sees."""
        return self.facts.ordinal

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Makes the device's context the thread's, unless one of this device is so already."""
        if self._is_current():
            yield
            return
        self.driver.call("cuCtxPushCurrent", self._context)
        try:
            yield
        finally:
            self.driver.call("cuCtxPopCurrent")

    def _is_current(self) -> bool:
        try:
            return int(self.driver.call("cuCtxGetDevice")) == self.ordinal
        except DeviceError as error:
            if error.code != _NO_CONTEXT:
                raise
            return False

    def check(self, program: CudaProgram) -> None:
        """Raises NotApplicable for a program made for GPUs of another capability, or whose blocks share more than there is."""
        major, minor = program.gpu.capability
        own_major, own_minor = self.facts.capability
        if own_major != major or own_minor < minor:
            raise NotApplicable(
                f"capability={program.gpu.name!r} is not that of device {self.ordinal}, {self.facts.describe()}"
            )
        for stage in program.stages:
            if stage.shared_bytes > self.facts.shared_per_block:
                raise NotApplicable(
                    f"stage {stage.name} shares {stage.shared_bytes} bytes a block; device {self.ordinal} has "
                    f"{self.facts.shared_per_block}"
                )

    def load(self, launches: Sequence[Launch], cubins: Mapping[str, Cubin]) -> tuple[LoadedLaunch, ...]:
        """The launches with their kernels, each of which is loaded once; those without blocks are left out.

        ``cubins`` has the machine code of every stage by its name. Raises DeviceError.
        """
        return tuple(
            LoadedLaunch(self._function(launch, cubins[launch.stage.name].code), launch)
            for launch in launches
            if launch.blocks
        )

    def _function(self, launch: Launch, code: bytes) -> Any:
        stage = launch.stage
        key = (stage.name, hashlib.sha256(code).digest())
        with self._lock, self.active():
            if key not in self._functions:
                library = self.driver.call("cuLibraryLoadData", code, [], [], 0, [], [], 0)
                kernel = self.driver.call("cuLibraryGetKernel", library, stage.name.encode())
                if stage.shared_bytes > _PLAIN_SHARED:
                    attribute = self.driver.api.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
                    self.driver.call("cuKernelSetAttribute", attribute, stage.shared_bytes, kernel, self._handle)
                self._functions[key] = self.driver.call("cuKernelGetFunction", kernel)
            return self._functions[key]

    def launch(self, loaded: LoadedLaunch, addresses: Mapping[str, int], stream: int) -> None:
        """Starts a kernel on a stream and returns at once; ``addresses`` has those of all its buffers. The device is active.

        Raises DeviceError, also for what an earlier kernel did.
        """
        launch = loaded.launch
        values = [*(addresses[name] for name in launch.stage.buffers), *launch.sizes]
        # All parameters are 64 bits wide; the driver reads them before it returns.
        parameters = (ctypes.c_int64 * len(values))(*values)
        begin = ctypes.addressof(parameters)
        pointers = (ctypes.c_void_p * len(values))(*range(begin, begin + 8 * len(values), 8))
        shape = (launch.blocks, 1, 1, launch.stage.threads, 1, 1)
        self.driver.call(
            "cuLaunchKernel",
            loaded.function,
            *shape,
            launch.stage.shared_bytes,
            stream,
            ctypes.addressof(pointers),
            0,
        )

    @contextlib.contextmanager
    def in_turn(self, stream: int) -> Iterator[None]:
        """Keeps other threads off a stream, from the question for its scratch memory to the last launch that uses it."""
        with self._lock:
            turn = self._turns.setdefault(_stream_key(stream), threading.Lock())
        with turn:
            yield

    def scratch(self, nbytes: int, stream: int) -> int:
        """The address of scratch memory that calls on this stream share, one after the other (see ``in_turn``).

        It grows twofold at least, where there is so much memory, and is never given back, because a captured graph may hold its
        address; a call that is being captured cannot make it grow. Raises DeviceError.
        """
        if not nbytes:
            return 0
        with self._lock:
            blocks = self._scratch.setdefault(_stream_key(stream), [])
            if stream == _PER_THREAD_STREAM:
                self._inherit(blocks)
            largest = blocks[-1].nbytes if blocks else 0
            if nbytes > largest:
                if self.is_capturing(stream):
                    raise DeviceError(
                        "cuMemAlloc",
                        "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED",
                        "call once on this stream before capturing",
                    )
                blocks.append(self._grown(nbytes, 2 * largest))
            return blocks[-1].address

    def _inherit(self, blocks: Sequence[Memory]) -> None:
        """Waits for the kernels of a thread that has ended, whose number and so whose scratch memory the calling thread has."""
        if not getattr(self._thread, "has_scratch", False):
            if blocks:
                with self.active():
                    self.driver.call("cuCtxSynchronize")
            self._thread.has_scratch = True

    def _grown(self, nbytes: int, wished: int) -> Memory:
        """Memory of the size wished for, if that is larger and there is so much."""
        if wished > nbytes:
            try:
                return Memory(self, wished)
            except DeviceError as error:
                if not is_out_of_memory(error):
                    raise
        return Memory(self, nbytes)

    def is_capturing(self, stream: int) -> bool:
        """Whether calls on the stream are being recorded into a graph."""
        with self.active():
            return bool(int(self.driver.call("cuStreamIsCapturing", stream)))

    def wait(self, stream: int, other: int) -> None:
        """Lets what comes next on ``stream`` begin after what is on ``other`` now; the caller does not wait."""
        flags = int(self.driver.api.CUevent_flags.CU_EVENT_DISABLE_TIMING)
        event = self.driver.call("cuEventCreate", flags)
        try:
            self.driver.call("cuEventRecord", event, other)
            self.driver.call("cuStreamWaitEvent", stream, event, 0)
        finally:
            self.driver.call("cuEventDestroy", event)

    def synchronize(self, stream: int) -> None:
        """Waits until everything on the stream is done; raises DeviceError for what went wrong there."""
        with self.active():
            self.driver.call("cuStreamSynchronize", stream)


def gpu_of_device(facts: DeviceFacts) -> Gpu:
    """The kind of GPU whose kernels a device runs best; raises NotApplicable if there are none for its capability."""
    try:
        return gpu_for(facts.capability)
    except OptionError as error:
        known = ", ".join(gpu.name for gpu in GPUS)
        raise NotApplicable(
            f"device={facts.ordinal} is {facts.describe()}, for which there are no kernels; allowed: those of {known}"
        ) from error


def is_out_of_memory(error: DeviceError) -> bool:
    """Whether the device had not enough memory: nothing is broken, and less may fit."""
    return error.code == _OUT_OF_MEMORY


def _stream_key(stream: int) -> tuple[int, int]:
    """What tells a stream from all others of its device, whichever thread asks."""
    return stream, threading.get_ident() if stream == _PER_THREAD_STREAM else 0


@functools.cache
def device_numbered(ordinal: int = 0) -> Device:
    """The device of this number; raises MissingDependencyError without a driver, NotApplicable without it, and DeviceError."""
    found = driver()
    count = found.device_count()
    if not 0 <= ordinal < count:
        raise NotApplicable(f"device={ordinal} is not there; allowed: 0 to {count - 1}")
    return Device(found, ordinal)


def device_at(address: int) -> Device:
    """The device that memory belongs to; raises as ``device_numbered`` and DeviceError for an address of no device."""
    found = driver()
    attribute = found.api.CUpointer_attribute.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL
    return device_numbered(int(found.call("cuPointerGetAttribute", attribute, address)))
