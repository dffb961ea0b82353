"""CompiledConv as it is called: what it accepts, what it refuses and in which words, threads, forks and special values."""

from __future__ import annotations

import multiprocessing
import threading
from typing import Any

import numpy as np
import pytest

import convgen
from convgen import driver
from convgen.errors import DTypeError, OperandError, OptionError, ShapeError, SpecError, WorkspaceLimitError
from convgen.operator import CompiledConv
from convgen.oracle import reference
from convgen.spec import ConvSpec
from convgen.strategies.registry import STRATEGIES
from convgen.verify import Run, compare_bounded, compare_exact, integer_operands, normal_operands


def make_spec(**fields: Any) -> ConvSpec:
    base: dict[str, Any] = dict(batch=2, in_channels=3, out_channels=17, spatial_size=(7, 9), kernel_size=3, padding=1)
    return ConvSpec(**{**base, **fields})


SPEC = make_spec()
RICH = make_spec(epilogue=("bias", "scale", "shift", "residual", "relu"))


@pytest.fixture(scope="module")
def op() -> CompiledConv:
    return convgen.compile(SPEC, threads=1)


@pytest.fixture(scope="module")
def rich() -> CompiledConv:
    return convgen.compile(RICH, threads=1)


@pytest.fixture(scope="module")
def arrays() -> tuple[np.ndarray, np.ndarray]:
    """Integers, so that results are known exactly."""
    first, second = integer_operands(SPEC, np.random.default_rng(0)).main
    return first, second


