"""Floating-point instructions against exact rational arithmetic, NumPy and ml_dtypes."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tests.targets.cuda.interp.snippets import evaluate, pairs

SPECIAL = [0.0, -0.0, 1.0, -1.0, math.inf, -math.inf, math.nan, 3.5, 2.5, -2.5, 1e-40, -1e-45, 3e38, 1.17549435e-38]


def same(made: np.ndarray, expected: np.ndarray) -> bool:
    """Equal to the bit, any NaN like any other."""
    bits = np.dtype(f"u{made.dtype.itemsize}")
    nan = np.isnan(expected)
    equal = made.view(bits) == expected.astype(made.dtype).view(bits)
    return bool((np.isnan(made) == nan).all() and equal[~nan].all())


def random_floats(rng: np.random.Generator, count: int, dtype: type, spread: int) -> np.ndarray:
    return np.ldexp(rng.standard_normal(count), rng.integers(-spread, spread, count)).astype(dtype)


def rounded(exact: Fraction, dtype: type, direction: str) -> float:
    """An exact number in a type, by comparing with its neighbours."""
    try:
        near = dtype(float(exact)) if dtype is np.float64 else _nearest(exact, dtype)
    except OverflowError:
        near = dtype(math.inf if exact > 0 else -math.inf)
    if direction == "rn":
        return float(near)
    above = (math.isinf(near) and near > 0) or (not math.isinf(near) and Fraction(float(near)) > exact)
    below = (math.isinf(near) and near < 0) or (not math.isinf(near) and Fraction(float(near)) < exact)
    if above and (direction == "rm" or (direction == "rz" and exact > 0)):
        return float(np.nextafter(near, dtype(-math.inf)))
    if below and (direction == "rp" or (direction == "rz" and exact < 0)):
        return float(np.nextafter(near, dtype(math.inf)))
    return float(near)


def _nearest(exact: Fraction, dtype: type) -> np.floating:
    """The nearest number of a narrow type, ties to even."""
    guess = dtype(float(exact))
    candidates = [guess, np.nextafter(guess, dtype(-math.inf)), np.nextafter(guess, dtype(math.inf))]
    bits = np.dtype(f"u{np.dtype(dtype).itemsize}")
    finite = [value for value in candidates if math.isfinite(value)]
    return min(finite, key=lambda value: (abs(Fraction(float(value)) - exact), int(value.view(bits)) & 1))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sums_products_and_quotients(dtype: type) -> None:
    kind = "f32" if dtype is np.float32 else "f64"
    a, b = pairs(SPECIAL, dtype)
    with np.errstate(all="ignore"):
        assert same(evaluate(f"\tadd.{kind} %d, %a, %b;", dtype, a, b), a + b)
        assert same(evaluate(f"\tsub.rn.{kind} %d, %a, %b;", dtype, a, b), a - b)
        assert same(evaluate(f"\tmul.{kind} %d, %a, %b;", dtype, a, b), a * b)
        assert same(evaluate(f"\tdiv.rn.{kind} %d, %a, %b;", dtype, a, b), a / b)
        assert same(evaluate(f"\tsqrt.rn.{kind} %d, %a;", dtype, a), np.sqrt(a))
        assert same(evaluate(f"\tcopysign.{kind} %d, %a, %b;", dtype, a, b), np.copysign(b, a))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extremes_and_comparisons(dtype: type) -> None:
    kind = "f32" if dtype is np.float32 else "f64"
    a, b = pairs(SPECIAL, dtype)
    least = evaluate(f"\tmin.{kind} %d, %a, %b;", dtype, a, b)
    most = evaluate(f"\tmax.{kind} %d, %a, %b;", dtype, a, b)
    for x, y, low, high in zip(a, b, least, most, strict=True):
        numbers = [float(value) for value in (x, y) if not math.isnan(value)]
        key = lambda value: (value, math.copysign(1, value))  # noqa: E731
        expected = (min(numbers, key=key), max(numbers, key=key)) if numbers else (math.nan, math.nan)
        assert same(np.array([low, high], dtype), np.array(expected, dtype))
    if kind == "f32":
        made = evaluate("\tmin.NaN.f32 %d, %a, %b;", dtype, a, b)
        assert (np.isnan(made) == (np.isnan(a) | np.isnan(b))).all()
    unordered = np.isnan(a) | np.isnan(b)
    for name, function in (
        ("eq", np.equal),
        ("lt", np.less),
        ("le", np.less_equal),
        ("gt", np.greater),
        ("ge", np.greater_equal),
    ):
        for suffix, extra in (("", False), ("u", True)):
            made = evaluate(f"\tsetp.{name}{suffix}.{kind} %p1, %a, %b;\n\tselp.u32 %d, 1, 0, %p1;", "u4", a, b)
            assert (made == (function(a, b) | (unordered & extra))).all(), name + suffix
    for name, expected in (
        ("ne", (a != b) & ~unordered),
        ("neu", (a != b) | unordered),
        ("num", ~unordered),
        ("nan", unordered),
    ):
        made = evaluate(f"\tsetp.{name}.{kind} %p1, %a, %b;\n\tselp.u32 %d, 1, 0, %p1;", "u4", a, b)
        assert (made == expected).all(), name
    for name, expected in (("finite", np.isfinite(a)), ("infinite", np.isinf(a)), ("notanumber", np.isnan(a))):
        assert (evaluate(f"\ttestp.{name}.{kind} %p1, %a;\n\tselp.u32 %d, 1, 0, %p1;", "u4", a) == expected).all()


@pytest.mark.parametrize("direction", ["rn", "rz", "rm", "rp"])
def test_fused_sums_of_float32_are_rounded_once(direction: str) -> None:
    rng = np.random.default_rng(3)
    a, b = random_floats(rng, 512, np.float32, 20), random_floats(rng, 512, np.float32, 20)
    with np.errstate(all="ignore"):
        c = -(a * b) * (1 + rng.integers(-1, 2, 512) * np.float32(2.0**-23))
    c = np.where(rng.random(512) < 0.3, random_floats(rng, 512, np.float32, 60), c).astype(np.float32)
    # Halfway cases and results below the least normal number, where rounding through float64 would go wrong.
    a[:3], b[:3] = [1 + 2**-23, 1 + 2**-12, 2.0**-75], [1 + 2**-23, 1 + 2**-12, 2.0**-74 * (1 + 2**-23)]
    c[:3] = [2.0**-60, 2.0**-80, 2.0**-149]
    a[3], b[3], c[3] = 2.0**-70 * (1 + 2**-12), 2.0**-62 * (1 + 2**-11), 2.0**-127 * 1.5
    made = evaluate(f"\tfma.{direction}.f32 %d, %a, %b, %c;", np.float32, a, b, c)
    for x, y, z, result in zip(a, b, c, made, strict=True):
        exact = Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z))
        assert exact == 0 or float(result) == rounded(exact, np.float32, direction), (x, y, z)


def test_fused_sums_that_double_rounding_breaks() -> None:
    """1 + 2^-24 + 2^-80 lies just above the middle between two float32; float64 sees the middle itself, which goes to even."""
    one = np.array([1.0], np.float32)
    a, b = np.array([2.0**-12], np.float32), np.array([2.0**-12 * (1 + 2**-20)], np.float32)
    made = evaluate("\tfma.rn.f32 %d, %a, %b, %c;", np.float32, a, b, one)
    assert made[0] == np.float32(1 + 2**-23)
    tiny = evaluate(
        "\tfma.rn.f32 %d, %a, %b, %c;",
        np.float32,
        np.array([2.0**-40], np.float32),
        np.array([2.0**-40], np.float32),
        np.array([1 + 2**-23], np.float32),
    )
    assert tiny[0] == np.float32(1 + 2**-23)


def test_fused_sums_of_float64_are_rounded_once() -> None:
    rng = np.random.default_rng(4)
    a, b = random_floats(rng, 512, np.float64, 30), random_floats(rng, 512, np.float64, 30)
    c = -(a * b) * (1 + rng.integers(-2, 3, 512) * 2.0**-52)
    a[:4], b[:4], c[:4] = (
        [1e200, 1e-200, 1e-160, 1e300],
        [1e150, 1e-120, 1e-160, 1e10],
        [-1e300, 1e-320, 3e-310, -1e305],
    )
    made = evaluate("\tfma.rn.f64 %d, %a, %b, %c;", np.float64, a, b, c)
    for x, y, z, result in zip(a, b, c, made, strict=True):
        exact = Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z))
        assert float(result) == (rounded(exact, np.float64, "rn") if exact else 0.0), (x, y, z)
    huge = [np.array([value]) for value in (1.7e308, 1 - 2.0**-53, -1.6e308)]
    exact = Fraction(1.7e308) * Fraction(1 - 2.0**-53) - Fraction(1.6e308)
    assert evaluate("\tfma.rn.f64 %d, %a, %b, %c;", np.float64, *huge)[0] == float(exact)
    values, others = pairs(SPECIAL, np.float64)
    made = evaluate("\tfma.rn.f64 %d, %a, %b, %b;", np.float64, values, others)
    with np.errstate(all="ignore"):
        expected = values * others + others
    exact_ones = ~np.isfinite(expected) | (expected == 0)
    assert same(made[exact_ones], expected[exact_ones])


@pytest.mark.parametrize("kind", ["f32", "f64"])
@pytest.mark.parametrize("direction", ["rz", "rm", "rp"])
def test_directed_sums_and_products(direction: str, kind: str) -> None:
    rng = np.random.default_rng(5)
    dtype = np.float32 if kind == "f32" else np.float64
    a, b = random_floats(rng, 256, dtype, 30), random_floats(rng, 256, dtype, 30)
    a[:4], b[:4] = [1, -1, 1, 0.1], [2.0**-60, 2.0**-60, -(2.0**-60), 10]
    for name, function in (("add", Fraction.__add__), ("sub", Fraction.__sub__), ("mul", Fraction.__mul__)):
        made = evaluate(f"\t{name}.{direction}.{kind} %d, %a, %b;", dtype, a, b)
        for x, y, result in zip(a, b, made, strict=True):
            assert float(result) == rounded(function(Fraction(float(x)), Fraction(float(y))), dtype, direction)


def test_flushing_and_saturation() -> None:
    a, b = pairs(SPECIAL, np.float32)

    def flush(value: np.ndarray) -> np.ndarray:
        return np.where(np.abs(value) < np.float32(2.0**-126), np.copysign(np.float32(0), value), value)

    with np.errstate(all="ignore"):
        assert same(evaluate("\tadd.ftz.f32 %d, %a, %b;", "f4", a, b), flush(flush(a) + flush(b)))
        assert same(evaluate("\tmul.ftz.f32 %d, %a, %b;", "f4", a, b), flush(flush(a) * flush(b)))
        clipped = np.where(np.isnan(a + b), np.float32(0), np.clip(a + b, 0, 1))
    assert (evaluate("\tadd.sat.f32 %d, %a, %b;", "f4", a, b) == clipped).all()


def test_approximations() -> None:
    x = np.linspace(0.01, 20, 256).astype(np.float32)
    wide = x.astype(np.float64)
    functions: tuple[tuple[str, Callable[[Any], Any]], ...] = (
        ("ex2.approx", np.exp2),
        ("lg2.approx", np.log2),
        ("rcp.approx", lambda v: 1 / v),
        ("rsqrt.approx", lambda v: 1 / np.sqrt(v)),
        ("sqrt.approx", np.sqrt),
        ("sin.approx", np.sin),
        ("cos.approx", np.cos),
        ("tanh.approx", np.tanh),
        ("rcp.rn", lambda v: 1 / v),
    )
    for name, function in functions:
        assert (evaluate(f"\t{name}.f32 %d, %a;", "f4", x) == function(wide).astype(np.float32)).all(), name
    assert (evaluate("\tdiv.approx.f32 %d, %a, 0f40400000;", "f4", x) == x / np.float32(3)).all()
    assert (evaluate("\tdiv.full.f32 %d, %a, %b;", "f4", x, x[::-1].copy()) == x / x[::-1]).all()
    made = evaluate("\trcp.approx.ftz.f64 %d, %a;", "f8", wide)
    assert (np.abs(made * wide - 1) < 2.0**-19).all()
    assert (made.view(np.uint64) & np.uint64(0xFFFFFFFF) == 0).all()


@pytest.mark.parametrize("integral", [("rni", np.rint), ("rzi", np.trunc), ("rmi", np.floor), ("rpi", np.ceil)])
def test_floats_to_integers(integral: tuple[str, np.ufunc]) -> None:
    name, function = integral
    values = [
        0.5,
        1.5,
        -0.5,
        -1.5,
        2.4999,
        -2.5001,
        1e10,
        -1e10,
        3e38,
        math.inf,
        -math.inf,
        2147483648.0,
        -2147483648.0,
    ]
    for source, dtype in (("f32", np.float32), ("f64", np.float64)):
        x = np.array(values, dtype)
        whole = evaluate(f"\tcvt.{name}.{source}.{source} %d, %a;", dtype, x)
        assert same(whole, function(x))
        for result in ("s32", "u32", "s64", "u64", "s16", "u16"):
            target = np.dtype(f"{'i' if result[0] == 's' else 'u'}{int(result[1:]) // 8}")
            made = evaluate(f"\tcvt.{name}.{result}.{source} %d, %a;", target, x)
            low, high = int(np.iinfo(target).min), int(np.iinfo(target).max)
            finite = [min(max(int(v), low), high) if math.isfinite(v) else v for v in function(x)]
            expected = [high if v == math.inf else low if v == -math.inf else v for v in finite]
            assert made.tolist() == expected
        nan = evaluate(f"\tcvt.{name}.s32.{source} %d, %a;", np.int32, np.array([math.nan], dtype))
        assert nan.tolist() == [0]


@pytest.mark.parametrize("direction", ["rn", "rz", "rm", "rp"])
def test_integers_to_floats(direction: str) -> None:
    values = [0, 1, 16777217, 2**31 - 1, 2**24 + 3, 123456789]
    for source, dtype, more in (
        ("s32", np.int32, [-16777217, -(2**31)]),
        ("u32", np.uint32, [2**32 - 1]),
        ("s64", np.int64, [-(2**53) - 1, 2**63 - 1, -(2**63) + 1]),
        ("u64", np.uint64, [2**64 - 1, 2**53 + 1, 2**63 + 2**10 + 1]),
    ):
        x = np.array(values + more, dtype)
        for result, target in (("f32", np.float32), ("f64", np.float64)):
            made = evaluate(f"\tcvt.{direction}.{result}.{source} %d, %a;", target, x)
            assert made.tolist() == [rounded(Fraction(int(v)), target, direction) for v in x]


def test_halves() -> None:
    rng = np.random.default_rng(6)
    x = np.concatenate(
        [
            random_floats(rng, 500, np.float32, 20),
            np.array([65504, 65519, 65520, 1e-8, 6e-8, math.inf, 2049, 2051, 0.0, -0.0, 1e-5, 3.0], np.float32),
        ]
    )
    with np.errstate(over="ignore"):
        assert same(evaluate("\tcvt.rn.f16.f32 %d, %a;", np.float16, x), x.astype(np.float16))
    bits = evaluate("\tcvt.rn.bf16.f32 %d, %a;", "u2", x)
    assert (bits == x.astype(ml_dtypes.bfloat16).view(np.uint16)).all()
    with np.errstate(over="ignore"):
        halves = x.astype(np.float16)
    assert same(evaluate("\tcvt.f32.f16 %d, %a;", "f4", halves), halves.astype(np.float32))
    assert same(evaluate("\tcvt.f32.bf16 %d, %a;", "f4", bits), bits.view(ml_dtypes.bfloat16).astype(np.float32))
    y = x[::-1].copy()
    with np.errstate(over="ignore"):
        packed = (x.astype(np.float16).view(np.uint16).astype(np.uint32) << 16) | y.astype(np.float16).view(np.uint16)
    assert (evaluate("\tcvt.rn.f16x2.f32 %d, %a, %b;", "u4", x, y) == packed).all()
    packed = (bits.astype(np.uint32) << 16) | bits[::-1]
    assert (evaluate("\tcvt.rn.bf16x2.f32 %d, %a, %b;", "u4", x, y) == packed).all()
    towards = evaluate("\tcvt.rz.bf16.f32 %d, %a;", "u2", x)
    assert (towards == (x.view(np.uint32) >> 16)).all()


def test_tf32() -> None:
    bits = np.array([0x3F800FFF, 0x3F801000, 0x3F801001, 0x3F803000, 0xBF801000, 0x7F7FFFFF, 0x7F800000], np.uint32)
    x = bits.view(np.float32)
    away = evaluate("\tcvt.rna.tf32.f32 %r1, %a;\n\tmov.b32 %d, %r1;", "u4", x)
    assert away.tolist() == [0x3F800000, 0x3F802000, 0x3F802000, 0x3F804000, 0xBF802000, 0x7F800000, 0x7F800000]
    even = evaluate("\tcvt.rn.tf32.f32 %r1, %a;\n\tmov.b32 %d, %r1;", "u4", x)
    assert even.tolist() == [0x3F800000, 0x3F800000, 0x3F802000, 0x3F804000, 0xBF800000, 0x7F800000, 0x7F800000]


def test_arithmetic_on_halves() -> None:
    rng = np.random.default_rng(7)
    a, b, c = (random_floats(rng, 512, np.float16, 4) for _ in range(3))
    assert same(evaluate("\tadd.f16 %d, %a, %b;", np.float16, a, b), a + b)
    assert same(evaluate("\tmul.f16 %d, %a, %b;", np.float16, a, b), a * b)
    made = evaluate("\tfma.rn.f16 %d, %a, %b, %c;", np.float16, a, b, c)
    for x, y, z, result in zip(a, b, c, made, strict=True):
        exact = Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z))
        assert float(result) == rounded(exact, np.float16, "rn")
    u, v, w = (value.astype(np.float32).astype(ml_dtypes.bfloat16) for value in (a, b, c))
    bits = [value.view(np.uint16) for value in (u, v, w)]
    fused = evaluate("\tfma.rn.bf16 %d, %a, %b, %c;", "u2", *bits).view(ml_dtypes.bfloat16)
    for x, y, z, result in zip(u, v, w, fused, strict=True):
        exact = Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z))
        unit = Fraction(float(np.spacing(np.float32(abs(float(result)))))) * 2**15
        assert abs(Fraction(float(result)) - exact) <= unit
    pair = [(values.astype(np.uint32) << 16) | values[::-1] for values in bits]
    made = evaluate("\tfma.rn.bf16x2 %d, %a, %b, %c;", "u4", *pair)
    assert (made == ((fused.view(np.uint16).astype(np.uint32) << 16) | fused.view(np.uint16)[::-1])).all()
    halves = [value.view(np.uint16) for value in (a, b)]
    pair = [(values.astype(np.uint32) << 16) | values[::-1] for values in halves]
    total = (a + b).view(np.uint16)
    assert (evaluate("\tadd.f16x2 %d, %a, %b;", "u4", *pair) == ((total.astype(np.uint32) << 16) | total[::-1])).all()
