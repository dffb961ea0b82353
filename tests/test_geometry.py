"""Compiled kernels of every geometry, in all directions, against the oracle: gates A, B and C, by strategy."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import convgen
from convgen import driver
from convgen.driver import Plan, algorithms_of_plan
from convgen.machine import Machine
from convgen.operator import CompiledConv
from convgen.oracle import reference
from convgen.spec import ACTIVATIONS, DIRECTIONS, LAYOUTS, ConvSpec, Epilogue
from convgen.strategies.registry import applicable
from convgen.verify import gate_c, normal_operands
from tests import corpus

STRATEGIES = ("direct", "reference")

# How many rows of each covering array are not marked slow; the first ones cover the most.
QUICK_PLAIN, QUICK_TRANSPOSED = 4, 2

# Orders in which an epilogue's operands and activations may come.
EPILOGUES = (
    ("bias",),
    ("bias", "relu"),
    ("scale", "shift", "relu"),
    ("bias", "residual", "relu6"),
    ("relu", "residual"),
    ("residual", "scale", "bias", "shift", "hardswish"),
    ("shift", "sigmoid", "scale", "tanh", "residual", "bias"),
)


def parameters() -> list[Any]:
    """Every problem of the corpus, all but the first of each kind marked slow."""
    found = []
    for transposed, quick in ((False, QUICK_PLAIN), (True, QUICK_TRANSPOSED)):
        for place, problem in enumerate(corpus.problems(transposed=transposed)):
            marks = () if place < quick else (pytest.mark.slow,)
            found.append(pytest.param(problem, id=problem.name, marks=marks))
    return found


@pytest.fixture
def _small_problems_in_parallel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets problems of this size run on more than one thread."""
    monkeypatch.setattr(driver, "MIN_PARALLEL_MACS", 0)


def make_spec(**fields: Any) -> ConvSpec:
    base: dict[str, Any] = dict(batch=2, in_channels=5, out_channels=19, spatial_size=(7, 9), kernel_size=3, padding=1)
    return ConvSpec(**{**base, **fields})


@pytest.mark.parametrize("transposed", [False, True])
def test_the_corpus_holds_every_pair_of_values(transposed: bool) -> None:
    factors = corpus.TRANSPOSED if transposed else corpus.PLAIN
    covered = set().union(*map(corpus.pairs, corpus.covering_array(factors)))
    for first, second in itertools.combinations(sorted(factors), 2):
        for a, b in itertools.product(factors[first], factors[second]):
            assert ((first, a), (second, b)) in covered


@pytest.mark.usefixtures("_small_problems_in_parallel")
@pytest.mark.parametrize("problem", parameters())
def test_gates(problem: corpus.Problem) -> None:
    """Batches of 3 and 1 on one and two threads; a batch of 0 gives an empty result or a gradient of zeros."""
    assert corpus.complaints(problem.spec, problem.strategy, threads=2) == []
    single = problem.spec.replace(batch=1)
    assert corpus.complaints(single, problem.strategy, threads=1, seed=1) == []
    for op in corpus.compile_directions(problem.spec.replace(batch=0), problem.strategy, threads=2):
        result = op(*normal_operands(op.spec, np.random.default_rng(2)).main)
        assert result.shape == op.spec.result_shape
        assert not result.any()


@pytest.mark.slow
@pytest.mark.usefixtures("_small_problems_in_parallel")
@pytest.mark.parametrize(
    "spec",
    [
        pytest.param(problem.spec, id=problem.name)
        for transposed in (False, True)
        for problem in corpus.problems(transposed=transposed)
    ],
)
def test_every_strategy_passes_the_gates_on_the_corpus(spec: ConvSpec) -> None:
    """Each that applies, in all directions; gate C with the reference's or direct's where a strategy does not have them all."""
    machine = Machine.host()
    forward, backward, weights = (
        {strategy.name: convgen.compile(problem, strategy.name, 2) for strategy in applicable(problem, machine)}
        for problem in (spec.replace(direction=direction) for direction in DIRECTIONS)
    )
    for op in (*forward.values(), *backward.values(), *weights.values()):
        assert corpus.passes(op) == [], f"{op.spec} {op.plan}"
    plain = convgen.compile(spec.replace(direction="backward_weights", accuracy="strict"), threads=2)
    for name in (forward.keys() & backward.keys()) | weights.keys():
        trio = (
            forward.get(name, forward["reference"]),
            backward.get(name, backward["reference"]),
            weights.get(name, plain),
        )
        rounded = any(algorithms_of_plan(op.plan) for op in trio)
        found = gate_c(spec, *trio, np.random.default_rng(1), rounded=rounded)
        assert found.ok, f"{name}: {found.reason}"


