"""Writing linear programs step by step: nothing is computed twice, and factors wait until they cost nothing.

A Term is a value times a factor. Multiplying a term changes the factor alone; adding two terms leaves the larger factor
outside, so that the other becomes a fused multiply-add by at most 1 in magnitude (Linzer and Feig, "Implementation of
efficient FFT algorithms on fused multiply-add architectures", 1993). A zero is None.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from convgen.transforms.linear import Add, Factor, LinearProgram, MulAdd, Scale, Step, Sub, operands, weighted_operands

# Two factors that are products of the same cosines in another order differ by a few roundings of float64.
_SAME = 1e-14


@dataclass(frozen=True)
class Term:
    """``factor`` times the value numbered ``value``."""

    value: int
    factor: Factor = Fraction(1)


class Builder:
    """Collects the steps of a program with ``inputs`` inputs."""

    def __init__(self, inputs: int) -> None:
        self.inputs = inputs
        self._values: dict[Step, int] = {}
        self._steps: list[Step] = []

    def take(self, step: Step) -> int:
        """Returns the number of the step's value; a step that was taken before is not taken again."""
        if step not in self._values:
            self._values[step] = self.inputs + len(self._steps)
            self._steps.append(step)
        return self._values[step]

    def add(self, a: Term | None, b: Term | None) -> Term | None:
        """a + b."""
        if a is None or b is None:
            return b if a is None else a
        if a.value == b.value:
            total: Factor = a.factor + b.factor
            return Term(a.value, total) if _size(total) > _SAME * _size(a.factor) else None
        if (-_size(b.factor), _rank(b)) < (-_size(a.factor), _rank(a)):
            a, b = b, a
        ratio: Factor = b.factor / a.factor
        if abs(_size(ratio) - 1) > _SAME:
            return Term(self.take(MulAdd(b.value, ratio, a.value)), a.factor)
        return Term(self.take((Add if ratio > 0 else Sub)(a.value, b.value)), a.factor)

    def sub(self, a: Term | None, b: Term | None) -> Term | None:
        """a - b."""
        return self.add(a, scaled(b, Fraction(-1)))

    def program(self, outputs: Sequence[Term]) -> LinearProgram:
        """The program that computes the terms, without the steps that none of them needs."""
        values = tuple(self._value(term) for term in outputs)
        needed = set(values)
        for value in range(self.inputs + len(self._steps) - 1, self.inputs - 1, -1):
            if value in needed:
                needed.update(operands(self._steps[value - self.inputs]))
        numbers = {value: value for value in range(self.inputs)}
        kept = [value for value in sorted(needed) if value >= self.inputs]
        numbers |= {value: self.inputs + position for position, value in enumerate(kept)}
        steps = tuple(_renumbered(self._steps[value - self.inputs], numbers) for value in kept)
        return LinearProgram(self.inputs, steps, tuple(numbers[value] for value in values))

    def _value(self, term: Term) -> int:
        if term.factor == 1:
            return term.value
        step = self._steps[term.value - self.inputs] if term.value >= self.inputs else None
        if term.factor == -1 and isinstance(step, Sub):
            return self.take(Sub(step.b, step.a))
        return self.take(Scale(term.value, term.factor))


def scaled(term: Term | None, factor: Factor) -> Term | None:
    """A term times a factor."""
    return None if term is None or factor == 0 else Term(term.value, term.factor * factor)


def transposed(program: LinearProgram) -> LinearProgram:
    """The program of the transposed matrix: every step turned round, a sum where a value was used more than once.

    It takes as many additions, more or less the difference of outputs and inputs (Bordewijk, "Inter-reciprocity applied to
    electrical networks", 1956), and multiplications of whole outputs besides where their factors are not 1.
    Every input of ``program`` must matter to an output.
    """
    builder = Builder(len(program.outputs))
    uses: list[Term | None] = [None] * (program.inputs + len(program.steps))
    for number, output in enumerate(program.outputs):
        uses[output] = builder.add(uses[output], Term(number))
    for position in range(len(program.steps) - 1, -1, -1):
        for value, factor in weighted_operands(program.steps[position]):
            uses[value] = builder.add(uses[value], scaled(uses[program.inputs + position], factor))
    return builder.program([term for term in uses[: program.inputs] if term is not None])


def _size(factor: Factor) -> float:
    return abs(float(factor))


def _rank(term: Term) -> tuple[bool, int]:
    """Which of two terms with factors of one size stays in front: a positive one, then the older."""
    return term.factor < 0, term.value


def _renumbered(step: Step, numbers: dict[int, int]) -> Step:
    match step:
        case Add(a, b):
            return Add(numbers[a], numbers[b])
        case Sub(a, b):
            return Sub(numbers[a], numbers[b])
        case Scale(a, factor):
            return Scale(numbers[a], factor)
        case MulAdd(a, factor, b):
            return MulAdd(numbers[a], factor, numbers[b])
