"""How a kernel's numbers are judged.

Here and in ``tolerance``, and nowhere else, tolerances and the data they hold for are written down.

Gate A runs small integers, whose sums are exact, and asks for equality. Gate B runs normally distributed numbers and
asks for elementwise error bounds (Higham, "Accuracy and Stability of Numerical Algorithms", 2nd ed., sections 3.1 and
2.8). Gate C asks for the adjoint identity of the three directions, on integers. Gate A is mandatory: among 512
channels of normally distributed numbers a single wrong element stays below any rounding bound.

A gate takes the problem and ``run``, which is called as a compiled operator is, ``run(first, second,
**epilogue_operands)``, and returns the result array. Nothing raises for wrong numbers: a Comparison says what was
found.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from convgen.dtypes import DTYPES
from convgen.errors import SpecError
from convgen.oracle import apply_step, convolve, magnitude, per_channel, reference
from convgen.spec import ConvSpec
from convgen.tolerance import PEAK, ExactnessRule, error_limit, exactness_rule, expected_error
from convgen.transforms.split import Algorithms

Run = Callable[..., np.ndarray]
Float64 = NDArray[np.float64]

# Rounding errors of evaluating an inexact activation, in units of u times the function's scale at that point.
_ACTIVATION_ULPS = 4.0

# The largest slope of each activation: how much it can magnify an error of its argument.
_STEEPEST = {"silu": 1.1, "gelu": 1.13, "hardswish": 1.5, "sigmoid": 0.25}

# The relative L2 error up to which results are of the same computation, whoever computed them; other data, another precision or
# a step left out is far beyond.
_SAME = {"float64": 1e-12, "float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}
# The same of results that are rounded to bytes: some are one apart.
_SAME_BYTES = 1e-2

# Sums of random signs stay below this many standard deviations; what does not is redrawn.
_DEVIATIONS = 5.0


@dataclass(frozen=True)
class Operands:
    """The arrays of one call: ``main`` in call order, ``epilogue`` by name."""

    main: tuple[np.ndarray, ...]
    epilogue: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """A result held against its reference.

    ``worst_index`` is the element that is farthest beyond (or closest to) what it is allowed, None if there is none;
    ``bound`` is the error allowed there. ``reason`` is one sentence when ``ok`` is False, empty otherwise.
    """

    max_abs_error: float
    relative_l2: float
    worst_index: tuple[int, ...] | None
    bound: float
    ok: bool
    reason: str = ""


def reduction_length(spec: ConvSpec) -> int:
    """Returns K, the number of products in one sum; reads of padding count, in every padding mode."""
    taps = math.prod(spec.kernel_size)
    match spec.direction:
        case "forward":
            return spec.in_channels // spec.groups * taps
        case "backward_data":
            return spec.out_channels // spec.groups * taps
        case _:
            return spec.batch * math.prod(spec.spatial_size if spec.transposed else spec.output_size)


@dataclass(frozen=True)
class Expectation:
    """What a kernel must return for some operands: the oracle's ``value`` within ``bound``, elementwise.

    ``norm`` is the largest L2 norm of all errors.
    """

    value: Float64
    bound: Float64
    dtype: np.dtype
    norm: float = math.inf

    def check(self, result: np.ndarray) -> Comparison:
        """Holds a result against it; dtype and shape count."""
        mismatch = _mismatch(result, self.value.shape, self.dtype)
        return _refused(mismatch) if mismatch else _compare(result, self.value, self.bound, self.norm)


def expect_integers(spec: ConvSpec, operands: Operands, algorithms: Algorithms = ()) -> Expectation:
    """What gate A demands of integer operands: equality, after rounding where the algorithms have factors that are rounded,
    or a few roundings where the epilogue has an activation that rounds.

    ``operands`` are ``integer_operands`` for the same algorithms.
    """
    rule = _rule(spec, algorithms)
    if rule.is_rounded or not _epilogue_is_exact(spec):
        error = min(0.49 * rule.weight_multiple, PEAK * rule.relative_error * _root_mean_square(spec, operands))
        return Expectation(*_expected_and_bound(spec, operands, _Rounding(0.0, 0.0, error)), _result_dtype(spec))
    value = reference(spec, *operands.main, **operands.epilogue).astype(_result_dtype(spec)).astype(np.float64)
    return Expectation(value, np.zeros(value.shape), _result_dtype(spec))


def gate_a(spec: ConvSpec, run: Run, rng: np.random.Generator, algorithms: Algorithms = ()) -> Comparison:
    """Runs integers; equal bit for bit, or as near as ``expect_integers`` says."""
    operands = integer_operands(spec, rng, algorithms)
    return expect_integers(spec, operands, algorithms).check(run(*operands.main, **operands.epilogue))


def gate_b(spec: ConvSpec, run: Run, rng: np.random.Generator, algorithms: Algorithms = ()) -> Comparison:
    """Runs N(0, 1) (int8: integers of standard deviation 30) against the bounds of ``compare_bounded``."""
    operands = normal_operands(spec, rng)
    return compare_bounded(run(*operands.main, **operands.epilogue), spec, operands, algorithms=algorithms)


def gate_c(
    spec_forward: ConvSpec,
    run_forward: Run,
    run_backward_data: Run,
    run_backward_weights: Run,
    rng: np.random.Generator,
    *,
    rounded: bool = False,
) -> Comparison:
    """Checks <conv(x, w), dy> = <x, backward_data(dy, w)> = <w, backward_weights(x, dy)> exactly, on integers.

    ``rounded`` says that results are to be rounded first, because fast algorithms computed them.
    Raises SpecError if ``spec_forward`` is not a forward problem without an epilogue.
    """
    if spec_forward.direction != "forward" or spec_forward.epilogue.steps:
        steps = spec_forward.epilogue.steps
        raise SpecError(f"direction={spec_forward.direction!r} with epilogue steps {steps} has no adjoint identity")
    specs = [spec_forward.replace(direction=name) for name in ("forward", "backward_data", "backward_weights")]
    x, w, dy = _adjoint_operands(specs, rng)
    results = [run_forward(x, w), run_backward_data(dy, w), run_backward_weights(x, dy)]
    if rounded:
        results = [np.rint(result) for result in results]
    for spec, result in zip(specs, results, strict=True):
        mismatch = _mismatch(result, spec.result_shape, _result_dtype(spec))
        if mismatch:
            return _refused(f"{spec.direction}: {mismatch}")
        if not np.all(np.rint(values := result.astype(np.float64)) == values) or not np.all(np.isfinite(values)):
            return _refused(f"{spec.direction}: the result of integers is not integers")
    products = [_dot(result, other) for result, other in zip(results, (dy, x, w), strict=True)]
    error = float(max(products) - min(products))
    relative = error / max(1.0, float(max(map(abs, products))))
    reason = f"the three inner products {products} of the directions differ" if error else ""
    return Comparison(error, relative, None, 0.0, error == 0, reason)


def integer_operands(spec: ConvSpec, rng: np.random.Generator, algorithms: Algorithms = ()) -> Operands:
    """Returns small random integers for every operand: sums are exact in the accumulator and results in their type.

    Exactness of the result is only promised if the epilogue has no activation that rounds. The second operand has no
    zeros, and is a multiple of what the algorithms' weights have to be; the first is thinned out until sums fit.
    """
    rule = _rule(spec, algorithms)
    amplitude, density = _filling(spec.dtype, reduction_length(spec), rule)
    first, second = list(spec.operand_shapes.values())[:2]
    multiple = DTYPES[spec.dtype].numpy.type(rule.weight_multiple)
    while True:
        x, w = _integers(rng, first, amplitude, spec.dtype, density), _integers(rng, second, amplitude, spec.dtype)
        main = (x, w * multiple)
        epilogue = {
            name: _multipliers(spec, rng, _size_of(spec, main))
            if name == "requantize"
            else _integers(rng, spec.operand_shapes[name], 2 if name == "scale" else 4, spec.operand_dtype(name))
            for name in spec.epilogue.operands
        }
        if not _epilogue_is_exact(spec) or _representable(spec, reference(spec, *main, **epilogue)):
            return Operands(main, epilogue)
        density /= 2


def normal_operands(spec: ConvSpec, rng: np.random.Generator) -> Operands:
    """Returns normally distributed numbers for every operand, of standard deviation 1 (integers: 30, rounded)."""

    def draw(shape: tuple[int, ...], dtype: str) -> np.ndarray:
        values = rng.standard_normal(shape)
        if DTYPES[dtype].unit_roundoff == 0:
            values = np.clip(np.rint(30 * values), -128, 127)
        return values.astype(DTYPES[dtype].numpy)

    shapes = spec.operand_shapes
    names = list(shapes)
    main = tuple(draw(shapes[name], spec.dtype) for name in names[:2])
    epilogue = {
        name: _multipliers(spec, rng, _size_of(spec, main))
        if name == "requantize"
        else draw(shapes[name], spec.operand_dtype(name))
        for name in names[2:]
    }
    return Operands(main, epilogue)


def _multipliers(spec: ConvSpec, rng: np.random.Generator, size: float) -> np.ndarray:
    """One for each channel, by which sums of that ``size`` come to a third of what int8 holds: few are saturated, some are."""
    values: np.ndarray = (rng.uniform(0.5, 1.5, spec.operand_shapes["requantize"]) * 40 / max(size, 1.0)).astype(
        np.float32
    )
    return values


def compare_exact(result: np.ndarray, expected: np.ndarray) -> Comparison:
    """Compares two arrays that must be equal in dtype, shape and every value; NaN equals NaN."""
    mismatch = _mismatch(result, expected.shape, expected.dtype)
    if mismatch:
        return _refused(mismatch)
    return _compare(result, expected.astype(np.float64), np.zeros(expected.shape))


def compare_bounded(
    result: np.ndarray, spec: ConvSpec, operands: Operands, *, integers: bool = False, algorithms: Algorithms = ()
) -> Comparison:
    """Compares ``result`` with the oracle's within what rounding may do to a sum and the epilogue (see expect_bounded)."""
    return expect_bounded(spec, operands, integers=integers, algorithms=algorithms).check(result)


