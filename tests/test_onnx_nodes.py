"""The Conv and ConvTranspose node tests of the onnx wheel, through compiled kernels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx.backend.test.case.node as node_cases
import onnx.backend.test.case.node.conv
import onnx.backend.test.case.node.convtranspose  # noqa: F401 - defines its cases when imported
import pytest

import convgen
from convgen.onnx import conv_node_spec


def single_node_cases() -> Iterator[Any]:
    """The Conv and ConvTranspose cases that onnx.backend.test.loader finds, without making all the others."""
    for case in node_cases._NodeTestCases:
        nodes = case.model.graph.node
        if len(nodes) == 1 and nodes[0].op_type in ("Conv", "ConvTranspose"):
            yield pytest.param(case, id=case.name)


@pytest.mark.parametrize("case", list(single_node_cases()))
def test_node(case: Any) -> None:
    (node,) = case.model.graph.node
    for inputs, (expected,) in case.data_sets:
        spec = conv_node_spec(node, inputs[0].shape, inputs[1].shape, inputs[0].dtype.name, len(inputs) > 2)
        result = convgen.compile(spec, threads=1)(*inputs)
        assert (result.shape, result.dtype) == (expected.shape, expected.dtype)
        np.testing.assert_allclose(result, expected, rtol=case.rtol, atol=case.atol)


def test_there_are_node_tests() -> None:
    assert len(list(single_node_cases())) >= 17
