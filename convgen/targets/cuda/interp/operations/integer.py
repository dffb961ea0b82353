"""Integer arithmetic, bits and carries. Values are NumPy integers of the instruction's type and wrap around."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from convgen.targets.cuda.interp.program import Op
from convgen.targets.cuda.interp.steps import Pure, unknown
from convgen.targets.cuda.interp.types import Value, numpy_type, types_in, unsigned, width_of


def _wide(kind: str) -> str:
    return f"{kind[0]}{2 * width_of(kind)}"


def _as(value: Value, kind: str) -> Value:
    return value.astype(numpy_type(kind))


def _product_high(kind: str) -> Callable[[Value, Value], Value]:
    bits = width_of(kind)
    if bits < 64:
        wide = numpy_type(_wide(kind))
        narrow = numpy_type(kind)
        return lambda a, b: ((a.astype(wide) * b.astype(wide)) >> wide.type(bits)).astype(narrow)
    if kind[0] == "s":
        return _high64_signed
    return _high64


def _high64(a: Value, b: Value) -> Value:
    """The upper half of a 128-bit product, from four products of halves."""
    low, shift = np.uint64(0xFFFFFFFF), np.uint64(32)
    a0, a1, b0, b1 = a & low, a >> shift, b & low, b >> shift
    middle = a1 * b0 + ((a0 * b0) >> shift)
    other = a0 * b1 + (middle & low)
    return a1 * b1 + (middle >> shift) + (other >> shift)


def _high64_signed(a: Value, b: Value) -> Value:
    ua, ub = a.view(np.uint64), b.view(np.uint64)
    high = _high64(ua, ub)
    zero = np.uint64(0)
    made: Value = high - np.where(a < 0, ub, zero) - np.where(b < 0, ua, zero)
    return made.view(np.int64)


def _magnitude(value: Value) -> Value:
    """The absolute value of a signed integer, unsigned, so that the least integer has one too."""
    bits = np.asarray(value).view(unsigned(8 * value.dtype.itemsize))
    return np.where(value < 0, np.negative(bits), bits)


def _quotient(a: Value, b: Value) -> Value:
    """a / b towards zero; all bits are set where b is 0."""
    if a.dtype.kind == "u":
        return np.where(b == 0, ~a.dtype.type(0), a // np.where(b == 0, b.dtype.type(1), b))
    plain = _quotient(_magnitude(a), _magnitude(b))
    made: Value = np.where((a < 0) != (b < 0), np.negative(plain), plain)
    return np.where(b == 0, a.dtype.type(-1), made.view(a.dtype))


def _remainder(a: Value, b: Value) -> Value:
    """a - b * (a / b), with the sign of a; a where b is 0."""
    if a.dtype.kind == "u":
        return np.where(b == 0, a, a % np.where(b == 0, b.dtype.type(1), b))
    plain = _remainder(_magnitude(a), _magnitude(b))
    made: Value = np.where(a < 0, np.negative(plain), plain)
    return made.view(a.dtype)


def _shift_left(a: Value, amount: Value) -> Value:
    bits = 8 * a.dtype.itemsize
    kept = np.minimum(amount, np.uint32(bits - 1)).astype(a.dtype)
    return np.where(amount < bits, a << kept, a.dtype.type(0))


def _shift_right(a: Value, amount: Value) -> Value:
    bits = 8 * a.dtype.itemsize
    kept = np.minimum(amount, np.uint32(bits - 1)).astype(a.dtype)
    moved = a >> kept
    return moved if a.dtype.kind == "i" else np.where(amount < bits, moved, a.dtype.type(0))


def _funnel(op: Op) -> Pure:
    """shf: 32 bits of a 64-bit number, shifted."""
    left, wrap = "l" in op.opcode, "wrap" in op.opcode

    def function(low: Value, high: Value, amount: Value) -> Value:
        count = amount & np.uint32(31) if wrap else np.minimum(amount, np.uint32(32))
        both = (high.astype(np.uint64) << np.uint64(32)) | low
        if left:
            return ((both << count.astype(np.uint64)) >> np.uint64(32)).astype(np.uint32)
        return (both >> count.astype(np.uint64)).astype(np.uint32)

    return Pure(function, ("b32", "b32", "u32"), ("b32",))


def _popcount(a: Value) -> Value:
    return np.bitwise_count(a).astype(np.uint32)


def _smeared(a: Value) -> Value:
    """Every bit below the highest set."""
    shift = 1
    while shift < 8 * a.dtype.itemsize:
        a = a | (a >> a.dtype.type(shift))
        shift *= 2
    return a


def _leading_zeros(a: Value) -> Value:
    return np.uint32(8 * a.dtype.itemsize) - _popcount(_smeared(a))


def _reversed_bits(a: Value) -> Value:
    bits = 8 * a.dtype.itemsize
    made = np.zeros_like(a)
    for bit in range(bits):
        made = made | (((a >> a.dtype.type(bit)) & a.dtype.type(1)) << a.dtype.type(bits - 1 - bit))
    return made


def _highest_bit(op: Op, kind: str) -> Pure:
    """bfind: where the highest bit is that is not the sign's, counted from the lowest, or from the highest (``shiftamt``)."""
    from_top = "shiftamt" in op.opcode
    bits = width_of(kind)

    def function(a: Value) -> Value:
        if a.dtype.kind == "i":
            a = np.where(a < 0, ~a, a).view(unsigned(bits))
        zeros = _leading_zeros(a)
        found = zeros if from_top else np.uint32(bits - 1) - zeros
        return np.where(a == 0, np.uint32(0xFFFFFFFF), found)

    return Pure(function, (kind,), ("u32",))