def expect_bounded(
    spec: ConvSpec, operands: Operands, *, integers: bool = False, algorithms: Algorithms = ()
) -> Expectation:
    """What gate B demands: the oracle's value within what rounding may do to a sum and the epilogue.

    With K = ``reduction_length(spec)``, S the sum of absolute products and u the accumulator's unit roundoff, a sum
    is allowed min((K+1)u / (1 - (K+1)u), 4·sqrt(K)·u)·S, and storing y adds u_out·|y|. ``integers`` says that the
    operands are those of ``integer_operands``, so that nothing rounds before the first inexact activation.

    By fast algorithms, on operands that are independent and of one size each, all errors together are held to the relative
    L2 error that the algorithms are allowed, and each to sixteen times the root mean square that is expected of them, which
    is well below what multiples of S_w would allow. Sizes count as they are expected, sqrt(K) times those of the operands, so
    that sums that happen to be small are allowed no less.
    """
    dtype = _result_dtype(spec)
    if not algorithms:
        rounding = _Rounding(0.0, 0.0, 0.0) if integers else _sums(spec)
        return Expectation(*_expected_and_bound(spec, operands, rounding), dtype)
    length = reduction_length(spec)
    expected = expected_error(algorithms, length, spec.dtype)
    error = PEAK * expected * _root_mean_square(spec, operands)
    value, bound = _expected_and_bound(spec, operands, replace(_sums(spec), error=error))
    carried = _carried(spec, operands, error)
    share = error_limit(algorithms, length, spec.dtype) / (PEAK * expected)
    norm = share * float(np.linalg.norm(carried)) + float(np.linalg.norm(bound - carried))
    return Expectation(value, bound, dtype, norm)


