"""Integer instructions against Python's integers, over the edges of each type."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.targets.cuda.interp.snippets import evaluate, pairs


def edges(kind: str) -> list[int]:
    bits = int(kind[1:])
    top = 1 << bits
    values = [0, 1, 2, 3, 5, 7, 31, 100, top // 2 - 2, top // 2 - 1, top // 2, top // 2 + 1, top - 3, top - 2, top - 1]
    values += [0x5A5A5A5A5A5A5A5A % top, 0x0123456789ABCDEF % top]
    return [value - top if kind[0] == "s" and value >= top // 2 else value for value in values]


def dtype_of(kind: str) -> np.dtype:
    return np.dtype(f"{'i' if kind[0] == 's' else 'u'}{int(kind[1:]) // 8}")


def wrapped(value: int, kind: str) -> int:
    bits = int(kind[1:])
    value %= 1 << bits
    return value - (1 << bits) if kind[0] == "s" and value >> (bits - 1) else value


def truncated(a: int, b: int) -> int:
    if b == 0:
        return -1
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


BINARY: dict[str, Callable[[int, int, int], int]] = {
    "add": lambda a, b, bits: a + b,
    "sub": lambda a, b, bits: a - b,
    "mul.lo": lambda a, b, bits: a * b,
    "mul.hi": lambda a, b, bits: (a * b) >> bits,
    "div": lambda a, b, bits: truncated(a, b),
    "rem": lambda a, b, bits: a - b * truncated(a, b) if b else a,
    "min": lambda a, b, bits: min(a, b),
    "max": lambda a, b, bits: max(a, b),
}


@pytest.mark.parametrize("kind", ["s16", "u16", "s32", "u32", "s64", "u64"])
@pytest.mark.parametrize("name", BINARY)
def test_arithmetic(name: str, kind: str) -> None:
    a, b = pairs(edges(kind), dtype_of(kind))
    made = evaluate(f"\t{name}.{kind} %d, %a, %b;", dtype_of(kind), a, b)
    bits = int(kind[1:])
    expected = [wrapped(BINARY[name](int(x), int(y), bits), kind) for x, y in zip(a, b, strict=True)]
    assert made.tolist() == expected


@pytest.mark.parametrize("kind", ["s16", "u16", "s32", "u32"])
def test_wide_products(kind: str) -> None:
    a, b = pairs(edges(kind), dtype_of(kind))
    wide = f"{kind[0]}{2 * int(kind[1:])}"
    made = evaluate(f"\tmul.wide.{kind} %d, %a, %b;", dtype_of(wide), a, b)
    assert made.tolist() == [int(x) * int(y) for x, y in zip(a, b, strict=True)]
    made = evaluate(f"\tmad.wide.{kind} %d, %a, %b, %c;", dtype_of(wide), a, b, np.full(len(a), 9, dtype_of(wide)))
    assert made.tolist() == [wrapped(int(x) * int(y) + 9, wide) for x, y in zip(a, b, strict=True)]


@pytest.mark.parametrize("kind", ["s32", "u32", "s64", "u64"])
def test_multiply_add(kind: str) -> None:
    a, b = pairs(edges(kind), dtype_of(kind))
    c = a[::-1].copy()
    bits = int(kind[1:])
    low = evaluate(f"\tmad.lo.{kind} %d, %a, %b, %c;", dtype_of(kind), a, b, c)
    high = evaluate(f"\tmad.hi.{kind} %d, %a, %b, %c;", dtype_of(kind), a, b, c)
    terms = [(int(x) * int(y), int(z)) for x, y, z in zip(a, b, c, strict=True)]
    assert low.tolist() == [wrapped(p + z, kind) for p, z in terms]
    assert high.tolist() == [wrapped((p >> bits) + z, kind) for p, z in terms]


@pytest.mark.parametrize("kind", ["b16", "b32", "b64"])
def test_bits(kind: str) -> None:
    bits = int(kind[1:])
    unsigned = f"u{bits}"
    a, b = pairs(edges(unsigned), dtype_of(unsigned))
    for name, function in (
        ("and", np.bitwise_and),
        ("or", np.bitwise_or),
        ("xor", np.bitwise_xor),
    ):
        assert (evaluate(f"\t{name}.{kind} %d, %a, %b;", a.dtype, a, b) == function(a, b)).all()
    assert (evaluate(f"\tnot.{kind} %d, %a;", a.dtype, a) == ~a).all()
    assert evaluate(f"\tcnot.{kind} %d, %a;", a.dtype, a).tolist() == [int(x == 0) for x in a]


@pytest.mark.parametrize("kind", ["s16", "u16", "s32", "u32", "s64", "u64"])
def test_shifts(kind: str) -> None:
    bits = int(kind[1:])
    values = np.array(edges(kind), dtype_of(kind))
    amounts = np.array([0, 1, 7, bits - 1, bits, bits + 1, 200, 2**32 - 1], np.uint32)
    a, b = np.repeat(values, len(amounts)), np.tile(amounts, len(values))
    made = evaluate(f"\tshr.{kind} %d, %a, %b;", a.dtype, a, b)
    assert made.tolist() == [int(x) >> min(int(y), 64) for x, y in zip(a, b, strict=True)]
    made = evaluate(f"\tshl.b{bits} %d, %a, %b;", a.dtype, a, b)
    assert made.tolist() == [wrapped(int(x) << min(int(y), 64), kind) for x, y in zip(a, b, strict=True)]


@pytest.mark.parametrize("kind", ["u32", "s32", "u64", "s64"])
def test_fields(kind: str) -> None:
    bits = int(kind[1:])
    rng = np.random.default_rng(1)
    values = np.array(edges(kind) * 8, dtype_of(kind))
    start = rng.integers(0, bits + 8, len(values)).astype(np.uint32)
    length = rng.integers(0, bits + 8, len(values)).astype(np.uint32)

    def field(value: int, at: int, count: int) -> int:
        plain = value % (1 << bits)
        if count == 0:
            return 0
        found = (plain >> at) & ((1 << count) - 1)
        top = min(at + count - 1, bits - 1)
        if kind[0] == "s" and plain >> top & 1:
            found |= -1 << count if at + count <= bits else -1 << max(bits - at, 0)
        return wrapped(found, kind)

    made = evaluate(f"\tbfe.{kind} %d, %a, %b, %c;", values.dtype, values, start, length)
    assert made.tolist() == [field(*map(int, row)) for row in zip(values, start, length, strict=True)]
    if kind[0] == "u":
        into = values[::-1].copy()
        made = evaluate(f"\tbfi.b{bits} %d, %a, %e, %b, %c;", values.dtype, values, start, length, into)
        for value, at, count, old, new in zip(values, start, length, into, made, strict=True):
            mask = ((1 << int(count)) - 1) << int(at)
            assert int(new) == (int(old) & ~mask | (int(value) << int(at)) & mask) % (1 << bits)


def test_counts() -> None:
    for bits in (32, 64):
        values = np.array(edges(f"u{bits}"), f"u{bits // 8}")
        text = [f"{int(value):0{bits}b}" for value in values]
        assert evaluate(f"\tpopc.b{bits} %d, %a;", "u4", values).tolist() == [row.count("1") for row in text]
        assert evaluate(f"\tclz.b{bits} %d, %a;", "u4", values).tolist() == [len(row.split("1")[0]) for row in text]
        assert evaluate(f"\tbrev.b{bits} %d, %a;", values.dtype, values).tolist() == [int(row[::-1], 2) for row in text]
        found = evaluate(f"\tbfind.u{bits} %d, %a;", "u4", values)
        assert found.tolist() == [int(value).bit_length() - 1 if value else 2**32 - 1 for value in values]


def test_permutes_and_lookups() -> None:
    rng = np.random.default_rng(2)
    a, b, c = (rng.integers(0, 2**32, 64, dtype=np.uint32) for _ in range(3))
    selectors = rng.integers(0, 2**16, 64).astype(np.uint32)
    made = evaluate("\tprmt.b32 %d, %a, %b, %c;", "u4", a, b, selectors)
    for x, y, selector, result in zip(a, b, selectors, made, strict=True):
        data = int(x).to_bytes(4, "little") + int(y).to_bytes(4, "little")
        chosen = [(data[digit & 7], digit & 8) for digit in (int(selector) >> (4 * i) & 15 for i in range(4))]
        assert int(result) == int.from_bytes(bytes((255 if v & 128 else 0) if s else v for v, s in chosen), "little")
    # 0xCA: b where a is set, else c. 0x96: the parity.
    assert (evaluate("\tlop3.b32 %d, %a, %b, %c, 0xCA;", "u4", a, b, c) == (a & b | ~a & c)).all()
    assert (evaluate("\tlop3.b32 %d, %a, %b, %c, 0x96;", "u4", a, b, c) == a ^ b ^ c).all()
    both = (b.astype(np.uint64) << np.uint64(32)) | a
    amounts = rng.integers(0, 40, 64).astype(np.uint32)
    left = evaluate("\tshf.l.wrap.b32 %d, %a, %b, %c;", "u4", a, b, amounts)
    right = evaluate("\tshf.r.clamp.b32 %d, %a, %b, %c;", "u4", a, b, amounts)
    assert left.tolist() == [(int(v) << (int(n) % 32)) >> 32 & 0xFFFFFFFF for v, n in zip(both, amounts, strict=True)]
    assert right.tolist() == [int(v) >> min(int(n), 32) & 0xFFFFFFFF for v, n in zip(both, amounts, strict=True)]


def test_carries() -> None:
    a, b = pairs(edges("u32"), np.uint32)
    body = """
