"""Programs from matrices: they multiply by the matrix, share what they can, and refuse what is none."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convgen.errors import SpecError
from convgen.transforms.linear import Add, LinearProgram, MulAdd, Scale, Sub
from convgen.transforms.straight_line import from_matrix

ENTRIES = st.sampled_from([Fraction(text) for text in ["0", "0", "1", "-1", "2", "-2", "1/2", "-5/4", "3"]])


def dense_operations(matrix: list[list[Fraction]]) -> int:
    """Steps without sharing: one a term, one less in rows that hold a 1."""
    return sum(sum(entry != 0 for entry in row) - (1 in row) for row in matrix)


@given(st.integers(1, 6).flatmap(lambda n: st.lists(st.lists(ENTRIES, min_size=n, max_size=n), min_size=1, max_size=7)))
def test_the_program_is_the_matrix_and_never_longer(matrix: list[list[Fraction]]) -> None:
    matrix = [row for row in matrix if any(row)] or [[Fraction(1)] * len(matrix[0])]
    program = from_matrix(matrix)
    assert program.matrix() == tuple(map(tuple, matrix))
    assert program.operations.total <= dense_operations(matrix)
    assert program == from_matrix(matrix)


def test_even_and_odd_parts_are_shared() -> None:
    # (4a + c) + (2b + d) and (4a + c) - (2b + d): two parts of one step each, a sum and a difference.
    program = from_matrix([[4, 2, 1, 1], [4, -2, 1, -1]])
    assert program.operations.total == 4
    assert {type(step) for step in program.steps} == {MulAdd, Add, Sub}


def test_rows_alike_up_to_a_factor_are_summed_once() -> None:
    program = from_matrix([[1, 1, 1], [3, 3, 3], [-1, -1, -1]])
    assert program.operations.total == 4
    assert sum(isinstance(step, Scale) for step in program.steps) == 2


def test_unit_rows_are_free() -> None:
    assert from_matrix([[0, 1], [1, 0], [0, 1]]) == LinearProgram(2, (), (1, 0, 1))


@pytest.mark.parametrize("matrix", [[], [[]], [[1, 2], [3]]])
def test_what_is_no_matrix_is_refused(matrix: list[list[int]]) -> None:
    with pytest.raises(SpecError, match="matrix is empty or its rows differ"):
        from_matrix(matrix)


def test_a_row_of_zeros_is_refused() -> None:
    with pytest.raises(SpecError, match=r"matrix\[1\] is a row of zeros"):
        from_matrix([[1, 0], [0, 0]])