# Problems that the fast algorithms, the depthwise kernels and those of narrow types take: plain, strided, transposed, of one to
# three axes.
FAVOURED: dict[str, dict[str, Any]] = {
    "3x3": {},
    "3x3 float64": dict(dtype="float64", out_channels=33),
    "3x3 bfloat16": dict(dtype="bfloat16", in_channels=12),
    "3x3 float16": dict(dtype="float16"),
    "3x3 int8": dict(dtype="int8", in_channels=12),
    "1x1 bfloat16": dict(kernel_size=1, padding=0, dtype="bfloat16", in_channels=32),
    "1x1 int8": dict(kernel_size=1, padding=0, dtype="int8", in_channels=32, stride=2),
    "depthwise 3x3 bfloat16": dict(in_channels=19, groups=19, dtype="bfloat16"),
    "depthwise 3x3 int8": dict(in_channels=19, groups=19, dtype="int8", stride=2),
    "5x5 reflect": dict(kernel_size=5, padding=2, padding_mode="reflect"),
    "3x3 stride 2": dict(stride=2),
    "4x4 transposed": dict(kernel_size=4, stride=2, transposed=True),
    "1x1 stride 2": dict(kernel_size=1, padding=0, stride=2),
    "9 taps": dict(spatial_size=40, kernel_size=9, padding=4),
    "3x3x3": dict(spatial_size=(4, 5, 6)),
    "depthwise 5x5 float64": dict(in_channels=19, groups=19, kernel_size=5, padding=2, dtype="float64"),
    "depthwise circular": dict(in_channels=19, groups=19, padding_mode="circular", stride=2),
    "dilated": dict(dilation=2, padding=2),
    "dilated, stride 2": dict(dilation=3, padding=3, stride=2),
    "groups of 4": dict(in_channels=20, out_channels=20, groups=5),
    "groups of 8, stride 2": dict(in_channels=32, out_channels=32, groups=4, stride=2),
    "groups of 16 to 8": dict(in_channels=48, out_channels=24, groups=3, kernel_size=5, padding=2),
    "multiplier 2": dict(in_channels=9, out_channels=18, groups=9),
    "three made": dict(in_channels=64, out_channels=3),
    "line": dict(spatial_size=(40,), kernel_size=9, padding=8),
}


@pytest.mark.slow
@pytest.mark.usefixtures("_small_problems_in_parallel")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("fields", FAVOURED.values(), ids=FAVOURED)
def test_every_strategy_passes_the_gates(fields: dict[str, Any], layout: str) -> None:
    """Each strategy that applies, in all directions, with its two first configurations."""
    for direction in DIRECTIONS:
        spec = make_spec(**fields, layout=layout, direction=direction)
        for strategy in applicable(spec, Machine.host()):
            for config in strategy.space(spec, Machine.host())[:2]:
                op = CompiledConv(Plan(spec, strategy.name, config, "given"), Machine.host(), 2)
                assert corpus.passes(op) == [], f"{spec} {strategy.name} {config}"


@pytest.mark.usefixtures("_small_problems_in_parallel")
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_results_do_not_depend_on_the_number_of_threads(direction: str) -> None:
    for more in (dict(), dict(layout="channels_last", groups=2, in_channels=6, out_channels=34), dict(stride=2)):
        spec = make_spec(direction=direction, batch=3, **more)
        operands = normal_operands(spec, np.random.default_rng(3)).main
        results = []
        for threads in (1, 2, 3):
            op = convgen.compile(spec, "direct", threads)
            assert op.threads == threads
            results.append(op(*operands))
        for result in results[1:]:
            np.testing.assert_array_equal(result, results[0])