def relative_l2(result: np.ndarray, expected: Float64) -> float:
    """The L2 norm of the error over that of what is expected; NaN if either holds one."""
    return _relative_l2(result.astype(np.float64) - expected, expected)


def computes_the_same(error: float, spec: ConvSpec) -> bool:
    """Whether a relative L2 error is that of the same computation, by this library or another; not whether it is accurate."""
    limit = _SAME_BYTES if "requantize" in spec.epilogue.steps else _SAME.get(spec.dtype, 0.0)
    return error <= (limit if isinstance(spec.accuracy, str) else max(limit, spec.accuracy))


@dataclass(frozen=True)
class _Rounding:
    """How a sum rounds: ``growth`` times its size, or ``error`` if given; and each step after it ``step`` times its size."""

    growth: float
    step: float
    error: float | None = None


def _sums(spec: ConvSpec) -> _Rounding:
    """How sums of products in order round."""
    unit = DTYPES[DTYPES[spec.dtype].accumulator].unit_roundoff
    return _Rounding(_sum_growth(reduction_length(spec), unit), unit)


def _expected_and_bound(spec: ConvSpec, operands: Operands, how: _Rounding) -> tuple[Float64, Float64]:
    dtype = DTYPES[spec.dtype]
    unit = DTYPES[dtype.accumulator].unit_roundoff
    growth, rounding = how.growth, how.step
    value = convolve(spec, *operands.main)
    size = magnitude(spec, *operands.main)
    error = growth * size if how.error is None else np.full(size.shape, how.error)
    for step in spec.epilogue.steps:
        array = operands.epilogue.get(step)
        argument, value = value, apply_step(spec, step, value, array)
        if array is None:
            error = error * _steepest(spec, step)
            if _rounds(spec, step):
                rounding = unit
                error = error + _ACTIVATION_ULPS * unit * _activation_scale(step, argument, value)
            size = np.abs(value)
            continue
        if step == "requantize":
            multiplier = per_channel(spec, array, step)
            error = _rounded_to_integers(argument * multiplier, error * np.abs(multiplier))
            continue
        term = np.abs(array.astype(np.float64) if step == "residual" else per_channel(spec, array, step))
        if step == "scale":
            size, error = size * term, error * term
        else:
            # A kernel may start its sum from the bias, so that it takes part in every rounding of the sum.
            size, error = size + term, error + growth * term
        error = error + rounding * size
    smallest = float(np.nextafter(dtype.numpy.type(0), dtype.numpy.type(1))) if dtype.unit_roundoff else 0.0
    bound = error + dtype.unit_roundoff * (np.abs(value) + error) + smallest
    # The float64 oracle rounds as much as a float64 kernel does.
    return value, bound * 2 if dtype.accumulator == "float64" else bound


