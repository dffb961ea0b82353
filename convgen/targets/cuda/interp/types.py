"""PTX's fundamental types: their widths, and the NumPy types that values of them are computed and kept in."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from convgen.errors import PtxError

# A register's value: one number for each lane, or one number where all lanes have the same.
Value: TypeAlias = Any
Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

_WIDTHS = {"8": 8, "16": 16, "32": 32, "64": 64}
_UNSIGNED: dict[int, np.dtype[Any]] = {bits: np.dtype(f"u{bits // 8}") for bits in _WIDTHS.values()}
_SIGNED: dict[int, np.dtype[Any]] = {bits: np.dtype(f"i{bits // 8}") for bits in _WIDTHS.values()}
_FLOATS: dict[str, np.dtype[Any]] = {
    "f16": np.dtype(np.float16),
    "f32": np.dtype(np.float32),
    "f64": np.dtype(np.float64),
}
_PACKED = {"f16x2": 32, "bf16x2": 32, "bf16": 16, "tf32": 32}


def width_of(name: str) -> int:
    """The bits of a type; a predicate has one."""
    if name == "pred":
        return 1
    if name in _PACKED:
        return _PACKED[name]
    if name[:1] in "busf" and name[1:] in _WIDTHS:
        return _WIDTHS[name[1:]]
    raise PtxError(f"PTX type .{name} is not known to the interpreter")


def unsigned(bits: int) -> np.dtype[Any]:
    """The unsigned integers of a width."""
    return _UNSIGNED[bits]


def numpy_type(name: str) -> np.dtype[Any]:
    """The NumPy type that values of a PTX type are computed in; bits of packed and of bfloat16 numbers stay bits."""
    if name == "pred":
        return np.dtype(np.bool_)
    if name in _FLOATS:
        return _FLOATS[name]
    return _SIGNED[width_of(name)] if name[0] == "s" else _UNSIGNED[width_of(name)]


def storage_type(name: str) -> np.dtype[Any]:
    """The NumPy type that a register declared with a PTX type keeps: floats as floats, all else unsigned."""
    if name == "pred" or name in ("f32", "f64"):
        return numpy_type(name)
    return _UNSIGNED[width_of(name)]


def is_type(name: str) -> bool:
    """Whether one part of an opcode is a type."""
    return name in _PACKED or name == "pred" or (name[:1] in "busf" and name[1:] in _WIDTHS)


def types_in(opcode: tuple[str, ...]) -> tuple[str, ...]:
    """The types among an opcode's parts, in order."""
    return tuple(part for part in opcode[1:] if is_type(part))
