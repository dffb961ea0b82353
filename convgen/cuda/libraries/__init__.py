"""Whose array an operand is. A library is imported only once an array of its own is met."""

from __future__ import annotations

import importlib
from typing import Any, cast

from convgen.cuda.libraries.base import Library
from convgen.cuda.libraries.interface import DLPack, Interface
from convgen.errors import OperandError

# The package that an array's class comes from, of libraries with a file here.
_OWN = ("torch", "cupy", "numba")
_INTERFACE, _DLPACK = Interface(), DLPack()


def library_of(name: str, array: Any) -> Library:
    """The library of an operand called ``name``; raises OperandError for what is no array of any device."""
    for kind in type(array).__mro__:
        package = kind.__module__.partition(".")[0]
        if package in _OWN:
            return cast(Library, importlib.import_module(f"{__name__}.{package}").LIBRARY)
    if hasattr(array, "__cuda_array_interface__"):
        return _INTERFACE
    if hasattr(array, "__dlpack__"):
        return _DLPACK
    raise OperandError(
        f"{name} is a {type(array).__name__}; allowed: an array with __cuda_array_interface__ or __dlpack__ on a CUDA device"
    )