def _extract(a: Value, start: Value, length: Value) -> Value:
    """bfe: a field of bits. Signed types fill up with the field's highest bit, or with the number's where the field leaves it."""
    bits = 8 * a.dtype.itemsize
    start, length = start & np.uint32(255), length & np.uint32(255)
    plain = np.asarray(a).view(unsigned(bits))
    ones = ~plain.dtype.type(0) + np.zeros_like(plain)
    field = _shift_right(plain, start) & ~_shift_left(ones, length)
    if a.dtype.kind == "u":
        return field
    inside = np.minimum(length, np.uint32(bits) - np.minimum(start, np.uint32(bits)))
    top = np.clip(start.astype(np.int64) + length.astype(np.int64) - 1, 0, bits - 1).astype(np.uint32)
    negative = (length > 0) & (_shift_right(plain, top) & plain.dtype.type(1) != 0)
    made: Value = np.where(negative, field | _shift_left(ones, inside), field)
    return made.view(a.dtype)


def _insert(field: Value, into: Value, start: Value, length: Value) -> Value:
    """bfi: a field of bits put into another number."""
    start, length = start & np.uint32(255), length & np.uint32(255)
    ones = ~field.dtype.type(0) + np.zeros_like(field)
    mask = _shift_left(~_shift_left(ones, length), start)
    return (_shift_left(field, start) & mask) | (into & ~mask)


def _permute(a: Value, b: Value, selector: Value) -> Value:
    """prmt, default mode: four bytes of eight, each by a digit of the selector whose top bit asks for the byte's sign instead."""
    both = (b.astype(np.uint64) << np.uint64(32)) | a
    made = np.zeros_like(selector)
    for place in range(4):
        digit = (selector >> np.uint32(4 * place)) & np.uint32(15)
        byte = ((both >> ((digit & np.uint32(7)).astype(np.uint64) * np.uint64(8))) & np.uint64(255)).astype(np.uint32)
        byte = np.where(digit & np.uint32(8), np.where(byte & np.uint32(128), np.uint32(255), np.uint32(0)), byte)
        made = made | (byte << np.uint32(8 * place))
    return made


def _lookup(a: Value, b: Value, c: Value, table: Value) -> Value:
    """lop3: any function of three bits, given as its table of truth."""
    made: Value = np.uint32(0)
    for row in range(8):
        chosen = (a if row & 4 else ~a) & (b if row & 2 else ~b) & (c if row & 1 else ~c)
        made = made | np.where((table >> np.uint32(row)) & np.uint32(1), chosen, np.uint32(0))
    return made


