"""Runs an ONNX model in NumPy: onnx's reference evaluator, its convolutions replaced by convgen's.

python examples/onnx_numpy.py [model.onnx]    (by default a small network that is made here)
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

import convgen

Array = np.ndarray[Any, Any]


class Conv(OpRun):
    """ONNX's Conv by convgen."""

    def _run(self, x: Array, w: Array, b: Array | None = None, **attributes: Any) -> tuple[Array]:
        axes = x.ndim - 2
        pads = attributes.get("pads") or [0] * (2 * axes)
        auto_pad = attributes.get("auto_pad") or "NOTSET"
        if auto_pad not in ("NOTSET", "VALID"):
            raise NotImplementedError(f"auto_pad={auto_pad!r}")
        result = convgen.conv(
            x,
            w,
            b,
            stride=attributes.get("strides") or 1,
            padding=list(zip(pads[:axes], pads[axes:], strict=True)),
            dilation=attributes.get("dilations") or 1,
            groups=attributes.get("group") or 1,
        )
        return (result,)


def small_network() -> onnx.ModelProto:
    """Two convolutions, of which the second has a stride, and a mean over all pixels."""
    rng = np.random.default_rng(0)
    weights = {"w0": (32, 3, 3, 3), "b0": (32,), "w1": (64, 32, 3, 3), "b1": (64,)}
    tensors = [numpy_helper.from_array(rng.standard_normal(s, dtype=np.float32) / 8, n) for n, s in weights.items()]
    nodes = [
        helper.make_node("Conv", ["x", "w0", "b0"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w1", "b1"], ["c"], pads=[0, 0, 1, 1], strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["c"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 3, 64, 64])
    y = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 64, 1, 1])
    graph = helper.make_graph(nodes, "small", [x], [y], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="an ONNX file whose input has fixed sizes")
    path = parser.parse_args(arguments).model
    model = onnx.load(path) if path else small_network()
    constants = {tensor.name for tensor in model.graph.initializer}
    entry = next(value for value in model.graph.input if value.name not in constants)
    shape = [dim.dim_value or 1 for dim in entry.type.tensor_type.shape.dim]
    feed = {entry.name: np.random.default_rng(1).standard_normal(shape, dtype=np.float32)}
    results = []
    for name, operators in (("onnx", []), ("convgen", [Conv])):
        session = ReferenceEvaluator(model, new_ops=operators)
        session.run(None, feed)
        start = time.perf_counter()
        results.append(session.run(None, feed)[0])
        print(f"{name}: {(time.perf_counter() - start) * 1e3:.1f} ms")
    error = np.linalg.norm(results[1] - results[0]) / np.linalg.norm(results[0])
    print(f"relative difference: {error:.1e}")


if __name__ == "__main__":
    main()
