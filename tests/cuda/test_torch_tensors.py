"""convgen.torch on CUDA tensors: registered where PyTorch has no device, and whole on the driver without one."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import convgen
from convgen import choices
from convgen.choices import TunedPlan
from convgen.cuda import CudaConv
from convgen.cuda.calls import PackedCudaWeights
from convgen.cuda.libraries.base import View
from convgen.cuda.plans import plan_cuda
from convgen.driver import Plan
from convgen.errors import DeviceError, MissingDependencyError, NotApplicable, OperandError, ShapeError
from convgen.gpu import Gpu, gpu_of
from convgen.kept_operators import _operators, clear_operators
from convgen.spec import ConvSpec
from convgen.targets.cuda import driver
from convgen.tuning.database import Database

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

import convgen.torch as ct  # noqa: E402
from convgen.cuda import kept_operators, results  # noqa: E402
from convgen.cuda.device import device_numbered  # noqa: E402
from convgen.cuda.libraries import torch as library  # noqa: E402
from convgen.torch import devices  # noqa: E402
from tests.torch.operands import FORMATS, PROBLEMS, integers, operands  # noqa: E402

if TYPE_CHECKING:
    from tests.cuda.fake_driver import FakeDriver

STREAM = 31
NAMES = ("convolution", "convolution_input_grad", "convolution_weight_grad")


@pytest.fixture(autouse=True)
def _own_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    database = Database(tmp_path / "tuning.sqlite")
    for module in (choices, results):
        monkeypatch.setattr(module, "database", lambda: database)
    monkeypatch.setattr(kept_operators, "_too_large", set())
    clear_operators()
    yield
    clear_operators()


@pytest.fixture
def posing(learning: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> Any:
    """CPU tensors pass for those of device 0, on a stream that may be changed; ``copied`` has the names of those that were."""
    pose = SimpleNamespace(fake=learning, stream=STREAM, copied=[])

    def place(tensor: Any) -> Any:
        learning.place(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy() if tensor.numel() else _NONE)
        return tensor

    class Posing(library.Torch):
        def view(self, name: str, array: Any) -> View:
            dense = array.is_contiguous()
            if dense:
                place(array)
            dtype = library._NAMES[array.dtype]
            return View(array.data_ptr(), tuple(array.shape), dtype, dense, array, 0, stream=pose.stream)

        def current_stream(self, array: Any, device: int) -> int:
            return pose.stream

        def empty(self, shape: tuple[int, ...], dtype: str, device: int, stream: int) -> Any:
            return place(torch.empty(shape, dtype=library._TYPES[dtype]))

        def dense(self, name: str, array: Any, device: int, stream: int) -> Any:
            pose.copied.append(name)
            return array.detach().clone(memory_format=torch.contiguous_format)

    from convgen.torch import gpu_operators

    for module in (library, gpu_operators):
        monkeypatch.setattr(module, "LIBRARY", Posing())
    monkeypatch.setattr(devices, "gpu_of", lambda tensor: 0)
    return pose


_NONE = np.empty(0, np.uint8)


# ---- what needs no device


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("key", ["CPU", "CUDA", "AutocastCPU", "AutocastCUDA"])
def test_operators_have_kernels(name: str, key: str) -> None:
    assert torch._C._dispatch_has_kernel_for_dispatch_key(f"convgen::{name}", key)


@pytest.fixture
def without_data() -> Iterator[None]:
    """Tensors of a device that are only shapes."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        yield


@pytest.mark.parametrize("name", ["1d", "2d", "3d", "transposed 2d"])
@pytest.mark.parametrize("memory_format", FORMATS)
def test_tensors_without_data_have_shapes_strides_and_devices(
    name: str, memory_format: str, without_data: None
) -> None:
    problem = PROBLEMS[name]
    shapes = (problem.image, problem.weight, (problem.out_channels,))
    kind = FORMATS[memory_format if len(problem.image) == 4 else "channels_first"]
    x, w, b = (torch.empty(shape, device="cuda") for shape in shapes)
    y = problem.ours(torch.empty_like(x, memory_format=kind), w, b)
    assert y.device == torch.device("cuda", 0)
    assert y.shape == problem.theirs(*(torch.empty(shape) for shape in shapes)).shape
    assert y.is_contiguous(memory_format=kind)


