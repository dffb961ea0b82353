"""Small ONNX models written down in a few lines, for the tests of the reader."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper

Extents = Sequence[int | str | None]


def save(
    path: Path,
    nodes: Sequence[Any],
    inputs: Mapping[str, Extents],
    constants: Mapping[str, np.ndarray],
    outputs: Sequence[str],
    *,
    opset: int = 22,
    element: int = onnx.TensorProto.FLOAT,
) -> Path:
    """Writes a model whose inputs have the given extents (a name or None is an open one), and returns ``path``."""
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info(name, element, list(extents)) for name, extents in inputs.items()],
        [helper.make_tensor_value_info(name, element, None) for name in outputs],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opsets = [helper.make_opsetid("", opset)]
    path.write_bytes(helper.make_model(graph, opset_imports=opsets).SerializeToString())
    return path


def node(text: str, **attributes: Any) -> Any:
    """Returns the node ``Operator input input -> output``; its name is its output's."""
    operator, *inputs = text.partition("->")[0].split()
    output = text.partition("->")[2].strip()
    return helper.make_node(operator, inputs, [output], name=output, **attributes)


# A convolution of 3 to 4 channels (``x`` to ``y``, 1×3×5×6 to 1×4×5×6) and constants that may follow it.
IMAGE: Mapping[str, Extents] = {"x": (1, 3, 5, 6)}
CONV = node("Conv x w -> y", pads=[1, 1, 1, 1])


def constants() -> dict[str, np.ndarray]:
    """Returns weights for CONV and what nodes behind it read: per channel, per column, per image and single numbers."""
    rng = np.random.default_rng(0)
    arrays = {
        "w": rng.standard_normal((4, 3, 3, 3)),
        "w2": rng.standard_normal((4, 3, 1, 1)),
        "b": rng.standard_normal(4),
        "s": rng.uniform(0.5, 2.0, 4),
        "m": rng.standard_normal(4),
        "v": rng.uniform(0.5, 2.0, 4),
        "channel": rng.standard_normal((4, 1, 1)),
        "gain": rng.uniform(0.5, 2.0, (1, 4, 1, 1)),
        "row": rng.standard_normal(6),
        "image": rng.standard_normal((1, 4, 5, 6)),
        "scalar": np.array(0.5),
        "zero": np.array(0.0),
        "six": np.array(6.0),
        "five": np.array(5.0),
    }
    return {name: array.astype(np.float32) for name, array in arrays.items()}
