"""pointwise does the products of implicit_gemm with less arithmetic on addresses, by kernels that image sizes share."""

from __future__ import annotations

import re

import pytest

import convgen.cuda
from convgen.cuda.kernels import CudaConv
from convgen.spec import DIRECTIONS, ConvSpec
from convgen.strategies.cuda.registry import gpu_strategy_named
from tests.strategies.cuda.problems import GPU, compiled, complaints

SPEC = ConvSpec(batch=8, in_channels=96, out_channels=192, spatial_size=(28, 28), kernel_size=1)
# Integer arithmetic, comparisons and conversions of PTX.
_INTEGER = re.compile(
    r"^\s*(?:@!?%p\d+ )?(?:add|sub|mul|mad|div|rem|shl|shr|and|or|xor|setp|selp|cvt)\.\S*[subp]\d+\s", re.M
)


def _integer_instructions(op: CudaConv) -> int:
    body = op.ptx.partition(".entry conv(")[2].partition(".entry")[0]
    return len(_INTEGER.findall(body))


@pytest.mark.parametrize("dtype", [pytest.param("float32", marks=pytest.mark.slow), "bfloat16"])
@pytest.mark.parametrize(
    ("layout", "direction", "most"),
    [
        ("channels_first", "forward", 0.75),
        pytest.param("channels_first", "backward_data", 0.75, marks=pytest.mark.slow),
        ("channels_first", "backward_weights", 0.9),
        ("channels_last", "forward", 0.9),
        pytest.param("channels_last", "backward_data", 0.9, marks=pytest.mark.slow),
    ],
)
def test_addresses_take_less_arithmetic(layout: str, direction: str, most: float, dtype: str) -> None:
    spec = SPEC.replace(layout=layout, direction=direction, dtype=dtype)
    ours, plain = (convgen.cuda.compile(spec, name, capability="8.0") for name in ("pointwise", "implicit_gemm"))
    assert ours.plan.config == plain.plan.config
    assert _integer_instructions(ours) <= most * _integer_instructions(plain)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_image_sizes_share_kernels(direction: str) -> None:
    spec = SPEC.replace(layout="channels_last", direction=direction)
    other = spec.replace(batch=3, spatial_size=(7, 9))
    config = gpu_strategy_named("pointwise").default(spec, GPU)
    ours, theirs = (_stages(each, config.values) for each in (spec, other))
    assert ours == theirs


def _stages(spec: ConvSpec, values: tuple[tuple[str, int], ...]) -> list[tuple[str, ...]]:
    space = gpu_strategy_named("pointwise").space(spec, GPU)
    wanted = {name: value for name, value in values if name != "split"} | {"split": 1}
    config = next(each for each in space if dict(each.values) == wanted)
    return [
        stage.body for stage in convgen.cuda.compile(spec, "pointwise", capability="8.0", config=config)._lowered.stages
    ]


@pytest.mark.parametrize("matrix", [0, 1])
@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
def test_parts_of_a_gradient(layout: str, matrix: int) -> None:
    """Whole accesses stay whole where a sum is split."""
    spec = ConvSpec(
        batch=2,
        in_channels=16,
        out_channels=8,
        spatial_size=(12, 12),
        kernel_size=1,
        layout=layout,
        dtype="bfloat16",
        direction="backward_weights",
    )
    space = gpu_strategy_named("pointwise").space(spec, GPU)
    config = next(c for c in space if c["split"] > 1 and c["matrix"] == matrix and (c["rows"], c["cols"]) == (16, 16))
    assert not complaints(compiled(spec, "pointwise", GPU, config), seed=1)
