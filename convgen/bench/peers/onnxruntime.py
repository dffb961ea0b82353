"""ONNX Runtime: a model of one node with constant weights, channels_first, its buffers bound beforehand.

Its integer convolution takes the image as unsigned bytes with a zero point; the sums are the same.
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
        if spec.dtype == "int8" and spec.transposed:
            raise NotApplicable("it has no transposed convolution of integers")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = job.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Its threads may wait busily for work inside a call, but not while others are timed.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        try:
            session = onnxruntime.InferenceSession(
                _model(spec, job.second), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # the library raises types of its own that are not documented
            raise NotApplicable(f"it refuses the model: {str(error).splitlines()[0]}") from error
        binding = session.io_binding()
        result = onnxruntime.OrtValue.ortvalue_from_shape_and_type(
            list(channels_first_output(spec)), DTYPES[DTYPES[spec.dtype].result].numpy
        )
        image = onnxruntime.OrtValue.ortvalue_from_numpy(_image(job))
        binding.bind_ortvalue_input("x", image)
        binding.bind_ortvalue_output("y", result)

        def call() -> object:
            return session.run_with_iobinding(binding)

        def computed() -> Array:
            call()
            array: Array = result.numpy()
            return array

        return [Contender(self.name, "channels_first", call, computed)]


PEER = _OnnxRuntime()


def _image(job: Job) -> Array:
    image = to_layout(job.first, "channels_first")
    return (image.astype(np.int16) + _ZERO_POINT).astype(np.uint8) if image.dtype == np.int8 else image


def _model(spec: ConvSpec, weight: Array) -> bytes:
    element = _TYPES[spec.dtype]
    constants, kind, result = [numpy_helper.from_array(weight, "w")], "Conv", element
    if spec.dtype == "int8":
        constants.append(numpy_helper.from_array(np.array(_ZERO_POINT, np.uint8), "zero"))
        kind, result = "ConvInteger", TensorProto.INT32
    elif spec.transposed:
        kind = "ConvTranspose"
    attributes: dict[str, object] = {
        "strides": spec.stride,
        "dilations": spec.dilation,
        "pads": [*begins(spec), *ends(spec)],
        "group": spec.groups,
    }
    if spec.transposed:
        attributes["output_padding"] = spec.output_padding
    node = helper.make_node(kind, ["x", *(constant.name for constant in constants)], ["y"], **attributes)
    graph = helper.make_graph(
        [node],
        "convolution",
        [helper.make_tensor_value_info("x", element, (spec.batch, spec.in_channels, *spec.spatial_size))],
        [helper.make_tensor_value_info("y", result, channels_first_output(spec))],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
    serialized: bytes = model.SerializeToString()
    return serialized
