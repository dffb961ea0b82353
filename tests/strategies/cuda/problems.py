"""Small problems for the strategies of GPUs, and the judgement of their kernels under the interpreter of PTX."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

import convgen.cuda
from convgen.cuda.kernels import CudaConv
from convgen.cuda.plans import algorithms_of_cuda_plan
from convgen.gpu import Gpu, gpu_of
from convgen.spec import DIRECTIONS, ConvSpec
from convgen.strategies.cuda.base import GpuStrategy
from convgen.strategies.cuda.registry import gpu_strategy_named
from convgen.tuning.space import Config
from convgen.verify import Comparison, gate_a, gate_b, gate_c

# With copies that need not be waited for and matrix units; and the oldest, without either.
GPU = gpu_of("8.0")
OLD_GPU = gpu_of("7.5")

_PLAIN: dict[str, Any] = dict(batch=2, in_channels=8, out_channels=8, spatial_size=(4, 5), kernel_size=3, padding=1)
# Each says something of its own about padding, steps, axes, groups or channels.
GEOMETRIES: dict[str, dict[str, Any]] = {
    "whole vectors": _PLAIN,
    "strides": {**_PLAIN, "stride": (2, 3), "padding": ((2, 0), (1, 2)), "spatial_size": (5, 6)},
    "dilation": {**_PLAIN, "dilation": (1, 2), "kernel_size": (2, 3), "padding": ((0, 1), (2, 1))},
    "groups": {**_PLAIN, "groups": 2, "in_channels": 10, "out_channels": 8},
    "a line that is reflected": {**_PLAIN, "spatial_size": 9, "kernel_size": 4, "padding": ((3, 2),), "stride": 2}
    | {"padding_mode": "reflect"},
    "a volume": {**_PLAIN, "spatial_size": (3, 2, 4), "kernel_size": (2, 1, 3), "padding": ((1, 0), (0, 0), (1, 1))}
    | {"batch": 1, "in_channels": 4},
    "replicated": {**_PLAIN, "padding": ((1, 0), (0, 2)), "padding_mode": "replicate", "out_channels": 4},
    "circular": {**_PLAIN, "padding": ((2, 1), (1, 0)), "padding_mode": "circular", "in_channels": 4},
    "transposed": {**_PLAIN, "transposed": True, "stride": 2, "output_padding": 1, "spatial_size": (3, 2)},
    "odd channels, cropped": {**_PLAIN, "in_channels": 5, "out_channels": 7, "padding": ((-1, 2), (1, -1))},
}
# The same with groups of one channel each, and with windows for which fast algorithms save products.
NARROW: dict[str, dict[str, Any]] = {
    name: {**fields, "groups": 7 if "odd" in name else 8, "in_channels": 7 if "odd" in name else 8}
    | {"out_channels": 7 if "odd" in name else 8}
    for name, fields in GEOMETRIES.items()
}
SMALL_WINDOWS: dict[str, dict[str, Any]] = {
    "plain": _PLAIN,
    "a line that is reflected": {**_PLAIN, "spatial_size": 9, "padding": ((2, 1),), "padding_mode": "reflect"},
    "groups": {**_PLAIN, "groups": 2, "padding": ((0, 1), (2, 0))},
    "odd channels, circular": {**_PLAIN, "in_channels": 5, "out_channels": 7, "padding_mode": "circular"},
}
_ONE_TAP: dict[str, Any] = {**_PLAIN, "kernel_size": 1, "padding": 0}
ONE_TAP: dict[str, dict[str, Any]] = {
    "plain": _ONE_TAP,
    "whole accesses, transposed": {**_ONE_TAP, "spatial_size": (4, 6), "transposed": True, "out_channels": 24},
    "groups": {**_ONE_TAP, "groups": 2, "in_channels": 10},
    "a volume": {**_ONE_TAP, "spatial_size": (3, 2, 4), "in_channels": 16, "padding_mode": "reflect"},
    "a line, odd channels": {**_ONE_TAP, "spatial_size": 9, "in_channels": 5, "out_channels": 7},
    "one pixel": {**_ONE_TAP, "batch": 5, "spatial_size": (1, 1)},
    "one channel": {**_ONE_TAP, "in_channels": 1, "spatial_size": (8, 3)},
}
LARGE_WINDOWS: dict[str, dict[str, Any]] = {
    "plain": {**_PLAIN, "batch": 1, "kernel_size": 7, "padding": 3, "spatial_size": (8, 9), "in_channels": 4},
    "a line": {**_PLAIN, "spatial_size": 20, "kernel_size": 9, "padding": ((5, 2),)},
    "groups": {**_PLAIN, "groups": 2, "spatial_size": 17, "kernel_size": 11, "padding": 5, "padding_mode": "circular"},
}


def geometry(strategy: GpuStrategy, number: int, **changes: Any) -> ConvSpec:
    """One of the problems, in turn, that suit a strategy."""
    suited = {"depthwise": NARROW, "pointwise": ONE_TAP, "winograd": SMALL_WINDOWS, "fft": LARGE_WINDOWS}
    every = list(suited.get(strategy.name, GEOMETRIES).values())
    return ConvSpec(**{**every[number % len(every)], **changes})


def compiled(spec: ConvSpec, strategy: str, gpu: Gpu = GPU, config: Config | None = None) -> CudaConv:
    """The strategy's kernel, or the reference's where it refuses the problem."""
    refused = strategy != "reference" and _refuses(spec, strategy, gpu)
    return convgen.cuda.compile(spec, "reference" if refused else strategy, capability=gpu.name, config=config)


def _refuses(spec: ConvSpec, strategy: str, gpu: Gpu) -> bool:
    return gpu_strategy_named(strategy).refusal(spec, gpu) is not None


def judged(op: CudaConv, seed: int = 0) -> Iterator[tuple[str, Comparison]]:
    """Gates A and B of one kernel."""
    rng, algorithms = np.random.default_rng(seed), algorithms_of_cuda_plan(op.plan)
    yield f"gate A {op.spec.direction}", gate_a(op.spec, op.interpret, rng, algorithms)
    yield f"gate B {op.spec.direction}", gate_b(op.spec, op.interpret, rng, algorithms)


def complaints(op: CudaConv, seed: int = 0) -> list[str]:
    """What gates A and B find wrong, one sentence each."""
    return [f"{gate}: {found.reason}" for gate, found in judged(op, seed) if not found.ok]


def complaints_of_all_directions(spec: ConvSpec, strategy: str, gpu: Gpu = GPU, seed: int = 0) -> list[str]:
    """What gates A, B and C find wrong in all directions of a forward problem."""
    ops = [compiled(spec.replace(direction=direction), strategy, gpu) for direction in DIRECTIONS]
    found = [reason for op in ops if op.plan.strategy == strategy for reason in complaints(op, seed)]
    forward, data, weights = (op.interpret for op in ops)
    rounded = any(algorithms_of_cuda_plan(op.plan) for op in ops)
    adjoint = gate_c(spec, forward, data, weights, np.random.default_rng(seed), rounded=rounded)
    return found if adjoint.ok else [*found, f"gate C: {adjoint.reason}"]
