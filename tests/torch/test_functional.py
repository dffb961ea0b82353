"""The functions: PyTorch's numbers, strides and gradients, and nothing that watches a call is passed by."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import convgen
from convgen.errors import ConvgenError, DTypeError, OperandError, ShapeError, SpecError

torch = pytest.importorskip("torch")
import convgen.torch as ct  # noqa: E402
from tests.torch.operands import FORMATS, PROBLEMS, integers, operands  # noqa: E402

SLOW = (torch.float64, torch.float16)
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize(
    "dtype", [pytest.param(dtype, marks=pytest.mark.slow if dtype in SLOW else ()) for dtype in DTYPES], ids=str
)
def test_integers_are_exact(name: str, dtype: Any) -> None:
    problem = PROBLEMS[name]
    x, w, b = operands(problem, dtype)
    expected = problem.theirs(x.double(), w.double(), b.double())
    # Sums up to 256 are bfloat16's, and the others' are larger.
    assert expected.abs().max() <= 256
    for bias in (None, b):
        result = problem.ours(x, w, bias)
        assert result.dtype == dtype
        exact = problem.theirs(x.double(), w.double(), None if bias is None else bias.double())
        assert torch.equal(result.double(), exact)


@pytest.mark.parametrize("name", ["2d", "2d pointwise", "2d depthwise", "transposed 2d"])
@pytest.mark.parametrize("memory_format", FORMATS)
def test_the_memory_format_is_kept(name: str, memory_format: str) -> None:
    problem = PROBLEMS[name]
    x, w, b = operands(problem)
    x = x.contiguous(memory_format=FORMATS[memory_format]).requires_grad_()
    result = problem.ours(x, w, b)
    assert result.is_contiguous(memory_format=FORMATS[memory_format])
    expected = problem.theirs(x, w, b)
    assert torch.equal(result, expected)
    grad = integers(tuple(result.shape), seed=4).contiguous(memory_format=FORMATS[memory_format])
    (ours,), (theirs,) = (torch.autograd.grad(y, x, grad) for y in (result, expected))
    assert torch.equal(ours, theirs)
    assert ours.is_contiguous(memory_format=FORMATS[memory_format])


def test_a_sequence_with_its_channels_last_is_read_in_place() -> None:
    problem = PROBLEMS["1d"]
    x, w, b = operands(problem)
    turned = x.transpose(1, 2).contiguous().transpose(1, 2)
    result = problem.ours(turned, w, b)
    assert torch.equal(result, problem.theirs(x, w, b))
    assert result.transpose(1, 2).is_contiguous()


@pytest.mark.parametrize("view", ["expanded", "sliced", "reversed axes"])
def test_other_strides_are_copied(view: str) -> None:
    problem = PROBLEMS["2d"]
    x, w, b = operands(problem)
    match view:
        case "expanded":
            x = x[:1].expand(3, *x.shape[1:])
        case "sliced":
            x, w = x[:, :, ::2], w.flip(0)[::1]
        case _:
            x = x.permute(0, 1, 3, 2)
    assert torch.equal(problem.ours(x, w, b), problem.theirs(x, w, b))


@pytest.mark.parametrize("name", ["2d", "transposed 1d"])
def test_an_image_may_have_no_batch(name: str) -> None:
    problem = PROBLEMS[name]
    x, w, b = operands(problem)
    assert torch.equal(problem.ours(x[0], w, b), problem.theirs(x[0], w, b))


@pytest.mark.parametrize("name", ["1d", "2d", "3d"])
def test_an_image_without_a_batch_may_be_a_view(name: str) -> None:
    problem = PROBLEMS[name]
    x, w, b = operands(problem)
    turned = x[0].movedim(0, -1).contiguous().movedim(-1, 0)
    assert not turned.is_contiguous()
    assert torch.equal(problem.ours(turned, w, b), problem.theirs(turned, w, b))


def test_negative_views_are_resolved() -> None:
    x, w, b = operands(PROBLEMS["2d"])
    expected = torch.nn.functional.conv2d(-x, -w, -b)
    assert torch.equal(ct.conv2d(*map(torch._neg_view, (x, w, b))), expected)


def test_what_was_called_before_does_not_matter() -> None:
    x, w, b = operands(PROBLEMS["2d"])
    ct.conv2d(x, w, b, stride=1)
    with pytest.raises(ShapeError):
        ct.conv1d(x, w, b)
    with pytest.raises(SpecError, match=r"stride=1\.0"):
        ct.conv2d(x, w, b, stride=1.0)  # type: ignore[arg-type]


def test_a_call_is_remembered_for_what_it_is() -> None:
    x, w, b = operands(PROBLEMS["2d"])
    for _ in range(2):
        assert torch.equal(ct.conv2d(x, w, b, padding=1), torch.nn.functional.conv2d(x, w, b, padding=1))
        assert torch.equal(ct.conv2d(x, w, None, padding=1), torch.nn.functional.conv2d(x, w, None, padding=1))
        assert torch.equal(ct.conv2d(x, w, b, padding=[1, 0]), torch.nn.functional.conv2d(x, w, b, padding=(1, 0)))
    turned = w.permute(0, 1, 3, 2)
    assert torch.equal(ct.conv2d(x, turned, b, padding=1), torch.nn.functional.conv2d(x, turned, b, padding=1))
    spread = torch.stack([b, b + 1], dim=1)[:, 0]
    assert torch.equal(ct.conv2d(x, w, spread, padding=1), torch.nn.functional.conv2d(x, w, b, padding=1))


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_padding_modes(mode: str) -> None:
    x, w, _ = operands(PROBLEMS["2d"])
    padded = torch.nn.functional.pad(x, (1, 1, 1, 1), mode=mode)
    result = ct.conv2d(x, w, padding=1, padding_mode=mode)
    assert torch.equal(result, torch.nn.functional.conv2d(padded, w))


def test_accuracy_is_passed_on() -> None:
    generator = torch.Generator().manual_seed(0)
    x, w = torch.randn(1, 32, 24, 24, generator=generator), torch.randn(32, 32, 3, 3, generator=generator)
    exact = torch.nn.functional.conv2d(x.double(), w.double())
    strict, fast, number = (ct.conv2d(x, w, accuracy=a).double() for a in ("strict", "fast", 1e-5))
    errors = [float((y - exact).norm() / exact.norm()) for y in (strict, fast, number)]
    assert errors[0] < 1e-6
    assert max(errors[1:]) < 1e-5


# ---- gradients


@pytest.mark.parametrize("name", PROBLEMS)
def test_gradients_of_integers_are_exact(name: str) -> None:
    problem = PROBLEMS[name]
    tensors = [t.requires_grad_() for t in operands(problem)]
    ours, theirs = problem.ours(*tensors), problem.theirs(*tensors)
    grad = integers(tuple(ours.shape), seed=3)
    for mine, other in zip(*(torch.autograd.grad(y, tensors, grad) for y in (ours, theirs)), strict=True):
        assert torch.equal(mine, other)


@pytest.mark.parametrize("name", ["2d strided groups", "2d depthwise", "transposed 2d", "1d"])
def test_first_and_second_derivatives(name: str) -> None:
    problem = PROBLEMS[name]
    tensors = [t.requires_grad_() for t in operands(problem, torch.float64)]
    assert torch.autograd.gradcheck(problem.ours, tensors, fast_mode=True)
    assert torch.autograd.gradgradcheck(problem.ours, tensors, fast_mode=True)


@pytest.mark.parametrize("name", ["2d", "transposed 2d"])
def test_the_dispatchers_derivatives(name: str) -> None:
    problem = PROBLEMS[name]
    tensors = [t.requires_grad_() for t in operands(problem, torch.float64)]

    def through_the_dispatcher(*given: Any) -> Any:
        with _Watching():
            return problem.ours(*given)

    assert torch.autograd.gradcheck(through_the_dispatcher, tensors, fast_mode=True)
    assert torch.autograd.gradgradcheck(through_the_dispatcher, tensors, fast_mode=True)


class _Watching(torch.overrides.TorchFunctionMode):  # type: ignore[name-defined]
    """A mode that changes nothing; that it is there sends calls through the dispatcher."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["2d strided groups", "transposed 2d"])
