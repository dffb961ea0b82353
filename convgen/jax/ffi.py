"""A handler of XLA's foreign function interface, written with ctypes: no C++ compiler is needed.

The structures are those of ``xla/ffi/api/c_api.h``, which jaxlib ships; later versions only add to their ends. What XLA calls
finds its problem in the attribute ``problem``, the JSON of a ConvSpec, and its operator among those compiled while tracing.
"""

from __future__ import annotations

import ctypes
from typing import Any

import jax

from convgen.kept_operators import kept_operator
from convgen.operator import CompiledConv
from convgen.spec import ConvSpec

TARGET = "convgen_convolution"
_INTERNAL = 13  # XLA_FFI_Error_Code_INTERNAL
_METADATA = 1  # XLA_FFI_Extension_Metadata


class _Extension(ctypes.Structure):
    _fields_ = (("struct_size", ctypes.c_size_t), ("kind", ctypes.c_int), ("following", ctypes.c_void_p))


class _Version(ctypes.Structure):
    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("extension", ctypes.c_void_p),
        ("major", ctypes.c_int),
        ("minor", ctypes.c_int),
    )


class _Metadata(ctypes.Structure):
    _fields_ = (("struct_size", ctypes.c_size_t), ("version", _Version), ("traits", ctypes.c_uint32))


class _MetadataExtension(ctypes.Structure):
    _fields_ = (("base", _Extension), ("metadata", ctypes.POINTER(_Metadata)))


class _ErrorArguments(ctypes.Structure):
    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("extension", ctypes.c_void_p),
        ("message", ctypes.c_char_p),
        ("code", ctypes.c_int),
    )


_CreateError = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.POINTER(_ErrorArguments))


class _Api(ctypes.Structure):
    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("extension", ctypes.c_void_p),
        ("version", _Version),
        ("internal", ctypes.c_void_p),
        ("create_error", _CreateError),
    )


class _Buffer(ctypes.Structure):
    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("extension", ctypes.c_void_p),
        ("dtype", ctypes.c_int),
        ("data", ctypes.c_void_p),
    )


class _Buffers(ctypes.Structure):
    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("extension", ctypes.c_void_p),
        ("size", ctypes.c_int64),
        ("types", ctypes.c_void_p),
        ("items", ctypes.POINTER(ctypes.POINTER(_Buffer))),
    )


class _Text(ctypes.Structure):
    _fields_ = (("start", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Attributes(ctypes.Structure):
    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("extension", ctypes.c_void_p),
        ("size", ctypes.c_int64),
        ("types", ctypes.c_void_p),
        ("names", ctypes.POINTER(ctypes.POINTER(_Text))),
        ("values", ctypes.POINTER(ctypes.POINTER(_Text))),
    )


class _CallFrame(ctypes.Structure):
    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("extension", ctypes.POINTER(_MetadataExtension)),
        ("api", ctypes.POINTER(_Api)),
        ("context", ctypes.c_void_p),
        ("stage", ctypes.c_int),
        ("arguments", _Buffers),
        ("results", _Buffers),
        ("attributes", _Attributes),
    )


def operator_of(problem: str) -> CompiledConv:
    """The operator of a problem in JSON, compiled now if there is none."""
    return kept_operator(("jax", problem), lambda: ConvSpec.from_json(problem), "auto", None)


@ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.POINTER(_CallFrame))
def _handler(call: Any) -> int | None:
    frame = call.contents
    api = frame.api.contents
    if frame.extension and frame.extension.contents.base.kind == _METADATA:
        # XLA asks which version the handler was written for.
        version = frame.extension.contents.metadata.contents.version
        version.major, version.minor = api.version.major, api.version.minor
        return None
    try:
        op = operator_of(_attribute(frame.attributes, "problem"))
        addresses = [items[i].contents.data or 0 for items, count in _lists(frame) for i in range(count)]
        op.run_at(*addresses)
    except BaseException as error:  # XLA cannot catch what Python raises, and would take silence for success
        arguments = _ErrorArguments(ctypes.sizeof(_ErrorArguments), None, str(error).encode(), _INTERNAL)
        created: int | None = api.create_error(ctypes.byref(arguments))
        return created
    return None


def _lists(frame: Any) -> list[tuple[Any, int]]:
    return [(frame.arguments.items, frame.arguments.size), (frame.results.items, frame.results.size)]


def _attribute(attributes: Any, name: str) -> str:
    for i in range(attributes.size):
        if _string(attributes.names[i].contents) == name:
            return _string(attributes.values[i].contents)
    raise KeyError(name)


def _string(text: Any) -> str:
    return ctypes.string_at(text.start, text.length).decode()


jax.ffi.register_ffi_target(TARGET, jax.ffi.pycapsule(ctypes.cast(_handler, ctypes.c_void_p).value), platform="cpu")
