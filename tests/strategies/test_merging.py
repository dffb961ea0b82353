"""Problems without neighbouring pixels, as problems of fewer axes over the same memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import convgen
from convgen.oracle import reference
from convgen.spec import ConvSpec
from convgen.strategies.merging import merged_pixels
from convgen.verify import integer_operands


def make_spec(**fields: Any) -> ConvSpec:
    base: dict[str, Any] = dict(
        batch=2, in_channels=8, out_channels=12, spatial_size=(3, 5), kernel_size=1, layout="channels_first"
    )
    return ConvSpec(**{**base, **fields})


def test_axes_without_neighbours_are_one() -> None:
    merged = merged_pixels(make_spec())
    assert (merged.batch, merged.spatial_size, merged.layout) == (2, (15,), "channels_first")
    merged = merged_pixels(make_spec(layout="channels_last"))
    assert (merged.batch, merged.spatial_size) == (1, (30,))
    for fields in (dict(kernel_size=3), dict(stride=2), dict(padding=1)):
        assert merged_pixels(make_spec(**fields)) == make_spec(**fields)


def test_images_of_one_pixel_have_their_channels_last() -> None:
    merged = merged_pixels(make_spec(spatial_size=(1, 1)))
    assert (merged.batch, merged.spatial_size, merged.layout) == (1, (2,), "channels_last")
    depthwise = merged_pixels(make_spec(spatial_size=(1, 1), out_channels=8, groups=8))
    assert depthwise.layout == "channels_first"


@pytest.mark.parametrize("strategy", ["direct", "pointwise"])
@pytest.mark.parametrize(
    "fields",
    [
        dict(epilogue=("bias", "residual", "relu")),
        dict(spatial_size=(1, 1), epilogue=("bias", "residual")),
        dict(spatial_size=(1, 1), groups=4),
        dict(spatial_size=(1,), out_channels=8, groups=8),
        dict(spatial_size=(1, 1), direction="backward_data"),
    ],
    ids=["epilogue", "one pixel", "groups", "depthwise", "gradient"],
)
def test_merged_problems_are_computed_exactly(fields: dict[str, Any], strategy: str) -> None:
    spec = make_spec(**fields)
    operands = integer_operands(spec, np.random.default_rng(0))
    got = convgen.compile(spec, strategy)(*operands.main, **operands.epilogue)
    np.testing.assert_array_equal(got, reference(spec, *operands.main, **operands.epilogue))
