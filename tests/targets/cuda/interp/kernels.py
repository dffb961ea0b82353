"""CUDA kernels for the interpreter's tests, and the compiler that makes PTX of them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("numba_cuda", reason="needs the extra `cuda`")

from llvmlite import ir
from numba import cuda, float32, int32, int64, types, uint32
from numba.cuda.extending import intrinsic

# Signatures: arrays become seven parameters or more, addresses and sizes one each.
ADDRESSES = {count: (int64,) * count for count in range(1, 8)}
F32 = float32[::1]


def ptx_of(
    function: Callable[..., None], signature: tuple[Any, ...], cc: tuple[Any, ...] = (8, 0), threads: int = 256
) -> str:
    """PTX of a kernel, made without a device."""
    text, _ = cuda.compile(function, signature, cc=cc, device=False, abi="numba", launch_bounds=(threads, 1))
    return str(text)


def _assembler(text: str, constraints: str, result: ir.Type, arguments: list[ir.Type]) -> ir.InlineAsm:
    return ir.InlineAsm(ir.FunctionType(result, arguments), text, constraints, side_effect=True)


@functools.cache
def assembly(text: str, inputs: str, outputs: str) -> Any:
    """A device function of inline PTX; ``inputs`` and ``outputs`` are a letter for each: r (32 bits), l (64), f (float32)."""
    llvm = {"r": ir.IntType(32), "l": ir.IntType(64), "f": ir.FloatType(), "d": ir.DoubleType()}
    numba = {"r": uint32, "l": int64, "f": float32, "d": types.float64}
    constraints = ",".join([*(f"={letter}" for letter in outputs), *inputs, "~{memory}"])
    if not outputs:
        returned, result = types.void, ir.VoidType()
    elif len(outputs) == 1:
        returned, result = numba[outputs], llvm[outputs]
    else:
        returned = types.Tuple([numba[letter] for letter in outputs])
        result = ir.LiteralStructType([llvm[letter] for letter in outputs])
    names = [f"a{number}" for number in range(len(inputs))]

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = _assembler(text, constraints, result, [llvm[letter] for letter in inputs])
        made = builder.call(code, arguments)
        if not outputs:
            return context.get_dummy_value()
        if len(outputs) == 1:
            return made
        return context.make_tuple(builder, returned, [builder.extract_value(made, i) for i in range(len(outputs))])

    signature = returned(*(numba[letter] for letter in inputs))
    scope: dict[str, Any] = {"signature": signature, "codegen": codegen}
    exec(f"def function(context, {', '.join(names)}):\n    return signature, codegen\n", scope)
    return intrinsic(scope["function"])


@intrinsic
def shared_address(context: Any, array: Any) -> Any:
    """The address of a shared array in the shared space."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        generic = builder.ptrtoint(data, ir.IntType(64))
        text = "{ .reg .u64 t; cvta.to.shared.u64 t, $1; cvt.u32.u64 $0, t; }"
        return builder.call(_assembler(text, "=r,l", ir.IntType(32), [ir.IntType(64)]), [generic])

    return uint32(array), codegen


load_f32 = assembly("ld.global.f32 $0, [$1];", "l", "f")
store_f32 = assembly("st.global.f32 [$0], $1;", "lf", "")
store_v2_f32 = assembly("st.global.v2.f32 [$0], {$1, $2};", "lff", "")
ldmatrix_x4 = assembly("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {$0, $1, $2, $3}, [$4];", "r", "rrrr")
ldmatrix_x4_trans = assembly("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {$0, $1, $2, $3}, [$4];", "r", "rrrr")
copy_16 = assembly("cp.async.cg.shared.global [$0], [$1], 16, $2;", "rlr", "")
commit = assembly("cp.async.commit_group;", "", "")
wait_1 = assembly("cp.async.wait_group 1;", "", "")
mma_bf16 = assembly(
    "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {$0, $1, $2, $3}, {$4, $5, $6, $7}, {$8, $9}, {$10, $11, $12, $13};",
    "rrrrrrffff",
    "ffff",
)