def _dot(op: Op) -> Pure:
    """dp4a: a sum of four products of bytes, and a number; dp2a: of two halves by the lower or upper two bytes."""
    match op.opcode:
        case ("dp4a", first, second):
            count, upper = 4, False
        case ("dp2a", "lo" | "hi" as part, first, second):
            count, upper = 2, part == "hi"
        case _:
            raise unknown(op)
    if {first, second} - {"s32", "u32"}:
        raise unknown(op)
    result = "u32" if first == second == "u32" else "s32"

    def parts(value: Value, kind: str, number: int) -> Value:
        narrow = np.dtype(f"{'i' if kind == 's32' else 'u'}{4 // number}")
        return np.ascontiguousarray(value).reshape(-1).view(narrow).reshape(*value.shape, number).astype(np.int64)

    def function(a: Value, b: Value, c: Value) -> Value:
        chosen = parts(b, second, 4)[..., 4 - count if upper else 0 :][..., :count]
        total = (parts(a, first, count) * chosen).sum(-1) + c.astype(np.int64)
        return total.astype(numpy_type(result))

    return Pure(function, (first, second, result), (result,))


def _add_carry(op: Op, kind: str) -> Pure:
    """add, addc, sub, subc, mad and madc with the carry flag, which is 1 for a carry and for a borrow."""
    bits = width_of(kind)
    dtype = unsigned(bits)
    plain = f"u{bits}"
    root = op.opcode[0].removesuffix("c")
    takes_carry = op.opcode[0].endswith("c")
    if root == "mad":
        high = _product_high(kind if "hi" in op.opcode else plain)
        product_kind = kind if "hi" in op.opcode else plain

        def multiplied(a: Value, b: Value, c: Value, *flag: Value) -> Value:
            product = high(a, b) if "hi" in op.opcode else a * b
            return added(product.view(dtype), c, *flag)

    def added(a: Value, b: Value, *flag: Value) -> Value:
        total = a + b
        carry = total < a
        if flag:
            more = total + flag[0].astype(dtype)
            carry = carry | (more < total)
            total = more
        return total, carry.astype(np.uint32)

    def subtracted(a: Value, b: Value, *flag: Value) -> Value:
        total = a - b
        borrow = a < b
        if flag:
            less = total - flag[0].astype(dtype)
            borrow = borrow | (less > total)
            total = less
        return total, borrow.astype(np.uint32)

    flags = ("u32",) if takes_carry else ()
    if root == "mad":
        return Pure(multiplied, (product_kind, product_kind, plain, *flags), (plain, "u32"))
    return Pure(added if root == "add" else subtracted, (plain, plain, *flags), (plain, "u32"))


def _multiply(op: Op, kind: str) -> Pure:
    add = op.opcode[0] == "mad"
    if "sat" in op.opcode:
        raise unknown(op)
    if "wide" in op.opcode:
        wide = _wide(kind)
        if add:
            return Pure(lambda a, b, c: _as(a, wide) * _as(b, wide) + c, (kind, kind, wide), (wide,))
        return Pure(lambda a, b: _as(a, wide) * _as(b, wide), (kind, kind), (wide,))
    if "hi" in op.opcode:
        high = _product_high(kind)
        if add:
            return Pure(lambda a, b, c: high(a, b) + c, (kind,) * 3, (kind,))
        return Pure(high, (kind, kind), (kind,))
    if "lo" not in op.opcode:
        raise unknown(op)
    if add:
        return Pure(lambda a, b, c: a * b + c, (kind,) * 3, (kind,))
    return Pure(np.multiply, (kind, kind), (kind,))


def _multiply24(op: Op, kind: str) -> Pure:
    if "lo" not in op.opcode:
        raise unknown(op)
    shift = numpy_type(kind).type(8)

    def low24(value: Value) -> Value:
        return (value << shift) >> shift

    if op.opcode[0] == "mad24":
        return Pure(lambda a, b, c: low24(a) * low24(b) + c, (kind,) * 3, (kind,))
    return Pure(lambda a, b: low24(a) * low24(b), (kind, kind), (kind,))