@pytest.mark.parametrize(
    ("layout", "direction"),
    [
        pytest.param(layout, direction, marks=() if direction == "backward_weights" else pytest.mark.slow)
        for layout in LAYOUTS
        for direction in DIRECTIONS
    ],
)
def test_channels_around_the_vector_width(layout: str, direction: str) -> None:
    """One kernel per number of channels summed; the number made is a run-time size."""
    made, summed = ("in_channels", "out_channels") if direction == "backward_data" else ("out_channels", "in_channels")
    for count in (1, 3, 15, 16, 17, 24, 31, 33, 65):
        spec = make_spec(layout=layout, direction=direction, **{made: count, summed: 3})
        assert corpus.passes(convgen.compile(spec, "direct")) == [], spec


@pytest.mark.parametrize(
    ("steps", "layout", "strategy"),
    [
        pytest.param(steps, layout, strategy, marks=() if place % 4 == 0 else pytest.mark.slow)
        for place, (steps, layout, strategy) in enumerate(itertools.product(EPILOGUES, LAYOUTS, STRATEGIES))
    ],
)
def test_epilogues(steps: tuple[str, ...], layout: str, strategy: str) -> None:
    spec = make_spec(layout=layout, epilogue=steps)
    assert corpus.passes(convgen.compile(spec, strategy)) == []


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=pytest.mark.slow)])
def test_activations(activation: str, dtype: str) -> None:
    epilogue = Epilogue(("bias", activation), negative_slope=0.3)
    for strategy, layout in zip(STRATEGIES, LAYOUTS, strict=True):
        spec = make_spec(dtype=dtype, layout=layout, epilogue=epilogue)
        assert corpus.passes(convgen.compile(spec, strategy)) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [
        dict(kernel_size=1, padding=0),
        dict(groups=5, out_channels=5),
        dict(transposed=True, stride=2),
    ],
    ids=["pointwise", "depthwise", "transposed"],
)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_epilogues_of_special_geometries(layout: str, more: dict[str, Any]) -> None:
    for steps in (("bias", "silu"), ("scale", "residual", "relu")):
        spec = make_spec(layout=layout, epilogue=steps, **more)
        assert corpus.passes(convgen.compile(spec, "direct")) == []


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int8"])
def test_narrow_types(dtype: str, strategy: str) -> None:
    assert corpus.complaints(make_spec(dtype=dtype, layout="channels_last"), strategy) == []
    with_epilogue = make_spec(dtype=dtype, epilogue=("bias", "residual", "relu"))
    assert corpus.passes(convgen.compile(with_epilogue, strategy)) == []
    depthwise = make_spec(dtype=dtype, groups=5, out_channels=5, stride=2)
    assert corpus.passes(convgen.compile(depthwise, strategy)) == []


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int8"])
def test_one_problem_of_every_narrow_type(dtype: str) -> None:
    spec = make_spec(dtype=dtype, layout="channels_last", padding=0, epilogue=("bias", "relu"))
    assert corpus.passes(convgen.compile(spec, "direct")) == []


@pytest.mark.parametrize("strategy", ["auto", "reference"])
def test_no_input_channels_give_the_bias(strategy: str) -> None:
    spec = make_spec(in_channels=0, epilogue=("bias",))
    bias = np.arange(19, dtype=np.float32)
    image, weight = (np.empty(shape, np.float32) for shape in (spec.input_shape, spec.weight_shape))
    result = convgen.compile(spec, strategy)(image, weight, bias)
    np.testing.assert_array_equal(result, np.broadcast_to(bias[:, None, None], spec.output_shape))


def test_a_network_sized_layer_sums_in_the_promised_order_of_error() -> None:
    spec = make_spec(batch=1, in_channels=256, out_channels=70, spatial_size=(14, 14), layout="channels_last")
    op = convgen.compile(spec, "direct", threads=2)
    assert op.threads == 2
    assert corpus.passes(op) == []
    operands = normal_operands(spec, np.random.default_rng(4)).main
    expected = reference(spec, *operands)
    error = float(np.linalg.norm(op(*operands) - expected) / np.linalg.norm(expected))
    assert error < 1e-6
