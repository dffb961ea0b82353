"""Codelets against numpy.fft, operation counts against the literature, and the algorithms against correlation."""

from __future__ import annotations

import numpy as np
import pytest

from convgen.errors import SpecError
from convgen.transforms.builder import Builder, Term
from convgen.transforms.codelets import real_transform
from convgen.transforms.fourier import SIZES, fourier
from convgen.transforms.linear import LinearProgram


def codelet(length: int, size: int) -> tuple[LinearProgram, np.ndarray, np.ndarray]:
    """A program for the parts of all frequencies that are not zero, the factors of these, and which they are."""
    builder = Builder(length)
    parts = [part for frequency in real_transform(builder, size) for part in frequency]
    present = [part for part in parts if part is not None]
    which = np.array([part is not None for part in parts])
    return builder.program([Term(part.value) for part in present]), np.array([float(p.factor) for p in present]), which


@pytest.mark.parametrize("size", [4, 6, *SIZES])
def test_codelets_are_the_transform_of_real_data(size: int) -> None:
    for length in (1, 2, size // 2 + 1, size):
        program, factors, which = codelet(length, size)
        x = np.random.default_rng(size).standard_normal(length)
        parts = np.zeros(size + 2)
        parts[which] = program.apply(x, 0) * factors
        np.testing.assert_allclose(parts.view(np.complex128), np.fft.rfft(x, size), atol=1e-13)


@pytest.mark.parametrize(
    ("size", "most"),
    # Additions and fused multiply-adds of FFTW's r2cf codelets (Frigo, "A fast Fourier transform compiler", 1999).
    [(4, 6), (8, 20), (12, 42), (16, 58), (24, 112), (32, 156), (48, 286), (64, 394)],
)
def test_codelets_take_few_operations(size: int, most: int) -> None:
    program, _, _ = codelet(size, size)
    assert program.operations.total <= most
    assert program.operations.multiplications == 0


def test_zero_inputs_cost_nothing() -> None:
    counts = [codelet(length, 32)[0].operations.total for length in (1, 3, 9, 17, 32)]
    assert counts[0] == 0
    assert counts == sorted(set(counts))


@pytest.mark.parametrize(
    ("outputs", "taps", "size"),
    [
        (6, 3, 8),
        (5, 3, 8),
        (2, 2, 8),
        (8, 5, 12),
        (8, 9, 16),
        (3, 9, 16),
        (16, 9, 24),
        (24, 9, 32),
        (18, 31, 48),
        (34, 31, 64),
    ],
)
def test_it_is_a_correlation_with_three_points_a_frequency(outputs: int, taps: int, size: int) -> None:
    algorithm = fourier(outputs, taps, size)
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal(algorithm.tile), rng.standard_normal(taps)
    y = algorithm.output.apply(algorithm.input.apply(x, 0) * algorithm.weight.apply(w, 0), 0)
    np.testing.assert_allclose(y, np.correlate(x, w, "valid"), atol=1e-13)
    assert algorithm.points == 2 + 3 * (size // 2 - 1)
    assert algorithm.tile == outputs + taps - 1


@pytest.mark.parametrize(("outputs", "taps"), [(1, 3), (3, 1), (1, 1)])
def test_a_single_tap_or_output_leaves_products_of_zeros_out(outputs: int, taps: int) -> None:
    algorithm = fourier(outputs, taps, 8)
    x, w = np.arange(1.0, algorithm.tile + 1), np.arange(2.0, taps + 2)
    y = algorithm.output.apply(algorithm.input.apply(x, 0) * algorithm.weight.apply(w, 0), 0)
    np.testing.assert_allclose(y, np.correlate(x, w, "valid"), atol=1e-13)


@pytest.mark.parametrize(
    ("outputs", "taps", "size", "most"),
    [(8, 9, 16, (65, 79, 62)), (16, 9, 24, (123, 125, 122)), (24, 9, 32, (171, 171, 178))],
)
def test_maps_take_few_operations(outputs: int, taps: int, size: int, most: tuple[int, int, int]) -> None:
    algorithm = fourier(outputs, taps, size)
    programs = (algorithm.input, algorithm.weight, algorithm.output)
    assert all(program.operations.total <= count for program, count in zip(programs, most, strict=True))
    assert not algorithm.input.operations.multiplications


def test_wasted_outputs_are_pruned() -> None:
    totals = [fourier(outputs, 5, 32).output.operations.total for outputs in (4, 12, 28)]
    assert totals == sorted(set(totals))


@pytest.mark.parametrize(("size", "allowed"), [(8, "12, 16, 24"), (10, "12, 16"), (20, "12, 16")])
def test_sizes_are_checked(size: int, allowed: str) -> None:
    with pytest.raises(SpecError, match=f"allowed: {allowed}"):
        fourier(6, 5, size)


def test_a_tile_beyond_the_largest_transform_is_refused() -> None:
    with pytest.raises(SpecError, match="none with a tile of 65"):
        fourier(35, 31, 64)