def _saturated(function: Callable[[Value, Value], Value]) -> Callable[[Value, Value], Value]:
    def clamped(a: Value, b: Value) -> Value:
        exact = function(a.astype(np.int64), b.astype(np.int64))
        return np.clip(exact, -(1 << 31), (1 << 31) - 1).astype(np.int32)

    return clamped


def _logic(a: Callable[..., Value], count: int) -> Callable[[Op, str], Pure]:
    return lambda op, kind: Pure(a, (kind,) * count, (kind,))


def _sum(function: Callable[[Value, Value], Value]) -> Callable[[Op, str], Pure]:
    def build(op: Op, kind: str) -> Pure:
        if op.carry_in is not None or op.carry_out is not None:
            return _add_carry(op, kind)
        if "sat" in op.opcode:
            return Pure(_saturated(function), (kind, kind), (kind,))
        return Pure(function, (kind, kind), (kind,))

    return build


def _product(op: Op, kind: str) -> Pure:
    if op.carry_in is not None or op.carry_out is not None:
        return _add_carry(op, kind)
    return _multiply(op, kind)


def _extreme(function: Callable[[Value, Value], Value]) -> Callable[[Op, str], Pure]:
    def build(op: Op, kind: str) -> Pure:
        if set(op.opcode[1:]) - {kind}:
            raise unknown(op)
        return Pure(function, (kind, kind), (kind,))

    return build


_BUILDERS: dict[str, Callable[[Op, str], Pure]] = {
    "add": _sum(np.add),
    "sub": _sum(np.subtract),
    "addc": _add_carry,
    "subc": _add_carry,
    "madc": _add_carry,
    "mul": _product,
    "mad": _product,
    "mul24": _multiply24,
    "mad24": _multiply24,
    "div": _logic(_quotient, 2),
    "rem": _logic(_remainder, 2),
    "abs": _logic(np.abs, 1),
    "neg": _logic(np.negative, 1),
    "min": _extreme(np.minimum),
    "max": _extreme(np.maximum),
    "and": _logic(np.bitwise_and, 2),
    "or": _logic(np.bitwise_or, 2),
    "xor": _logic(np.bitwise_xor, 2),
    "not": _logic(np.invert, 1),
    "cnot": _logic(lambda a: np.where(a == 0, a.dtype.type(1), a.dtype.type(0)), 1),
    "shl": lambda op, kind: Pure(_shift_left, (kind, "u32"), (kind,)),
    "shr": lambda op, kind: Pure(_shift_right, (f"u{width_of(kind)}" if kind[0] == "b" else kind, "u32"), (kind,)),
    "shf": lambda op, kind: _funnel(op),
    "popc": lambda op, kind: Pure(_popcount, (kind,), ("u32",)),
    "clz": lambda op, kind: Pure(_leading_zeros, (kind,), ("u32",)),
    "brev": _logic(_reversed_bits, 1),
    "bfind": _highest_bit,
    "bfe": lambda op, kind: Pure(_extract, (kind, "u32", "u32"), (kind,)),
    "bfi": lambda op, kind: Pure(_insert, (kind, kind, "u32", "u32"), (kind,)),
    "lop3": lambda op, kind: Pure(_lookup, ("b32",) * 4, ("b32",)),
    "sad": lambda op, kind: Pure(lambda a, b, c: c + np.where(a < b, b - a, a - b), (kind,) * 3, (kind,)),
    "dp4a": lambda op, kind: _dot(op),
    "dp2a": lambda op, kind: _dot(op),
}


def build(op: Op) -> Pure | None:
    """The operation, or None where it is not one on integers."""
    if op.opcode == ("prmt", "b32"):
        return Pure(_permute, ("b32",) * 3, ("b32",))
    kinds = types_in(op.opcode)
    if op.opcode[0] not in _BUILDERS or not kinds or not (kinds[0] == "pred" or kinds[0][0] in "bus"):
        return None
    if kinds[0].startswith("bf"):
        return None
    return _BUILDERS[op.opcode[0]](op, kinds[0])
