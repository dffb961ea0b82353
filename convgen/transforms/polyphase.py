"""Correlations with a stride, and with more taps than one algorithm serves, as sums of shorter ones.

y[i] = sum_j x[s i + j] w[j] is the sum over the residues k of j modulo s of the plain correlations of x[k], x[k + s], .. with
w[k], w[k + s], .. (Vaidyanathan, "Multirate Systems and Filter Banks", 1993, section 4.3); a long filter is the sum of its
pieces. In either case the points of the parts stand side by side, and only their outputs are added.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from convgen.errors import SpecError
from convgen.transforms.bilinear import AxisAlgorithm, check_positive
from convgen.transforms.linear import Add, LinearProgram, MulAdd, Scale, Step, Sub

Make = Callable[[int, int], AxisAlgorithm]


@dataclass(frozen=True)
class _Part:
    """An algorithm that reads every ``step``-th value and weight from ``first`` on; ``values`` are those of the image."""

    algorithm: AxisAlgorithm
    first: int
    step: int


@cache
def strided(make: Make, outputs: int, taps: int, stride: int) -> AxisAlgorithm:
    """The algorithm of a correlation with a stride, from ``make(outputs, taps)`` for each residue of the taps.

    A tile reads (outputs - 1) stride + taps values. Raises SpecError unless all numbers are positive.
    """
    check_positive(outputs=outputs, taps=taps, stride=stride)
    if stride == 1:
        return make(outputs, taps)
    residues = range(min(stride, taps))
    parts = [_Part(make(outputs, len(range(first, taps, stride))), first, stride) for first in residues]
    name = f"{'+'.join(part.algorithm.name for part in parts)}/{stride}"
    return _side_by_side(name, outputs, taps, (outputs - 1) * stride + taps, parts)


@cache
def spread(make: Make, outputs: int, taps: int, step: int) -> AxisAlgorithm:
    """The algorithm of y[i] = sum_j x[i + step j] w[j], from ``make(outputs, taps)`` for each residue of the outputs.

    So a convolution with a stride has its weights' gradient: the pixels of ``w`` lie that many apart in ``x``. A tile reads
    (taps - 1) step + outputs values. Raises SpecError unless all numbers are positive.
    """
    check_positive(outputs=outputs, taps=taps, step=step)
    if step == 1:
        return make(outputs, taps)
    parts = [_Part(make(len(range(first, outputs, step)), taps), first, step) for first in range(min(step, outputs))]
    name = f"{'+'.join(part.algorithm.name for part in parts)}*{step}"
    return _outputs_apart(name, outputs, taps, (taps - 1) * step + outputs, parts)


@cache
def runs(make: Make, lengths: tuple[int, ...], taps: int) -> AxisAlgorithm:
    """The algorithm of many outputs, cut into runs of the given lengths: those of the gradient of a long filter. Raises SpecError
    without runs."""
    if not lengths:
        raise SpecError("lengths=() is not valid; allowed: one length or more")
    parts = [_Part(make(length, taps), sum(lengths[:place]), 1) for place, length in enumerate(lengths)]
    name = "|".join(part.algorithm.name for part in parts)
    outputs = sum(lengths)
    return _outputs_apart(name, outputs, taps, outputs + taps - 1, parts)


@cache
def pieces(make: Make, outputs: int, lengths: tuple[int, ...]) -> AxisAlgorithm:
    """The algorithm of a long filter, cut into pieces of the given lengths. Raises SpecError without pieces."""
    if not lengths:
        raise SpecError("lengths=() is not valid; allowed: one length or more")
    parts, first = [], 0
    for length in lengths:
        parts.append(_Part(make(outputs, length), first, 1))
        first += length
    name = "+".join(part.algorithm.name for part in parts)
    return _side_by_side(name, outputs, first, outputs + first - 1, parts)


def _side_by_side(name: str, outputs: int, taps: int, tile: int, parts: Sequence[_Part]) -> AxisAlgorithm:
    algorithms = [part.algorithm for part in parts]
    return AxisAlgorithm(
        name=name,
        outputs=outputs,
        taps=taps,
        input=_joined(tile, [(a.input, _places(p, a.tile)) for p, a in zip(parts, algorithms, strict=True)]),
        weight=_joined(taps, [(a.weight, _places(p, a.taps)) for p, a in zip(parts, algorithms, strict=True)]),
        output=_added([a.output for a in algorithms]),
    )


def _outputs_apart(name: str, outputs: int, taps: int, tile: int, parts: Sequence[_Part]) -> AxisAlgorithm:
    """Algorithms with the same weights, each for the outputs of which it reads the values."""
    algorithms = [part.algorithm for part in parts]
    results = _beside([a.output for a in algorithms])
    numbers = [place for part in parts for place in _places(part, part.algorithm.outputs)]
    order = sorted(range(outputs), key=numbers.__getitem__)
    return AxisAlgorithm(
        name=name,
        outputs=outputs,
        taps=taps,
        input=_joined(tile, [(a.input, _places(p, a.tile)) for p, a in zip(parts, algorithms, strict=True)]),
        weight=_joined(taps, [(a.weight, list(range(taps))) for a in algorithms]),
        output=LinearProgram(results.inputs, results.steps, tuple(results.outputs[place] for place in order)),
    )


def _places(part: _Part, count: int) -> list[int]:
    return [part.first + part.step * i for i in range(count)]


def _joined(inputs: int, programs: Sequence[tuple[LinearProgram, list[int]]]) -> LinearProgram:
    """Programs on some of the inputs each; the outputs of all, one after another."""
    steps: list[Step] = []
    outputs: list[int] = []
    for program, places in programs:
        numbers = list(places)
        for step in program.steps:
            steps.append(_renumbered(step, numbers))
            numbers.append(inputs + len(steps) - 1)
        outputs += [numbers[output] for output in program.outputs]
    return LinearProgram(inputs, tuple(steps), tuple(outputs))


def _beside(programs: Sequence[LinearProgram]) -> LinearProgram:
    """Programs on inputs that follow one another; the outputs of all, one after another."""
    first, joined = 0, []
    for program in programs:
        joined.append((program, list(range(first, first + program.inputs))))
        first += program.inputs
    return _joined(first, joined)


def _added(programs: Sequence[LinearProgram]) -> LinearProgram:
    """Programs on inputs that follow one another; their outputs are added."""
    whole = _beside(programs)
    inputs = whole.inputs
    count = len(programs[0].outputs)
    steps = list(whole.steps)
    totals = list(whole.outputs[:count])
    for start in range(count, len(whole.outputs), count):
        for i in range(count):
            steps.append(Add(totals[i], whole.outputs[start + i]))
            totals[i] = inputs + len(steps) - 1
    return LinearProgram(inputs, tuple(steps), tuple(totals))


def _renumbered(step: Step, numbers: Sequence[int]) -> Step:
    match step:
        case Add(a, b):
            return Add(numbers[a], numbers[b])
        case Sub(a, b):
            return Sub(numbers[a], numbers[b])
        case Scale(a, factor):
            return Scale(numbers[a], factor)
        case MulAdd(a, factor, b):
            return MulAdd(numbers[a], factor, numbers[b])
