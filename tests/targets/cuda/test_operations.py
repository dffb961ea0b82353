"""How operations of CUDA kernels are named and spelled."""

from __future__ import annotations

import itertools

import pytest

from convgen.dtypes import DTYPES
from convgen.ir.types import compute_dtype
from convgen.targets.cuda.operations import (
    Operation,
    needed_functions,
    operation_text,
    type_name,
    vector_texts,
)
from tests.ir.golden import assert_golden

MOVES = ("load", "store", "shared_load", "shared_store")
OPERATIONS = (
    *(
        Operation(kind, compute_dtype(storage), lanes, storage)
        for kind, storage, lanes in itertools.product(MOVES, DTYPES, (1, 4))
    ),
    *(Operation(kind, "int32", lanes) for kind in ("raw_load", "shared_raw_store") for lanes in (0, 1, 2, 4)),
    *(
        Operation(kind, dtype, lanes)
        for kind, (dtype, lanes) in itertools.product(
            ("fma", "add", "sub", "mul", "div", "min", "max", "where"),
            (("float32", 1), ("float64", 2), ("int32", 1)),
        )
    ),
    *(Operation(kind, dtype) for kind in ("exp", "tanh", "erf") for dtype in ("float32", "float64")),
    *(Operation("splat", dtype, 4) for dtype in ("float32", "int32")),
    Operation("convert", "int32", 1, "float32"),
    Operation("convert", "float32", 4, "int32"),
    Operation("quotient", "int64"),
    Operation("rest", "int64"),
    *(Operation("copy_async", "", size, storage) for size, storage in ((4, "float32"), (8, "float16"), (16, "int8"))),
    Operation("copy_group", ""),
    Operation("copy_wait", "", 2),
    *(Operation("mma", "float32", 1, dtype) for dtype in ("bfloat16", "float16", "float32")),
    Operation("matrix_load", "int32", 4, "bfloat16"),
    Operation("matrix_load_turned", "int32", 2, "float16"),
    Operation("tf32", "float32", 4, "float32"),
    Operation("half0", "float32", 2),
    Operation("half1", "float32", 2),
)


def test_text_of_every_operation() -> None:
    lines = []
    for operation in OPERATIONS:
        text = operation_text(operation)
        lines.append(f"{text.name}({text.operands}) -> {text.result}: {text.emit}")
    assert_golden("cuda_operations", "\n".join(lines) + "\n")


def test_names_differ() -> None:
    names = [operation.name for operation in OPERATIONS]
    assert len(set(names)) == len(names)
    assert all(name.isidentifier() for name in names)


def test_names_of_types() -> None:
    assert (type_name("bfloat16", 1), type_name("float64", 2)) == ("bf16", "f64x2")


@pytest.mark.parametrize(
    ("operation", "functions"),
    [
        (Operation("add", "float32"), set()),
        (Operation("fma", "float32"), {"call"}),
        (Operation("fma", "int32"), set()),
        (Operation("exp", "float64"), {"call"}),
        (Operation("max", "float32"), {"extreme"}),
        (Operation("where", "float32"), {"where"}),
        (Operation("rest", "int64"), {"quotient"}),
        (Operation("load", "float32", 1, "bfloat16"), {"from_bfloat16"}),
        (Operation("shared_store", "float32", 4, "bfloat16"), {"shared", "to_bfloat16"}),
        (Operation("convert", "int32", 1, "float32"), {"rint"}),
        (Operation("convert", "float32", 1, "int32"), set()),
        (Operation("copy_wait", "", 1), {"shared", "copies"}),
        (Operation("copy_async", "", 16, "bfloat16"), {"shared", "copies"}),
        (Operation("mma", "float32", 1, "bfloat16"), {"tiles"}),
        (Operation("matrix_load", "int32", 4, "bfloat16"), {"shared", "tiles"}),
        (Operation("half1", "float32", 2), {"half"}),
    ],
)
def test_functions_that_an_operation_needs(operation: Operation, functions: set[str]) -> None:
    found = needed_functions((operation,))
    if operation.storage == "bfloat16" and operation.kind == "copy_async":
        # Bytes are copied: what is defined besides is not used.
        found -= {"to_bfloat16"}
    assert found == functions


def test_vector_types_of_operations() -> None:
    def names(*operations: Operation) -> list[str]:
        return [text.name for text in vector_texts(operations)]

    assert names(Operation("add", "float32")) == []
    assert names(Operation("load", "float32", 4, "int8"), Operation("add", "float64", 2)) == ["f32x4", "f64x2"]
    assert names(Operation("convert", "float32", 2, "int32")) == ["f32x2", "i32x2"]
    assert names(Operation("mma", "float32", 1, "float16")) == ["f32x4", "i32x2", "i32x4"]
    assert names(Operation("half0", "float32", 2)) == ["f32x2", "f32x4"]
    assert names(Operation("copy_async", "", 16, "float32"), Operation("copy_wait", "", 2)) == []