@pytest.fixture(scope="module")
def expected(arrays: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    return reference(SPEC, *arrays).astype(np.float32)


def strided(array: np.ndarray) -> dict[str, np.ndarray]:
    """The same numbers in every form that a kernel cannot read in place."""
    spaced = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
    spaced[..., ::2] = array
    raw = np.zeros(array.nbytes + 1, np.uint8)
    misaligned = np.ndarray(array.shape, array.dtype, buffer=raw, offset=1)
    misaligned[...] = array
    return {
        "spaced": spaced[..., ::2],
        "negative strides": np.ascontiguousarray(np.flip(array))[(slice(None, None, -1),) * array.ndim],
        "fortran order": np.asfortranarray(array),
        "misaligned": misaligned,
        "read-only": np.frombuffer(array.tobytes(), array.dtype).reshape(array.shape),
    }


FORMS = ("spaced", "negative strides", "fortran order", "misaligned", "read-only")


# ---- operands in any form


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("place", [0, 1])
def test_operands_in_any_form(
    op: CompiledConv, arrays: tuple[np.ndarray, np.ndarray], expected: np.ndarray, form: str, place: int
) -> None:
    changed = list(arrays)
    changed[place] = strided(arrays[place])[form]
    np.testing.assert_array_equal(changed[place], arrays[place])
    np.testing.assert_array_equal(op(*changed), expected)


def test_broadcast_operands(op: CompiledConv, arrays: tuple[np.ndarray, np.ndarray]) -> None:
    row = np.arange(9, dtype=np.float32)
    image = np.broadcast_to(row, SPEC.input_shape)
    np.testing.assert_array_equal(op(image, arrays[1]), reference(SPEC, image, arrays[1]))


def test_epilogue_operands_in_any_form(rich: Run) -> None:
    operands = integer_operands(RICH, np.random.default_rng(1))
    expected = reference(RICH, *operands.main, **operands.epilogue).astype(np.float32)
    for form in ("spaced", "misaligned"):
        changed = {name: strided(array)[form] for name, array in operands.epilogue.items()}
        np.testing.assert_array_equal(rich(*operands.main, **changed), expected)


# ---- out


def test_out_is_written_and_returned(
    op: CompiledConv, arrays: tuple[np.ndarray, np.ndarray], expected: np.ndarray
) -> None:
    out = np.full(SPEC.output_shape, np.nan, np.float32)
    assert op(*arrays, out=out) is out
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("form", ["spaced", "negative strides", "fortran order", "misaligned"])
def test_out_in_any_form(
    op: CompiledConv, arrays: tuple[np.ndarray, np.ndarray], expected: np.ndarray, form: str
) -> None:
    out = strided(np.zeros(SPEC.output_shape, np.float32))[form]
    assert op(*arrays, out=out) is out
    np.testing.assert_array_equal(out, expected)


def test_what_lies_between_the_elements_of_out_stays(
    op: CompiledConv, arrays: tuple[np.ndarray, np.ndarray], expected: np.ndarray
) -> None:
    whole = np.full((*SPEC.output_shape[:-1], 2 * SPEC.output_shape[-1]), 7, np.float32)
    op(*arrays, out=whole[..., ::2])
    np.testing.assert_array_equal(whole[..., ::2], expected)
    assert np.all(whole[..., 1::2] == 7)


def test_out_may_not_overlap(op: CompiledConv, arrays: tuple[np.ndarray, np.ndarray]) -> None:
    size = int(np.prod(SPEC.output_shape))
    block = np.zeros(size + 8, np.float32)
    out = block[:size].reshape(SPEC.output_shape)
    image = block[size - 1 : size].reshape(())
    with pytest.raises(OperandError, match="out overlaps input"):
        op(np.broadcast_to(image, SPEC.input_shape), arrays[1], out=out)
    image = block[8 : 8 + arrays[0].size].reshape(SPEC.input_shape)
    with pytest.raises(OperandError, match="out overlaps input"):
        op(image, arrays[1], out=out)
    weight = block[size - 8 : size - 8 + 9].reshape(3, 3)
    with pytest.raises(OperandError, match="out overlaps weight"):
        op(arrays[0], np.broadcast_to(weight, SPEC.weight_shape), out=out)


def test_neighbours_in_one_block_do_not_overlap(
    op: CompiledConv, arrays: tuple[np.ndarray, np.ndarray], expected: np.ndarray
) -> None:
    block = np.zeros(arrays[0].size + expected.size, np.float32)
    image, out = block[: arrays[0].size].reshape(SPEC.input_shape), block[arrays[0].size :].reshape(SPEC.output_shape)
    image[...] = arrays[0]
    np.testing.assert_array_equal(op(image, arrays[1], out=out), expected)


def test_residual_may_not_be_out(rich: Run) -> None:
    operands = integer_operands(RICH, np.random.default_rng(1))
    with pytest.raises(OperandError, match="out overlaps residual"):
        rich(*operands.main, **operands.epilogue, out=operands.epilogue["residual"])


# ---- refusals


OUT = np.zeros(SPEC.output_shape, np.float32)
LOCKED = OUT.copy()
LOCKED.flags.writeable = False


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (dict(first=[1.0]), OperandError, "input is a list"),
        (dict(second=3), OperandError, "weight is a int"),
        (dict(first=np.zeros((2, 3, 7, 8), np.float32)), ShapeError, r"input has shape \(2, 3, 7, 8\).*\(2, 3, 7, 9\)"),
        (dict(first=np.zeros((3, 7, 9), np.float32)), ShapeError, r"input has shape \(3, 7, 9\)"),
        (dict(second=np.zeros((17, 3, 3, 2), np.float32)), ShapeError, r"weight has shape \(17, 3, 3, 2\)"),
        (dict(first=np.zeros((2, 3, 7, 9))), DTypeError, "input has dtype float64; allowed: float32"),
        (dict(first=np.zeros((2, 3, 7, 9), ">f4")), DTypeError, "input has dtype >f4"),
        (dict(second=np.zeros((17, 3, 3, 3), np.int8)), DTypeError, "weight has dtype int8"),
        (dict(bias=np.zeros(17, np.float32)), OperandError, "bias is not part of the problem"),
        (dict(shift=np.zeros(17, np.float32)), OperandError, "shift is not part of the problem"),
        (dict(out="no"), OperandError, "out is a str"),
        (dict(out=np.zeros((2, 17, 7, 8), np.float32)), ShapeError, r"out has shape \(2, 17, 7, 8\)"),
        (dict(out=np.zeros((2, 17, 7, 9))), DTypeError, "out has dtype float64"),
        (dict(out=LOCKED), OperandError, "out is read-only"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_named(
    op: CompiledConv,
    arrays: tuple[np.ndarray, np.ndarray],
    change: dict[str, Any],
    error: type[Exception],
    words: str,
) -> None:
    arguments: dict[str, Any] = {"first": arrays[0], "second": arrays[1], **change}
    with pytest.raises(error, match=words):
        op(arguments.pop("first"), arguments.pop("second"), **arguments)


def test_missing_and_wrong_epilogue_operands(rich: Run) -> None:
    operands = integer_operands(RICH, np.random.default_rng(1))
    for name in ("bias", "residual", "scale", "shift"):
        others = {key: value for key, value in operands.epilogue.items() if key != name}
        with pytest.raises(OperandError, match=f"{name} is missing"):
            rich(*operands.main, **others)
        with pytest.raises(ShapeError, match=f"{name} has shape"):
            rich(*operands.main, **others, **{name: np.zeros((1, 2), np.float32)})
        with pytest.raises(DTypeError, match=f"{name} has dtype int32"):
            rich(*operands.main, **others, **{name: operands.epilogue[name].astype(np.int32)})


def test_a_superfluous_operand_does_not_stand_in_for_a_missing_one() -> None:
    op = convgen.compile(make_spec(epilogue=("bias",)), threads=1)
    operands = integer_operands(op.spec, np.random.default_rng(1))
    with pytest.raises(OperandError, match="bias is missing"):
        op(*operands.main, shift=operands.epilogue["bias"])


def test_compile_refuses_wrong_arguments() -> None:
    with pytest.raises(SpecError, match="spec is a str"):
        convgen.compile("mb1")  # type: ignore[arg-type]
    for threads in (0, -1, 1.5, True):
        with pytest.raises(OptionError, match=f"threads={threads}"):
            convgen.compile(SPEC, threads=threads)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="workspace_limit=-1"):
        convgen.compile(SPEC, workspace_limit=-1)
    with pytest.raises(WorkspaceLimitError, match="workspace_limit=0"):
        convgen.compile(SPEC, "direct", workspace_limit=0)


def test_a_workspace_limit_of_nothing_leaves_the_reference(arrays: tuple[np.ndarray, np.ndarray]) -> None:
    op = convgen.compile(SPEC, workspace_limit=0, threads=1)
    assert (op.plan.strategy, op.workspace_bytes) == ("reference", 0)
    np.testing.assert_array_equal(op(*arrays), reference(SPEC, *arrays))


# ---- packed weights


def test_packed_weights(op: CompiledConv, arrays: tuple[np.ndarray, np.ndarray], expected: np.ndarray) -> None:
    packed = op.pack(arrays[1])
    np.testing.assert_array_equal(op(arrays[0], packed), expected)
    out = np.empty(SPEC.output_shape, np.float32)
    np.testing.assert_array_equal(op(strided(arrays[0])["spaced"], packed, out=out), expected)
    np.testing.assert_array_equal(op(arrays[0], op.pack(strided(arrays[1])["spaced"])), expected)


def test_packed_weights_of_a_kernel_that_packs_nothing(
    arrays: tuple[np.ndarray, np.ndarray], expected: np.ndarray
) -> None:
    plain = convgen.compile(SPEC, "reference", threads=1)
    np.testing.assert_array_equal(plain(arrays[0], plain.pack(arrays[1])), expected)


def test_packed_weights_serve_another_batch(op: CompiledConv, arrays: tuple[np.ndarray, np.ndarray]) -> None:
    other = convgen.compile(SPEC.replace(batch=5), threads=1)
    image = np.ones(other.spec.input_shape, np.float32)
    np.testing.assert_array_equal(other(image, op.pack(arrays[1])), reference(other.spec, image, arrays[1]))


def test_packed_weights_of_another_operator_are_refused(
    op: CompiledConv, arrays: tuple[np.ndarray, np.ndarray]
) -> None:
    packed = convgen.compile(SPEC, "reference", threads=1).pack(arrays[1])
    with pytest.raises(OperandError, match="another operator"):
        op(arrays[0], packed)
    with pytest.raises(OperandError, match="input is packed weights"):
        op(op.pack(arrays[1]), arrays[1])  # type: ignore[arg-type]
    with pytest.raises(OperandError, match="weight cannot be packed"):
        convgen.compile(SPEC.replace(direction="backward_weights"), "reference").pack(arrays[1])
    with pytest.raises(ShapeError, match="weight has shape"):
        op.pack(arrays[1][:, :2])


# ---- threads and processes


def test_many_python_threads_at_once(op: CompiledConv, arrays: tuple[np.ndarray, np.ndarray]) -> None:
    """Each thread has its own image and checks each of its results."""
    images = [arrays[0] + np.float32(i) for i in range(8)]
    wanted = [reference(SPEC, image, arrays[1]).astype(np.float32) for image in images]
    packed = op.pack(arrays[1])
    wrong: list[int] = []
    start = threading.Barrier(len(images))

    def work(place: int) -> None:
        start.wait()
        for turn in range(40):
            weight = packed if turn % 2 else arrays[1]
            if not np.array_equal(op(images[place], weight), wanted[place]):
                wrong.append(place)

    threads = [threading.Thread(target=work, args=(place,)) for place in range(len(images))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def _child(op: CompiledConv, operands: tuple[np.ndarray, ...], results: Any) -> None:
    from convgen.runtime.threads import max_threads

    results.put((max_threads(), op(*operands)))


def test_after_a_fork_calls_are_serial_and_correct(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "MIN_PARALLEL_MACS", 0)
    op = convgen.compile(SPEC, threads=2)
    operands = integer_operands(SPEC, np.random.default_rng(5)).main
    expected = op(*operands)
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    child = context.Process(target=_child, args=(op, operands, results))
    child.start()
    threads, result = results.get(timeout=60)
    child.join(timeout=60)
    assert (child.exitcode, threads) == (0, 1)
    np.testing.assert_array_equal(result, expected)


# ---- special values


def test_subnormals_survive(op: CompiledConv) -> None:
    tiny = np.float32(1e-42)
    image = np.full(SPEC.input_shape, tiny, np.float32)
    weight = np.zeros(SPEC.weight_shape, np.float32)
    weight[:, 0, 1, 1] = 1
    np.testing.assert_array_equal(op(image, weight), np.full(SPEC.output_shape, tiny))
    assert np.float32(1e-42) * np.float32(1) == tiny


@pytest.mark.parametrize("strategy", ["direct", "reference"])
@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
def test_not_a_number_and_infinity_appear_where_a_direct_sum_has_them(layout: str, strategy: str) -> None:
    spec = make_spec(layout=layout, epilogue=("bias",))
    image, weight = (array.astype(np.float32) for array in integer_operands(spec, np.random.default_rng(6)).main)
    image[0, 1, 2, 1], image[1, 0, 5, 2] = np.nan, np.inf
    weight[3, 1, 1, 1], weight[4] = np.inf, 0
    bias = np.zeros(17, np.float32)
    bias[2] = -np.inf
    with np.errstate(invalid="ignore"):
        expected = reference(spec, image, weight, bias=bias).astype(np.float32)
    assert 0 < np.count_nonzero(np.isnan(expected)) < expected.size / 2
    comparison = compare_exact(convgen.compile(spec, strategy, threads=1)(image, weight, bias), expected)
    assert comparison.ok, comparison.reason


@pytest.mark.parametrize("activation", ["relu", "relu6", "leaky_relu", "hardswish", "silu", "sigmoid", "tanh", "gelu"])
def test_activations_of_special_values(activation: str) -> None:
    """NaN stays NaN, as in NumPy and PyTorch; far tails are finite."""
    spec = make_spec(spatial_size=(1, 4), kernel_size=1, padding=0, in_channels=1, epilogue=(activation,))
    image = np.zeros(spec.input_shape, np.float32)
    image[..., :] = [np.nan, 200.0, -200.0, 0.0]
    result = convgen.compile(spec, threads=1)(image, np.ones(spec.weight_shape, np.float32))
    assert np.all(np.isnan(result[..., 0]))
    expected = reference(spec, image, np.ones(spec.weight_shape, np.float32))
    np.testing.assert_allclose(result[..., 1:], expected[..., 1:], rtol=1e-6, atol=1e-30)


@pytest.mark.parametrize("direction", ["forward", "backward_data", "backward_weights"])
@pytest.mark.parametrize("more", [dict(), dict(layout="channels_last", stride=2), dict(padding_mode="reflect")])
def test_what_memory_held_before_does_not_matter(
    more: dict[str, Any], direction: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Result and workspace filled with NaN beforehand: nothing of it comes through."""
    made: list[np.ndarray] = []

    def poisoned(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        element = np.dtype(dtype)
        raw = np.full(int(np.prod(shape)) * element.itemsize + 64, 0xFF, np.uint8)
        made.append(raw)
        return np.ndarray(shape, element, buffer=raw, offset=-raw.ctypes.data % 64)

    monkeypatch.setattr("convgen.operator.aligned_empty", poisoned)
    monkeypatch.setattr("convgen.runtime.workspace.aligned_empty", poisoned)
    spec = make_spec(direction=direction, **more)
    op = convgen.compile(spec, "direct", threads=1)
    operands = normal_operands(spec, np.random.default_rng(7))
    out = np.full(spec.result_shape, np.nan, np.float32)
    comparison = compare_bounded(op(*operands.main, out=out), spec, operands)
    assert comparison.ok, comparison.reason
    assert bool(made) == bool(op.workspace_bytes)


# ---- what an operator says of itself


def test_attributes(op: CompiledConv) -> None:
    assert op.spec == SPEC
    assert op.plan.strategy in {strategy.name for strategy in STRATEGIES}
    assert op.plan.origin == "heuristic"
    assert op.workspace_bytes % 64 == 0
    assert "def run(" in op.source
    assert "define void @stage" in op.inspect_llvm()
    assert "stage:" in op.inspect_asm()


def test_results_are_aligned_and_new() -> None:
    spec = make_spec(spatial_size=(20, 20))
    op = convgen.compile(spec, threads=1)
    operands = integer_operands(spec, np.random.default_rng(8)).main
    first, second = op(*operands), op(*operands)
    assert first.ctypes.data % 64 == second.ctypes.data % 64 == 0
    assert not np.shares_memory(first, second)
