"""Straight-line linear programs: a constant matrix applied to a few values, as a list of additions and multiplications.

Values are numbered: 0 .. inputs-1 are the inputs, then comes one for each step.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from convgen.errors import DTypeError, ShapeError, SpecError

Factor = Fraction | float
Matrix = tuple[tuple[Factor, ...], ...]

# The product of two numbers is exact, or nearly so, in the wider type: that makes a fused multiply-add of a plain one.
_WIDER = {np.dtype(np.float16): np.float64, np.dtype(np.float32): np.float64, np.dtype(np.float64): np.longdouble}


@dataclass(frozen=True)
class Add:
    """a + b."""

    a: int
    b: int


@dataclass(frozen=True)
class Sub:
    """a - b."""

    a: int
    b: int


@dataclass(frozen=True)
class Scale:
    """a * factor."""

    a: int
    factor: Factor


@dataclass(frozen=True)
class MulAdd:
    """a * factor + b, rounded once."""

    a: int
    factor: Factor
    b: int


Step = Add | Sub | Scale | MulAdd


@dataclass(frozen=True)
class Operations:
    """How many steps of each kind a program takes; ``total`` is the number of instructions."""

    additions: int
    multiplications: int
    fused: int

    @property
    def total(self) -> int:
        return self.additions + self.multiplications + self.fused


@dataclass(frozen=True)
class LinearProgram:
    """``inputs`` values go in, ``steps`` are taken in order, and the values numbered ``outputs`` come out.

    An output may be an input, and may occur more than once. Raises SpecError where a step or an output reads a value that
    is not there yet, or multiplies by zero.
    """

    inputs: int
    steps: tuple[Step, ...]
    outputs: tuple[int, ...]

    def __post_init__(self) -> None:
        for position, step in enumerate(self.steps):
            if any(not 0 <= value < self.inputs + position for value in operands(step)):
                raise SpecError(
                    f"steps[{position}]={step} is not valid; allowed: values 0 to {self.inputs + position - 1}"
                )
            if isinstance(step, Scale | MulAdd) and (step.factor == 0 or not math.isfinite(step.factor)):
                raise SpecError(f"steps[{position}]={step} is not valid; allowed: factors that are finite and not zero")
        values = self.inputs + len(self.steps)
        if any(not 0 <= value < values for value in self.outputs):
            raise SpecError(f"outputs={self.outputs} is not valid; allowed: values 0 to {values - 1}")

    def __hash__(self) -> int:
        # Programs are keys of caches; hashing hundreds of steps would cost more than what is looked up.
        return hash((self.inputs, len(self.steps), self.outputs))

    @property
    def operations(self) -> Operations:
        """The steps, counted."""
        return Operations(
            additions=sum(isinstance(step, Add | Sub) for step in self.steps),
            multiplications=sum(isinstance(step, Scale) for step in self.steps),
            fused=sum(isinstance(step, MulAdd) for step in self.steps),
        )

    def matrix(self) -> Matrix:
        """The matrix that the program multiplies by, one row an output; exact where all factors are fractions."""
        zero, one = Fraction(0), Fraction(1)
        values: list[list[Factor]] = [[one if i == j else zero for j in range(self.inputs)] for i in range(self.inputs)]
        for step in self.steps:
            values.append(_row(step, values))
        return tuple(tuple(values[output]) for output in self.outputs)

    def apply(self, x: np.ndarray, axis: int) -> np.ndarray:
        """Runs the program along one axis of an array, in the array's own dtype and the order of the steps.

        ``x`` has ``inputs`` elements along ``axis``, the result one for each output. Raises ShapeError for another extent,
        and DTypeError if an array of integers meets a factor that is not an integer. Arrays of Fractions stay exact.
        """
        if x.shape[axis] != self.inputs:
            raise ShapeError(f"x has shape {x.shape}; {self.inputs} elements along axis {axis} are expected")
        values = [np.asarray(value, x.dtype) for value in np.moveaxis(x, axis, 0)]
        for step in self.steps:
            values.append(np.asarray(_evaluate(step, values, x.dtype), x.dtype))
        return np.stack([values[output] for output in self.outputs], axis=axis)


@functools.cache
def spilled(linear: LinearProgram, registers: int) -> int:
    """How many values are stored, or loaded again, because so many registers do not hold them: the one whose next use is furthest
    is given up (Belady, "A study of replacement algorithms for a virtual-storage computer", 1966)."""
    uses: dict[int, list[int]] = {}
    for place in reversed(range(len(linear.steps))):
        for value in dict.fromkeys(operands(linear.steps[place])):
            uses.setdefault(value, []).append(place)
    held: set[int] = set()
    given_up: set[int] = set()
    moves = 0
    for place, step in enumerate(linear.steps):
        for value in dict.fromkeys(operands(step)):
            moves += value in given_up and value not in held
            held.add(value)
            uses[value].pop()
        held = {value for value in held if uses.get(value)} | {linear.inputs + place}
        while len(held) > registers:
            last = max(held, key=lambda value: uses[value][-1] if uses.get(value) else len(linear.steps))
            held.remove(last)
            # Inputs lie in memory, and outputs go there anyway.
            moves += last >= linear.inputs and last not in given_up and last not in linear.outputs
            given_up.add(last)
    return moves


def operands(step: Step) -> tuple[int, ...]:
    """The numbers of the values that a step reads."""
    return tuple(value for value, _ in weighted_operands(step))


def weighted_operands(step: Step) -> tuple[tuple[int, Factor], ...]:
    """The values that a step reads, each with its factor."""
    one = Fraction(1)
    match step:
        case Add(a, b):
            return (a, one), (b, one)
        case Sub(a, b):
            return (a, one), (b, -one)
        case Scale(a, factor):
            return ((a, factor),)
        case MulAdd(a, factor, b):
            return (a, factor), (b, one)


def _row(step: Step, values: Sequence[Sequence[Factor]]) -> list[Factor]:
    weighted = [[entry * factor for entry in values[value]] for value, factor in weighted_operands(step)]
    return [sum(column, Fraction(0)) for column in zip(*weighted, strict=True)]


def _evaluate(step: Step, values: Sequence[np.ndarray], dtype: np.dtype) -> Any:
    match step:
        case Add(a, b):
            return values[a] + values[b]
        case Sub(a, b):
            return values[a] - values[b]
        case Scale(a, factor):
            return values[a] * _constant(factor, dtype)
        case MulAdd(a, factor, b):
            wide = _WIDER.get(dtype, dtype)
            product = values[a].astype(wide) * np.asarray(_constant(factor, dtype), wide)
            return product + values[b].astype(wide)


def _constant(factor: Factor, dtype: np.dtype) -> Any:
    """The factor as a kernel of that type holds it."""
    if dtype.kind == "O":
        return factor
    if dtype.kind in "iu":
        if factor != int(factor):
            raise DTypeError(
                f"x has dtype {dtype}, and the factor {factor} is not an integer; allowed: a floating-point type"
            )
        return dtype.type(int(factor))
    return dtype.type(float(factor))
