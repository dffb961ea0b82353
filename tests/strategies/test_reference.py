"""reference: what every other strategy falls back to needs nothing."""

from __future__ import annotations

from typing import Any

import pytest

from convgen.driver import Plan, lower
from convgen.machine import Machine
from convgen.spec import ConvSpec
from convgen.strategies.reference import Reference
from convgen.tuning.space import Config

EPILOGUE = ("bias", "scale", "shift", "residual", "gelu")


@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
@pytest.mark.parametrize("direction", ["forward", "backward_data", "backward_weights"])
@pytest.mark.parametrize(
    "fields",
    [
        {"stride": 2, "groups": 2},
        {"stride": 2, "transposed": True, "output_padding": 1},
        {"padding_mode": "reflect"},
        {"padding_mode": "circular", "stride": 2},
        {"dtype": "bfloat16"},
    ],
    ids=["strided", "transposed", "reflect", "circular", "bfloat16"],
)
def test_no_scratch_memory(fields: dict[str, Any], direction: str, layout: str) -> None:
    base: dict[str, Any] = dict(batch=2, in_channels=4, out_channels=6, spatial_size=(5, 6), kernel_size=3, padding=1)
    spec = ConvSpec(**base, **fields, direction=direction, layout=layout)
    if direction == "forward":
        spec = spec.replace(epilogue=EPILOGUE)
    assert lower(Plan(spec, Reference().name, Config(), "given"), Machine.host()).scratch_bytes == 0
