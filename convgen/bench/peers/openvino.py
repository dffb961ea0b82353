"""OpenVINO: constant weights, tensors set beforehand, float32 arithmetic for float32, and both layouts of images."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import openvino
from openvino import opset13 as operators

from convgen.bench.contender import (
    Array,
    Contender,
    Job,
    begins,
    channels_first_output,
    ends,
    forward_form,
    from_layout,
    refuse,
    to_layout,
)
from convgen.dtypes import DTYPES
from convgen.errors import NotApplicable
from convgen.spec import ConvSpec

_DTYPES = ("float32", "int8")
# A scale of 1 would be left out, and with it the pattern.
_INPUT_SCALE = 0.5
_LETTERS = {1: "W", 2: "HW", 3: "DHW"}


class _OpenVino:
    name = "openvino"

    def version(self) -> str:
        return str(openvino.__version__).partition("-")[0]

    def contenders(self, job: Job) -> list[Contender]:
        spec = forward_form(job.spec)
        refuse(spec, _DTYPES, asymmetric=True)
        if spec.dtype == "int8" and (spec.transposed or job.multipliers is None):
            raise NotApplicable("its quantized convolutions are compared forward")
        return [_contender(spec, job, layout) for layout in job.layouts]


PEER = _OpenVino()


def _contender(spec: ConvSpec, job: Job, layout: str) -> Contender:
    config = {
        "INFERENCE_NUM_THREADS": job.threads,
        "NUM_STREAMS": "1",
        "PERFORMANCE_HINT": "LATENCY",
        **({"INFERENCE_PRECISION_HINT": "f32"} if spec.dtype == "float32" else {}),
    }
    try:
        request = openvino.Core().compile_model(_model(spec, job, layout), "CPU", config).create_infer_request()
    except RuntimeError as error:
        raise NotApplicable(f"it refuses the model: {str(error).strip().splitlines()[-1]}") from error
    image = to_layout(job.first, layout)
    result = to_layout(np.zeros(channels_first_output(spec), DTYPES[spec.dtype].numpy), layout)
    request.set_input_tensor(0, openvino.Tensor(image, shared_memory=True))
    request.set_output_tensor(0, openvino.Tensor(result, shared_memory=True))

    return Contender("openvino", layout, *_calls(request, image, result, layout))


def _calls(request: Any, image: Array, result: Array, layout: str) -> tuple[Callable[[], object], Callable[[], Array]]:
    """The two calls of a contender; a request does not keep the memory of its tensors, so the call does."""

    def call(_kept: tuple[Array, Array] = (image, result)) -> object:
        return request.infer()

    def computed() -> Array:
        request.infer()
        return from_layout(result, layout)

    return call, computed


def _model(spec: ConvSpec, job: Job, layout: str) -> Any:
    shape = [spec.batch, spec.in_channels, *spec.spatial_size]
    x = operators.parameter(shape, DTYPES[spec.dtype].numpy, name="x")
    y = _quantized(spec, job, x) if spec.dtype == "int8" else _convolution(spec, x, _constant(spec, job.second))
    model = openvino.Model([y], [x], "convolution")
    if layout == "channels_first":
        return model
    letters = _LETTERS[spec.ndim]
    steps = openvino.preprocess.PrePostProcessor(model)
    for tensor in (steps.input(0), steps.output(0)):
        tensor.tensor().set_layout(openvino.Layout(f"N{letters}C"))
        tensor.model().set_layout(openvino.Layout(f"NC{letters}"))
    return steps.build()


def _quantized(spec: ConvSpec, job: Job, x: Any) -> Any:
    """Bytes to bytes, as its converters write quantized networks: the library finds the pattern and computes in integers."""
    assert job.multipliers is not None
    scales = _constant(spec, (job.multipliers / _INPUT_SCALE).reshape(-1, 1, *[1] * spec.ndim).astype(np.float32))
    image = operators.multiply(operators.convert(x, "f32"), operators.constant(np.float32(_INPUT_SCALE)))
    weight = operators.multiply(operators.convert(_constant(spec, job.second), "f32"), scales)
    lowest, highest = (operators.constant(np.float32(limit)) for limit in (-128, 127))
    sums = _convolution(spec, image, weight)
    return operators.convert(operators.fake_quantize(sums, lowest, highest, lowest, highest, 256), "i8")


def _constant(spec: ConvSpec, weight: Array) -> Any:
    """The weights as the operator wants them: with an axis of groups in front where there are groups."""
    if spec.groups == 1:
        return operators.constant(weight)
    return operators.constant(weight.reshape(spec.groups, weight.shape[0] // spec.groups, *weight.shape[1:]))


def _convolution(spec: ConvSpec, x: Any, weight: Any) -> Any:
    geometry = (list(spec.stride), begins(spec), ends(spec), list(spec.dilation))
    if not spec.transposed:
        make = operators.convolution if spec.groups == 1 else operators.group_convolution
        return make(x, weight, *geometry)
    backward = operators.convolution_backprop_data if spec.groups == 1 else operators.group_convolution_backprop_data
    extra = (
        {"output_padding": list(spec.output_padding)} if math.prod(spec.stride) > 1 or any(spec.output_padding) else {}
    )
    strides, pads_begin, pads_end, dilations = geometry
    return backward(x, weight, strides=strides, pads_begin=pads_begin, pads_end=pads_end, dilations=dilations, **extra)
