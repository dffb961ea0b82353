"""The arithmetic of the residue classes, against walking over all windows and taps."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings

from convgen.nests.classes import AxisClass, gather_classes
from convgen.spec import ConvSpec
from tests.programs import conv_specs


def pairs(axis: AxisClass) -> list[tuple[int, int, int]]:
    """All (result, source, tap) that a class multiplies and adds."""
    return [
        (
            axis.start + q * axis.step,
            q * axis.source_step + j * axis.tap_source_step + axis.offset,
            axis.first_tap + j * axis.tap_step,
        )
        for q in range(axis.count)
        for j in range(axis.taps)
    ]


def gathers(spec: ConvSpec) -> bool:
    """Whether results are windows: forward, or the data gradient of a transposed convolution."""
    return spec.transposed != (spec.direction == "forward")


def sizes(spec: ConvSpec, axis: int) -> tuple[int, int]:
    """The lengths of result and source."""
    forward = spec.output_size[axis], spec.spatial_size[axis]
    return forward if spec.direction == "forward" else forward[::-1]


def gather_specs(spec: ConvSpec) -> tuple[ConvSpec, ...]:
    """The directions of a problem that are gather problems."""
    plain = spec.replace(padding_mode="zeros")
    return plain.replace(direction="forward"), plain.replace(direction="backward_data")


def along(spec: ConvSpec, axis: int) -> list[AxisClass]:
    return sorted({classes[axis] for classes in gather_classes(spec)}, key=lambda c: c.start)


@settings(max_examples=150)
@given(conv_specs(epilogue=False))
def test_every_result_belongs_to_exactly_one_class(spec: ConvSpec) -> None:
    for problem in gather_specs(spec):
        for axis in range(problem.ndim):
            covered = [c.start + q * c.step for c in along(problem, axis) for q in range(c.count)]
            assert sorted(covered) == list(range(sizes(problem, axis)[0]))


@settings(max_examples=150)
@given(conv_specs(epilogue=False))
def test_classes_join_each_result_with_its_source_and_tap_once(spec: ConvSpec) -> None:
    """A window at w reads image position w * stride + tap * dilation - low."""
    for problem in gather_specs(spec):
        for axis in range(problem.ndim):
            results, sources = sizes(problem, axis)
            stride, dilation = problem.stride[axis], problem.dilation[axis]
            low, taps = problem.padding[axis][0], problem.kernel_size[axis]
            windows, image = (results, sources) if gathers(problem) else (sources, results)
            walked = Counter(
                (w, w * stride + t * dilation - low, t) for w in range(windows) for t in range(taps)
                if 0 <= w * stride + t * dilation - low < image
            )  # fmt: skip
            found = Counter(pair for c in along(problem, axis) for pair in pairs(c) if 0 <= pair[1] < sources)
            if not gathers(problem):
                found = Counter({(source, result, tap): n for (result, source, tap), n in found.items()})
            assert found == walked


@settings(max_examples=100)
@given(conv_specs(epilogue=False))
def test_lowest_and_highest_are_what_is_read(spec: ConvSpec) -> None:
    for problem in gather_specs(spec):
        for axis in range(problem.ndim):
            for found in along(problem, axis):
                read = [source for _, source, _ in pairs(found)]
                assert (found.lowest, found.highest) == ((min(read), max(read)) if read else (0, -1))


def test_classes_of_all_axes_are_combined() -> None:
    spec = ConvSpec(batch=1, in_channels=1, out_channels=1, spatial_size=(6, 6), kernel_size=3, stride=(2, 3))
    assert len(gather_classes(spec)) == 1
    assert len(gather_classes(spec.replace(direction="backward_data"))) == 6


def test_a_class_that_no_tap_reaches_has_none() -> None:
    spec = ConvSpec(
        batch=1, in_channels=1, out_channels=1, spatial_size=6, kernel_size=1, stride=3, direction="backward_data"
    )
    assert [classes[0].taps for classes in gather_classes(spec)] == [1, 0, 0]
