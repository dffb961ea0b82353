"""The elementary functions of epilogues: how far from the truth, special values, limits, and no library behind them."""

from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Callable

import numpy as np
import pytest

from convgen.errors import OptionError
from convgen.ir.build import add, mul
from convgen.ir.nodes import Apply, Buffer, For, Function, Load, Program, Stage, Store, Var
from convgen.machine import Machine, machine_named
from convgen.targets.cpu.build import stage_address, unit_assembly, unit_source
from convgen.targets.cpu.lower import LoweredStage, lower_stage

FUNCTIONS: tuple[Function, ...] = ("exp", "tanh", "erf")
LEVELS = ("host", "avx2", "generic")
# Measured over every 31st float32 and a million float64, at every level: exp 1.01, tanh 1.54, erf 1.23.
LARGEST_ERROR = 1.7

Array = np.ndarray


def stage(dtype: str, lanes: int, machine: Machine) -> LoweredStage:
    """Three results, function by function, of the elements of x."""
    extent = (Var("M"),)
    operand = Buffer("x", dtype, extent, "operand")
    results = tuple(Buffer(f"{function}s", dtype, extent, "result") for function in FUNCTIONS)
    at = (mul(Var("i"), lanes),)
    body = tuple(Store(f"{f}s", at, Apply(f, Load("x", at, lanes)), lanes) for f in FUNCTIONS)
    main = Stage("main", (For("i", add("M"), body, "parallel"),))
    return lower_stage(Program("functions", ("M",), (operand, *results), (main,)), main, machine)


@functools.cache
def compiled(dtype: str, level: str, lanes: int) -> Callable[[Array], dict[str, Array]]:
    """The functions as machine code; x has a multiple of ``lanes`` elements."""
    try:
        machine = machine_named(level)
    except OptionError as error:
        pytest.skip(str(error))
    address = stage_address(stage(dtype, lanes, machine), machine)
    entry = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)(address)

    def run(x: Array) -> dict[str, Array]:
        x = np.ascontiguousarray(x, dtype)
        assert x.size % lanes == 0
        results: dict[str, Array] = {function: np.empty_like(x) for function in FUNCTIONS}
        addresses = np.array([x.ctypes.data, *(y.ctypes.data for y in results.values())])
        entry(addresses.ctypes.data, None, 0, x.size // lanes)
        return results

    return run


def truth(function: str, x: Array) -> Array:
    """In the widest type there is; erf, which NumPy lacks, in float64."""
    if function == "erf":
        return np.array([math.erf(value) for value in x.tolist()])
    wide: Array = {"exp": np.exp, "tanh": np.tanh}[function](x.astype(np.longdouble))
    return wide


def units_in_the_last_place(y: Array, expected: Array) -> Array:
    """Infinity counts as the power of two that follows the largest finite number."""
    limits = np.finfo(y.dtype)
    beyond = np.ldexp(np.longdouble(1), limits.maxexp)
    with np.errstate(over="ignore"):
        rounded = np.minimum(np.abs(expected).astype(y.dtype), limits.max)
    got = np.where(np.isinf(y), np.copysign(beyond, y), y.astype(np.longdouble))
    distance: Array = np.abs(got - np.minimum(expected, beyond)) / np.spacing(rounded)
    return distance


def dense(function: str, dtype: str, count: int) -> Array:
    """Every size from denormal to where the function has reached its limits, both signs, and where formulas change."""
    rng = np.random.default_rng(0)
    limits = np.finfo(dtype)
    lowest, highest = {
        "exp": (math.log(float(limits.smallest_subnormal)) - 2, math.log(float(limits.max)) + 1),
        "tanh": (-25.0, 25.0),
        "erf": (-7.0, 7.0),
    }[function]
    sizes = np.exp(rng.uniform(math.log(float(limits.tiny)), math.log(highest), count))
    seams = rng.uniform(0.5, 1.1, count)
    parts = (rng.uniform(lowest, highest, count), rng.uniform(-2, 2, count), sizes, -sizes / 8, seams, -seams)
    return np.concatenate(parts).astype(dtype)


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("dtype", "lanes"), [("float32", 64), ("float64", 8)])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_errors_stay_below_two_units_in_the_last_place(function: str, dtype: str, lanes: int, level: str) -> None:
    x = dense(function, dtype, 6400)
    distance = units_in_the_last_place(compiled(dtype, level, lanes)(x)[function], truth(function, x))
    worst = int(np.argmax(distance))
    assert distance[worst] <= LARGEST_ERROR, (x[worst], distance[worst])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_scalars_are_lanes(dtype: str) -> None:
    x = np.concatenate([dense(function, dtype, 64) for function in FUNCTIONS])
    scalars, vectors = (compiled(dtype, "host", lanes)(x) for lanes in (1, 8))
    for function in FUNCTIONS:
        np.testing.assert_array_equal(scalars[function], vectors[function])


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_special_values(dtype: str, level: str) -> None:
    tiny = float(np.finfo(dtype).smallest_subnormal)
    largest = float(np.finfo(dtype).max)
    x = np.array([math.nan, math.inf, -math.inf, 0.0, -0.0, tiny, -tiny, largest, -largest, *[0.0] * 55], dtype)
    got = compiled(dtype, level, {"float32": 64, "float64": 8}[dtype])(x)
    odd = np.array([math.nan, 1.0, -1.0, 0.0, -0.0, tiny, -tiny, 1.0, -1.0], dtype)
    expected = {"exp": np.array([math.nan, math.inf, 0, 1, 1, 1, 1, math.inf, 0], dtype), "tanh": odd, "erf": odd}
    for function in FUNCTIONS:
        np.testing.assert_array_equal(got[function][:9], expected[function])
        # Signs of zeros too, which compare equal; that of a NaN means nothing.
        np.testing.assert_array_equal(np.signbit(got[function][1:9]), np.signbit(expected[function][1:]))


@pytest.mark.parametrize(
    ("function", "limits"),
    [("exp", (-103.98, 88.73)), ("tanh", (9.02, -9.02)), ("erf", (3.83, -3.83))],
)
def test_limits_are_reached_once_and_from_one_side(function: str, limits: tuple[float, float]) -> None:
    run = compiled("float32", "host", 64)
    final = {"exp": (0.0, math.inf), "tanh": (1.0, -1.0), "erf": (1.0, -1.0)}[function]
    for limit, value in zip(limits, final, strict=True):
        bits = np.float32(limit).view(np.int32) + np.arange(-(1 << 16), 1 << 20, dtype=np.int32)
        x = bits.view(np.float32)
        y = run(x)[function]
        rising = y if value > y[0] else -y
        assert np.all(rising[1:] >= rising[:-1])
        assert y[0] != value
        assert y[-1] == value


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("dtype", "lanes"), [("float32", 64), ("float64", 8)])
def test_nothing_is_called(dtype: str, lanes: int, level: str) -> None:
    try:
        machine = machine_named(level)
    except OptionError as error:
        pytest.skip(str(error))
    assembly = unit_assembly(unit_source(stage(dtype, lanes, machine)), machine)
    library = ("exp", "tanh", "erf", "fma")
    assert not [line for line in assembly.splitlines() if "call" in line and any(name in line for name in library)]
