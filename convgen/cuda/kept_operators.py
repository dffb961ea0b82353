"""Operators for GPUs that functions compile once per problem and device and keep."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from convgen.choices import TunedPlan
from convgen.cuda.device import Device, device_numbered, gpu_of_device, is_out_of_memory
from convgen.cuda.kernels import CudaConv
from convgen.cuda.plans import plan_cuda
from convgen.cuda.results import known_result
from convgen.cuda.tuner import tune
from convgen.errors import DeviceError, NotApplicable
from convgen.kept_operators import kept
from convgen.options import is_deterministic, tune_mode
from convgen.planning import first_sight, is_autotuning
from convgen.spec import ConvSpec

# Problems, with the number of the device, that were found too large to be measured there.
_too_large: set[tuple[ConvSpec, int]] = set()


def kept_cuda_operator(key: tuple[Any, ...], spec: Callable[[], ConvSpec], ordinal: int, stream: int) -> CudaConv:
    """The operator kept under ``key`` for a device, or one compiled now for the problem that ``spec`` makes.

    It is chosen as on the CPU: by what tuning has found for this device, also now where ``autotune`` or CONVGEN_TUNE=on say so
    and calls on ``stream`` are not being captured, else by the heuristic. What no other strategy's kernel can be made for is the
    reference's. Raises what ``spec`` raises, MissingDependencyError without the extra or a driver, NotApplicable and DeviceError.
    """
    device = device_numbered(ordinal)

    def may_measure() -> bool:
        return is_autotuning() and not device.is_capturing(stream) and (spec(), ordinal) not in _too_large

    return kept(("cuda", ordinal, *key), lambda: operator_on_device(spec(), device, stream), may_measure=may_measure)


def operator_on_device(spec: ConvSpec, device: Device, stream: int) -> CudaConv:
    """The operator that ``kept_cuda_operator`` keeps."""
    gpu = gpu_of_device(device.facts)
    known = None
    if tune_mode() != "off" and not is_deterministic():
        known = known_result(spec, device.facts)
        if known is None and (spec, device.ordinal) not in _too_large and not device.is_capturing(stream):
            known = first_sight(lambda budget: _tuned(spec, budget, device))
    if known is not None:
        return CudaConv(known.plan, gpu)
    plan = plan_cuda(spec, gpu)
    try:
        return CudaConv(plan, gpu)
    except NotApplicable:
        return CudaConv(plan_cuda(spec, gpu, "reference"), gpu)


def _tuned(spec: ConvSpec, budget: float, device: Device) -> TunedPlan | None:
    """What tuning finds; nothing where the device has no room for it beside what is there."""
    try:
        return tune(spec, budget, device=device.ordinal)
    except DeviceError as error:
        if not is_out_of_memory(error):
            raise
        _too_large.add((spec, device.ordinal))
        return None
