"""The builder keeps factors outside, steps single and programs free of what nobody reads; transposition is exact."""

from __future__ import annotations

from fractions import Fraction

import pytest

from convgen.transforms.builder import Builder, Term, scaled, transposed
from convgen.transforms.linear import Add, LinearProgram, MulAdd, Scale, Sub
from convgen.transforms.toom_cook import winograd


def test_the_smaller_factor_is_multiplied_and_the_larger_waits() -> None:
    builder = Builder(2)
    term = builder.add(scaled(Term(0), 2), scaled(Term(1), -8))
    assert term == Term(2, -8)
    assert builder.program([Term(2)]).steps == (MulAdd(0, Fraction(-1, 4), 1),)


def test_equal_factors_add_and_zeros_vanish() -> None:
    builder = Builder(2)
    third = 1 / 3
    assert builder.add(Term(0, third), Term(1, third)) == Term(2, third)
    assert builder.add(Term(0, third), Term(1, -third)) == Term(3, third)
    assert builder.sub(Term(0, third), Term(0, third)) is None
    assert builder.sub(None, Term(0)) == Term(0, -1)
    assert builder.add(None, None) is None


def test_steps_are_taken_once_and_dropped_where_unused() -> None:
    builder = Builder(3)
    total, again, unused = builder.add(Term(0), Term(1)), builder.add(Term(1), Term(0)), builder.add(Term(0), Term(2))
    assert total == again
    assert unused is not None
    last = builder.sub(Term(2), total)
    assert last is not None
    assert builder.program([last]) == LinearProgram(3, (Add(0, 1), Sub(2, 3)), (4,))


def test_a_negative_difference_is_the_opposite_difference() -> None:
    builder = Builder(2)
    difference = builder.sub(Term(0), Term(1))
    assert difference is not None
    program = builder.program([Term(difference.value, Fraction(-1)), Term(0, Fraction(3))])
    assert program.steps == (Sub(1, 0), Scale(0, Fraction(3)))


@pytest.mark.parametrize("size", [(2, 3), (4, 3), (3, 4), (6, 5)])
def test_transposed_programs_have_the_transposed_matrix_and_as_many_sums(size: tuple[int, int]) -> None:
    for program in (winograd(*size).input, winograd(*size).weight, winograd(*size).output):
        turned = transposed(program)
        assert turned.matrix() == tuple(zip(*program.matrix(), strict=True))
        sums = turned.operations.total - turned.operations.multiplications
        assert sums <= program.operations.total + len(program.outputs) - program.inputs
