"""Small cases worked out by hand, exact, by the oracle and by both second opinions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convgen.matrixform import conv_by_im2col, convolution_matrix, im2col
from convgen.oracle import reference
from convgen.spec import ConvSpec

EXAMPLES: list[dict[str, Any]] = json.loads((Path(__file__).parent / "data" / "worked_examples.json").read_text())
CONVOLUTIONS = [example for example in EXAMPLES if example["op"] != "im2col"]


def problem(example: dict[str, Any]) -> tuple[ConvSpec, list[np.ndarray]]:
    """The spec of an example and its operands in call order."""
    arrays = {name: np.array(example[name]) for name in ("input", "weight", "grad_output") if name in example}
    geometry = dict(stride=example["stride"], padding=example["padding"], dtype="float64")
    match example["op"]:
        case "conv" | "conv_transpose" as op:
            (batch, channels, *size), weight = arrays["input"].shape, arrays["weight"]
            outputs, transposed = weight.shape[op == "conv_transpose"], op == "conv_transpose"
            kernel, direction = weight.shape[2:], "forward"
        case "conv_backward_data":
            (batch, channels, *size), weight = example["input_size"], arrays["weight"]
            outputs, transposed, kernel, direction = len(weight), False, weight.shape[2:], "backward_data"
            arrays = {name: arrays[name] for name in ("grad_output", "weight")}
        case _:
            batch, channels, *size = arrays["input"].shape
            outputs, transposed = arrays["grad_output"].shape[1], False
            kernel, direction = tuple(example["kernel_size"]), "backward_weights"
    spec = ConvSpec(
        batch=batch, in_channels=channels, out_channels=outputs, spatial_size=tuple(size), kernel_size=kernel,
        transposed=transposed, direction=direction, **geometry,
    )  # fmt: skip
    return spec, list(arrays.values())


@pytest.mark.parametrize("example", CONVOLUTIONS, ids=lambda example: example["name"])
def test_convolutions(example: dict[str, Any]) -> None:
    spec, operands = problem(example)
    np.testing.assert_array_equal(reference(spec, *operands), example["output"])
    np.testing.assert_array_equal(conv_by_im2col(spec, *operands), example["output"])
    if spec.direction != "backward_weights":
        matrix = convolution_matrix(spec, operands[1])
        matrix = matrix if spec.direction == "forward" else matrix.transpose
        np.testing.assert_array_equal(matrix.matvec(operands[0].ravel()), np.ravel(example["output"]))


def test_im2col() -> None:
    (example,) = (example for example in EXAMPLES if example["op"] == "im2col")
    columns = im2col(np.array(example["input"]), example["kernel_size"], (1, 1), ((0, 0), (0, 0)), (1, 1))
    np.testing.assert_array_equal(columns, [example["output"]])
