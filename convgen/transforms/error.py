"""Rounding errors of bilinear algorithms, from their programs.

Each step of a program rounds once. Its error is followed through the rest of the algorithm, which is linear in it, on operands
whose elements are independent and of variance 1; errors of different steps are taken as independent (the model of Higham,
"Accuracy and Stability of Numerical Algorithms", 2nd ed., section 2.8). Along several axes a step of one axis is taken once for
each index of the others, so that variances are products over the axes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

import numpy as np
from numpy.typing import NDArray

from convgen.transforms.bilinear import AxisAlgorithm
from convgen.transforms.linear import Factor, LinearProgram, MulAdd, Scale, weighted_operands

Float64 = NDArray[np.float64]

# A rounding error is spread evenly over an interval of u times the next lower power of two at each side.
_VARIANCE = 1 / 3
# Errors of finite samples scatter, and errors of steps that share operands are not quite independent.
_SAFETY = 1.25


@dataclass(frozen=True)
class Amplification:
    """Variances of one axis, averaged over its outputs; those of errors are in units of one rounding's.

    ``products`` is the error of all products if each has an error of its own size, ``input``, ``weight`` and ``output`` that of
    the maps' steps. ``taps`` is the result's own variance, and what is left of the axis where it is not transformed.
    """

    products: float
    input: float
    weight: float
    output: float
    taps: float


def plain_error(terms: int, unit_roundoff: float) -> float:
    """The relative L2 error to expect at most of plain sums of so many products of normally distributed numbers."""
    return _SAFETY * unit_roundoff * math.sqrt(_VARIANCE * (terms + 1) / 2)


def relative_error(algorithms: tuple[AxisAlgorithm, ...], channels: int, unit_roundoff: float) -> float:
    """The relative L2 error to expect at most, of sums over ``channels`` of normally distributed numbers.

    ``algorithms`` has one for each axis, in the order in which the maps are applied; operands, points and results are of one
    type, of the given unit roundoff. It is an estimate, above what is measured and by less than a factor of three.
    """
    axes = [amplification(algorithm) for algorithm in algorithms]
    exact = math.prod(axis.taps for axis in axes)
    # Partial sums of 1, 2, .. channels products are rounded one after another.
    error = (channels + 1) / 2 * math.prod(axis.products for axis in axes)
    for i, axis in enumerate(axes):
        products_before = math.prod(other.products for other in axes[:i])
        taps_before = math.prod(other.taps for other in axes[:i])
        products_after = math.prod(other.products for other in axes[i + 1 :])
        taps_after = math.prod(other.taps for other in axes[i + 1 :])
        error += products_before * (axis.input + axis.weight) * taps_after + taps_before * axis.output * products_after
    return _SAFETY * unit_roundoff * math.sqrt(_VARIANCE * error / exact)


@cache
def amplification(algorithm: AxisAlgorithm) -> Amplification:
    """How one axis passes rounding errors on."""
    B, G, A = (dense(program) for program in (algorithm.input, algorithm.weight, algorithm.output))
    covariance = (B @ B.T) * (G @ G.T)
    variances = np.diag(covariance)
    image, image_spread = _steps(algorithm.input, np.eye(algorithm.tile))
    weight, weight_spread = _steps(algorithm.weight, np.eye(algorithm.taps))
    result, result_spread = _steps(algorithm.output, covariance)
    return Amplification(
        products=float(np.sum(A**2 * variances)) / algorithm.outputs,
        input=_passed_on(image_spread, image, (A.T @ A) * (G @ G.T)) / algorithm.outputs,
        weight=_passed_on(weight_spread, weight, (A.T @ A) * (B @ B.T)) / algorithm.outputs,
        output=float(np.sum(result_spread**2 * result)) / algorithm.outputs,
        taps=float(algorithm.taps),
    )


@cache
def dense(program: LinearProgram) -> Float64:
    """The program's matrix in float64, read-only."""
    matrix = _all_values(program)[list(program.outputs)]
    matrix.flags.writeable = False
    return matrix