def _rounded_to_integers(scaled: Float64, error: Float64) -> Float64:
    """Integers may be one apart where a number, computed in float32, is near the middle between two."""
    near = error + 4 * DTYPES["float32"].unit_roundoff * np.abs(scaled)
    return np.where(np.abs(scaled - np.floor(scaled) - 0.5) <= near, 1.0, 0.0)


def _carried(spec: ConvSpec, operands: Operands, error: float) -> Float64:
    """What the epilogue makes of an error of every sum."""
    carried = np.full(spec.result_shape, error)
    for step in spec.epilogue.steps:
        if step == "scale":
            carried *= np.abs(per_channel(spec, operands.epilogue[step], step))
        elif step not in operands.epilogue:
            carried *= _steepest(spec, step)
    return carried


def _rule(spec: ConvSpec, algorithms: Algorithms) -> ExactnessRule:
    return exactness_rule(algorithms, reduction_length(spec), spec.dtype)


def _root_mean_square(spec: ConvSpec, operands: Operands) -> float:
    """The size that sums of independent products have."""
    return _size_of(spec, operands.main)


def _size_of(spec: ConvSpec, main: tuple[np.ndarray, ...]) -> float:
    squares = (float(np.mean(np.square(each.astype(np.float64)))) if each.size else 0.0 for each in main)
    return math.sqrt(reduction_length(spec) * math.prod(squares))


def _sum_growth(length: int, unit: float) -> float:
    sharp = 4 * math.sqrt(length) * unit
    worst = (length + 1) * unit
    return min(sharp, worst / (1 - worst)) if worst < 1 else sharp


def _rounds(spec: ConvSpec, step: str) -> bool:
    if step == "leaky_relu":
        return abs(spec.epilogue.negative_slope) not in (0.0, 1.0)
    return step in ("silu", "gelu", "hardswish", "sigmoid", "tanh", "requantize")


def _epilogue_is_exact(spec: ConvSpec) -> bool:
    return not any(_rounds(spec, step) for step in spec.epilogue.steps)


def _steepest(spec: ConvSpec, step: str) -> float:
    return max(1.0, abs(spec.epilogue.negative_slope)) if step == "leaky_relu" else _STEEPEST.get(step, 1.0)


def _activation_scale(step: str, argument: Float64, value: Float64) -> Float64:
    """What an activation's rounding errors are relative to; x·g(x) inherits x times the absolute error of g <= 1."""
    match step:
        case "sigmoid" | "tanh":
            return np.ones_like(argument)
        case "leaky_relu":
            return np.asarray(np.abs(value))
        case _:
            return np.asarray(np.abs(argument))


def _compare(result: np.ndarray, expected: Float64, bound: Float64, norm: float = math.inf) -> Comparison:
    if result.size == 0:
        return Comparison(0.0, 0.0, None, 0.0, True)
    got = result.astype(np.float64)
    with np.errstate(invalid="ignore"):
        same = (got == expected) | (np.isnan(got) & np.isnan(expected))
        error = np.where(same, 0.0, np.nan_to_num(np.abs(got - expected), nan=np.inf, posinf=np.inf))
        allowed = np.nan_to_num(bound, nan=0.0, posinf=np.finfo(np.float64).max)
        flat = int(np.argmax(error - allowed))
    index = tuple(int(i) for i in np.unravel_index(flat, error.shape))
    wrong = int(np.count_nonzero(error > allowed))
    reason = ""
    if wrong:
        reason = (
            f"{wrong} of {error.size} elements are wrong, the worst at {index}: "
            f"{got[index]!r} where {expected[index]!r} is expected with an error of at most {allowed[index]:.3g}"
        )
    elif (total := float(np.linalg.norm(error))) > norm:
        reason = f"the errors' L2 norm is {total:.3g} where at most {norm:.3g} is allowed"
    relative = _relative_l2(error, expected)
    return Comparison(float(error.max()), relative, index, float(allowed[index]), not reason, reason)


