"""Bilinear algorithms of one axis: y = output((weight w) * (input x)), where * is element by element.

Along one axis a tile of ``tile`` values of the image becomes ``points`` points, ``taps`` weights become as many, and the
points' products, summed over channels, become ``outputs`` values of the correlation y[i] = sum_j x[i + j] w[j]. Applied
along each axis in turn, one algorithm an axis, they compute a correlation of any number of dimensions, because each map
acts on one axis alone (Winograd, "Arithmetic complexity of computations", 1980, chapter V).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from convgen.errors import SpecError
from convgen.transforms.linear import Add, LinearProgram, Step


@dataclass(frozen=True)
class AxisAlgorithm:
    """``outputs`` values of a correlation with ``taps`` weights, by three linear programs.

    ``input`` maps tile → points, ``weight`` taps → points, ``output`` points → outputs. Raises SpecError where their sizes
    do not fit each other, or the tile does not hold what the outputs need.
    """

    name: str
    outputs: int
    taps: int
    input: LinearProgram
    weight: LinearProgram
    output: LinearProgram

    def __post_init__(self) -> None:
        counts = (len(self.input.outputs), len(self.weight.outputs), self.output.inputs)
        if len(set(counts)) != 1:
            raise SpecError(f"{self.name} has {counts} points in its maps; allowed: the same number in all three")
        if self.weight.inputs != self.taps or len(self.output.outputs) != self.outputs:
            raise SpecError(f"{self.name} has maps of other sizes than outputs={self.outputs} and taps={self.taps}")
        if self.tile < self.outputs + self.taps - 1:
            raise SpecError(f"{self.name} reads {self.tile} values; allowed: {self.outputs + self.taps - 1} or more")

    def __hash__(self) -> int:
        return hash((self.name, self.outputs, self.taps))

    @property
    def tile(self) -> int:
        """How many values of the image one tile reads; neighbouring tiles are ``outputs`` apart."""
        return self.input.inputs

    @property
    def points(self) -> int:
        """How many products a tile takes."""
        return self.output.inputs


@cache
def direct(outputs: int, taps: int) -> AxisAlgorithm:
    """The algorithm that saves nothing: one point for each product x[i + j] w[j].

    With one tap it leaves the axis alone; with one output it is the inner product. Raises SpecError unless both numbers
    are positive.
    """
    check_positive(outputs=outputs, taps=taps)
    steps: list[Step] = []
    sums = []
    points = outputs * taps
    for first in range(0, points, taps):
        total = first
        for point in range(first + 1, first + taps):
            steps.append(Add(total, point))
            total = points + len(steps) - 1
        sums.append(total)
    return AxisAlgorithm(
        name="direct",
        outputs=outputs,
        taps=taps,
        input=LinearProgram(outputs + taps - 1, (), tuple(i + j for i in range(outputs) for j in range(taps))),
        weight=LinearProgram(taps, (), tuple(range(taps)) * outputs),
        output=LinearProgram(points, tuple(steps), tuple(sums)),
    )


def check_positive(**sizes: int) -> None:
    """Raises SpecError unless all are integers above 0."""
    for name, size in sizes.items():
        if type(size) is not int or size < 1:
            raise SpecError(f"{name}={size!r} is not valid; allowed: integers above 0")
