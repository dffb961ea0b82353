"""Linear programs: what they compute in each type, what they count, and which they refuse to be."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from convgen.errors import DTypeError, ShapeError, SpecError
from convgen.transforms.linear import Add, LinearProgram, MulAdd, Operations, Scale, Step, Sub, spilled

HALF = Fraction(1, 2)
PROGRAM = LinearProgram(2, (Add(0, 1), Sub(0, 1), Scale(2, HALF), MulAdd(3, Fraction(3), 4)), (5, 4, 0))


def test_matrix_and_operations() -> None:
    assert PROGRAM.matrix() == ((Fraction(7, 2), Fraction(-5, 2)), (HALF, HALF), (1, 0))
    assert PROGRAM.operations == Operations(additions=2, multiplications=1, fused=1)
    assert PROGRAM.operations.total == 4


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, object])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_apply_multiplies_along_an_axis_in_the_arrays_type(dtype: type, axis: int) -> None:
    x: np.ndarray = np.arange(8).reshape(2, 2, 2).astype(dtype)
    result = PROGRAM.apply(x, axis)
    matrix = np.array(PROGRAM.matrix(), dtype=object)
    expected = np.moveaxis(np.tensordot(matrix, np.arange(8).reshape(2, 2, 2).astype(object), (1, axis)), 0, axis)
    assert result.dtype == x.dtype
    assert (result == expected).all()


def test_integers_stay_integers_and_refuse_fractions() -> None:
    x = np.array([5, 7], np.int64)
    assert LinearProgram(2, (MulAdd(0, Fraction(3), 1),), (2,)).apply(x, 0).tolist() == [22]
    with pytest.raises(DTypeError, match="factor 1/2 is not an integer"):
        PROGRAM.apply(x, 0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_fused_step_rounds_once(dtype: type) -> None:
    small = np.finfo(dtype).eps
    x: np.ndarray = np.array([1 + small, -1], dtype)
    # (1 + e)² - 1 = 2e + e²; rounding the square first would lose e².
    result = LinearProgram(2, (MulAdd(0, float(x[0]), 1),), (2,)).apply(x, 0)
    assert result[0] == dtype(2 * small + small * small)


def test_another_extent_is_refused() -> None:
    with pytest.raises(ShapeError, match="2 elements along axis 1 are expected"):
        PROGRAM.apply(np.zeros((2, 3)), 1)


@pytest.mark.parametrize(
    ("steps", "outputs"),
    [
        ((Add(0, 2),), (0,)),
        ((Scale(-1, HALF),), (0,)),
        ((Scale(0, 0.0),), (0,)),
        ((Scale(0, float("nan")),), (0,)),
        ((), (2,)),
    ],
)
def test_programs_that_read_what_is_not_there_are_refused(steps: tuple[Step, ...], outputs: tuple[int, ...]) -> None:
    with pytest.raises(SpecError, match="is not valid; allowed"):
        LinearProgram(2, steps, outputs)


def test_values_that_registers_do_not_hold_are_stored_and_loaded_once() -> None:
    """Three sums wait for their turn; inputs need not be stored, and outputs are in any case."""
    steps = (Add(0, 1), Add(2, 3), Add(4, 5), Add(7, 8), Add(6, 9))
    program = LinearProgram(6, steps, (10,))
    assert [spilled(program, registers) for registers in (3, 2)] == [0, 2]
    assert spilled(LinearProgram(6, steps, (6, 10)), 2) == 1
    again = LinearProgram(3, (Add(0, 1), Add(3, 2), Add(4, 0)), (5,))
    assert spilled(again, 1) == 1
