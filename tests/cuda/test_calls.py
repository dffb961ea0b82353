"""Whole calls, on a driver that runs launches in the interpreter."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import convgen.cuda
from convgen.cuda import CudaConv, DeviceArray
from convgen.cuda.device import Device, device_numbered
from convgen.errors import DeviceError, DTypeError, NotApplicable, OperandError, ShapeError
from convgen.gpu import gpu_of
from convgen.spec import ConvSpec, Epilogue
from convgen.strategies.cuda.registry import gpu_strategy_named
from tests.cuda.operators import operator, question

if TYPE_CHECKING:
    from tests.cuda.fake_driver import FakeDriver


def _arrays(fake: FakeDriver, op: CudaConv, **how: Any) -> tuple[list[Any], np.ndarray]:
    """The main operands on the fake device and the expected result; the driver knows the operator's kernels."""
    from tests.cuda.fake_driver import FakeArray

    fake.knows(op)
    operands, expected = question(op)
    return [FakeArray(fake, array, **how) for array in operands.main], expected


@pytest.mark.parametrize("direction", ["forward", "backward_data", "backward_weights"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_call_computes_the_problem(fake: FakeDriver, direction: str, dtype: str) -> None:
    op = operator(direction, dtype=dtype)
    (first, second), expected = _arrays(fake, op)
    result = op(first, second)
    assert isinstance(result, DeviceArray)
    assert np.array_equal(result.to_host(), expected.astype(result.to_host().dtype))
    assert [launch["blocks"] for launch in fake.launches] == [launch.blocks for launch in op._lowered.launches()]


def test_packed_weights_are_packed_once(fake: FakeDriver) -> None:
    op = operator(strategy="direct")
    (x, w), expected = _arrays(fake, op)
    packed = op.pack(w)
    assert packed.nbytes == op._lowered.packed_bytes > 0
    packing = [launch["name"] for launch in fake.launches]
    assert packing
    for _ in range(2):
        fake.launches.clear()
        assert np.array_equal(op(x, packed).to_host(), expected)
        assert not set(packing) & {launch["name"] for launch in fake.launches}


def test_packed_weights_are_this_operators(fake: FakeDriver) -> None:
    op, other = operator(strategy="direct"), operator(strategy="reference")
    (x, w), _ = _arrays(fake, op)
    fake.knows(other)
    with pytest.raises(OperandError, match="weight was packed by another operator"):
        op(x, other.pack(w))
    with pytest.raises(OperandError, match="a weight gradient has no weights"):
        operator("backward_weights").pack(w)


def test_the_epilogue_reaches_the_kernels(fake: FakeDriver) -> None:
    from tests.cuda.fake_driver import FakeArray

    op = operator(epilogue=Epilogue(("scale", "shift", "relu", "residual")))
    (x, w), expected = _arrays(fake, op)
    operands, _ = question(op)
    others = {name: FakeArray(fake, array) for name, array in operands.epilogue.items()}
    assert np.array_equal(op(x, w, **others).to_host(), expected)
    with pytest.raises(OperandError, match="operands are input, weight"):
        op(x, w)
    with pytest.raises(OperandError, match="operands are input, weight, bias"):
        op(x, w, w, **others)


def test_out_does_not_overlap_packed_weights_that_are_still_read(fake: FakeDriver) -> None:
    from tests.cuda.fake_driver import FakeArray

    op, packing = operator(strategy="reference"), operator(strategy="direct")
    assert not op._lowered.packed_bytes
    (x, w), expected = _arrays(fake, op)
    fake.knows(packing)
    out = FakeArray(fake, np.zeros(expected.shape, np.float32))
    out.array = w.array.reshape(-1)[: expected.size].reshape(expected.shape)
    packed = op.pack(w)
    with pytest.raises(OperandError, match="out overlaps weight"):
        op(x, packed, out=out)
    assert np.array_equal(op(x, packed).to_host(), expected)
    # What was packed elsewhere is read no more.
    packing(x, packing.pack(w), out=out)
    assert np.array_equal(out.array, expected)


def test_out_is_written_and_returned(fake: FakeDriver) -> None:
    from tests.cuda.fake_driver import FakeArray

    op = operator()
    (x, w), expected = _arrays(fake, op)
    out = FakeArray(fake, np.zeros_like(expected, np.float32))
    assert op(x, w, out=out) is out
    assert np.array_equal(out.array, expected)


def test_a_call_neither_allocates_nor_waits(fake: FakeDriver) -> None:
    from tests.cuda.fake_driver import FakeArray

    op = operator(strategy="direct")
    assert op.workspace_bytes
    (x, w), expected = _arrays(fake, op)
    out = FakeArray(fake, np.zeros_like(expected, np.float32))
    op(x, w, out=out, stream=7)
    fake.calls.clear()
    fake.capturing.add(7)
    op(x, w, out=out, stream=7)
    names = {name for name, _ in fake.calls}
    assert not names & {"cuMemAlloc", "cuMemFree", "cuStreamSynchronize", "cuCtxSynchronize", "cuLibraryLoadData"}
    assert {launch["stream"] for launch in fake.launches} == {7}


@contextlib.contextmanager
def _other_thread(monkeypatch: pytest.MonkeyPatch, call: Callable[[], object], patience: float) -> Iterator[list[bool]]:
    """Makes ``call`` in another thread just before this one's first launch, which waits for it for ``patience`` seconds.

    Says of each launch whether it is this thread's.
    """
    own, launch = threading.current_thread(), Device.launch
    other = threading.Thread(target=call)
    launched: list[bool] = []

    def patched(self: Device, *arguments: Any) -> None:
        is_own = threading.current_thread() is own
        if is_own and other.ident is None:
            other.start()
            other.join(patience)
        launch(self, *arguments)
        launched.append(is_own)

    monkeypatch.setattr(Device, "launch", patched)
    yield launched
    other.join()


@pytest.mark.parametrize("packs", [False, True])
def test_threads_on_one_stream_take_turns(fake: FakeDriver, monkeypatch: pytest.MonkeyPatch, packs: bool) -> None:
    from tests.cuda.fake_driver import FakeArray

    op = operator(strategy="direct")
    (x, w), expected = _arrays(fake, op)
    other = FakeArray(fake, -w.array)
    op(x, w)
    with _other_thread(monkeypatch, lambda: op(x, other), 0.3) as launched:
        result = op(x, op.pack(w) if packs else w)
    assert np.array_equal(result.to_host(), expected)
    assert launched[0]
    assert not all(launched)


def test_the_stream_of_each_thread_has_its_own_scratch(fake: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.cuda.fake_driver import FakeArray

    op = operator(strategy="direct")
    (x, w), expected = _arrays(fake, op)
    other = FakeArray(fake, -w.array)
    with _other_thread(monkeypatch, lambda: op(x, other, stream=2), 60.0) as launched:
        result = op(x, w, stream=2)
    assert np.array_equal(result.to_host(), expected)
    assert not launched[0]


def test_the_scratch_of_a_thread_that_ended_is_waited_for(fake: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    device = device_numbered()
    # Numbers of threads are given again once a thread has ended.
    monkeypatch.setattr(convgen.cuda.device, "_stream_key", lambda stream: (stream, 0))
    device.scratch(1000, 2)
    device.scratch(1000, 2)
    assert not fake.named("cuCtxSynchronize")
    later = threading.Thread(target=lambda: [device.scratch(1000, 2) for _ in range(2)])
    later.start()
    later.join()
    assert len(fake.named("cuCtxSynchronize")) == 1
    assert len(fake.named("cuMemAlloc")) == 1


def test_scratch_does_not_grow_while_capturing(fake: FakeDriver) -> None:
    op = operator(strategy="direct")
    (x, w), _ = _arrays(fake, op)
    fake.capturing.add(9)
    with pytest.raises(DeviceError, match="call once on this stream before capturing"):
        op(x, w, stream=9)


def test_scratch_grows_by_less_where_memory_is_short(fake: FakeDriver) -> None:
    device, fake.room = device_numbered(), 1999
    device.scratch(1000, 5)
    fake.calls.clear()
    assert device.scratch(1500, 5)
    assert [nbytes for (nbytes,) in fake.named("cuMemAlloc")] == [2000, 1500]
    with pytest.raises(DeviceError, match="CUDA_ERROR_OUT_OF_MEMORY"):
        device.scratch(5000, 5)


def test_the_call_waits_for_the_streams_of_its_operands(fake: FakeDriver) -> None:
    from tests.cuda.fake_driver import FakeArray

    op = operator()
    (x, w), _ = _arrays(fake, op)
    x, w = FakeArray(fake, x.array, stream=21), FakeArray(fake, w.array, stream=22)
    op(x, w)
    assert {launch["stream"] for launch in fake.launches} == {21}
    assert [arguments[1] for arguments in fake.named("cuEventRecord")] == [22]
    assert [arguments[0] for arguments in fake.named("cuStreamWaitEvent")] == [21]
    assert fake.events == {}
    op(x, w, stream=23)
    assert [arguments[1] for arguments in fake.named("cuEventRecord")] == [22, 21, 22]


def test_kernels_are_loaded_once_a_device_in_its_context(fake: FakeDriver) -> None:
    op = operator(strategy="reference")
    (x, w), expected = _arrays(fake, op)
    for _ in range(2):
        op(x, w)
    loaded = len(fake.named("cuLibraryLoadData"))
    assert loaded == len({launch["name"] for launch in fake.launches})
    (x, w), _ = _arrays(fake, op, device=1)
    result = op(x, w)
    assert np.array_equal(result.to_host(), expected)
    assert result.device.ordinal == 1
    assert len(fake.named("cuLibraryLoadData")) == 2 * loaded
    assert fake.contexts == []


def test_more_than_48_kilobytes_of_shared_memory_are_asked_for(fake: FakeDriver) -> None:
    op = _with_much_shared_memory()
    (x, w), expected = _arrays(fake, op)
    assert np.array_equal(op(x, w).to_host(), expected)
    asked = {arguments[1] for arguments in fake.named("cuKernelSetAttribute")}
    used = {launch["shared"] for launch in fake.launches}
    assert asked == {shared for shared in used if shared > 48 * 1024} != set()


def _with_much_shared_memory() -> CudaConv:
    spec = ConvSpec(
        batch=1,
        in_channels=64,
        out_channels=128,
        spatial_size=(16, 16),
        kernel_size=1,
        layout="channels_last",
        dtype="float64",
    )
    space = gpu_strategy_named("implicit_gemm").space(spec, gpu_of("9.0"))
    largest = max(space, key=lambda config: math.prod(config[name] for name in ("rows", "cols", "depth", "stages")))
    return convgen.cuda.compile(spec, "implicit_gemm", config=largest)


def test_operands_that_do_not_fit_are_named(fake: FakeDriver) -> None:
    from tests.cuda.fake_driver import FakeArray

    op = operator()
    (x, w), _ = _arrays(fake, op)
    with pytest.raises(ShapeError, match=r"weight has shape \(3, 3\); allowed: \(16, 16, 3, 3\)"):
        op(x, FakeArray(fake, np.zeros((3, 3), np.float32)))
    with pytest.raises(DTypeError, match="input has dtype float64; allowed: float32"):
        op(FakeArray(fake, x.array.astype(np.float64)), w)
    with pytest.raises(DTypeError, match="input has dtype <c8, which no kernel reads"):
        op(FakeArray(fake, x.array.astype(np.complex64)), w)
    with pytest.raises(OperandError, match="input is on DLPack device 1, not on a CUDA device"):
        op(x.array, w)
    with pytest.raises(OperandError, match="input is a list; allowed"):
        op([1], w)
    with pytest.raises(OperandError, match="weight is on device 1; the first operand is on device 0"):
        op(x, FakeArray(fake, w.array, device=1))
    with pytest.raises(OperandError, match="stream='fast' is no stream"):
        op(x, w, stream="fast")
    turned = FakeArray(fake, x.array)
    lying = turned.array.transpose(0, 2, 1, 3).copy()
    fake.place(lying)
    turned.array = lying.transpose(0, 2, 1, 3)
    with pytest.raises(OperandError, match="input does not lie in C order"):
        op(turned, w)
    with pytest.raises(ShapeError, match="out has shape"):
        op(x, w, out=w)
    assert fake.launches == []


def test_out_that_does_not_fit_is_refused(fake: FakeDriver) -> None:
    from tests.cuda.fake_driver import FakeArray

    op = operator()
    (x, w), expected = _arrays(fake, op)
    with pytest.raises(OperandError, match="out overlaps input"):
        op(x, w, out=x)
    out = FakeArray(fake, expected.astype(np.float32))
    out.array.setflags(write=False)
    with pytest.raises(OperandError, match="out is read-only"):
        op(x, w, out=out)
    unaligned = FakeArray(fake, np.zeros(expected.size + 4, np.float32))
    unaligned.array = unaligned.array[1:-3].reshape(expected.shape)
    with pytest.raises(OperandError, match="out does not lie in C order on an address that is a multiple of 16"):
        op(x, w, out=unaligned)
    assert fake.launches == []


@pytest.mark.parametrize(
    ("capability", "shared", "reason"),
    [
        ((8, 0), 227 << 10, "capability='9.0' is not that of device 0, Fake GPU, capability 8.0"),
        ((10, 0), 227 << 10, "capability='9.0' is not that of device 0"),
        ((9, 0), 1, "bytes a block; device 0 has 1"),
    ],
)
def test_other_devices_are_refused(fake: FakeDriver, capability: tuple[int, int], shared: int, reason: str) -> None:
    fake.capability, fake.shared = capability, shared
    op = operator(strategy="implicit_gemm")
    (x, w), _ = _arrays(fake, op)
    with pytest.raises(NotApplicable, match=reason):
        op(x, w)


def test_what_the_driver_refuses_is_said(fake: FakeDriver) -> None:
    from cuda.bindings.driver import CUresult

    op = operator()
    (x, w), _ = _arrays(fake, op)
    fake.fails["cuLaunchKernel"] = CUresult.CUDA_ERROR_ILLEGAL_ADDRESS
    with pytest.raises(DeviceError, match="cuLaunchKernel fails with CUDA_ERROR_ILLEGAL_ADDRESS: what") as caught:
        op(x, w)
    assert (caught.value.call, caught.value.code) == ("cuLaunchKernel", "CUDA_ERROR_ILLEGAL_ADDRESS")
    assert fake.contexts == []


def test_an_empty_batch_starts_nothing(fake: FakeDriver) -> None:
    from tests.cuda.fake_driver import FakeArray

    op = convgen.cuda.compile(operator(strategy="reference").spec.replace(batch=0))
    fake.knows(op)
    x = FakeArray(fake, np.zeros(op.spec.input_shape, np.float32))
    w = FakeArray(fake, np.zeros(op.spec.weight_shape, np.float32))
    assert op(x, w).to_host().shape == op.spec.result_shape
