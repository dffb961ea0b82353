"""Gates A, B and C of the strategies for GPUs: their PTX is run by the interpreter, so that no device is needed."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from convgen.dtypes import OPERAND_DTYPES
from convgen.gpu import Gpu
from convgen.spec import DIRECTIONS, LAYOUTS, ConvSpec
from convgen.strategies.cuda.base import GpuStrategy
from convgen.strategies.cuda.registry import GPU_STRATEGIES, gpu_strategy_named
from convgen.verify import normal_operands
from tests.strategies.cuda.problems import GPU, OLD_GPU, compiled, complaints, complaints_of_all_directions, geometry

# What a change of a strategy is tested with at once; the others are slow.
QUICK = {
    ("depthwise", "channels_last", "float32"),
    ("implicit_gemm", "channels_last", "bfloat16"),
    ("direct", "channels_last", "int8"),
    ("reference", "channels_first", "float16"),
    ("fft", "channels_last", "float32"),
    ("pointwise", "channels_first", "bfloat16"),
    ("pointwise", "channels_last", "float32"),
}


def _product() -> list[Any]:
    """Every strategy, layout and type that it does not refuse; each strategy sees every geometry that suits it."""
    found = []
    for (s, strategy), (d, dtype), (a, layout) in itertools.product(
        enumerate(GPU_STRATEGIES), enumerate(OPERAND_DTYPES), enumerate(LAYOUTS)
    ):
        key = (strategy.name, layout, dtype)
        marks = () if key in QUICK else pytest.mark.slow
        if strategy.refusal(geometry(strategy, 0, layout=layout, dtype=dtype), GPU) is not None:
            continue
        spec = geometry(strategy, 2 * d + a + 3 * s, layout=layout, dtype=dtype)
        found.append(pytest.param(strategy, spec, id=f"{'-'.join(key)}-{spec}".replace(" ", "-"), marks=marks))
    return found


def test_every_type_that_a_strategy_is_for_is_there() -> None:
    """Fast algorithms are for floating point; nothing else is left out."""
    found = {(param.values[0].name, param.values[1].layout, param.values[1].dtype) for param in _product()}
    exact = ("depthwise", "pointwise", "implicit_gemm", "direct", "reference")
    assert set(itertools.product(exact, LAYOUTS, OPERAND_DTYPES)) <= found
    assert {name for name, _, _ in found} == {strategy.name for strategy in GPU_STRATEGIES}
    assert found >= QUICK


@pytest.mark.parametrize(("strategy", "spec"), _product())
def test_every_strategy_in_every_direction_layout_and_type(strategy: GpuStrategy, spec: ConvSpec) -> None:
    assert strategy.refusal(spec, GPU) is None
    assert not complaints_of_all_directions(spec, strategy.name)


_LAST: dict[str, Any] = dict(batch=1, layout="channels_last", in_channels=32, out_channels=24, spatial_size=(4, 5))
WIDE = ConvSpec(**_LAST, kernel_size=3, padding=1)
LONG = ConvSpec(**{**_LAST, "spatial_size": (17, 18)}, kernel_size=2, direction="backward_weights")
SHORT = ConvSpec(**{**_LAST, "in_channels": 5, "out_channels": 9}, kernel_size=2, dilation=2, padding=((1, 0), (0, 1)))
FIRST = WIDE.replace(layout="channels_first")
HALF = "bfloat16"

# Tiles that are ragged in rows, in columns and in the sum; sums in parts; copies one, two and three iterations ahead.
GEMMS: dict[str, tuple[ConvSpec, Gpu, dict[str, int]]] = {
    "one stage": (WIDE, GPU, dict(stages=1, rows=16, cols=16, depth=16)),
    "two stages": (WIDE, GPU, dict(stages=2, rows=16, cols=16, depth=8)),
    "three stages": (FIRST, GPU, dict(stages=3, rows=16, cols=16, depth=16)),
    "wide tiles": (FIRST, GPU, dict(stages=2, rows=32, cols=32, depth=8)),
    "ragged": (SHORT, GPU, dict(stages=3, rows=16, cols=16, depth=16)),
    "parts of a sum": (WIDE, GPU, dict(split=2, stages=3, rows=16, cols=16)),
    "parts of a gradient": (LONG, GPU, dict(split=2, stages=2, rows=16, cols=16)),
    "matrix units": (WIDE.replace(dtype=HALF), GPU, dict(matrix=1, stages=1, rows=16, cols=16, depth=32)),
    "matrix units, two stages": (WIDE.replace(dtype="float16"), GPU, dict(matrix=1, stages=2, rows=32, cols=32)),
    "matrix units, three stages": (FIRST.replace(dtype=HALF), GPU, dict(matrix=1, stages=3, rows=16, cols=16, depth=64)),
    "matrix units, ragged": (SHORT.replace(dtype="float16"), GPU, dict(matrix=1, stages=3, rows=16, cols=16, depth=32)),
    "matrix units, parts": (LONG.replace(dtype=HALF), GPU, dict(matrix=1, split=2, stages=3, rows=32, cols=32, depth=32)),
    "matrix units, several warps": (LONG.replace(dtype=HALF), GPU, dict(matrix=1, split=1, stages=2, rows=32, cols=64)),
    "rounded to TF32": (WIDE.replace(accuracy=1e-2), GPU, dict(matrix=1, stages=2, rows=16, cols=16, depth=32)),
    "rounded to TF32, parts": (LONG.replace(accuracy=1e-2), GPU, dict(matrix=1, split=2, stages=3, rows=32, cols=32)),
    "rounded to TF32, ragged": (SHORT.replace(accuracy=1e-2), GPU, dict(matrix=1, stages=1, rows=16, cols=16)),
    "no matrix units": (WIDE.replace(dtype=HALF), GPU, dict(matrix=0, stages=2, rows=16, cols=16, depth=8)),
    "no copies ahead": (WIDE.replace(dtype="float16"), OLD_GPU, dict(rows=16, cols=16, depth=8)),
}  # fmt: skip
# The others are slow.
QUICK_GEMMS = {
    "one stage",
    "ragged",
    "parts of a sum",
    "matrix units",
    "matrix units, ragged",
    "matrix units, parts",
} | {"rounded to TF32"}


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in QUICK_GEMMS else pytest.mark.slow) for n in GEMMS])
def test_choices_of_the_matrix_product(name: str) -> None:
    spec, gpu, choices = GEMMS[name]
    space = gpu_strategy_named("implicit_gemm").space(spec, gpu)
    config = next(config for config in space if choices.items() <= dict(config.values).items())
    assert not complaints(compiled(spec, "implicit_gemm", gpu, config), seed=1)


EPILOGUE = ("bias", "scale", "residual", "relu6", "shift")
FUSED: dict[str, tuple[str, ConvSpec]] = {
    "direct": ("direct", WIDE.replace(in_channels=3, epilogue=EPILOGUE)),
    "direct, channels_first": ("direct", FIRST.replace(in_channels=3, out_channels=5, epilogue=("residual", "silu"))),
    "depthwise": ("depthwise", WIDE.replace(in_channels=8, out_channels=8, groups=8, epilogue=EPILOGUE)),
    "depthwise, bfloat16": (
        "depthwise",
        FIRST.replace(in_channels=8, out_channels=8, groups=8, dtype=HALF, epilogue=("bias", "gelu")),
    ),
    "implicit_gemm": ("implicit_gemm", WIDE.replace(in_channels=4, epilogue=EPILOGUE)),
    "implicit_gemm, parts": ("implicit_gemm", WIDE.replace(epilogue=("bias", "leaky_relu", "residual"))),
    "matrix units": ("implicit_gemm", WIDE.replace(dtype=HALF, in_channels=8, epilogue=EPILOGUE)),
    "bytes": ("direct", WIDE.replace(dtype="int8", in_channels=3, epilogue=("bias", "relu", "requantize"))),
    "reference": ("reference", FIRST.replace(in_channels=2, epilogue=("sigmoid", "scale", "tanh", "hardswish"))),
}
QUICK_FUSED = {"direct", "depthwise", "matrix units", "bytes"}


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in QUICK_FUSED else pytest.mark.slow) for n in FUSED])
def test_epilogues_are_fused(name: str) -> None:
    strategy, spec = FUSED[name]
    space = gpu_strategy_named(strategy).space(spec, GPU)
    config = next((config for config in space if config.get("split", 1) > 1), None) if "parts" in name else space[0]
    assert config is not None
    op = compiled(spec, strategy, config=config)
    assert not complaints(op)
    assert op.plan.strategy == strategy


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["depthwise", "direct"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_every_tile_of_threads(strategy: str, layout: str, direction: str) -> None:
    """All configurations of a row that no tile of pixels divides, for channels that vectors divide."""
    spec = ConvSpec(
        **{**_LAST, "spatial_size": (3, 9), "in_channels": 8, "out_channels": 8}, kernel_size=(2, 3), padding=1
    )
    spec = spec.replace(layout=layout, direction=direction, groups=8 if strategy == "depthwise" else 2, stride=(1, 2))
    chosen = gpu_strategy_named(strategy)
    if chosen.refusal(spec, GPU) is not None:
        assert (strategy, direction) == ("direct", "backward_weights")
        return
    for config in chosen.space(spec, GPU):
        assert not complaints(compiled(spec, strategy, config=config)), config


def test_results_do_not_depend_on_the_order_of_warps() -> None:
    """Parts of sums are added in order: every seed gives the same bits."""
    spec, gpu, choices = GEMMS["parts of a sum"]
    space = gpu_strategy_named("implicit_gemm").space(spec, gpu)
    op = compiled(spec, "implicit_gemm", gpu, next(c for c in space if choices.items() <= dict(c.values).items()))
    operands = normal_operands(spec, np.random.default_rng(0)).main
    first, second = (op.interpret(*operands, seed=seed) for seed in (1, 2))
    np.testing.assert_array_equal(first, second)


def test_strict_float32_uses_no_matrix_units() -> None:
    spec = WIDE.replace(accuracy="strict")
    space = gpu_strategy_named("implicit_gemm").space(spec, GPU)
    assert not any(config["matrix"] for config in space)
    assert "mma.sync" not in compiled(spec, "implicit_gemm").ptx
