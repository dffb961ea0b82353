"""Weight gradients by bilinear algorithms, as the interpreter runs them: exact on integers that are multiples."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from convgen.ir.check import check
from convgen.ir.interp import interpret
from convgen.nests.bilinear_weights import GradientBlocking, gradient_axes, gradient_nest
from convgen.oracle import reference
from convgen.spec import ConvSpec
from convgen.transforms.error import weight_multiple
from convgen.transforms.polyphase import spread
from convgen.transforms.toom_cook import winograd_gradient

BASE: dict[str, Any] = dict(
    batch=1,
    in_channels=3,
    out_channels=3,
    spatial_size=(3, 5),
    kernel_size=3,
    padding=1,
    layout="channels_last",
    direction="backward_weights",
)
PROBLEMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "no padding": dict(padding=0, batch=2),
    "cropped": dict(padding=((-1, 2), (0, 1))),
    "reflect": dict(padding_mode="reflect"),
    "circular": dict(padding_mode="circular", batch=2),
    "one axis": dict(kernel_size=(1, 3), padding=(0, 1)),
    "line": dict(spatial_size=(9,), kernel_size=(3,)),
    "volume": dict(spatial_size=(2, 2, 3), kernel_size=(2, 1, 3), padding=(0, 0, 1)),
    "strided": dict(stride=2),
    "uneven strides": dict(stride=(1, 3), kernel_size=(2, 4), padding=1),
    "transposed": dict(transposed=True, stride=2, kernel_size=4, spatial_size=(3, 2)),
    "channels first": dict(layout="channels_first"),
    "dilated": dict(dilation=2, padding=2, spatial_size=(5, 7)),
    "dilated with a stride": dict(dilation=(2, 3), stride=(4, 2), padding=(1, 3), spatial_size=(9, 10)),
    "dilated, channels first": dict(dilation=2, padding=1, spatial_size=(5, 6), layout="channels_first"),
    "groups": dict(groups=2, in_channels=4, out_channels=10),
    "groups, channels first": dict(groups=2, in_channels=6, out_channels=4, layout="channels_first"),
    "groups, transposed": dict(groups=2, in_channels=4, out_channels=6, transposed=True, stride=2),
}
# Blocks of 2 tiles: a last one that is not whole, and shares with different numbers of blocks.
BLOCKINGS = {
    "fused": GradientBlocking(2, 2, 2, 1, 2, 1, 2, fused=True),
    "whole": GradientBlocking(1, 4, 2, 1, 2, 1, 2, fused=False),
    "fused, shared": GradientBlocking(2, 2, 1, 2, 2, 2, 2, fused=True),
    "whole, shared": GradientBlocking(3, 2, 1, 1, 1, 2, 2, fused=False),
}


@pytest.mark.parametrize("blocking", BLOCKINGS.values(), ids=BLOCKINGS)
@pytest.mark.parametrize("fields", PROBLEMS.values(), ids=PROBLEMS)
def test_gradients_are_exact(fields: dict[str, Any], blocking: GradientBlocking) -> None:
    """Tasks run in random order, from memory full of NaN."""
    spec = ConvSpec(**{**BASE, **fields})
    algorithms = [
        spread(winograd_gradient, axis.taps, min(2, axis.longest_run), axis.spaced_step) for axis in gradient_axes(spec)
    ]
    tiles = spec.batch * math.prod(
        axis.interleaved * -(-axis.longest_run // algorithm.taps)
        for axis, algorithm in zip(gradient_axes(spec), algorithms, strict=True)
    )
    if tiles < 2 * blocking.shares:
        blocking = replace(blocking, tiles=1)
    nest = gradient_nest(spec, algorithms, blocking)
    check(nest.program)
    rng = np.random.default_rng(0)
    multiple = math.prod(map(weight_multiple, algorithms)) * 2**spec.ndim * 3**spec.ndim
    arrays = {name: rng.integers(-3, 4, shape).astype(np.float32) for name, shape in spec.operand_shapes.items()}
    arrays["grad_output"] *= multiple
    memory = interpret(nest.program, nest.sizes, arrays, shuffle=rng)
    result = memory["grad_weight"].reshape(spec.result_shape)
    np.testing.assert_array_equal(np.round(result / multiple) * multiple, reference(spec, *arrays.values()))
    assert np.abs(np.round(result / multiple) * multiple - result).max() < 1e-3
