"""ONNX Runtime: a model of one node with constant weights, channels_first, its buffers bound beforehand.

Its quantized convolution is quick for unsigned bytes alone: images are those of int8 with a zero point of 128.
"""

from __future__ import annotations

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from convgen.bench.contender import (
    Array,
    Contender,
    Job,
    begins,
    channels_first_output,
    ends,
    forward_form,
    refuse,
    to_layout,
)
from convgen.dtypes import DTYPES
from convgen.errors import NotApplicable
from convgen.spec import ConvSpec

_TYPES = {
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
    "float16": TensorProto.FLOAT16,
    "int8": TensorProto.UINT8,
}
_ZERO_POINT = 128
# The oldest versions with all that is needed here, so that older runtimes read the model.
_OPSET, _IR_VERSION = 17, 8


class _OnnxRuntime:
    name = "onnxruntime"

    def version(self) -> str:
        return str(onnxruntime.__version__)

    def contenders(self, job: Job) -> list[Contender]:
        """The operator is defined for channels_first; the runtime changes to its own layout and back inside."""
        if "channels_first" not in job.layouts:
            raise NotApplicable("its convolution is channels_first")
        spec = forward_form(job.spec)
        refuse(spec, tuple(_TYPES), asymmetric=True)
        if spec.dtype == "int8" and (spec.transposed or job.multipliers is None):
            raise NotApplicable("it has no such convolution of integers")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = job.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Its threads may wait busily for work inside a call, but not while others are timed.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        try:
            session = onnxruntime.InferenceSession(_model(spec, job), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the library raises types of its own that are not documented
            raise NotApplicable(f"it refuses the model: {str(error).splitlines()[0]}") from error
        binding = session.io_binding()
        result = onnxruntime.OrtValue.ortvalue_from_shape_and_type(
            list(channels_first_output(spec)), np.uint8 if spec.dtype == "int8" else DTYPES[spec.dtype].numpy
        )
        image = onnxruntime.OrtValue.ortvalue_from_numpy(_image(job))
        binding.bind_ortvalue_input("x", image)
        binding.bind_ortvalue_output("y", result)

        def call() -> object:
            return session.run_with_iobinding(binding)

        def computed() -> Array:
            call()
            array: Array = result.numpy()
            return _signed(array) if spec.dtype == "int8" else array

        return [Contender(self.name, "channels_first", call, computed)]


PEER = _OnnxRuntime()


def _image(job: Job) -> Array:
    image = to_layout(job.first, "channels_first")
    return (image.astype(np.int16) + _ZERO_POINT).astype(np.uint8) if image.dtype == np.int8 else image


def _signed(array: Array) -> Array:
    return (array.astype(np.int16) - _ZERO_POINT).astype(np.int8)


def _quantized(job: Job) -> dict[str, Array]:
    """The operands of QLinearConv after the image, in order: the weights' scales are the multipliers."""
    assert job.multipliers is not None
    one, point = np.float32(1), np.uint8(_ZERO_POINT)
    zeros = np.zeros(len(job.multipliers), np.int8)
    operands = (
        ("xs", one),
        ("xz", point),
        ("w", job.second),
        ("ws", job.multipliers),
        ("wz", zeros),
        ("ys", one),
        ("yz", point),
    )
    return {name: np.asarray(value) for name, value in operands}


def _model(spec: ConvSpec, job: Job) -> bytes:
    element = _TYPES[spec.dtype]
    kind = "QLinearConv" if spec.dtype == "int8" else "ConvTranspose" if spec.transposed else "Conv"
    operands = _quantized(job) if spec.dtype == "int8" else {"w": job.second}
    constants = [numpy_helper.from_array(value, name) for name, value in operands.items()]
    attributes: dict[str, object] = {
        "strides": spec.stride,
        "dilations": spec.dilation,
        "pads": [*begins(spec), *ends(spec)],
        "group": spec.groups,
    }
    if spec.transposed:
        attributes["output_padding"] = spec.output_padding
    node = helper.make_node(kind, ["x", *operands], ["y"], **attributes)
    graph = helper.make_graph(
        [node],
        "convolution",
        [helper.make_tensor_value_info("x", element, (spec.batch, spec.in_channels, *spec.spatial_size))],
        [helper.make_tensor_value_info("y", element, channels_first_output(spec))],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
    serialized: bytes = model.SerializeToString()
    return serialized
