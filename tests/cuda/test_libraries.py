"""Operands of every library, on the driver without a device: tensors and arrays of stand-ins where the real ones need a GPU."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from convgen.cuda import DeviceArray
from convgen.cuda.libraries import library_of
from convgen.cuda.libraries.base import is_dense, stream_handle
from convgen.errors import DTypeError, OperandError
from tests.cuda.operators import operator, question

if TYPE_CHECKING:
    from tests.cuda.fake_driver import FakeDriver


@pytest.mark.parametrize(
    ("shape", "strides", "dense"),
    [
        ((2, 3), None, True),
        ((2, 3), (12, 4), True),
        ((2, 3), (4, 8), False),
        ((2, 3), (16, 4), False),
        ((1, 3), (400, 4), True),
        ((2, 0), (99, 99), True),
        ((), (), True),
    ],
)
def test_density(shape: tuple[int, ...], strides: tuple[int, ...] | None, dense: bool) -> None:
    assert is_dense(shape, strides, 4) == dense


def test_streams_of_all_libraries() -> None:
    assert stream_handle(5) == 5
    assert stream_handle(SimpleNamespace(__cuda_stream__=lambda: (0, 6))) == 6
    assert stream_handle(SimpleNamespace(cuda_stream=7)) == 7
    assert stream_handle(SimpleNamespace(ptr=8)) == 8
    assert stream_handle(SimpleNamespace(handle=SimpleNamespace(value=9))) == 9
    assert stream_handle(SimpleNamespace(handle=SimpleNamespace(value=None))) == 0
    for wrong in (True, -1, "x", None):
        with pytest.raises(OperandError, match="is no stream"):
            stream_handle(wrong)


def test_device_arrays_go_there_and_back(fake: FakeDriver) -> None:
    values = np.arange(12, dtype=np.float32).reshape(3, 4).T
    array = DeviceArray.from_host(values, device=1)
    assert np.array_equal(array.to_host(), values)
    assert (array.shape, array.dtype, array.nbytes, array.device.ordinal) == ((4, 3), "float32", 48, 1)
    facts = array.__cuda_array_interface__
    assert (facts["typestr"], facts["data"], facts["stream"]) == ("<f4", (array.address, False), 1)
    assert array.address in fake.memory
    address = array.address
    del array, facts
    assert address not in fake.memory
    with pytest.raises(DTypeError, match="array has dtype complex64"):
        DeviceArray.from_host(np.zeros(3, np.complex64))


def test_results_are_operands(fake: FakeDriver) -> None:
    op = operator()
    fake.knows(op)
    operands, expected = question(op)
    x, w = map(DeviceArray.from_host, operands.main)
    once = op(x, w)
    assert np.array_equal(once.to_host(), expected)
    assert op(once, w).to_host().shape == expected.shape


# ---- PyTorch


@pytest.fixture
def on_device(fake: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes CPU tensors say that they are on a device, where PyTorch makes its others too; records on which stream."""
    torch = pytest.importorskip("torch")
    from convgen.cuda.libraries import torch as library

    class Tensor(torch.Tensor):  # type: ignore[misc, name-defined]
        __torch_function__ = torch._C._disabled_torch_function_impl
        is_cuda = True
        device = torch.device("cuda", 0)

        def clone(self, **how: Any) -> Any:
            return place(self.as_subclass(torch.Tensor).clone(**how))

        def detach(self) -> Any:
            return self

        def resolve_neg(self) -> Any:
            return self

    streams = [SimpleNamespace(cuda_stream=31)]
    made: list[tuple[tuple[int, ...], int]] = []

    def place(tensor: Any) -> Any:
        fake.place(tensor.view(torch.uint8).numpy().reshape(-1) if tensor.numel() else np.empty(0, np.uint8))
        return tensor.as_subclass(Tensor)

    def empty(shape: tuple[int, ...], *, dtype: Any, device: str) -> Any:
        assert device == "cuda:0"
        made.append((shape, streams[-1].cuda_stream))
        return place(torch.full(shape, 0, dtype=dtype))

    @contextlib.contextmanager
    def current(stream: Any) -> Iterator[None]:
        streams.append(stream)
        yield
        streams.pop()

    cuda = SimpleNamespace(
        current_stream=lambda device: streams[-1],
        ExternalStream=lambda handle, device: SimpleNamespace(cuda_stream=handle),
        stream=current,
    )
    stand_in = SimpleNamespace(empty=empty, cuda=cuda, contiguous_format=torch.contiguous_format)
    monkeypatch.setattr(library, "torch", stand_in)
    return SimpleNamespace(place=place, made=made, torch=torch, Tensor=Tensor)


