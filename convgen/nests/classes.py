"""Every direction of a convolution as gather problems: which source pixel and which tap feed which result pixel.

Along one axis a class of result positions reads

    result[start + q * step] += source[q * source_step + j * tap_step_source + offset] * weight[first_tap + j * tap_step]

for q in count, j in taps. A forward convolution is one class with source_step = stride. The gradient of the data, and a
transposed convolution, fall into one class for each residue of the result position modulo the stride; within a class the
problem is a convolution of stride 1 with every (stride / gcd(stride, dilation))-th tap, walked backwards (Dumoulin and Visin,
"A guide to convolution arithmetic for deep learning", 2016, section 4).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from convgen.spec import ConvSpec


@dataclass(frozen=True)
class AxisClass:
    """One class of result positions along one axis, as in the module's equation."""

    start: int
    step: int
    count: int
    source_step: int
    tap_source_step: int
    offset: int
    first_tap: int
    tap_step: int
    taps: int

    @property
    def spacing(self) -> int:
        """How far apart the source positions of neighbouring taps are."""
        return abs(self.tap_source_step) if self.taps > 1 else 1

    @property
    def interleaved(self) -> int:
        """Results so many apart read positions that are whole spacings apart, as a convolution without dilation does; the class
        is as many of these, one for each residue of the result."""
        return self.spacing // math.gcd(self.spacing, self.source_step)

    @property
    def longest_run(self) -> int:
        """The results of the longest of the interleaved convolutions."""
        return -(-self.count // self.interleaved)

    @property
    def spaced_step(self) -> int:
        """The stride of each of the interleaved convolutions, in spacings."""
        return self.source_step // math.gcd(self.spacing, self.source_step)

    @property
    def lowest(self) -> int:
        """The smallest source position that is read (0 where nothing is)."""
        if not self.taps or not self.count:
            return 0
        return self.offset + min(0, (self.taps - 1) * self.tap_source_step)

    @property
    def highest(self) -> int:
        """The largest source position that is read (-1 where nothing is)."""
        if not self.taps or not self.count:
            return -1
        return self.offset + (self.count - 1) * self.source_step + max(0, (self.taps - 1) * self.tap_source_step)


def forward_classes(spec: ConvSpec, axis: int) -> tuple[AxisClass, ...]:
    """The single class of a convolution that reads with a stride: forward, or the data gradient of a transposed one."""
    count = spec.spatial_size[axis] if spec.transposed else spec.output_size[axis]
    return (
        AxisClass(
            start=0,
            step=1,
            count=count,
            source_step=spec.stride[axis],
            tap_source_step=spec.dilation[axis],
            offset=-spec.padding[axis][0],
            first_tap=0,
            tap_step=1,
            taps=spec.kernel_size[axis],
        ),
    )


def scatter_classes(spec: ConvSpec, axis: int) -> tuple[AxisClass, ...]:
    """The residue classes of a convolution that writes with a stride: transposed forward, or a data gradient."""
    size = spec.output_size[axis] if spec.transposed else spec.spatial_size[axis]
    stride, dilation, low = spec.stride[axis], spec.dilation[axis], spec.padding[axis][0]
    common = math.gcd(stride, dilation)
    classes = []
    for start in range(min(stride, size)):
        first = next((t for t in range(stride // common) if (start + low - t * dilation) % stride == 0), None)
        found = first is not None and first < spec.kernel_size[axis]
        first_tap = first if first is not None and found else 0
        taps = len(range(first_tap, spec.kernel_size[axis], stride // common)) if found else 0
        classes.append(
            AxisClass(
                start=start,
                step=stride,
                count=-(-(size - start) // stride),
                source_step=1,
                tap_source_step=-(dilation // common),
                offset=(start + low - first_tap * dilation) // stride,
                first_tap=first_tap,
                tap_step=stride // common,
                taps=taps,
            )
        )
    return tuple(classes)


def is_one_class(problem: ConvSpec) -> bool:
    """Whether all results are neighbours in one class that has all taps, as those of a forward convolution are."""
    classes = gather_classes(problem)
    return len(classes) == 1 and all(
        axis.step == 1 and axis.taps == taps for axis, taps in zip(classes[0], problem.kernel_size, strict=True)
    )


def reads_nothing(spec: ConvSpec) -> bool:
    """Whether no result has a tap: each lies between those that the strides reach."""
    return not any(all(axis.taps for axis in axes) for axes in gather_classes(spec))


def gather_classes(spec: ConvSpec) -> tuple[tuple[AxisClass, ...], ...]:
    """All combinations of the classes of the axes, for the forward and the data-gradient directions."""
    along = scatter_classes if spec.writes_with_stride else forward_classes
    return tuple(itertools.product(*(along(spec, axis) for axis in range(spec.ndim))))
