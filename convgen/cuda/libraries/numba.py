"""Numba's device arrays as operands; imported when the first one is met."""

from __future__ import annotations

from typing import Any

from numba import cuda

from convgen.cuda.libraries.interface import Interface
from convgen.dtypes import DTYPES


class Numba(Interface):
    """Results are Numba's device arrays, except of types that it does not have."""

    def empty(self, shape: tuple[int, ...], dtype: str, device: int, stream: int) -> Any:
        if dtype == "bfloat16":
            return super().empty(shape, dtype, device, stream)
        with cuda.gpus[device]:
            return cuda.device_array(shape, DTYPES[dtype].numpy, stream=cuda.external_stream(stream) if stream else 0)


LIBRARY = Numba()
