"""Prefetches change nothing, wherever they reach."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from convgen.dtypes import DTYPES
from convgen.ir.build import add, mul
from convgen.ir.nodes import Buffer, For, Load, Prefetch, Program, Stage, Store, Var
from convgen.machine import machine_named
from convgen.targets.cpu.build import stage_address
from convgen.targets.cpu.lower import lower_stage

STAGE = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 2, *[ctypes.c_int64] * 3)
LANES = 16


@pytest.mark.parametrize("machine", ["generic", "host"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("ahead", [0, 64, 1 << 40, -(1 << 40)])
def test_a_copy_with_prefetches_is_a_copy(ahead: int, dtype: str, machine: str) -> None:
    place = (mul("i", LANES),)
    body = (Prefetch("x", (add(place[0], ahead),), LANES), Store("y", place, Load("x", place, LANES), LANES))
    buffers = (Buffer("x", dtype, (Var("M"),), "operand"), Buffer("y", dtype, (Var("M"),), "result"))
    copy = Stage("copy", (For("i", Var("K"), body),))
    stage = lower_stage(Program("copy", ("M", "K"), buffers, (copy,)), copy, machine_named(machine))
    x = np.arange(4 * LANES).astype(DTYPES[dtype].numpy)
    y = np.zeros_like(x)
    addresses = np.array([x.ctypes.data, y.ctypes.data], np.int64)
    sizes = np.array([{"M": x.size, "K": 4}[name] for name in stage.sizes], np.int64)
    STAGE(stage_address(stage, machine_named(machine)))(addresses.ctypes.data, sizes.ctypes.data, 0, 1, 0)
    np.testing.assert_array_equal(y, x)
