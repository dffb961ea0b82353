"""Calls of a program on a device: operands checked, memory found, kernels started; nothing waits."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from convgen.cuda.device import Device, LoadedLaunch, device_at, device_numbered
from convgen.cuda.libraries import library_of
from convgen.cuda.libraries.base import Library, View, stream_handle
from convgen.dtypes import DTYPES
from convgen.errors import DTypeError, OperandError, ShapeError
from convgen.spec import ConvSpec
from convgen.targets.cuda.build import Cubin
from convgen.targets.cuda.program import CudaProgram

# Kernels read and write up to 16 bytes at once.
ALIGNMENT = 16


class PackedCudaWeights:
    """Weights as one operator's kernels read them, on a device; made by ``CudaConv.pack``."""

    def __init__(self, calls: DeviceCalls, weight: View, address: int, memory: object) -> None:
        self._calls = calls
        self._memory = memory
        self.weight = weight
        self.address = address

    @property
    def nbytes(self) -> int:
        """The size of the packed weights in bytes."""
        return self._calls.program.packed_bytes or _nbytes(self.weight)

    def is_of(self, calls: DeviceCalls) -> bool:
        """Whether they were packed as these calls read them, on their device."""
        return self._calls is calls or (self._calls.layout, self._calls.device) == (calls.layout, calls.device)


@dataclass(frozen=True)
class _Loaded:
    """The kernels of a program on one device: all of a call, those that pack, and the others."""

    all: tuple[LoadedLaunch, ...]
    packing: tuple[LoadedLaunch, ...]
    others: tuple[LoadedLaunch, ...]


class DeviceCalls:
    """Calls of one program on one device, its kernels loaded.

    Raises NotApplicable for a device that the program was not made for, and DeviceError.
    """

    def __init__(self, spec: ConvSpec, program: CudaProgram, cubins: Mapping[str, Cubin], device: Device) -> None:
        device.check(program)
        self.program = program
        self.layout = weights_layout(spec, program)
        self.result_shape, self.result_dtype = spec.result_shape, spec.result_dtype
        self.second_name = list(spec.operand_shapes)[1]
        self.device = device
        self.result_name = next(b.name for b in program.program.buffers if b.space == "result")
        self._loaded = _Loaded(
            device.load(program.launches(), cubins),
            device.load(program.launches(packing=True), cubins),
            device.load(program.launches(packing=False), cubins),
        )
        # Where nothing is packed, the kernels read packed weights where they lay.
        self._reads_weight = any(self.second_name in one.launch.stage.buffers for one in self._loaded.others)

    def call(self, operands: Operands, out: Any, packed: PackedCudaWeights | None) -> Any:
        """Starts the kernels and returns the result, ``out`` if that is given.

        Raises OperandError, ShapeError and DTypeError for ``out`` and what cannot be copied, and DeviceError.
        """
        device, stream, library = self.device, operands.stream, operands.library
        shape, dtype = self.result_shape, self.result_dtype
        with device.active():
            views = {name: self._ready(name, view, operands) for name, view in operands.views.items()}
            result = library.empty(shape, dtype, device.ordinal, stream) if out is None else out
            read = views if packed is None or not self._reads_weight else views | {self.second_name: packed.weight}
            target = self._target(result, read)
            if out is not None:
                self._wait(target, stream)
            program = self.program
            packed_bytes = program.packed_bytes if packed is None else 0
            addresses = {name: view.address for name, view in views.items()} | {self.result_name: target.address}
            if packed is not None:
                addresses[self.second_name] = packed.weight.address
            with device.in_turn(stream):
                base, memory = library.scratch(packed_bytes + program.workspace_bytes, device.ordinal, stream)
                self._place(addresses, base if packed is None else packed.address, base + packed_bytes)
                for launch in self._loaded.all if packed is None else self._loaded.others:
                    device.launch(launch, addresses, stream)
                # Scratch memory may be given back once the kernels are on the stream: its allocator goes by the stream's order.
                del memory
        return result

    def pack(self, name: str, operands: Operands) -> PackedCudaWeights:
        """Packs weights and waits until they lie there, so that any stream may use them."""
        device, stream, library = self.device, operands.stream, operands.library
        program = self.program
        with device.active():
            view = self._ready(name, operands.views[name], operands)
            address, memory = 0, None
            if program.packed_bytes:
                memory = library.empty((program.packed_bytes,), "uint8", device.ordinal, stream)
                address = library_of(name, memory).view(name, memory).address
            addresses = {name: view.address}
            with device.in_turn(stream):
                base, workspace = library.scratch(program.workspace_bytes, device.ordinal, stream)
                self._place(addresses, address, base)
                for launch in self._loaded.packing:
                    device.launch(launch, addresses, stream)
                del workspace
            device.synchronize(stream)
        return PackedCudaWeights(self, view, address, memory)

    def _place(self, addresses: dict[str, int], packed: int, workspace: int) -> None:
        addresses.update({name: packed + at for name, at in self.program.packed.items()})
        addresses.update({name: workspace + at for name, at in self.program.workspace.items()})

    def _ready(self, name: str, view: View, operands: Operands) -> View:
        """The operand on this device, in C order and aligned, its contents there when the stream comes to them."""
        self._check_device(name, view)
        self._wait(view, operands.stream)
        if view.is_dense and view.address % ALIGNMENT == 0:
            return view
        library = library_of(name, operands.arrays[name])
        array = library.dense(name, operands.arrays[name], self.device.ordinal, operands.stream)
        return library.view(name, array)

    def _target(self, result: Any, operands: Mapping[str, View]) -> View:
        """Where the result goes, which may lie nowhere else than it is written, and over no operand."""
        view = library_of("out", result).view("out", result)
        view = _located(view, self.device)
        _check_array("out", view, self.result_shape, self.result_dtype)
        self._check_device("out", view)
        if not view.is_dense or view.address % ALIGNMENT:
            raise OperandError(f"out does not lie in C order on an address that is a multiple of {ALIGNMENT}")
        if not view.is_writable:
            raise OperandError("out is read-only, or may be: DLPack says so from version 1.0 on")
        for name, other in operands.items():
            if view.address < other.address + _nbytes(other) and other.address < view.address + _nbytes(view):
                raise OperandError(f"out overlaps {name}")
        return view

    def _wait(self, view: View, stream: int) -> None:
        if view.stream is not None and view.stream != stream:
            self.device.wait(stream, view.stream)

    def _check_device(self, name: str, view: View) -> None:
        if view.device != self.device.ordinal:
            raise OperandError(
                f"{name} is on device {view.device}; the first operand is on device {self.device.ordinal}"
            )


