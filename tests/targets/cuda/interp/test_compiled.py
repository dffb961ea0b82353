"""What numba-cuda makes of ordinary Python: libdevice's functions, integers, local and constant arrays, calls, atomics."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from convgen.targets.cuda.interp import parse, run
from tests.targets.cuda.interp.kernels import ptx_of

from numba import cuda, float32, float64, int8, int32, int64, uint8, uint32  # isort: skip

TYPES = {"f4": float32, "f8": float64, "i4": int32, "i8": int64, "u4": uint32, "i1": int8, "u1": uint8}
CAPABILITIES: list[tuple[Any, ...]] = [(8, 0), (10, 0)]
ALL_CAPABILITIES: list[tuple[Any, ...]] = [(7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (9, 0, "a"), (10, 0)]


def elementwise(
    functions: dict[str, str], *operands: np.ndarray, result: Any = None, cc: tuple[Any, ...] = (8, 0)
) -> dict[str, np.ndarray]:
    """Each expression in x and y (or z) of every element, by one kernel whose result has a row for each."""
    names = "xyz"[: len(operands)]
    lines = [
        f"def kernel({', '.join(f'{name}s' for name in names)}, out):",
        "    i = cuda.grid(1)",
        "    if i < xs.size:",
    ]
    lines += [f"        {name} = {name}s[i]" for name in names]
    lines += [f"        out[{row}, i] = {expression}" for row, expression in enumerate(functions.values())]
    scope: dict[str, Any] = {"cuda": cuda, "math": math}
    exec("\n".join(lines), scope)
    dtype = np.dtype(result or operands[0].dtype)
    out = np.zeros((len(functions), len(operands[0])), dtype)
    signature = (*(TYPES[operand.dtype.str[1:]][::1] for operand in operands), TYPES[dtype.str[1:]][:, ::1])
    text = ptx_of(scope["kernel"], signature, cc)
    arguments: list[Any] = []
    for array in (*operands, out):
        arguments += [0, 0, array.size, array.itemsize, array, *array.shape, *array.strides]
    run(parse(text), grid=(-(-len(operands[0]) // 256),), block=(256,), arguments=arguments)
    return dict(zip(functions, out, strict=True))


def units(made: np.ndarray, exact: list[float]) -> float:
    """The largest error in units of the last place."""
    reference = np.array(exact)
    spacing = np.spacing(np.abs(reference).astype(made.dtype)).astype(np.float64)
    return float((np.abs(made - reference) / spacing).max())


# Expression, range of its operand, and the error that CUDA's documentation allows in float32 and float64.
UNARY: dict[str, tuple[Callable[[float], float], tuple[float, float], float, float]] = {
    "exp": (math.exp, (-80, 80), 2, 1),
    "expm1": (math.expm1, (-5, 20), 1, 1),
    "tanh": (math.tanh, (-9, 9), 2, 2),
    "erf": (math.erf, (-5, 5), 2, 2),
    "erfc": (math.erfc, (-4, 9), 4, 5),
    "log": (math.log, (1e-6, 1e6), 1, 1),
    "log1p": (math.log1p, (-0.9, 1e3), 1, 1),
    "log2": (math.log2, (1e-6, 1e6), 1, 1),
    "sqrt": (math.sqrt, (0, 1e6), 0.5, 0.5),
    "sin": (math.sin, (-100, 100), 2, 2),
    "cos": (math.cos, (-1e7, 1e7), 2, 2),
    "atan": (math.atan, (-30, 30), 2, 2),
}


@pytest.mark.parametrize("cc", CAPABILITIES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_functions_are_as_exact_as_documented(dtype: type, cc: tuple[Any, ...]) -> None:
    rng = np.random.default_rng(12)
    operands: list[np.ndarray] = [rng.uniform(low, high, 512).astype(dtype) for _, (low, high), *_ in UNARY.values()]
    # One kernel for all of them, of an operand whose rows are those of the functions in turn.
    made = elementwise({name: f"math.{name}(x)" for name in UNARY}, np.concatenate(operands), cc=cc)
    for number, (name, (function, _, *allowed)) in enumerate(UNARY.items()):
        row = made[name].reshape(len(UNARY), -1)[number]
        # The bound is on the real error; half a unit more for the reference's own rounding in float64.
        assert (
            units(row, [function(float(value)) for value in operands[number]]) <= allowed[dtype is np.float64] + 0.5
        ), name


@pytest.mark.parametrize("cc", CAPABILITIES)
def test_functions_of_two(cc: tuple[Any, ...]) -> None:
    rng = np.random.default_rng(13)
    for dtype in ("f4", "f8"):
        x: np.ndarray = rng.uniform(0.1, 9, 512).astype(dtype)
        y: np.ndarray = rng.uniform(-6, 6, 512).astype(dtype)
        made = elementwise(
            {"pow": "math.pow(x, y)", "atan2": "math.atan2(y, x)", "/": "x / y", "//": "x // y"}, x, y, cc=cc
        )
        pairs = [(float(a), float(b)) for a, b in zip(x, y, strict=True)]
        assert units(made["pow"], [a**b for a, b in pairs]) <= 4.5
        assert units(made["atan2"], [math.atan2(b, a) for a, b in pairs]) <= 3.5
        assert (made["/"] == x / y).all()
        assert (made["//"] == x // y).all()


@pytest.mark.parametrize("cc", CAPABILITIES)
@pytest.mark.parametrize("kind", ["i1", "u1", "i4", "u4", "i8"])
def test_integers(kind: str, cc: tuple[Any, ...]) -> None:
    rng = np.random.default_rng(14)
    limits = np.iinfo(kind)
    x, y = (rng.integers(limits.min, limits.max, 512, np.dtype(kind), endpoint=True) for _ in range(2))
    y[y == 0] = 3
    expressions = {
        "+": "x + y",
        "-": "x - y",
        "*": "x * y",
        "//": "x // y",
        "%": "x % y",
        "&": "(x & y) | (x ^ 5)",
        "<<": "x << (y & 3)",
        ">>": "x >> (y & 7)",
        "min": "min(x, y)",
        "max": "max(x, y)",
        "<": "x if x < y else -y",
    }
    made = elementwise(expressions, x, y, cc=cc)
    for name, expression in expressions.items():
        expected = [eval(expression, {}, {"x": int(a), "y": int(b)}) for a, b in zip(x, y, strict=True)]
        modulus = 1 << (8 * x.itemsize)
        assert made[name].tolist() == [(v - limits.min) % modulus + limits.min for v in expected], name
    as_floats = elementwise({"/": "x / y"}, x, y, result=np.float64, cc=cc)["/"]
    assert (as_floats == x / y).all()


@pytest.mark.slow
@pytest.mark.parametrize("cc", ALL_CAPABILITIES)
def test_every_capability(cc: tuple[Any, ...]) -> None:
    test_functions_are_as_exact_as_documented(np.float32, cc)
    test_functions_are_as_exact_as_documented(np.float64, cc)
    test_functions_of_two(cc)
    for kind in ("i1", "u1", "i4", "u4", "i8"):
        test_integers(kind, cc)


TABLE = np.arange(32, dtype=np.float32) ** 2


def odds_and_ends(x: Any, out: Any, n: int) -> None:
    """A sum over a grid, by shuffles and an atomic; an array of one's own indexed by data; a table of constants."""
    i = cuda.grid(1)
    own = cuda.local.array(8, float32)
    for k in range(8):
        own[k] = x[(i + k) % n]
    table = cuda.const.array_like(TABLE)
    total = float32(0)
    for j in range(i, n, cuda.gridsize(1)):
        total += table[int32(x[j]) & 31]
    for offset in (16, 8, 4, 2, 1):
        total += cuda.shfl_down_sync(0xFFFFFFFF, total, offset)
    votes = cuda.ballot_sync(0xFFFFFFFF, x[i] > 3)
    if cuda.laneid == 0:
        cuda.atomic.add(out, 0, total)
        cuda.atomic.add(out, 1, float32(cuda.popc(votes)))
        cuda.atomic.max(out, 2, own[int32(x[i]) & 7])


