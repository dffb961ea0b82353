"""Constant matrices as lines of a kernel's source."""

from __future__ import annotations

from fractions import Fraction

from convgen.transforms.linear import Add, LinearProgram, MulAdd, Scale, Sub
from convgen.transforms.lines import transform_lines

FUNCTIONS = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "fma": lambda a, b, c: a * b + c,
}


def executed(linear: LinearProgram, registers: int, values: dict[str, float]) -> list[float]:
    """The registers after the lines."""
    names = [f"d{i}" for i in range(registers)]
    lines = list(transform_lines(linear, "d", names, repr, lambda kind: kind))
    exec("\n".join(lines), dict(FUNCTIONS), values)
    return [values[name] for name in names[: len(linear.outputs)]]


def test_outputs_that_are_inputs_of_other_places() -> None:
    swap = LinearProgram(2, (Add(0, 1), Sub(0, 1)), (1, 0, 3, 2))
    assert executed(swap, 4, {"d0": 5, "d1": 3}) == [3, 5, 2, 8]


def test_factors_are_named_once() -> None:
    half = Fraction(1, 2)
    linear = LinearProgram(2, (Scale(0, half), MulAdd(1, half, 2)), (2, 3))
    lines = list(transform_lines(linear, "d", ["d0", "d1"], repr, lambda kind: kind))
    assert sum("0.5" in line for line in lines) == 1
    assert executed(linear, 2, {"d0": 4.0, "d1": 10.0}) == [2.0, 7.0]