def test_opcheck(name: str) -> None:
    from convgen.torch.functional import geometry_of

    problem = PROBLEMS[name]
    x, w, b = (t.requires_grad_() for t in operands(problem, torch.float64))
    options = problem.options
    transposed = problem.function.startswith("conv_transpose")
    how = (options.get("stride", 1), options.get("padding", 0), 1, options.get("groups", 1), transposed)
    geometry = [list(v) if isinstance(v, tuple) else v for v in geometry_of(tuple(w.shape[2:]), how)]
    y = problem.theirs(x, w, b).detach().requires_grad_()
    ops = torch.ops.convgen
    for op, operator_operands in (
        (ops.convolution, (x, w, b)),
        (ops.convolution_input_grad, (y, w, list(x.shape))),
        (ops.convolution_weight_grad, (x, y, list(w.shape))),
    ):
        found = torch.library.opcheck(op.default, (*operator_operands, *geometry))
        assert set(found.values()) == {"SUCCESS"}


# ---- what may watch a call


@pytest.mark.parametrize("needs_grad", [False, True])
def test_autocast(needs_grad: bool) -> None:
    x, w, b = operands(PROBLEMS["2d"])
    w.requires_grad_(needs_grad)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = ct.conv2d(x, w, b, padding=1)
    assert result.dtype == torch.bfloat16
    if needs_grad:
        result.sum().backward()
        assert w.grad is not None
        assert w.grad.dtype == torch.float32