def tiled_product(a: int, b: int, c: int, n: int) -> None:
    """c = a @ b for n × n float32, n a multiple of 16, by blocks of 16 × 16 threads."""
    left = cuda.shared.array((16, 16), float32)
    right = cuda.shared.array((16, 16), float32)
    x, y = cuda.threadIdx.x, cuda.threadIdx.y
    column, row = cuda.blockIdx.x * 16 + x, cuda.blockIdx.y * 16 + y
    total = float32(0)
    for tile in range(n // 16):
        left[y, x] = load_f32(a + 4 * (row * n + tile * 16 + x))
        right[y, x] = load_f32(b + 4 * ((tile * 16 + y) * n + column))
        cuda.syncthreads()
        for k in range(16):
            total += left[y, k] * right[k, x]
        cuda.syncthreads()
    store_f32(c + 4 * (row * n + column), total)


@functools.cache
def tiled_product_ptx() -> str:
    return ptx_of(tiled_product, (int64, int64, int64, int32))


def _staged_source() -> str:
    """Blocks of 64 × 64 results by 4 warps of 32 × 32; three stages of 32 terms; rows padded to keep banks apart."""
    sums = [f"c{m}{n}" for m in range(2) for n in range(4)]
    lines = [
        "def staged_product(a, b, c, rows, columns, terms):",
        "    left = cuda.shared.array(3 * 64 * 40, uint16)",
        "    right = cuda.shared.array(3 * 32 * 72, uint16)",
        "    left_base, right_base = shared_address(left), shared_address(right)",
        "    thread = uint32(cuda.threadIdx.x)",
        "    lane, warp = thread % uint32(32), thread // uint32(32)",
        "    warp_row, warp_column = (warp // uint32(2)) * uint32(32), (warp % uint32(2)) * uint32(32)",
        "    row0, column0 = int64(cuda.blockIdx.y) * 64, int64(cuda.blockIdx.x) * 64",
        *(f"    {name} = (float32(0), float32(0), float32(0), float32(0))" for name in sums),
        "    steps = (terms + 31) // 32",
        "    for stage in range(2):",
        "        if stage < steps:",
        "            fetch(a, b, left_base, right_base, thread, row0, column0, rows, columns, terms, stage, stage)",
        "        commit()",
        "    for step in range(steps):",
        "        wait_1()",
        "        cuda.syncthreads()",
        "        if step + 2 < steps:",
        "            fetch(a, b, left_base, right_base, thread, row0, column0, rows, columns, terms, step + 2, (step + 2) % 3)",
        "        commit()",
        "        stage = uint32(step % 3)",
        "        for half in range(2):",
        "            k0 = uint32(half * 16)",
    ]
    for m in range(2):
        lines += [
            f"            row = warp_row + uint32({16 * m}) + lane % uint32(16)",
            f"            a{m} = ldmatrix_x4(left_base + (stage * uint32(2560) + row * uint32(40) + k0"
            " + (lane // uint32(16)) * uint32(8)) * uint32(2))",
        ]
    for pair in range(2):
        lines += [
            f"            column = warp_column + uint32({16 * pair}) + (lane // uint32(16)) * uint32(8)",
            f"            b{pair} = ldmatrix_x4_trans(right_base + (stage * uint32(2304) + (k0 + lane % uint32(16))"
            " * uint32(72) + column) * uint32(2))",
        ]
    for m in range(2):
        for n in range(4):
            registers = ", ".join(
                [
                    *(f"a{m}[{i}]" for i in range(4)),
                    f"b{n // 2}[{n % 2 * 2}]",
                    f"b{n // 2}[{n % 2 * 2 + 1}]",
                    *(f"c{m}{n}[{i}]" for i in range(4)),
                ]
            )
            lines.append(f"            c{m}{n} = mma_bf16({registers})")
    lines += ["    g, t = int64(lane // uint32(4)), int64(lane % uint32(4))"]
    for m in range(2):
        for n in range(4):
            lines.append(f"    column = column0 + int64(warp_column) + {8 * n} + 2 * t")
            for r in range(2):
                lines += [
                    f"    row = row0 + int64(warp_row) + {16 * m + 8 * r} + g",
                    "    if row < rows and column < columns:",
                    f"        store_v2_f32(c + 4 * (row * columns + column), c{m}{n}[{2 * r}], c{m}{n}[{2 * r + 1}])",
                ]
    return "\n".join(lines)


@cuda.jit(device=True, inline="always")
def fetch(
    a: int,
    b: int,
    left_base: int,
    right_base: int,
    thread: int,
    row0: int,
    column0: int,
    rows: int,
    columns: int,
    terms: int,
    step: int,
    stage: int,
) -> None:
    """Copies one stage's tiles, 16 bytes at a time; what lies outside of the matrices becomes zero."""
    k0 = int64(step) * 32
    for part in range(2):
        piece = thread + uint32(128 * part)
        row, k = row0 + int64(piece // uint32(4)), k0 + int64(piece % uint32(4)) * 8
        there = row < rows and k < terms
        target = left_base + (
            uint32(stage) * uint32(2560) + (piece // uint32(4)) * uint32(40) + (piece % uint32(4)) * uint32(8)
        ) * uint32(2)
        copy_16(target, a + 2 * (row * terms + k) if there else a, uint32(16) if there else uint32(0))
        k, column = k0 + int64(piece // uint32(8)), column0 + int64(piece % uint32(8)) * 8
        there = k < terms and column < columns
        target = right_base + (
            uint32(stage) * uint32(2304) + (piece // uint32(8)) * uint32(72) + (piece % uint32(8)) * uint32(8)
        ) * uint32(2)
        copy_16(target, b + 2 * (k * columns + column) if there else b, uint32(16) if there else uint32(0))


@functools.cache
def staged_product_ptx(cc: tuple[Any, ...] = (8, 0)) -> str:
    """c = a @ b by mma.sync, ldmatrix and cp.async in three stages, from bfloat16 to float32; sizes are multiples of 8."""
    scope: dict[str, Any] = dict(globals())
    scope["uint16"] = types.uint16
    exec(_staged_source(), scope)
    return ptx_of(scope["staged_product"], (int64,) * 6, cc, threads=128)
