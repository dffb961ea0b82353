"""On a real device, where there is one: whole calls of every strategy that is offered, against the oracle."""

from __future__ import annotations

import numpy as np
import pytest

import convgen.cuda
from convgen.cuda import DeviceArray
from convgen.cuda.device import device_numbered
from convgen.cuda.plans import algorithms_of_cuda_plan
from convgen.cuda.questions import integer_question
from convgen.errors import ConvgenError
from convgen.gpu import gpu_for
from convgen.spec import ConvSpec
from convgen.strategies.cuda.registry import gpu_applicable


def _has_device() -> bool:
    try:
        device_numbered()
    except ConvgenError:
        return False
    return True


requires_gpu = pytest.mark.skipif(not _has_device(), reason="there is no CUDA device")


@requires_gpu
@pytest.mark.parametrize("direction", ["forward", "backward_data", "backward_weights"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("groups", [1, 32])
def test_integers_are_exact(direction: str, dtype: str, groups: int) -> None:
    spec = ConvSpec(
        batch=3,
        in_channels=32,
        out_channels=32,
        spatial_size=(15, 14),
        kernel_size=3,
        padding=1,
        groups=groups,
        layout="channels_last",
        dtype=dtype,
    ).replace(direction=direction)
    gpu = gpu_for(device_numbered().facts.capability)
    for strategy in gpu_applicable(spec, gpu):
        op = convgen.cuda.compile(spec, strategy.name, device=0)
        question = integer_question(spec, np.random.default_rng(0), algorithms_of_cuda_plan(op.plan))
        first, second = map(DeviceArray.from_host, question.operands.main)
        assert question.flaw(op(first, second).to_host()) == "", strategy.name


@requires_gpu
def test_a_call_is_captured_into_a_graph() -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("PyTorch sees no device")
    spec = ConvSpec(
        batch=2, in_channels=32, out_channels=32, spatial_size=(9, 9), kernel_size=3, layout="channels_last"
    )
    op = convgen.cuda.compile(spec, device=0)
    x, w = torch.randn(spec.input_shape, device="cuda"), torch.randn(spec.weight_shape, device="cuda")
    packed = op.pack(w)
    expected = op(x, packed)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = op(x, packed)
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(result, expected)