def test_tensors_give_tensors_on_the_current_stream(fake: FakeDriver, on_device: Any) -> None:
    torch = on_device.torch
    op = operator(strategy="direct", dtype="bfloat16")
    fake.knows(op)
    operands, expected = question(op)
    x, w = (on_device.place(torch.from_numpy(a.astype(np.float32)).to(torch.bfloat16)) for a in operands.main)
    result = op(x, w)
    assert type(result) is on_device.Tensor
    assert result.dtype == torch.bfloat16
    assert np.array_equal(result.as_subclass(torch.Tensor).double().numpy(), expected)
    assert {launch["stream"] for launch in fake.launches} == {31}
    # The result and the scratch memory, both PyTorch's.
    assert on_device.made == [(op.spec.result_shape, 31), ((op.workspace_bytes,), 31)]
    assert not fake.named("cuMemAlloc")
    assert not fake.named("cuStreamWaitEvent")
    packed = op.pack(w)
    op(x, packed, stream=77)
    assert {launch["stream"] for launch in fake.launches} == {31, 77}
    # The tensor is ready for PyTorch's stream; the result, made for the other, is for that.
    assert [arguments[1] for arguments in fake.named("cuEventRecord")] == [31]
    assert [arguments[0] for arguments in fake.named("cuStreamWaitEvent")] == [77]
    assert on_device.made[-1][1] == 77


def test_tensors_that_lie_otherwise_are_copied(fake: FakeDriver, on_device: Any) -> None:
    torch = on_device.torch
    op = operator()
    fake.knows(op)
    operands, expected = question(op)
    x, w = map(torch.from_numpy, operands.main)
    channels_last = w.contiguous(memory_format=torch.channels_last)
    unaligned = torch.cat((torch.zeros(1), x.reshape(-1)))[1:].view(x.shape)
    result = op(on_device.place(x.clone()), channels_last.as_subclass(on_device.Tensor))
    assert np.array_equal(result.as_subclass(torch.Tensor).numpy(), expected)
    again = op(unaligned.as_subclass(on_device.Tensor), on_device.place(w))
    assert np.array_equal(again.as_subclass(torch.Tensor).numpy(), expected)


def test_tensors_elsewhere_are_refused(fake: FakeDriver) -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(OperandError, match="input is on cpu, not on a CUDA device"):
        operator()(torch.zeros(3), torch.zeros(3))


# ---- CuPy, which cannot be imported without a device