def test_gradients_without_data(without_data: None) -> None:
    x = torch.empty(1, 4, 5, 5, device="cuda", memory_format=torch.channels_last)
    w = torch.empty(6, 4, 3, 3, device="cuda")
    y = torch.ops.convgen.convolution(x, w, None, *_geometry())
    of_x = torch.ops.convgen.convolution_input_grad(y, w, x.shape, *_geometry())
    of_w = torch.ops.convgen.convolution_weight_grad(x, y, w.shape, *_geometry())
    for mine, operand in ((of_x, x), (of_w, w)):
        assert (mine.shape, mine.stride(), mine.device) == (operand.shape, operand.stride(), operand.device)


def test_autocast_is_that_of_the_device(without_data: None) -> None:
    x, w = torch.empty(1, 4, 5, 5, device="cuda"), torch.empty(6, 4, 3, 3, device="cuda")
    before = torch.is_autocast_enabled("cuda")
    try:
        torch.set_autocast_enabled("cuda", True)
        assert ct.conv2d(x, w).dtype == torch.get_autocast_dtype("cuda") != torch.float32
        assert ct.conv2d(x.cpu(), w.cpu()).dtype == torch.float32
    finally:
        torch.set_autocast_enabled("cuda", before)


def test_tensors_on_several_devices_are_named() -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda", 1)
    with pytest.raises(OperandError, match="weight is on cpu; allowed: cuda:1, as input is"):
        devices.check_together(input=SimpleNamespace(device=gpu), bias=None, weight=SimpleNamespace(device=cpu))
    devices.check_together(input=SimpleNamespace(device=gpu), bias=None)


def test_calls_on_several_devices_go_through_the_dispatcher(without_data: None) -> None:
    from convgen.torch.functional import is_watched

    x, w = torch.empty(1, 4, 5, 5), torch.empty(6, 4, 3, 3, device="cuda")
    plain = [SimpleNamespace(is_neg=lambda: False, is_cpu=t.is_cpu, is_cuda=t.is_cuda) for t in (x, w)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("convgen.torch.functional._PLAIN_TYPES", {SimpleNamespace})
        patch.setattr("convgen.torch.functional._dispatch_modes", lambda: 0)
        assert is_watched(*plain)
        assert not is_watched(plain[0])
        assert not is_watched(plain[1])


def test_without_the_extra_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "gpu_of", lambda tensor: 0)
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    driver.driver.cache_clear()
    device_numbered.cache_clear()
    with pytest.raises(MissingDependencyError, match=r"pip install 'convgen\[cuda\]'"):
        ct.conv2d(torch.zeros(1, 4, 5, 5), torch.zeros(6, 4, 3, 3))


def test_layers_on_devices_are_eligible(without_data: None) -> None:
    model = nn.Sequential(*(kind(4, 8, 3, device="meta") for kind in (nn.Conv2d, nn.ConvTranspose1d)))
    for layer in model:
        layer.weight = nn.Parameter(torch.empty(layer.weight.shape, device="cuda"))
    ct.convert_(model)
    assert [type(layer) for layer in model] == [ct.Conv2d, ct.ConvTranspose1d]


# ---- whole calls


QUICK = {"1d", "2d depthwise", "transposed 2d"}


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in PROBLEMS])
def test_numbers_and_gradients_are_pytorchs(name: str, posing: Any) -> None:
    problem = PROBLEMS[name]
    x, w, b = (tensor.requires_grad_() for tensor in operands(problem))
    ours, theirs = problem.ours(x, w, b, accuracy="strict"), problem.theirs(x, w, b)
    assert torch.equal(ours, theirs)
    grad = integers(tuple(theirs.shape), seed=5)
    for mine, other in zip(*(torch.autograd.grad(y, (x, w, b), grad) for y in (ours, theirs)), strict=True):
        assert torch.equal(mine, other)
    assert all(isinstance(op, CudaConv) for op, _ in _operators.values())
    assert {launch["stream"] for launch in posing.fake.launches} == {STREAM}
    assert not posing.fake.named("cuMemAlloc")
    assert not posing.copied


@pytest.mark.parametrize("memory_format", FORMATS)
def test_images_are_read_and_written_where_they_lie(memory_format: str, posing: Any) -> None:
    problem = PROBLEMS["2d"]
    x, w, b = operands(problem, torch.bfloat16)
    x = x.contiguous(memory_format=FORMATS[memory_format]).requires_grad_()
    y = problem.ours(x, w, b)
    assert y.is_contiguous(memory_format=FORMATS[memory_format])
    assert torch.equal(y.double(), problem.theirs(x.double(), w.double(), b.double()))
    values = {value for launch in posing.fake.launches for value in launch["values"]}
    assert {x.data_ptr(), b.data_ptr(), y.data_ptr()} <= values
    (grad,) = torch.autograd.grad(y, x, torch.ones_like(y))
    assert grad.is_contiguous(memory_format=FORMATS[memory_format])
    assert not posing.copied


