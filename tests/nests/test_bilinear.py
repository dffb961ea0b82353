"""Programs by bilinear algorithms, as the interpreter runs them: exact on integers whose weights are multiples."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from convgen.ir.check import check
from convgen.ir.interp import interpret
from convgen.nests.bilinear import Blocking, ClassTiling, bilinear_nest
from convgen.nests.build import unfolded_problem
from convgen.nests.classes import AxisClass, gather_classes
from convgen.oracle import reference
from convgen.spec import ConvSpec
from convgen.transforms.bilinear import AxisAlgorithm
from convgen.transforms.error import weight_multiple
from convgen.transforms.fourier import fourier
from convgen.transforms.polyphase import strided
from convgen.transforms.toom_cook import winograd

BASE: dict[str, Any] = dict(
    batch=1, in_channels=2, out_channels=3, spatial_size=(3, 4), kernel_size=3, padding=1, layout="channels_last"
)
PROBLEMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "no padding": dict(padding=0, batch=2),
    "one channel": dict(in_channels=1, out_channels=1),
    "cropped": dict(padding=((-1, 2), (0, 1))),
    "reflect": dict(padding_mode="reflect"),
    "one axis": dict(kernel_size=(1, 3), padding=(0, 1)),
    "line": dict(spatial_size=(9,), kernel_size=(3,)),
    "volume": dict(spatial_size=(2, 2, 3), kernel_size=(2, 1, 3), padding=(0, 0, 1), batch=1),
    "strided": dict(stride=2),
    "uneven strides": dict(stride=(1, 3), kernel_size=(2, 4), padding=1),
    "gradient": dict(direction="backward_data"),
    "strided gradient": dict(direction="backward_data", stride=2),
    "transposed": dict(transposed=True, stride=2, kernel_size=4, spatial_size=(2, 2)),
    "holes": dict(transposed=True, stride=3, kernel_size=2, padding=0, spatial_size=(2, 3)),
    "epilogue": dict(epilogue=("bias", "relu", "residual")),
    "circular gradient": dict(direction="backward_data", padding_mode="circular"),
    "channels first": dict(layout="channels_first"),
    "dilated": dict(dilation=2, padding=2, spatial_size=(5, 7)),
    "unevenly dilated": dict(dilation=(1, 3), padding=(0, 2), spatial_size=(4, 9), batch=2),
    "dilated with a stride": dict(dilation=(2, 3), stride=(4, 2), padding=(1, 3), spatial_size=(9, 10)),
    "dilated, reflect": dict(dilation=2, padding=2, spatial_size=(5, 4), padding_mode="reflect"),
    "dilated, channels first": dict(dilation=2, padding=1, spatial_size=(5, 6), layout="channels_first"),
    "dilated gradient": dict(direction="backward_data", dilation=2, spatial_size=(5, 7), padding=1),
    "dilated, transposed": dict(transposed=True, stride=2, dilation=3, spatial_size=(3, 2), padding=2),
    "groups": dict(groups=2, in_channels=4, out_channels=6),
    "groups with one channel each": dict(groups=2, in_channels=2, out_channels=6, epilogue=("bias", "relu")),
    "groups, channels first": dict(groups=2, in_channels=4, out_channels=6, layout="channels_first", dilation=2),
    "groups of a gradient": dict(groups=2, in_channels=4, out_channels=6, direction="backward_data", stride=2),
    "groups, transposed": dict(groups=2, in_channels=4, out_channels=6, transposed=True, stride=2, kernel_size=4),
}


def along(m: int, axis: AxisClass) -> AxisAlgorithm:
    return strided(winograd, min(m, axis.longest_run), axis.taps, axis.spaced_step)


def tilings(spec: ConvSpec, m: int, block: int) -> list[ClassTiling]:
    found = []
    for axes in gather_classes(unfolded_problem(spec)):
        if not all(axis.taps for axis in axes):
            found.append(ClassTiling((), 0))
            continue
        algorithms = tuple(along(m, axis) for axis in axes)
        tiles = (axis.interleaved * -(-axis.longest_run // a.outputs) for axis, a in zip(axes, algorithms, strict=True))
        found.append(ClassTiling(algorithms, min(block, spec.batch * math.prod(tiles))))
    return found


def interpreted(spec: ConvSpec, tiling: list[ClassTiling], blocking: Blocking, multiple: int) -> tuple[np.ndarray, ...]:
    """(the program's result, the oracle's) on small integers; tasks run in random order."""
    nest = bilinear_nest(spec, tiling, blocking)
    check(nest.program)
    rng = np.random.default_rng(0)
    arrays = {
        name: rng.integers(-3, 4, shape).astype(np.float32) * (multiple if name == "weight" else 1)
        for name, shape in spec.operand_shapes.items()
    }
    memory = interpret(nest.program, nest.sizes, arrays, shuffle=rng)
    (result,) = [memory[buffer.name] for buffer in nest.program.buffers if buffer.space == "result"]
    main = [arrays[name] for name in list(arrays)[:2]]
    extras = {name: array for name, array in arrays.items() if name in spec.epilogue.operands}
    return result.reshape(spec.result_shape), reference(spec, *main, **extras)


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "whole"])
@pytest.mark.parametrize("fields", PROBLEMS.values(), ids=PROBLEMS)
def test_winograd_is_exact(fields: dict[str, Any], fused: bool) -> None:
    spec = ConvSpec(**{**BASE, **fields})
    found = tilings(spec, 2, 3)
    multiple = math.lcm(*(math.prod(map(weight_multiple, one.algorithms)) for one in found))
    result, want = interpreted(spec, found, Blocking(2, 2, 2, fused), multiple)
    np.testing.assert_array_equal(result, want)


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "whole"])
def test_fourier_is_exact_after_rounding(fused: bool) -> None:
    spec = ConvSpec(**{**BASE, "spatial_size": (7,), "kernel_size": (5,), "padding": (2,)})
    result, want = interpreted(spec, [ClassTiling((fourier(4, 5, 8),), 2)], Blocking(2, 4, 2, fused), 1)
    np.testing.assert_array_equal(np.round(result), want)


def test_points_lie_in_different_sets_of_the_cache() -> None:
    spec = ConvSpec(**{**BASE, "in_channels": 16})
    nest = bilinear_nest(spec, tilings(spec, 2, 4), Blocking(16, 16, 16, True))
    memory = interpret(nest.program, nest.sizes, {n: np.zeros(s) for n, s in spec.operand_shapes.items()})
    assert memory["v"].shape[-1] * 4 % 4096 == 4 * 16 * 4 + 64
