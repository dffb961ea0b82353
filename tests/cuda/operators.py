"""Compiled problems that the tests of the runtime share, small enough for the interpreter."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

import convgen.cuda
from convgen.cuda import CudaConv
from convgen.oracle import reference
from convgen.spec import ConvSpec
from convgen.verify import Operands, integer_operands

_SMALL: dict[str, Any] = {
    "batch": 1,
    "in_channels": 16,
    "out_channels": 16,
    "spatial_size": (5, 4),
    "kernel_size": 3,
    "padding": 1,
    "layout": "channels_last",
}


@functools.cache
def operator(direction: str = "forward", strategy: str = "auto", **changes: Any) -> CudaConv:
    """The small problem, compiled for capability 9.0."""
    return convgen.cuda.compile(ConvSpec(**_SMALL, **changes).replace(direction=direction), strategy)


def question(op: CudaConv) -> tuple[Operands, np.ndarray]:
    """Integers, and what the operator must make of them."""
    operands = integer_operands(op.spec, np.random.default_rng(0))
    expected = reference(op.spec, *operands.main, **operands.epilogue)
    return operands, expected