def test_the_dispatcher_leads_to_the_same_kernels(posing: Any) -> None:
    problem = PROBLEMS["2d pointwise"]
    x, w, b = operands(problem)
    expected = problem.ours(x, w, b)
    count = len(_operators)
    compiled = torch.compile(problem.ours, fullgraph=True, backend="eager")
    assert torch.equal(compiled(x, w, b), expected)
    assert len(_operators) == count
    with torch.autocast("cpu", torch.bfloat16):
        assert problem.ours(x, w, b).dtype == torch.bfloat16
    with pytest.raises(ShapeError, match="weight has shape"):
        torch.ops.convgen.convolution(x, w[:, :3], b, *_geometry())


def _geometry() -> tuple[Any, ...]:
    return (1, 1), (0, 0, 0, 0), (1, 1), False, (0, 0), 1, "zeros", "fast"


def test_what_follows_a_convolution_is_fused(posing: Any) -> None:
    class Residual(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(8, 8, 1)

        def forward(self, x: Any) -> Any:
            return torch.relu(self.conv(x) + x)

    model = Residual().eval()
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            parameter.copy_(integers(tuple(parameter.shape), seed=number))
        x = integers((2, 8, 3, 3), seed=7).contiguous(memory_format=torch.channels_last)
        expected = model(x)
        assert torch.equal(ct.convert_(model)(x), expected)
    ((op, _),) = _operators.values()
    assert op.spec.epilogue.steps == ("bias", "residual", "relu")


# ---- packed weights


@pytest.fixture
def packs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The streams on which weights are packed."""
    found: list[int] = []
    pack = CudaConv.pack

    def counted(self: CudaConv, weight: Any, *, stream: Any = None) -> PackedCudaWeights:
        found.append(stream)
        return pack(self, weight, stream=stream)

    monkeypatch.setattr(CudaConv, "pack", counted)
    return found


def test_weights_are_packed_once_a_version_and_stream(posing: Any, packs: list[int]) -> None:
    layer = ct.Conv2d(4, 4, 3, bias=False).eval()
    layer.accuracy = "strict"

    def check(size: int = 5) -> None:
        x = integers((1, 4, size, 5), seed=1)
        assert torch.equal(layer(x), nn.functional.conv2d(x, layer.weight))

    with torch.no_grad():
        layer.weight.copy_(integers((4, 4, 3, 3)))
        for _ in range(2):
            check()
        assert packs == [STREAM]
        layer.weight.add_(1)
        check()
        assert packs == [STREAM] * 2
        # Another size of the image, read by kernels of the same layout.
        check(6)
        assert packs == [STREAM] * 2
        posing.stream = 32
        check()
        check()
        assert packs == [STREAM, STREAM, 32]
        layer.weight.data = layer.weight.data + 1
        check()
        assert packs == [STREAM, STREAM, 32, 32]
    assert not posing.copied


def test_while_a_graph_is_captured_weights_are_packed_in_it(posing: Any, packs: list[int]) -> None:
    layer = ct.Conv2d(4, 4, 3, bias=False).eval()
    x = integers((1, 4, 5, 5))
    with torch.no_grad():
        expected = layer(x)
        posing.fake.capturing.add(STREAM)
        posing.fake.calls.clear()
        for _ in range(2):
            assert torch.equal(layer(x), expected)
    assert packs == [STREAM]
    names = {name for name, _ in posing.fake.calls}
    assert not names & {"cuMemAlloc", "cuMemFree", "cuStreamSynchronize", "cuCtxSynchronize", "cuLibraryLoadData"}


# ---- which kernels


class _Tuner:
    """In the place of the tuner: chooses the reference, or says what ``fails``."""

    def __init__(self) -> None:
        self.asked: list[ConvSpec] = []
        self.fails = ""

    def __call__(self, spec: ConvSpec, budget: float, *, device: int) -> TunedPlan:
        assert budget > 0
        self.asked.append(spec)
        if self.fails:
            raise DeviceError("cuMemAlloc", self.fails, "it does")
        plan = plan_cuda(spec, gpu_of("9.0"), "reference")
        return TunedPlan(Plan(spec, plan.strategy, plan.config, "database", 1.0), 1.0, 1.0, 0.0, ())


@pytest.fixture
def tuner(monkeypatch: pytest.MonkeyPatch) -> _Tuner:
    found = _Tuner()
    monkeypatch.setattr(kept_operators, "tune", found)
    return found


def _chosen() -> list[tuple[str, str]]:
    return [(op.plan.strategy, op.plan.origin) for op, _ in _operators.values()]


def test_autotune_tunes_for_the_device_and_its_gradients_in_other_threads(posing: Any, tuner: _Tuner) -> None:
    x, w = integers((1, 4, 5, 5)).requires_grad_(), integers((4, 4, 3, 3)).requires_grad_()
    ct.conv2d(x, w)
    assert tuner.asked == []
    assert [origin for _, origin in _chosen()] == ["heuristic"]
    with convgen.autotune(60.0):
        y = ct.conv2d(x, w)
        assert [spec.direction for spec in tuner.asked] == ["forward"]
        backward = threading.Thread(target=lambda: y.sum().backward())
        backward.start()
        backward.join()
    assert sorted(spec.direction for spec in tuner.asked[1:]) == ["backward_data", "backward_weights"]
    assert _chosen() == [("reference", "database")] * 3
    ct.conv2d(x, w).sum().backward()
    assert len(tuner.asked) == 3


def test_gradients_after_the_block_are_not_tuned(posing: Any, tuner: _Tuner) -> None:
    x, w = integers((1, 4, 5, 5)).requires_grad_(), integers((4, 4, 3, 3))
    with convgen.autotune(60.0):
        y = ct.conv2d(x, w)
    y.sum().backward()
    assert [spec.direction for spec in tuner.asked] == ["forward"]


def test_nothing_is_measured_while_a_graph_is_captured(posing: Any, tuner: _Tuner) -> None:
    x, w = integers((1, 4, 5, 5)), integers((4, 4, 3, 3))
    ct.conv2d(x, w)
    posing.fake.capturing.add(STREAM)
    with convgen.autotune(60.0):
        ct.conv2d(x, w)
    assert tuner.asked == []
    assert len(_operators) == 1


def test_what_has_no_room_to_be_measured_is_not_tried_again(posing: Any, tuner: _Tuner) -> None:
    x, w = integers((1, 4, 5, 5)), integers((4, 4, 3, 3))
    tuner.fails = "CUDA_ERROR_OUT_OF_MEMORY"
    with convgen.autotune(60.0):
        for _ in range(3):
            ct.conv2d(x, w)
    assert len(tuner.asked) == 1
    assert [origin for _, origin in _chosen()] == ["heuristic"]
    tuner.fails = "CUDA_ERROR_ILLEGAL_ADDRESS"
    with convgen.autotune(60.0), pytest.raises(DeviceError, match="CUDA_ERROR_ILLEGAL_ADDRESS"):
        ct.conv2d(x[:, :, 1:].contiguous(), w)


@pytest.mark.parametrize("mode", ["lookup", "off"])
def test_what_tuning_found_takes_the_place_of_the_heuristics(
    posing: Any, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.setenv("CONVGEN_TUNE", mode)
    x, w = integers((1, 4, 5, 5)), integers((4, 4, 3, 3))
    ct.conv2d(x, w)
    ((op, _),) = _operators.values()
    found = TunedPlan(plan_cuda(op.spec, op.gpu, "reference"), 1.0, 1.0, 0.0, ())
    results.store_result(found, device_numbered().facts)
    ct.conv2d(x, w)
    assert _chosen() == [("reference", "database") if mode == "lookup" else (op.plan.strategy, "heuristic")]


def test_what_no_strategy_has_a_kernel_for_is_the_references(posing: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing(CudaConv):
        def __init__(self, plan: Plan, gpu: Gpu) -> None:
            if plan.strategy != "reference":
                raise NotApplicable("it shares more than there is")
            super().__init__(plan, gpu)

    monkeypatch.setattr(kept_operators, "CudaConv", Refusing)
    x, w = integers((1, 4, 5, 5)), integers((4, 4, 3, 3))
    assert torch.equal(ct.conv2d(x, w), nn.functional.conv2d(x, w))
    assert [strategy for strategy, _ in _chosen()] == ["reference"]


def test_an_empty_batch_on_a_device(posing: Any) -> None:
    x, w = torch.zeros(0, 4, 5, 5, requires_grad=True), torch.ones(6, 4, 3, 3, requires_grad=True)
    y = ct.conv2d(x, w)
    assert tuple(y.shape) == (0, 6, 3, 3)
    y.sum().backward()
    assert not w.grad.any()
    assert x.grad.shape == x.shape