def test_a_fake_tensor_gets_a_fake_result() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        x = torch.empty(2, 4, 8, 8).to(memory_format=torch.channels_last)
        y = ct.conv2d(x, torch.empty(6, 4, 3, 3), stride=2, padding=1)
        assert tuple(y.shape) == (2, 6, 4, 4)
        assert y.is_contiguous(memory_format=torch.channels_last)
    assert ct.conv2d(torch.empty(1, 4, 8, 8, device="meta"), torch.empty(6, 4, 3, 3, device="meta")).is_meta


@pytest.mark.parametrize("name", ["2d", "2d strided groups", "transposed 2d"])
def test_transforms_of_functions(name: str) -> None:
    problem = PROBLEMS[name]
    tensors = operands(problem)
    tangents = tuple(integers(tuple(t.shape), seed=7) for t in tensors)
    for ours, theirs in zip(
        *(torch.func.jvp(call, tensors, tangents) for call in (problem.ours, problem.theirs)), strict=True
    ):
        assert torch.equal(ours, theirs)
    x, w, b = tensors
    images = torch.stack([x, x + 1])
    assert torch.equal(
        torch.func.vmap(lambda i: problem.ours(i, w, b))(images), torch.stack([problem.theirs(i, w, b) for i in images])
    )

    def loss(call: Any) -> Any:
        return lambda weight, image: call(image[None], weight, b).square().sum()

    # Gradients sample by sample, and a Hessian times a vector.
    each = [torch.func.vmap(torch.func.grad(loss(call)), (None, 0))(w, x) for call in (problem.ours, problem.theirs)]
    assert torch.equal(*each)
    twice = [
        torch.func.jvp(torch.func.grad(lambda v, call=call: loss(call)(v, x[0])), (w,), (tangents[1],))[1]
        for call in (problem.ours, problem.theirs)
    ]
    assert torch.equal(*twice)


def test_a_subclass_sees_the_operator() -> None:
    seen = []

    class Logged(torch.Tensor):  # type: ignore[name-defined]
        @classmethod
        def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(function)
            return super().__torch_function__(function, types, args, kwargs or {})

    x, w, b = operands(PROBLEMS["2d"])
    result = ct.conv2d(x.as_subclass(Logged), w, b)
    assert type(result) is Logged
    assert any("convolution" in str(function) for function in seen)


def test_the_threads_are_pytorchs() -> None:
    from convgen.kept_operators import _operators

    x, w, _ = integers((1, 5, 9, 9)), integers((7, 5, 3, 3)), None
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            ct.conv2d(x, w)
            assert threads in {key[2] for key in _operators if key[0] == "torch"}
    finally:
        torch.set_num_threads(before)