\tadd.cc.u32 %r1, %a, %b;
\taddc.cc.u32 %r2, %a, %b;
\taddc.u32 %r3, 0, 0;
\tsub.cc.u32 %r4, %a, %b;
\tsubc.u32 %r5, %b, %a;
\tmad.lo.cc.u32 %r6, %a, %b, %a;
\tmadc.hi.u32 %r7, %a, %b, %b;
\tmov.b64 %rd10, {%r1, %r2};
\tmov.b64 %rd11, {%r4, %r5};
\tmov.b64 %rd12, {%r6, %r7};
\tcvt.u64.u32 %rd13, %r3;
"""
    wide = [(int(x), int(y)) for x, y in zip(a, b, strict=True)]
    top = 1 << 64
    made = evaluate(body + "\tadd.u64 %d, %rd10, 0;", "u8", a, b)
    assert made.tolist() == [((x << 32) + x + (y << 32) + y) % top for x, y in wide]
    assert evaluate(body + "\tmov.b64 %d, %rd13;", "u8", a, b).tolist() == [
        ((x << 32) + x + (y << 32) + y) // top for x, y in wide
    ]
    assert evaluate(body + "\tmov.b64 %d, %rd11;", "u8", a, b).tolist() == [
        ((y << 32) + x - (x << 32) - y) % top for x, y in wide
    ]
    assert evaluate(body + "\tmov.b64 %d, %rd12;", "u8", a, b).tolist() == [
        (x * y + (y << 32) + x) % top for x, y in wide
    ]


def test_saturation_and_differences() -> None:
    a, b = pairs(edges("s32"), np.int32)
    made = evaluate("\tadd.sat.s32 %d, %a, %b;", np.int32, a, b)
    assert made.tolist() == [min(max(int(x) + int(y), -(2**31)), 2**31 - 1) for x, y in zip(a, b, strict=True)]
    made = evaluate("\tsad.s32 %d, %a, %b, 5;", np.int32, a, b)
    assert made.tolist() == [wrapped(abs(int(x) - int(y)) + 5, "s32") for x, y in zip(a, b, strict=True)]
    made = evaluate("\tdp4a.s32.u32 %d, %a, %b, 3;", np.int32, a, b)
    left, right = a.view(np.int8).reshape(-1, 4).astype(int), b.view(np.uint8).reshape(-1, 4).astype(int)
    assert made.tolist() == ((left * right).sum(1) + 3).tolist()
    halves = a.view(np.int16).reshape(-1, 2).astype(int)
    for part, columns in (("lo", right[:, :2]), ("hi", right[:, 2:])):
        made = evaluate(f"\tdp2a.{part}.s32.u32 %d, %a, %b, 3;", np.int32, a, b)
        assert made.tolist() == ((halves * columns).sum(1) + 3).tolist()


@pytest.mark.parametrize("kind", ["s32", "u32", "s64", "u64", "s16", "u16"])
def test_comparisons(kind: str) -> None:
    a, b = pairs(edges(kind), dtype_of(kind))
    for name, function in (
        ("eq", np.equal),
        ("ne", np.not_equal),
        ("lt", np.less),
        ("le", np.less_equal),
        ("gt", np.greater),
        ("ge", np.greater_equal),
    ):
        made = evaluate(f"\tsetp.{name}.{kind} %p1, %a, %b;\n\tselp.b32 %d, 7, 9, %p1;", "u4", a, b)
        assert (made == np.where(function(a, b), 7, 9)).all()
    body = """
	setp.lt.{0} %p3, %a, 3;
	setp.{1}.{2}.{0} %p1|%p2, %a, %b, {3}%p3;
	selp.b32 %r1, 2, 0, %p1;
	@%p2 add.u32 %r1, %r1, 1;
	mov.u32 %d, %r1;
