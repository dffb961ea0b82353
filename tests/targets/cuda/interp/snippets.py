"""Kernels around a few lines of PTX, written by hand: no compiler is needed to run them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from convgen.targets.cuda.interp import parse, run

_TYPES = {
    "u2": "b16",
    "i2": "b16",
    "f2": "b16",
    "u4": "b32",
    "i4": "b32",
    "f4": "f32",
    "u8": "b64",
    "i8": "b64",
    "f8": "f64",
}
HEADER = ".version 9.0\n.target sm_90a\n.address_size 64\n"


def kernel(body: str, parameters: int, *, variables: str = "", more: str = "") -> str:
    """A kernel with 64-bit parameters in %rd1, %rd2, ..., and the thread's number, lane and block in %t, %lane and %block."""
    names = [f"p{number}" for number in range(1, parameters + 1)]
    return "\n".join(
        [
            HEADER,
            more,
            f".visible .entry kernel({', '.join(f'.param .u64 {name}' for name in names)})",
            "{",
            "\t.reg .pred %p<9>;\n\t.reg .b16 %h<9>;\n\t.reg .b32 %r<99>;",
            "\t.reg .f32 %f<99>;\n\t.reg .b64 %rd<99>;\n\t.reg .f64 %fd<9>;",
            "\t.reg .b32 %t, %lane, %block;",
            variables,
            *(f"\tld.param.u64 %rd{number}, [{name}];" for number, name in enumerate(names, 1)),
            "\tmov.u32 %t, %tid.x;\n\tmov.u32 %lane, %laneid;\n\tmov.u32 %block, %ctaid.x;",
            body,
            "\tret;\n}",
        ]
    )


def evaluate(body: str, result: str | np.dtype | type, *operands: np.ndarray) -> np.ndarray:
    """Runs instructions on operands %a, %b, %c, %e of one element a thread; the result, of a NumPy type, is left in %d."""
    dtype = np.dtype(result)
    made = np.zeros(len(operands[0]), dtype)
    lines, registers = [], [("%d", dtype)]
    for number, (name, operand) in enumerate(zip(("%a", "%b", "%c", "%e"), operands, strict=False), 2):
        registers.append((name, operand.dtype))
        lines.append(
            f"\tmul.wide.u32 %rd50, %r50, {operand.dtype.itemsize};\n\tadd.u64 %rd51, %rd{number}, %rd50;\n"
            f"\tld.global.{_TYPES[operand.dtype.str[1:]]} {name}, [%rd51];"
        )
    declared = "\n".join(f"\t.reg .{_TYPES[kind.str[1:]]} {name};" for name, kind in registers)
    text = kernel(
        "\n".join(
            [
                "\tmov.u32 %r51, %ntid.x;\n\tmad.lo.u32 %r50, %block, %r51, %t;",
                *lines,
                body,
                f"\tmul.wide.u32 %rd50, %r50, {dtype.itemsize};\n\tadd.u64 %rd51, %rd1, %rd50;",
                f"\tst.global.{_TYPES[dtype.str[1:]]} [%rd51], %d;",
            ]
        ),
        1 + len(operands),
        variables=declared,
    )
    size = len(made)
    threads = next(count for count in (128, 64, 32, 16, 8, 4, 2, 1) if size % count == 0)
    run(parse(text), grid=(size // threads,), block=(threads,), arguments=[made, *operands])
    return made


def pairs(values: Sequence[object], dtype: str | type | np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of values, as two arrays."""
    array = np.array(values, dtype)
    return np.repeat(array, len(array)), np.tile(array, len(array))
