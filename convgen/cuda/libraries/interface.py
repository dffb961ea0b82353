"""Arrays of any library by what they say of themselves: ``__cuda_array_interface__`` (version 3) or DLPack.

Sources: numba's documentation, "CUDA Array Interface (Version 3)"; DLPack's dlpack.h and "Python Specification for DLPack".
"""

from __future__ import annotations

import ctypes
import math
from typing import Any

import numpy as np

from convgen.cuda.device import Device, Memory, device_numbered
from convgen.cuda.libraries.base import View, is_dense, no_kernel_reads, not_on_device
from convgen.dtypes import DTYPES
from convgen.errors import OperandError

# NumPy has no bfloat16: where it stands for one, a type string says two bytes of anything.
_TYPES = {dtype.numpy.str: name for name, dtype in DTYPES.items()} | {"<V2": "bfloat16", "|V2": "bfloat16"}
# The legacy default stream.
_DEFAULT_STREAM = 0
# DLPack's kinds of devices that kernels reach by address: CUDA memory and managed memory.
_DLPACK_CUDA = (2, 13)
# What DLPack's ``__dlpack__`` calls the legacy default stream.
_DLPACK_DEFAULT_STREAM = 1
# The version that is asked for, the name of its capsules, and its flag for arrays that nobody may write to.
_DLPACK_VERSION = (1, 0)
_DLPACK_VERSIONED_NAME = b"dltensor_versioned"
_DLPACK_READ_ONLY = 1
_DLPACK_TYPES = {
    (0, 8): "int8",
    (0, 32): "int32",
    (1, 8): "uint8",
    (2, 16): "float16",
    (2, 32): "float32",
    (2, 64): "float64",
    (4, 16): "bfloat16",
}


class DeviceArray:
    """Memory of a device as an array in C order: what results are where the operands' library makes no arrays.

    Offers ``__cuda_array_interface__``; bfloat16 is two bytes of anything there. ``stream`` is the handle of the stream that its
    contents are made on.
    """

    def __init__(self, shape: tuple[int, ...], dtype: str, device: Device, stream: int = _DEFAULT_STREAM) -> None:
        self.shape = shape
        self.dtype = dtype
        self.device = device
        self.stream = stream
        self._memory = Memory(device, math.prod(shape) * DTYPES[dtype].itemsize)

    @property
    def nbytes(self) -> int:
        """The size in bytes."""
        return self._memory.nbytes

    @property
    def address(self) -> int:
        """Where it begins; 0 if it is empty."""
        return self._memory.address

    @property
    def __cuda_array_interface__(self) -> dict[str, object]:
        return {
            "shape": self.shape,
            "typestr": DTYPES[self.dtype].numpy.str,
            "data": (self.address, False),
            "strides": None,
            # 0 is not allowed there, because it is not clear which default stream it means.
            "stream": self.stream or 1,
            "version": 3,
        }

    @staticmethod
    def from_host(array: np.ndarray[Any, Any], device: int = 0) -> DeviceArray:
        """A copy of a NumPy array. Raises DTypeError, and what ``device_numbered`` does."""
        dtype = _TYPES.get(array.dtype.str)
        if dtype is None:
            raise no_kernel_reads("array", array.dtype)
        made = DeviceArray(array.shape, dtype, device_numbered(device))
        dense = np.ascontiguousarray(array)
        if dense.nbytes:
            with made.device.active():
                made.device.driver.call("cuMemcpyHtoD", made.address, dense.ctypes.data, dense.nbytes)
        return made

    def to_host(self) -> np.ndarray[Any, Any]:
        """A copy as a NumPy array, once everything on its stream is done. Raises DeviceError."""
        self.device.synchronize(self.stream)
        array = np.empty(self.shape, DTYPES[self.dtype].numpy)
        if array.nbytes:
            with self.device.active():
                self.device.driver.call("cuMemcpyDtoH", array.ctypes.data, self.address, array.nbytes)
        return array


