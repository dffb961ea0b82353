"""Between float16 and float32: every number of the one, and rounding of the other, with and without the processor's help."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest

from convgen.errors import OptionError
from convgen.ir.build import add, mul
from convgen.ir.nodes import Buffer, For, Load, Program, Stage, Store, Var
from convgen.machine import machine_named
from convgen.targets.cpu.build import stage_address
from convgen.targets.cpu.lower import lower_stage

Array = np.ndarray[Any, Any]
LEVELS = pytest.mark.parametrize("level", ["host", "generic"])
LANES = pytest.mark.parametrize("lanes", [1, 8])


def converted(x: Array, dtype: str, level: str, lanes: int) -> Array:
    """The numbers of x, a multiple of ``lanes`` of them, as the kernel converts them."""
    try:
        machine = machine_named(level)
    except OptionError as error:
        pytest.skip(str(error))
    at = (mul(Var("i"), lanes),)
    buffers = (Buffer("x", x.dtype.name, (Var("M"),), "operand"), Buffer("y", dtype, (Var("M"),), "result"))
    body = For("i", add("M"), (Store("y", at, Load("x", at, lanes), lanes),), "parallel")
    stage = Stage("main", (body,))
    address = stage_address(lower_stage(Program("convert", ("M",), buffers, (stage,)), stage, machine), machine)
    entry = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)(address)
    y = np.empty(x.size, dtype)
    places = np.array([x.ctypes.data, y.ctypes.data])
    entry(places.ctypes.data, None, 0, x.size // lanes)
    return y


@LEVELS
@LANES
def test_every_float16_is_widened_exactly(level: str, lanes: int) -> None:
    x = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    y = converted(x, "float32", level, lanes)
    numbers = ~np.isnan(x)
    np.testing.assert_array_equal(y[numbers].view(np.uint32), x[numbers].astype(np.float32).view(np.uint32))
    assert np.isnan(y[~numbers]).all()


@LEVELS
@LANES
def test_float32_is_rounded_to_the_nearest_float16(level: str, lanes: int) -> None:
    # Every float16, what lies halfway to the next one, and the float32 on either side of both; then bits of all kinds.
    some = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
    finite = some[np.isfinite(some)]
    with np.errstate(over="ignore"):
        further = np.nextafter(finite.astype(np.float16), np.float16(np.inf)).astype(np.float32)
    halfway = (finite + np.where(np.isfinite(further), further, np.float32(65536))) / 2
    near = np.concatenate([some, halfway])
    bits = np.concatenate([near.view(np.uint32) + np.uint32(step) for step in (0, 1, 0xFFFFFFFF)])
    bits = np.concatenate([bits, np.arange(0, 1 << 32, 65_521, dtype=np.uint64).astype(np.uint32)])
    x = bits[: bits.size // lanes * lanes].view(np.float32)
    y = converted(x, "float16", level, lanes)
    with np.errstate(over="ignore", invalid="ignore"):
        expected = x.astype(np.float16)
    numbers = ~np.isnan(x)
    np.testing.assert_array_equal(y[numbers].view(np.uint16), expected[numbers].view(np.uint16))
    assert np.isnan(y[~numbers]).all()