@pytest.mark.parametrize("cc", CAPABILITIES)
def test_odds_and_ends(cc: tuple[Any, ...]) -> None:
    x = np.random.default_rng(15).integers(0, 32, 1000).astype(np.float32)
    out = np.zeros(3, np.float32)
    text = ptx_of(odds_and_ends, (float32[::1], float32[::1], int32), cc)
    arguments: list[Any] = []
    for array in (x, out):
        arguments += [0, 0, array.size, array.itemsize, array, *array.shape, *array.strides]
    run(parse(text), grid=(2,), block=(64,), arguments=[*arguments, len(x)])
    lanes = np.arange(0, 128, 32)
    picked = [x[(i + (int(x[i]) & 7)) % 1000] for i in lanes]
    assert out.tolist() == [float((x**2).sum()), float((x[:128] > 3).sum()), float(max(picked))]


def staircase(x: Any, out: Any) -> None:
    i = cuda.grid(1)
    v = x[i]
    k = int32(v)
    if k == 0:
        r = v * float32(2)
    elif k == 1:
        r = v + float32(1)
    elif k == 2:
        r = v - float32(3)
    elif k == 3:
        r = v / float32(7)
    elif k == 4:
        r = v * v
    else:
        r = float32(0)
        while v > float32(1):
            v = v / float32(2)
            r += float32(1)
    out[i] = r


@pytest.mark.parametrize("cc", CAPABILITIES)
@pytest.mark.parametrize("seed", [None, 1])
def test_many_ways(seed: int | None, cc: tuple[Any, ...]) -> None:
    x = np.tile(np.array([0.5, 1, 2, 3.5, 4, 5, 60, 700], np.float32), 16)
    out = np.zeros_like(x)
    text = ptx_of(staircase, (float32[::1], float32[::1]), cc)
    arguments: list[Any] = []
    for array in (x, out):
        arguments += [0, 0, array.size, array.itemsize, array, *array.shape, *array.strides]
    run(parse(text), grid=(2,), block=(64,), arguments=arguments, seed=seed)
    assert out[:8].tolist() == [1, 2, -1, 0.5, 16, 3, 6, 10]
    assert (out.reshape(-1, 8) == out[:8]).all()
