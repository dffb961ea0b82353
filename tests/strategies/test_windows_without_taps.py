"""Results that lie between those that the strides reach are zeros, and windows beside the image read nothing of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import convgen
from convgen.driver import Plan
from convgen.machine import Machine
from convgen.operator import CompiledConv
from convgen.oracle import reference
from convgen.spec import ConvSpec
from convgen.strategies.registry import applicable
from convgen.verify import integer_operands

HOST = Machine.host()

# No result has a tap.
EMPTY: dict[str, dict[str, Any]] = {
    "transposed": dict(spatial_size=(2, 9), kernel_size=(1, 3), stride=(2, 1), padding=1, transposed=True),
    "gradient": dict(spatial_size=(1, 9), kernel_size=(1, 3), stride=(2, 1), padding=1, direction="backward_data"),
    "dilated gradient": dict(
        spatial_size=(1, 9), kernel_size=(2, 3), stride=(2, 1), padding=1, dilation=(2, 1), direction="backward_data"
    ),
    "volume": dict(
        spatial_size=(1, 2, 3),
        kernel_size=(1, 2, 1),
        stride=(4, 3, 4),
        padding=((4, 3), (2, 4), (1, 3)),
        groups=4,
        direction="backward_data",
    ),
    "one pixel": dict(
        in_channels=1, spatial_size=(1, 1), kernel_size=1, stride=2, padding=1, direction="backward_data"
    ),
}

# Every result has taps, all of which, or those of most results, lie beside the image.
BESIDE: dict[str, dict[str, Any]] = {
    "plane": dict(spatial_size=(1, 1), kernel_size=2, dilation=3, padding=2),
    "narrow volume": dict(spatial_size=(9, 2, 3), kernel_size=1, stride=(1, 3, 1), padding=((0, 0), (1, 1), (0, 0))),
    "thin volume": dict(spatial_size=(9, 2, 1), kernel_size=1, stride=(1, 3, 1), padding=((0, 0), (1, 1), (0, 0))),
    "rows": dict(spatial_size=(2, 9), kernel_size=(1, 3), stride=(5, 1), padding=((3, 3), (1, 1))),
}


def make_spec(**fields: Any) -> ConvSpec:
    return ConvSpec(**{**dict(batch=2, in_channels=16, out_channels=16), **fields})


@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
@pytest.mark.parametrize("fields", EMPTY.values(), ids=EMPTY)
def test_windows_without_taps_give_zeros(fields: dict[str, Any], layout: str) -> None:
    spec = make_spec(**fields, layout=layout)
    assert [strategy.name for strategy in applicable(spec, HOST)] == ["reference"]
    operands = integer_operands(spec, np.random.default_rng(0)).main
    np.testing.assert_array_equal(convgen.compile(spec)(*operands), 0)


@pytest.mark.parametrize("layout", [pytest.param("channels_first", marks=pytest.mark.slow), "channels_last"])
@pytest.mark.parametrize(
    "fields", [pytest.param(BESIDE[name], id=name, marks=pytest.mark.slow if name == "rows" else ()) for name in BESIDE]
)
def test_windows_beside_the_image_give_zeros(fields: dict[str, Any], layout: str) -> None:
    spec = make_spec(**fields, layout=layout)
    operands = integer_operands(spec, np.random.default_rng(0)).main
    want = reference(spec, *operands)
    for strategy in applicable(spec, HOST):
        for config in strategy.space(spec, HOST):
            got = CompiledConv(Plan(spec, strategy.name, config, "given"), HOST, 1)(*operands)
            np.testing.assert_allclose(got, want, atol=0.01, err_msg=f"{strategy.name} {config}")


@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
@pytest.mark.parametrize(("name", "taps"), [("winograd", 3), ("fft", 9)])
def test_fast_algorithms_read_images_of_which_windows_leave_rows_out(name: str, taps: int, layout: str) -> None:
    spec = make_spec(
        spatial_size=(9, 21), kernel_size=(1, taps), stride=(2, 1), padding=((0, 0), (taps // 2,) * 2), layout=layout
    )
    operands = integer_operands(spec, np.random.default_rng(0)).main
    want = reference(spec, *operands)
    np.testing.assert_allclose(convgen.compile(spec, name)(*operands), want, atol=0.01)
