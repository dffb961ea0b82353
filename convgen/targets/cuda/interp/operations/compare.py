"""Comparisons and selections."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from convgen.targets.cuda.interp.program import Op
from convgen.targets.cuda.interp.rounding import bf16_number, flushed
from convgen.targets.cuda.interp.steps import Pure, flat, unknown
from convgen.targets.cuda.interp.types import Value, numpy_type, types_in, width_of

_PLAIN: dict[str, Callable[[Value, Value], Value]] = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "lo": np.less,
    "ls": np.less_equal,
    "hi": np.greater,
    "hs": np.greater_equal,
}


def _unordered(a: Value, b: Value) -> Value:
    return np.isnan(a) | np.isnan(b)


def _comparison(name: str, op: Op, kind: str) -> Callable[[Value, Value], Value]:
    """A comparison by its name: ordered ones are false for NaN, those that end in ``u`` true."""
    if kind[0] != "f" and not kind.startswith("bf"):
        if name not in _PLAIN:
            raise unknown(op)
        return _PLAIN[name]
    if name == "num":
        return lambda a, b: ~_unordered(a, b)
    if name == "nan":
        return _unordered
    if name == "ne":
        return lambda a, b: (a < b) | (a > b)
    if name in ("eq", "lt", "le", "gt", "ge"):
        return _PLAIN[name]
    if name[-1] == "u" and name[:-1] in ("eq", "ne", "lt", "le", "gt", "ge"):
        plain = _PLAIN[name[:-1]]
        return lambda a, b: plain(a, b) | _unordered(a, b)
    raise unknown(op)


def _prepared(op: Op, kind: str) -> Callable[[Value], Value]:
    """What is done to operands before they are compared."""
    if kind == "bf16":
        return bf16_number
    if "ftz" in op.opcode and kind == "f32":
        return flushed
    return lambda value: value


_COMBINE: dict[str, Callable[[Value, Value], Value]] = {
    "and": np.logical_and,
    "or": np.logical_or,
    "xor": np.logical_xor,
}


def _compare(op: Op) -> Pure:
    kind = types_in(op.opcode)[-1]
    if width_of(kind) < 16 or kind.endswith("x2"):
        raise unknown(op)
    operand = f"u{width_of(kind)}" if kind[0] == "b" and kind != "bf16" else kind
    compare, prepare = _comparison(op.opcode[1], op, kind), _prepared(op, kind)
    combine = next((_COMBINE[part] for part in op.opcode[2:] if part in _COMBINE), None)

    def result(a: Value, b: Value, *third: Value) -> Value:
        holds = compare(prepare(a), prepare(b))
        return combine(holds, third[0]) if combine else holds

    def both(a: Value, b: Value, *third: Value) -> Value:
        holds = compare(prepare(a), prepare(b))
        return (combine(holds, third[0]), combine(~holds, third[0])) if combine else (holds, ~holds)

    takes = (operand, operand, *(("pred",) if combine else ()))
    if op.opcode[0] == "setp":
        if len(flat(op.results)) == 2:
            return Pure(both, takes, ("pred", "pred"))
        return Pure(result, takes, ("pred",))
    made = types_in(op.opcode)[0]
    dtype = numpy_type(made)
    yes = dtype.type(1) if made == "f32" else ~numpy_type(f"u{width_of(made)}").type(0)
    no = yes.dtype.type(0)
    return Pure(lambda *values: np.where(result(*values), yes, no), takes, (made,))


def _select(op: Op) -> Pure:
    kind = types_in(op.opcode)[0]
    return Pure(lambda a, b, holds: np.where(holds, a, b), (kind, kind, "pred"), (kind,))


def _select_by_sign(op: Op) -> Pure:
    kinds = types_in(op.opcode)
    prepare = _prepared(op, kinds[1])
    return Pure(lambda a, b, c: np.where(prepare(c) >= 0, a, b), (kinds[0], kinds[0], kinds[1]), (kinds[0],))


def build(op: Op) -> Pure | None:
    """The operation, or None where it is no comparison or selection."""
    match op.opcode[0]:
        case "setp" | "set":
            return _compare(op)
        case "selp":
            return _select(op)
        case "slct":
            return _select_by_sign(op)
        case _:
            return None