def test_autotune_finds_what_calls_then_use() -> None:
    from convgen.kept_operators import _operators

    x, w = integers((1, 5, 10, 9)), integers((8, 5, 3, 3))
    with convgen.autotune(budget=2.0):
        tuned = ct.conv2d(x, w)
    assert torch.equal(tuned, torch.nn.functional.conv2d(x, w))
    origins = [op.plan.origin for op, _ in _operators.values() if op.spec.spatial_size == (10, 9)]
    assert origins
    assert set(origins) <= {"tuned", "database"}
    assert torch.equal(ct.conv2d(x, w), tuned)


# ---- errors

X, W = torch.zeros(1, 4, 5, 5), torch.zeros(6, 4, 3, 3)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: ct.conv2d(X.numpy(), W), OperandError, "input is a ndarray"),
        (lambda: ct.conv2d(X, W[0]), ShapeError, "weight has shape"),
        (lambda: ct.conv2d(X[0, 0], W), ShapeError, "input has shape"),
        (lambda: ct.conv2d(X, W.double()), DTypeError, "weight has dtype torch.float64"),
        (lambda: ct.conv2d(X.int(), W.int()), DTypeError, "torch.int32"),
        (lambda: ct.conv2d(X, W, torch.zeros(5)), ShapeError, "bias has shape"),
        (lambda: ct.conv2d(X, W, torch.zeros(6).double()), DTypeError, "bias has dtype"),
        (lambda: ct.conv2d(X[:, :3].contiguous(), W), ShapeError, "weight has shape"),
        (lambda: ct.conv2d(X, W, groups=3), ConvgenError, "groups"),
        (lambda: ct.conv2d(X, W, stride=0), SpecError, "stride"),
        (lambda: ct.conv2d(X, W, stride=(1, 2, 3)), SpecError, "stride"),
        (lambda: ct.conv2d(X, W, padding="full"), SpecError, "padding"),
        (lambda: ct.conv2d(X, W, padding=-1), SpecError, "padding=-1"),
        (lambda: ct.conv2d(X, W, stride=2, padding="same"), SpecError, "same"),
        (lambda: ct.conv2d(X, W, accuracy="best"), ConvgenError, "accuracy"),
        (lambda: ct.conv2d(X, torch.zeros(6, 4, 7, 7)), ConvgenError, "kernel_size"),
    ],
)
def test_bad_input_is_named(call: Any, error: type[Exception], text: str) -> None:
    for _ in range(2):
        with pytest.raises(error, match=text):
            call()


def test_an_empty_batch() -> None:
    x = X[:0].clone().requires_grad_()
    w = W.clone().requires_grad_()
    y = ct.conv2d(x, w, padding=1)
    assert tuple(y.shape) == (0, 6, 5, 5)
    y.sum().backward()
    np.testing.assert_array_equal(w.grad, 0)


# ---- PyTorch's own samples


def _samples(name: str) -> list[tuple[Any, Any]]:
    pytest.importorskip("expecttest")
    database = pytest.importorskip("torch.testing._internal.common_methods_invocations").op_db
    (entry,) = [op for op in database if op.name == f"nn.functional.{name}"]
    torch.manual_seed(0)
    return [(entry, sample) for sample in entry.sample_inputs("cpu", torch.float64, requires_grad=True)]


@pytest.mark.parametrize(
    "name",
    [
        "conv1d",
        pytest.param("conv2d", marks=pytest.mark.slow),
        pytest.param("conv3d", marks=pytest.mark.slow),
        "conv_transpose1d",
        pytest.param("conv_transpose2d", marks=pytest.mark.slow),
        pytest.param("conv_transpose3d", marks=pytest.mark.slow),
    ],
)
def test_pytorchs_samples(name: str) -> None:
    for entry, sample in _samples(name):
        tensors = [t for t in (sample.input, *sample.args[:2]) if t is not None]
        ours = getattr(ct, name)(sample.input, *sample.args, **sample.kwargs)
        theirs = entry.op(sample.input, *sample.args, **sample.kwargs)
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
        grad = torch.randn_like(theirs)
        for mine, other in zip(*(torch.autograd.grad(y, tensors, grad) for y in (ours, theirs)), strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-10, atol=1e-9)