@pytest.fixture
def cupy(fake: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module with what is asked of CuPy, over NumPy memory."""
    from tests.cuda.fake_driver import FakeArray

    module = ModuleType("cupy")
    current = [0]

    class NdArray(FakeArray):
        device = SimpleNamespace(id=0)

        @property
        def data(self) -> Any:
            return SimpleNamespace(ptr=self.array.ctypes.data)

        def copy(self, order: Any) -> Any:
            return NdArray(fake, self.array.copy(order=order))

    NdArray.__module__ = "cupy"

    @contextlib.contextmanager
    def on(stream: int, device: int) -> Iterator[None]:
        current.append(stream)
        yield
        current.pop()

    module.empty = lambda shape, dtype: NdArray(fake, np.zeros(shape, dtype), stream=current[-1])  # type: ignore[attr-defined]
    module.cuda = SimpleNamespace(  # type: ignore[attr-defined]
        get_current_stream=lambda device: SimpleNamespace(ptr=41),
        ExternalStream=on,
        Device=lambda device: contextlib.nullcontext(),
    )
    monkeypatch.setitem(sys.modules, "cupy", module)
    monkeypatch.delitem(sys.modules, "convgen.cuda.libraries.cupy", raising=False)
    yield SimpleNamespace(array=lambda array: NdArray(fake, array), kind=NdArray)
    sys.modules.pop("convgen.cuda.libraries.cupy", None)


def test_cupy_gives_cupy_on_its_stream(fake: FakeDriver, cupy: Any) -> None:
    op = operator(strategy="direct")
    fake.knows(op)
    operands, expected = question(op)
    x, w = map(cupy.array, operands.main)
    x.array = np.asfortranarray(x.array)
    result = op(x, w)
    assert type(result) is cupy.kind
    assert result.stream == 41
    assert np.array_equal(result.array, expected)
    assert {launch["stream"] for launch in fake.launches} == {41}
    assert not fake.named("cuMemAlloc")
    packed = op.pack(w)
    assert not fake.named("cuStreamWaitEvent")
    assert np.array_equal(op(x, packed, stream=43).array, expected)
    assert [arguments[1] for arguments in fake.named("cuEventRecord")] == [41]
    assert [arguments[0] for arguments in fake.named("cuStreamWaitEvent")] == [43]


# ---- anything with DLPack


class _Packed:
    """NumPy's DLPack, which says that it lies on a device; ``version`` is the newest that it knows."""

    def __init__(self, array: np.ndarray, kind: int = 2, version: int = 1) -> None:
        self.array = array
        self.version = version
        self.kind = kind
        self.streams: list[int] = []

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.kind, 0

    def __dlpack__(self, *, stream: int, **version: Any) -> Any:
        if version and not self.version:
            raise TypeError("__dlpack__() got an unexpected keyword argument 'max_version'")
        self.streams.append(stream)
        return self.array.__dlpack__(**version)


def test_dlpack(fake: FakeDriver) -> None:
    op = operator()
    fake.knows(op)
    operands, expected = question(op)
    arrays = [_Packed(array.copy()) for array in operands.main]
    for array in arrays:
        fake.place(array.array)
    result = op(*arrays)
    assert np.array_equal(result.to_host(), expected)
    assert arrays[0].streams == [1]
    assert {launch["stream"] for launch in fake.launches} == {0}
    view = library_of("x", arrays[0]).view("x", arrays[0])
    assert (view.shape, view.dtype, view.is_dense) == (arrays[0].array.shape, "float32", True)
    turned = _Packed(arrays[0].array.T)
    assert not library_of("x", turned).view("x", turned).is_dense
    with pytest.raises(OperandError, match="x is on DLPack device 1"):
        library_of("x", turned).view("x", _Packed(arrays[0].array, 1))
    with pytest.raises(DTypeError, match=r"x has dtype \(code 0, 64 bits, 1 lanes\)"):
        library_of("x", turned).view("x", _Packed(np.zeros(3, np.int64)))


@pytest.mark.parametrize("version", [0, 1])
def test_out_by_dlpack_says_that_it_may_be_written(fake: FakeDriver, version: int) -> None:
    from tests.cuda.fake_driver import FakeArray

    op = operator()
    fake.knows(op)
    operands, expected = question(op)
    homes = [FakeArray(fake, array).array for array in (*operands.main, np.zeros(expected.shape, np.float32))]
    x, w, out = (_Packed(array, version=version) for array in homes)
    if version:
        assert op(x, w, out=out) is out
        assert np.array_equal(out.array, expected)
        out.array.setflags(write=False)
    else:
        assert np.array_equal(op(x, w).to_host(), expected)
    fake.launches.clear()
    with pytest.raises(OperandError, match="out is read-only, or may be"):
        op(x, w, out=out)
    assert fake.launches == []