def weights_layout(spec: ConvSpec, program: CudaProgram) -> str:
    """What packed weights must have been made for: operators with the same share them, whatever the images' sizes."""
    packing = (dict(program.packed), program.packed_bytes, program.launches(packing=True))
    weight = (spec.transposed, spec.dtype, spec.weight_shape, program.gpu.name)
    return hashlib.sha256(repr((weight, packing)).encode()).hexdigest()


@dataclass(frozen=True)
class Operands:
    """The arrays of a call by name, what they are, whose the first is, and the stream of the call."""

    arrays: Mapping[str, Any]
    views: Mapping[str, View]
    library: Library
    device: Device
    stream: int


# The shape and the dtype of every operand by its name.
Expected = Mapping[str, tuple[tuple[int, ...], str]]


def expected_operands(spec: ConvSpec) -> Expected:
    """What a problem's operands must be."""
    return {name: (shape, spec.operand_dtype(name)) for name, shape in spec.operand_shapes.items()}


def operands_of(expected: Expected, arrays: Mapping[str, Any], stream: Any) -> Operands:
    """The operands held against what they must be; the first decides device, stream and what the result is.

    Raises OperandError, ShapeError, DTypeError, MissingDependencyError without a driver, and NotApplicable without a device.
    """
    views: dict[str, View] = {}
    for name, array in arrays.items():
        views[name] = view = library_of(name, array).view(name, array)
        _check_array(name, view, *expected[name])
    leader, view = next(iter(views.items()))
    library = library_of(leader, arrays[leader])
    ordinal = view.device
    if ordinal is not None:
        device = device_numbered(ordinal)
    else:
        device = device_at(view.address) if view.address else device_numbered()
    handle = library.current_stream(arrays[leader], device.ordinal) if stream is None else stream_handle(stream)
    located = {name: _located(view, device) for name, view in views.items()}
    return Operands(arrays, located, library, device, handle)


def _located(view: View, device: Device) -> View:
    """The view with the number of its device; what is empty is on this one."""
    if view.device is not None:
        return view
    return replace(view, device=device_at(view.address).ordinal if view.address else device.ordinal)


def _check_array(name: str, view: View, shape: tuple[int, ...], dtype: str) -> None:
    if view.shape != shape:
        raise ShapeError(f"{name} has shape {view.shape}; allowed: {shape}")
    if view.dtype != dtype:
        raise DTypeError(f"{name} has dtype {view.dtype}; allowed: {dtype}")


def _nbytes(view: View) -> int:
    return math.prod(view.shape) * DTYPES[view.dtype].itemsize