"""
    for combine, join in (("and", np.logical_and), ("or", np.logical_or), ("xor", np.logical_xor)):
        for sign in ("", "!"):
            made = evaluate(body.format(kind, "gt", combine, sign), "u4", a, b)
            third = (a >= 3) if sign else (a < 3)
            assert (made == 2 * join(a > b, third) + join(a <= b, third)).all()
    made = evaluate(f"\tset.le.u32.{kind} %d, %a, %b;", "u4", a, b)
    assert (made == np.where(a <= b, 0xFFFFFFFF, 0)).all()
    made = evaluate(f"\tset.le.f32.{kind} %d, %a, %b;", "f4", a, b)
    assert (made == (a <= b)).all()


@pytest.mark.parametrize("source", ["s16", "u16", "s32", "u32", "s64", "u64"])
@pytest.mark.parametrize("result", ["s16", "u16", "s32", "u32", "s64", "u64"])
def test_conversions(source: str, result: str) -> None:
    values = np.array(edges(source), dtype_of(source))
    made = evaluate(f"\tcvt.{result}.{source} %d, %a;", dtype_of(result), values)
    assert made.tolist() == [wrapped(int(value), result) for value in values]
    limits = np.iinfo(dtype_of(result))
    made = evaluate(f"\tcvt.sat.{result}.{source} %d, %a;", dtype_of(result), values)
    assert made.tolist() == [min(max(int(value), int(limits.min)), int(limits.max)) for value in values]