class _Own:
    """What all libraries share whose arrays convgen cannot make: results are DeviceArrays, scratch memory is the stream's."""

    def empty(self, shape: tuple[int, ...], dtype: str, device: int, stream: int) -> DeviceArray:
        return DeviceArray(shape, dtype, device_numbered(device), stream)

    def scratch(self, nbytes: int, device: int, stream: int) -> tuple[int, object]:
        return device_numbered(device).scratch(nbytes, stream), None

    def dense(self, name: str, array: Any, device: int, stream: int) -> Any:
        raise OperandError(f"{name} does not lie in C order on an address that is a multiple of 16; copy it first")


class Interface(_Own):
    """Arrays with ``__cuda_array_interface__``."""

    def view(self, name: str, array: Any) -> View:
        facts = array.__cuda_array_interface__
        dtype = _TYPES.get(facts["typestr"])
        if dtype is None:
            raise no_kernel_reads(name, facts["typestr"])
        if facts.get("mask") is not None:
            raise OperandError(f"{name} has a mask, which no kernel reads")
        address, is_read_only = facts["data"]
        shape = tuple(facts["shape"])
        dense = is_dense(shape, facts.get("strides"), DTYPES[dtype].itemsize)
        stream = facts.get("stream")
        return View(int(address or 0), shape, dtype, dense, array, is_writable=not is_read_only, stream=_legacy(stream))

    def current_stream(self, array: Any, device: int) -> int:
        return _legacy(array.__cuda_array_interface__.get("stream")) or _DEFAULT_STREAM


def _legacy(stream: int | None) -> int | None:
    """The handle of a stream as the interface numbers it: 1 is the legacy default stream, as 0 is to the driver."""
    return _DEFAULT_STREAM if stream == 1 else stream


class _DLTensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _DLVersioned(ctypes.Structure):
    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("tensor", _DLTensor),
    )


class DLPack(_Own):
    """Arrays with ``__dlpack__``. The capsule is only read: it gives its memory back itself, when its View is dropped."""

    def view(self, name: str, array: Any) -> View:
        kind, ordinal = array.__dlpack_device__()
        if int(kind) not in _DLPACK_CUDA:
            raise not_on_device(name, f"DLPack device {int(kind)}")
        capsule = _capsule(array)
        tensor, is_writable = _tensor(capsule)
        dtype = _DLPACK_TYPES.get((tensor.code, tensor.bits)) if tensor.lanes == 1 else None
        if dtype is None:
            raise no_kernel_reads(name, f"(code {tensor.code}, {tensor.bits} bits, {tensor.lanes} lanes)")
        shape = tuple(tensor.shape[: tensor.ndim])
        size = DTYPES[dtype].itemsize
        strides = [size * step for step in tensor.strides[: tensor.ndim]] if tensor.strides else None
        address = (tensor.data or 0) + tensor.byte_offset
        # The producer has made the default stream wait for the contents.
        return View(
            address,
            shape,
            dtype,
            is_dense(shape, strides, size),
            (array, capsule),
            int(ordinal),
            is_writable,
            stream=_DEFAULT_STREAM,
        )

    def current_stream(self, array: Any, device: int) -> int:
        return _DEFAULT_STREAM


def _capsule(array: Any) -> object:
    """The array's capsule, with a version where its library knows of versions."""
    try:
        return array.__dlpack__(stream=_DLPACK_DEFAULT_STREAM, max_version=_DLPACK_VERSION)
    except TypeError:
        return array.__dlpack__(stream=_DLPACK_DEFAULT_STREAM)


def _tensor(capsule: object) -> tuple[_DLTensor, bool]:
    """What a capsule holds, and whether it is known that others may write there, which only capsules with a version say."""
    python = ctypes.pythonapi
    is_valid, get = python.PyCapsule_IsValid, python.PyCapsule_GetPointer
    is_valid.argtypes, get.argtypes = (ctypes.py_object, ctypes.c_char_p), (ctypes.py_object, ctypes.c_char_p)
    get.restype = ctypes.c_void_p
    if not is_valid(capsule, _DLPACK_VERSIONED_NAME):
        return _DLTensor.from_address(int(get(capsule, b"dltensor") or 0)), False
    versioned = _DLVersioned.from_address(int(get(capsule, _DLPACK_VERSIONED_NAME) or 0))
    return versioned.tensor, not versioned.flags & _DLPACK_READ_ONLY