def _relative_l2(error: Float64, expected: Float64) -> float:
    norm = float(np.linalg.norm(error))
    scale = float(np.linalg.norm(np.where(np.isfinite(expected), expected, 0.0)))
    if norm == 0:
        return 0.0
    return norm / scale if scale else math.inf


def _mismatch(result: np.ndarray, shape: tuple[int, ...], dtype: np.dtype) -> str:
    if result.dtype != dtype:
        return f"the result's dtype is {result.dtype}, {dtype} is expected"
    if result.shape != shape:
        return f"the result's shape is {result.shape}, {shape} is expected"
    return ""


def _refused(reason: str) -> Comparison:
    return Comparison(math.inf, math.inf, None, 0.0, False, reason)


def _result_dtype(spec: ConvSpec) -> np.dtype:
    return DTYPES[spec.result_dtype].numpy


def _exact_limit(dtype: str) -> float:
    """Integers up to this magnitude are exact in a type."""
    unit = DTYPES[dtype].unit_roundoff
    return 1 / unit if unit else 2.0**31


def _filling(dtype: str, length: int, rule: ExactnessRule) -> tuple[int, float]:
    """The largest amplitude, and the density, at which sums of ``length`` products fit accumulator and result."""
    # A quarter of the accumulator's range is left to the epilogue.
    most = _exact_limit(DTYPES[dtype].accumulator) / (4 * rule.growth)
    spread = _exact_limit(DTYPES[dtype].result) / (_DEVIATIONS * rule.weight_multiple)
    if rule.is_rounded:
        # Errors stay below half the multiple.
        spread = min(spread, 0.49 / (PEAK * rule.relative_error))
    for amplitude in (128, 32, 8, 4, 3, 2) if dtype == "int8" else (4, 3, 2):
        if amplitude**2 * length <= most and _mean_square(amplitude) * math.sqrt(length) <= spread:
            return amplitude, 1.0
    return 1, min(1.0, most / max(length, 1), spread**2 / max(length, 1))


def _mean_square(amplitude: int) -> float:
    return (amplitude + 1) * (2 * amplitude + 1) / 6


def _integers(
    rng: np.random.Generator, shape: tuple[int, ...], amplitude: int, dtype: str, density: float = 1.0
) -> np.ndarray:
    """Integers of magnitude 1 to ``amplitude`` with random signs, and zeros where ``density`` leaves them out."""
    values: NDArray[np.int64] = rng.integers(1, amplitude + 1, shape) * rng.choice((-1, 1), shape)
    if dtype == "int8":
        values = np.minimum(values, 127)
    if density < 1:
        values = values * (rng.random(shape) < density)
    return values.astype(DTYPES[dtype].numpy)


def _representable(spec: ConvSpec, expected: Float64) -> bool:
    return bool(np.array_equal(expected.astype(_result_dtype(spec)).astype(np.float64), expected))


def _adjoint_operands(specs: list[ConvSpec], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Integers x, w and dy for which the results of all three directions are exact."""
    forward = specs[0]
    amplitude, density = _filling(forward.dtype, max(map(reduction_length, specs)), ExactnessRule())
    while True:
        x = _integers(rng, forward.input_shape, amplitude, forward.dtype, density)
        w = _integers(rng, forward.weight_shape, amplitude, forward.dtype)
        dy = _integers(rng, forward.output_shape, amplitude, forward.dtype, density)
        calls = zip(specs, ((x, w), (dy, w), (x, dy)), strict=True)
        if all(_representable(spec, reference(spec, *main)) for spec, main in calls):
            return x, w, dy
        density /= 2


def _dot(a: np.ndarray, b: np.ndarray) -> int:
    """The inner product of two arrays of integers, whatever their dtype, as an exact integer."""
    return int(np.sum(a.astype(np.float64).astype(np.int64) * b.astype(np.float64).astype(np.int64)))
