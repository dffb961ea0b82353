"""The data types of convolution operands: names, NumPy dtypes, accumulators and rounding units."""

from __future__ import annotations

from dataclasses import dataclass

import ml_dtypes
import numpy as np

from convgen.errors import DTypeError


@dataclass(frozen=True)
class DType:
    """One operand type.

    ``accumulator`` names the type sums are kept in, ``result`` the type the output is stored in, ``unit_roundoff`` is that
    type's u (0 for integers) and ``itemsize`` is in bytes.
    """

    name: str
    numpy: np.dtype
    itemsize: int
    accumulator: str
    result: str
    unit_roundoff: float


DTYPES: dict[str, DType] = {
    "float32": DType("float32", np.dtype(np.float32), 4, "float32", "float32", 2.0**-24),
    "float64": DType("float64", np.dtype(np.float64), 8, "float64", "float64", 2.0**-53),
    "float16": DType("float16", np.dtype(np.float16), 2, "float32", "float16", 2.0**-11),
    "bfloat16": DType("bfloat16", np.dtype(ml_dtypes.bfloat16), 2, "float32", "bfloat16", 2.0**-8),
    "int8": DType("int8", np.dtype(np.int8), 1, "int32", "int32", 0.0),
    "uint8": DType("uint8", np.dtype(np.uint8), 1, "int32", "int32", 0.0),
    "int32": DType("int32", np.dtype(np.int32), 4, "int32", "int32", 0.0),
}

OPERAND_DTYPES: tuple[str, ...] = ("float32", "float64", "float16", "bfloat16", "int8")


def dtype_named(name: object, argument: str = "dtype") -> DType:
    """Returns the operand type called ``name`` (a name or anything ``np.dtype`` accepts); raises DTypeError."""
    try:
        key = name if isinstance(name, str) and name in DTYPES else np.dtype(name).name  # type: ignore[call-overload]
    except TypeError:
        key = str(name)
    if key not in OPERAND_DTYPES:
        raise DTypeError(f"{argument}={name!r} is not supported; allowed: {', '.join(OPERAND_DTYPES)}")
    return DTYPES[key]