def magnified(algorithms: tuple[AxisAlgorithm, ...], x: np.ndarray, w: np.ndarray) -> Float64:
    """S_w of one tile: |A^T| (sum of |G||w| * |B^T||x| over channels), along every axis.

    ``x`` has shape (channels, *tiles), ``w`` (channels, *taps), the result the shape of the outputs. No element's error is
    larger than a small multiple of (number of roundings on its way)·u·S_w (Higham, section 3.1).
    """
    image, weight = np.abs(x.astype(np.float64)), np.abs(w.astype(np.float64))
    for axis, algorithm in enumerate(algorithms, start=1):
        image = _along(np.abs(dense(algorithm.input)), image, axis)
        weight = _along(np.abs(dense(algorithm.weight)), weight, axis)
    points: Float64 = np.sum(image * weight, axis=0)
    for axis, algorithm in enumerate(algorithms):
        points = _along(np.abs(dense(algorithm.output)), points, axis)
    return points


@cache
def weight_multiple(algorithm: AxisAlgorithm) -> int:
    """The integer of which weights must be multiples for their points to be integers; 1 where no integer does that."""
    if any(isinstance(factor, float) for step in algorithm.weight.steps for _, factor in weighted_operands(step)):
        return 1
    return math.lcm(*(Fraction(entry).denominator for row in algorithm.weight.matrix() for entry in row))


@cache
def is_exact(algorithm: AxisAlgorithm) -> bool:
    """Whether integers stay exact, given weights that are multiples and numbers that fit: no factor is rounded."""
    steps = (*algorithm.input.steps, *algorithm.weight.steps, *algorithm.output.steps)
    return not any(isinstance(step, Scale | MulAdd) and _is_rounded(step.factor) for step in steps)


@cache
def growth(algorithm: AxisAlgorithm) -> float:
    """The largest magnitude of anything computed from x of magnitude 1 and weights of magnitude ``weight_multiple``."""
    image, weight, result = (
        np.abs(_all_values(program)) for program in (algorithm.input, algorithm.weight, algorithm.output)
    )
    weight *= weight_multiple(algorithm)
    points = image.sum(axis=1)[list(algorithm.input.outputs)] * weight.sum(axis=1)[list(algorithm.weight.outputs)]
    return float(max(image.sum(axis=1).max(), weight.sum(axis=1).max(), np.max(result @ points)))


def _along(matrix: Float64, x: Float64, axis: int) -> Float64:
    return np.moveaxis(np.tensordot(matrix, x, (1, axis)), 0, axis)


def _passed_on(spread: Float64, errors: Float64, paths: Float64) -> float:
    """The variance that errors of the steps of one map bring to all outputs; ``paths`` are the products of what follows."""
    return float(errors @ np.sum(spread * (paths @ spread), axis=0))


def _steps(program: LinearProgram, covariance: Float64) -> tuple[Float64, Float64]:
    """The variances of the errors of each step, and the matrix that takes them to the outputs."""
    values = _all_values(program)
    combinations = values[program.inputs :]
    errors = np.sum((combinations @ covariance) * combinations, axis=1)
    for number, step in enumerate(program.steps):
        if isinstance(step, Scale | MulAdd) and _is_rounded(step.factor):
            product = values[step.a] * float(step.factor)
            errors[number] += product @ covariance @ product
    passed_on = np.zeros((len(values), len(program.outputs)))
    passed_on[program.outputs, np.arange(len(program.outputs))] = 1
    for value in range(len(values) - 1, program.inputs - 1, -1):
        for operand, factor in weighted_operands(program.steps[value - program.inputs]):
            passed_on[operand] += float(factor) * passed_on[value]
    return errors, passed_on[program.inputs :].T


def _all_values(program: LinearProgram) -> Float64:
    """All values of a program as combinations of its inputs."""
    values = np.eye(program.inputs + len(program.steps), program.inputs)
    for value, step in enumerate(program.steps, start=program.inputs):
        for operand, factor in weighted_operands(step):
            values[value] += float(factor) * values[operand]
    return values


def _is_rounded(factor: Factor) -> bool:
    """Whether float32 does not hold a factor exactly; what it does not hold, float64 hardly ever does."""
    return Fraction(float(np.float32(float(factor)))) != Fraction(factor)
