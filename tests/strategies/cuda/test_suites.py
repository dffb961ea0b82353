"""Everything that the tuner may emit for the layers of the suites: configurations are lowered, defaults become machine code."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from convgen.cuda.kernels import CudaConv
from convgen.cuda.plans import lower_cuda, plan_cuda
from convgen.driver import Plan
from convgen.gpu import Gpu, gpu_of
from convgen.spec import DIRECTIONS, ConvSpec
from convgen.strategies.cuda.base import GpuStrategy
from convgen.strategies.cuda.registry import GPU_STRATEGIES, gpu_applicable
from convgen.suites import suite

CAPABILITIES = ("8.0", "9.0")
BATCH = 32
# Configurations of a space differ in few ways: of each strategy and layer so many are lowered, evenly apart, with the last.
MOST_LOWERED = 4
# Layers that lie between those of a suite differ in numbers alone.
SUITES = {"resnet50": 4, "mobilenet_v2": 6}


def layers(name: str) -> list[ConvSpec]:
    """Distinct layers of a suite, some apart; the first has three channels."""
    found = list(
        dict.fromkeys(layer.spec for layer in suite(name, batch=BATCH, layout="channels_last", dtype="float32"))
    )
    kinds = {(spec.kernel_size, spec.stride, spec.groups > 1): spec for spec in reversed(found)}
    return list(dict.fromkeys((*kinds.values(), *found[:: SUITES[name]])))


def sampled(strategy: GpuStrategy, spec: ConvSpec, gpu: Gpu) -> list[Plan]:
    space = strategy.space(spec, gpu)
    chosen = [*space[:: -(-len(space) // MOST_LOWERED)], space[-1]]
    return [Plan(spec, strategy.name, config, "given") for config in dict.fromkeys(chosen)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "capability", "dtype"),
    [
        ("resnet50", "8.0", "float32"),
        ("resnet50", "9.0", "bfloat16"),
        ("mobilenet_v2", "8.0", "bfloat16"),
        ("mobilenet_v2", "9.0", "float32"),
    ],
)
def test_configurations_are_lowered(name: str, capability: str, dtype: str) -> None:
    gpu = gpu_of(capability)
    lowered: dict[str, int] = {strategy.name: 0 for strategy in GPU_STRATEGIES}
    for layer, direction in itertools.product(layers(name), DIRECTIONS):
        spec = layer.replace(direction=direction, dtype=dtype)
        for strategy in gpu_applicable(spec, gpu):
            for plan in sampled(strategy, spec, gpu):
                program = lower_cuda(plan, gpu)
                assert all(stage.shared_bytes <= gpu.shared_per_block for stage in program.stages), plan
                lowered[strategy.name] += 1
    own = {"resnet50": "winograd", "mobilenet_v2": "depthwise"}[name]
    assert {strategy for strategy, count in lowered.items() if count} >= {"implicit_gemm", "direct", "reference", own}


def _defaults() -> list[Any]:
    """What is chosen for layers of each kind, in every direction, for one of the capabilities in turn."""
    found = []
    for number, (name, dtype, direction, at) in enumerate(
        itertools.product(SUITES, ("float32", "bfloat16"), DIRECTIONS, range(3))
    ):
        spec = layers(name)[at].replace(dtype=dtype, direction=direction)
        capability = CAPABILITIES[number % 2]
        found.append(pytest.param(spec, capability, id=f"{capability}-{dtype}-{direction}-{spec}".replace(" ", "-")))
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("spec", "capability"), _defaults())
def test_defaults_become_machine_code_without_spills(spec: ConvSpec, capability: str) -> None:
    gpu = gpu_of(capability)
    op = CudaConv(plan_cuda(spec, gpu), gpu)
    for name, resources in op.resources.items():
        assert (resources.spilled_bytes, resources.stack_bytes) == (0, 0), (name, op.plan)
        assert resources.registers <= gpu.registers_per_thread
        assert resources.occupancy > 0
