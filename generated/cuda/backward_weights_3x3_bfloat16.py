"""convgen: mb32_ic64oc64_ih56oh56kh3ph1 layout=channels_last dtype=bfloat16 dir=backward_weights
for GPUs of compute capability 9.0
strategy  implicit_gemm, rows=64 cols=128 depth=32 row_tile=32 col_tile=64 split=53 matrix=1 stages=3
template  cuda/kernel.py.j2
again     convgen emit 'mb32_ic64oc64_ih56oh56kh3ph1 layout=channels_last dtype=bfloat16 dir=backward_weights' --target cuda --capability 9.0 --strategy implicit_gemm --config 'rows=64 cols=128 depth=32 row_tile=32 col_tile=64 split=53 matrix=1 stages=3' -o .
"""

from inspect import Parameter, Signature

import numpy as np
from llvmlite import ir
from numba import cuda, types
from numba.cuda import cgutils
from numba.cuda.extending import intrinsic, models, register_model

# ---- operations: each is one instruction, or a few
class Vector(types.Type):
    """Lanes of one element type, kept in registers of one thread."""
    def __init__(self, element, lanes):
        self.llvm = ir.VectorType(element, lanes)
        super().__init__(f"Vector({self.llvm})")

@register_model(Vector)
class VectorModel(models.PrimitiveModel):
    def __init__(self, manager, vector):
        super().__init__(manager, vector, vector.llvm)

def operation(result, operands, emit):
    """A function of one signature that becomes the LLVM instructions written by emit(builder, *operands)."""
    def generate(context, builder, _, values):
        value = emit(builder, *values)
        return context.get_dummy_value() if result is types.void else value
    def typing(context, *_):
        return result(*operands), generate
    names = ["context", *(f"operand{i}" for i in range(len(operands)))]
    typing.__signature__ = Signature([Parameter(name, Parameter.POSITIONAL_ONLY) for name in names])
    return intrinsic(typing)

def at(b, base, index, kind, size):
    """An element of an array in global memory, whose address is ``base``."""
    return b.inttoptr(b.add(base, b.mul(index, index.type(size))), kind.as_pointer(1))

def shared_at(b, base, index, kind, size):
    """An element of an array in the memory that a block shares, which begins ``base`` bytes into it."""
    memory = b.module.globals.get("convgen_shared")
    if memory is None:
        memory = ir.GlobalVariable(b.module, ir.ArrayType(ir.IntType(8), 0), "convgen_shared", addrspace=3)
        memory.linkage, memory.align = "external", 16
    place = b.trunc(b.add(base, b.mul(index, index.type(size))), ir.IntType(32))
    return b.bitcast(b.gep(memory, [place.type(0), place]), kind.as_pointer(3))

def each_lane(b, emit, *values):
    """What emit(*values) makes of scalars, or of each lane of vectors."""
    if not isinstance(values[0].type, ir.VectorType):
        return emit(*values)
    lanes = [
        emit(*(b.extract_element(value, ir.IntType(32)(lane)) for value in values))
        for lane in range(values[0].type.count)
    ]
    result = ir.VectorType(lanes[0].type, len(lanes))(ir.Undefined)
    for lane, x in enumerate(lanes):
        result = b.insert_element(result, x, ir.IntType(32)(lane))
    return result

def splat(b, x, vector):
    value = vector(ir.Undefined)
    for lane in range(vector.count):
        value = b.insert_element(value, x, ir.IntType(32)(lane))
    return value

def to_bfloat16(b, x):
    """Rounds to the nearest even; a NaN stays one."""
    def of(x):
        bits = b.bitcast(x, ir.IntType(32))
        const = bits.type
        odd = b.and_(b.lshr(bits, const(16)), const(1))
        rounded = b.lshr(b.add(bits, b.add(odd, const(0x7FFF))), const(16))
        is_nan = b.icmp_unsigned(">", b.and_(bits, const(0x7FFFFFFF)), const(0x7F800000))
        quiet = b.or_(b.lshr(bits, const(16)), const(0x40))
        return b.trunc(b.select(is_nan, quiet, rounded), ir.IntType(16))
    return each_lane(b, of, x)

def copy_async(b, target, source, index, condition, size, count):
    """Begins to copy ``count`` bytes to shared memory, or zeros where the condition does not hold, when nothing is read."""
    index = b.select(condition, index, index.type(0))
    place = at(b, source, index, ir.IntType(8), size)
    read = b.select(condition, ir.IntType(32)(count), ir.IntType(32)(0))
    level = "cg" if count == 16 else "ca"
    text = f"cp.async.{level}.shared.global [$0], [$1], {count}, $2;"
    operands = [b.ptrtoint(target, ir.IntType(32)), b.ptrtoint(place, ir.IntType(64)), read]
    kind = ir.FunctionType(ir.VoidType(), [x.type for x in operands])
    b.call(ir.InlineAsm(kind, text, "r,l,r,~{memory}", side_effect=True), operands)

def order(b, text):
    """An instruction without operands, which accesses to memory do not pass."""
    b.call(ir.InlineAsm(ir.FunctionType(ir.VoidType(), []), text, "~{memory}", side_effect=True), [])

def half(b, x, first):
    """Two neighbouring lanes of four."""
    places = [ir.IntType(32)(first + lane) for lane in range(2)]
    result = ir.VectorType(x.type.element, 2)(ir.Undefined)
    for lane, place in enumerate(places):
        result = b.insert_element(result, b.extract_element(x, place), ir.IntType(32)(lane))
    return result

def parts(b, x):
    """The lanes of a vector, as scalars."""
    return [b.extract_element(x, ir.IntType(32)(lane)) for lane in range(x.type.count)]

def assembly(b, text, constraints, results, operands):
    """PTX that a warp's threads execute together: never moved to where some of them are not. Results are lanes of a vector."""
    kind = ir.LiteralStructType([results.element] * results.count)
    function = ir.FunctionType(kind, [x.type for x in operands])
    code = ir.InlineAsm(function, text, constraints, side_effect=True)
    values = b.call(code, operands, attrs=["convergent"])
    vector = results(ir.Undefined)
    for lane in range(results.count):
        vector = b.insert_element(vector, b.extract_value(values, lane), ir.IntType(32)(lane))
    return vector

def mma(b, x, y, z, shape, factor):
    """x . y + z of tiles; each thread of the warp holds its registers of each."""
    x, y, z = parts(b, x), parts(b, y), parts(b, z)
    names = iter(f"${i}" for i in range(4 + len(x) + len(y) + 4))
    groups = ", ".join("{" + ", ".join(next(names) for _ in range(n)) + "}" for n in (4, len(x), len(y), 4))
    text = f"mma.sync.aligned.{shape}.row.col.f32.{factor}.{factor}.f32 {groups};"
    constraints = ",".join(["=f"] * 4 + ["r"] * (len(x) + len(y)) + ["f"] * 4)
    return assembly(b, text, constraints, ir.VectorType(ir.FloatType(), 4), [*x, *y, *z])

def matrix_load(b, place, count, turned):
    """``count`` matrices of 8 x 8 elements of 16 bits from shared memory, the rows of which begin where the threads say."""
    address = b.ptrtoint(place, ir.IntType(32))
    results = "{" + ", ".join(f"${i}" for i in range(count)) + "}"
    text = f"ldmatrix.sync.aligned.m8n8.x{count}{turned}.shared.b16 {results}, [${count}];"
    constraints = ",".join(["=r"] * count + ["r", "~{memory}"])
    return assembly(b, text, constraints, ir.VectorType(ir.IntType(32), count), [address])

def tf32(b, *values):
    """float32 rounded to TF32, as registers of a tile."""
    kind = ir.IntType(32)
    vector = ir.VectorType(kind, len(values))(ir.Undefined)
    for lane, x in enumerate(values):
        code = ir.InlineAsm(ir.FunctionType(kind, [x.type]), "cvt.rna.tf32.f32 $0, $1;", "=r,f")
        vector = b.insert_element(vector, b.call(code, [x]), kind(lane))
    return vector

def quotient(b, x, y):
    """x // y of integers below 2**31, rounded towards minus infinity; y is positive. 32 bits take a fifth of the time of 64."""
    x, y = b.trunc(x, ir.IntType(32)), b.trunc(y, ir.IntType(32))
    below = b.icmp_signed("<", b.srem(x, y), x.type(0))
    return b.sext(b.add(b.sdiv(x, y), b.sext(below, x.type)), ir.IntType(64))

def rest(b, x, y):
    """x % y of integers below 2**31, which is not negative; y is positive."""
    x, y = b.trunc(x, ir.IntType(32)), b.trunc(y, ir.IntType(32))
    left = b.srem(x, y)
    return b.sext(b.select(b.icmp_signed("<", left, x.type(0)), b.add(left, y), left), ir.IntType(64))

i64, f32, f64, i32, u16 = types.int64, types.float32, types.float64, types.int32, types.uint16
f32x2 = Vector(ir.FloatType(), 2)
f32x4 = Vector(ir.FloatType(), 4)
i32x2 = Vector(ir.IntType(32), 2)
i32x4 = Vector(ir.IntType(32), 4)
add_f32 = operation(f32, (f32, f32), lambda b, x, y: b.fadd(x, y))
copy_async_16 = operation(types.void, (i64, i64, i64, i64, types.boolean), lambda b, t, j, s, i, p: copy_async(b, shared_at(b, t, j, ir.IntType(8), 2), s, i, p, 2, 16))
copy_group = operation(types.void, (), lambda b: order(b, "cp.async.commit_group;"))
copy_wait_1 = operation(types.void, (), lambda b: order(b, "cp.async.wait_group 1;"))
half0_f32x2 = operation(f32x2, (f32x4,), lambda b, x: half(b, x, 0))
half1_f32x2 = operation(f32x2, (f32x4,), lambda b, x: half(b, x, 2))
load_f32 = operation(f32, (i64, i64), lambda b, s, i: b.load(at(b, s, i, ir.FloatType(), 4), align=4))
matrix_load_turned_bf16x2 = operation(i32x2, (i64, i64), lambda b, s, i: matrix_load(b, shared_at(b, s, i, ir.IntType(8), 2), 2, ".trans"))
matrix_load_turned_bf16x4 = operation(i32x4, (i64, i64), lambda b, s, i: matrix_load(b, shared_at(b, s, i, ir.IntType(8), 2), 4, ".trans"))
mma_bf16 = operation(f32x4, (i32x4, i32x2, f32x4), lambda b, x, y, z: mma(b, x, y, z, "m16n8k16", "bf16"))
quotient = operation(i64, (i64, i64), quotient)
rest = operation(i64, (i64, i64), rest)
shared_load_f32 = operation(f32, (i64, i64), lambda b, s, i: b.load(shared_at(b, s, i, ir.FloatType(), 4), align=4))
shared_store_f32x2 = operation(types.void, (i64, i64, f32x2), lambda b, s, i, x: b.store(x, shared_at(b, s, i, ir.VectorType(ir.FloatType(), 2), 4), align=8))
splat_f32x4 = operation(f32x4, (f32,), lambda b, x: splat(b, x, f32x4.llvm))
store_bf16_f32 = operation(types.void, (i64, i64, f32), lambda b, s, i, x: b.store(to_bfloat16(b, x), at(b, s, i, ir.IntType(16), 2), align=2))
store_f32 = operation(types.void, (i64, i64, f32), lambda b, s, i, x: b.store(x, at(b, s, i, ir.FloatType(), 4), align=4))

# ---- kernels: the addresses of arrays, then sizes
@cuda.jit("void(i64, i64, i64, i64)", launch_bounds=(128, 1))
def conv(input, grad_output, partial, N):
    rows = 0  # bytes into the shared memory
    cols = 13824  # bytes into the shared memory
    sums = 0  # bytes into the shared memory
    thread = cuda.threadIdx.x
    warp, lane = quotient(thread, 32), rest(thread, 32)
    task = cuda.blockIdx.x
    part = quotient(task, 5)
    col_block = rest(task, 5)
    acc0_0 = splat_f32x4(np.float32(0.0))
    acc0_1 = splat_f32x4(np.float32(0.0))
    acc0_2 = splat_f32x4(np.float32(0.0))
    acc0_3 = splat_f32x4(np.float32(0.0))
    acc0_4 = splat_f32x4(np.float32(0.0))
    acc0_5 = splat_f32x4(np.float32(0.0))
    acc0_6 = splat_f32x4(np.float32(0.0))
    acc0_7 = splat_f32x4(np.float32(0.0))
    acc1_0 = splat_f32x4(np.float32(0.0))
    acc1_1 = splat_f32x4(np.float32(0.0))
    acc1_2 = splat_f32x4(np.float32(0.0))
    acc1_3 = splat_f32x4(np.float32(0.0))
    acc1_4 = splat_f32x4(np.float32(0.0))
    acc1_5 = splat_f32x4(np.float32(0.0))
    acc1_6 = splat_f32x4(np.float32(0.0))
    acc1_7 = splat_f32x4(np.float32(0.0))
    if 1 <= quotient(N * 3136 + 1695, 1696):
        row = quotient(N * 3136 + 1695, 1696)
        for cols_turn in range(4):
            col = rest(cols_turn * 128 + thread, 16)
            row1 = quotient(col_block * 128 + col * 8, 64)
            row2 = quotient(row1, 3)
            col1 = rest(row1, 3)
            row3 = quotient(cols_turn * 128 + thread, 16)
            col2 = rest(col_block * 128 + col * 8, 64)
            row4 = quotient(part * row * 32 + row3, 56)
            col3 = rest(row4, 56)
            col4 = rest(part * row * 32 + row3, 56)
            copy_async_16(cols, row3 * 136 + col * 8, input, (row2 * 56 + (col1 + part * row * 32 + row3)) * 64 + col2 + (-3648), col_block * 128 + col * 8 < 576 and part * row * 32 + row3 < N * 3136 and 0 <= col3 + row2 - 1 and col3 + row2 - 1 < 56 and 0 <= col4 + col1 - 1 and col4 + col1 - 1 < 56)
        for rows_turn in range(2):
            row5 = quotient(rows_turn * 128 + thread, 8)
            col5 = rest(rows_turn * 128 + thread, 8)
            copy_async_16(rows, row5 * 72 + col5 * 8, grad_output, (part * row * 32 + row5) * 64 + col5 * 8, part * row * 32 + row5 < N * 3136)
    copy_group()
    if 2 <= quotient(N * 3136 + 1695, 1696):
        row6 = quotient(N * 3136 + 1695, 1696)
        for cols_turn in range(4):
            col6 = rest(cols_turn * 128 + thread, 16)
            row7 = quotient(col_block * 128 + col6 * 8, 64)
            row8 = quotient(row7, 3)
            col7 = rest(row7, 3)
            row9 = quotient(cols_turn * 128 + thread, 16)
            col8 = rest(col_block * 128 + col6 * 8, 64)
            row10 = quotient(part * row6 * 32 + row9 + 32, 56)
            col9 = rest(row10, 56)
            col10 = rest(part * row6 * 32 + row9 + 32, 56)
            copy_async_16(cols, row9 * 136 + col6 * 8 + 4352, input, (row8 * 56 + (col7 + part * row6 * 32 + row9)) * 64 + col8 + (-1600), col_block * 128 + col6 * 8 < 576 and part * row6 * 32 + row9 + 32 < N * 3136 and 0 <= col9 + row8 - 1 and col9 + row8 - 1 < 56 and 0 <= col10 + col7 - 1 and col10 + col7 - 1 < 56)
        for rows_turn in range(2):
            row11 = quotient(rows_turn * 128 + thread, 8)
            col11 = rest(rows_turn * 128 + thread, 8)
            copy_async_16(rows, row11 * 72 + col11 * 8 + 2304, grad_output, (part * row6 * 32 + row11) * 64 + col11 * 8 + 2048, part * row6 * 32 + row11 + 32 < N * 3136)
    copy_group()
    for k_block in range(quotient(N * 3136 + 1695, 1696)):
        row12 = quotient(N * 3136 + 1695, 1696)
        col12 = rest(k_block + 2, 3)
        col13 = rest(k_block, 3)
        copy_wait_1()
        cuda.syncthreads()
        if k_block + 2 < row12:
            for cols_turn in range(4):
                col14 = rest(cols_turn * 128 + thread, 16)
                row13 = quotient(col_block * 128 + col14 * 8, 64)
                row14 = quotient(row13, 3)
                col15 = rest(row13, 3)
                row15 = quotient(cols_turn * 128 + thread, 16)
                col16 = rest(col_block * 128 + col14 * 8, 64)
                row16 = quotient(part * row12 * 32 + k_block * 32 + row15 + 64, 56)
                col17 = rest(row16, 56)
                col18 = rest(part * row12 * 32 + k_block * 32 + row15 + 64, 56)
                copy_async_16(cols, (col12 * 32 + row15) * 136 + col14 * 8, input, (row14 * 56 + (col15 + part * row12 * 32 + k_block * 32 + row15)) * 64 + col16 + 448, col_block * 128 + col14 * 8 < 576 and part * row12 * 32 + k_block * 32 + row15 + 64 < N * 3136 and 0 <= col17 + row14 - 1 and col17 + row14 - 1 < 56 and 0 <= col18 + col15 - 1 and col18 + col15 - 1 < 56)
            for rows_turn in range(2):
                row17 = quotient(rows_turn * 128 + thread, 8)
                col19 = rest(rows_turn * 128 + thread, 8)
                copy_async_16(rows, (col12 * 32 + row17) * 72 + col19 * 8, grad_output, (part * row12 * 32 + k_block * 32 + row17) * 64 + col19 * 8 + 4096, part * row12 * 32 + k_block * 32 + row17 + 64 < N * 3136)
        copy_group()
        row18 = quotient(warp, 2)
        col20 = rest(warp, 2)
        for k_step in range(2):
            acc_rows0 = matrix_load_turned_bf16x4(rows, (col13 * 32 + (k_step * 16 + quotient(lane, 16) * 8 + rest(lane, 8))) * 72 + (row18 * 32 + rest(quotient(lane, 8), 2) * 8))
            acc_rows1 = matrix_load_turned_bf16x4(rows, (col13 * 32 + (k_step * 16 + quotient(lane, 16) * 8 + rest(lane, 8))) * 72 + (row18 * 32 + rest(quotient(lane, 8), 2) * 8) + 16)
            acc_cols0 = matrix_load_turned_bf16x2(cols, (col13 * 32 + (k_step * 16 + rest(quotient(lane, 8), 2) * 8 + rest(lane, 8))) * 136 + col20 * 64)
            acc_cols1 = matrix_load_turned_bf16x2(cols, (col13 * 32 + (k_step * 16 + rest(quotient(lane, 8), 2) * 8 + rest(lane, 8))) * 136 + col20 * 64 + 8)
            acc_cols2 = matrix_load_turned_bf16x2(cols, (col13 * 32 + (k_step * 16 + rest(quotient(lane, 8), 2) * 8 + rest(lane, 8))) * 136 + col20 * 64 + 16)
            acc_cols3 = matrix_load_turned_bf16x2(cols, (col13 * 32 + (k_step * 16 + rest(quotient(lane, 8), 2) * 8 + rest(lane, 8))) * 136 + col20 * 64 + 24)
            acc_cols4 = matrix_load_turned_bf16x2(cols, (col13 * 32 + (k_step * 16 + rest(quotient(lane, 8), 2) * 8 + rest(lane, 8))) * 136 + col20 * 64 + 32)
            acc_cols5 = matrix_load_turned_bf16x2(cols, (col13 * 32 + (k_step * 16 + rest(quotient(lane, 8), 2) * 8 + rest(lane, 8))) * 136 + col20 * 64 + 40)
            acc_cols6 = matrix_load_turned_bf16x2(cols, (col13 * 32 + (k_step * 16 + rest(quotient(lane, 8), 2) * 8 + rest(lane, 8))) * 136 + col20 * 64 + 48)
            acc_cols7 = matrix_load_turned_bf16x2(cols, (col13 * 32 + (k_step * 16 + rest(quotient(lane, 8), 2) * 8 + rest(lane, 8))) * 136 + col20 * 64 + 56)
            acc0_0 = mma_bf16(acc_rows0, acc_cols0, acc0_0)
            acc0_1 = mma_bf16(acc_rows0, acc_cols1, acc0_1)
            acc0_2 = mma_bf16(acc_rows0, acc_cols2, acc0_2)
            acc0_3 = mma_bf16(acc_rows0, acc_cols3, acc0_3)
            acc0_4 = mma_bf16(acc_rows0, acc_cols4, acc0_4)
            acc0_5 = mma_bf16(acc_rows0, acc_cols5, acc0_5)
            acc0_6 = mma_bf16(acc_rows0, acc_cols6, acc0_6)
            acc0_7 = mma_bf16(acc_rows0, acc_cols7, acc0_7)
            acc1_0 = mma_bf16(acc_rows1, acc_cols0, acc1_0)
            acc1_1 = mma_bf16(acc_rows1, acc_cols1, acc1_1)
            acc1_2 = mma_bf16(acc_rows1, acc_cols2, acc1_2)
            acc1_3 = mma_bf16(acc_rows1, acc_cols3, acc1_3)
            acc1_4 = mma_bf16(acc_rows1, acc_cols4, acc1_4)
            acc1_5 = mma_bf16(acc_rows1, acc_cols5, acc1_5)
            acc1_6 = mma_bf16(acc_rows1, acc_cols6, acc1_6)
            acc1_7 = mma_bf16(acc_rows1, acc_cols7, acc1_7)
    cuda.syncthreads()
    row19 = quotient(warp, 2)
    col21 = rest(warp, 2)
    row20 = quotient(lane, 4)
    col22 = rest(lane, 4)
    shared_store_f32x2(sums, (row19 * 32 + row20) * 136 + (col21 * 64 + col22 * 2), half0_f32x2(acc0_0))
    shared_store_f32x2(sums, (row19 * 32 + row20) * 136 + (col21 * 64 + col22 * 2) + 1088, half1_f32x2(acc0_0))
    shared_store_f32x2(sums, (row19 * 32 + row20) * 136 + (col21 * 64 + col22 * 2) + 8, half0_f32x2(acc0_1))
    shared_store_f32x2(sums, (row19 * 32 + row20) * 136 + (col21 * 64 + col22 * 2) + 1096, half1_f32x2(acc0_1))
    shared_store_f32x2(sums, (row19 * 32 + row20) * 136 + (col21 * 64 + col22 * 2) + 16, half0_f32x2(acc0_2))
    shared_store_f32x2(sums, (row19 * 32 + row20) * 136 + (col21 * 64 + col22 * 2) + 1104, half1_f32x2(acc0_2))
    shared_store_f32x2(sums, (row19 * 32 + row20) * 136 + (col21 * 64 + col22 * 2) + 24, half0_f32x2(acc0_3))
    shared_store_f32x2(sums, (row19 * 32 + row20) * 136 + (col21 * 64 + col22 * 2) + 1112, half1_f32x2(acc0_3))
    shared_store_f32x2(sums, (row19 * 32 + row20) * 136 + (col21 * 64 + col22 * 2) + 32, half0_f32x2(acc0_4))
    shared_store_f32x2(sums, (row19 * 32 + row20) * 136 + (col21 * 64 + col22 * 2) + 1120, half1_f32x2(acc0_4))
    shared_store_f32x2(sums, (row19 * 32 + row20) * 136 + (col21 * 64 + col22 * 2) + 40, half0_f32x2(acc0_5))
    shared_store_f32x2(sums, (row19 * 32 + row20) * 136 + (col21 * 64 + col22 * 2) + 1128, half1_f32x2(acc0_5))
    shared_store_f32x2(sums, (row19 * 32 + row20) * 136 + (col21 * 64 + col22 * 2) + 48, half0_f32x2(acc0_6))
    shared_store_f32x2(sums, (row19 * 32 + row20) * 136 + (col21 * 64 + col22 * 2) + 1136, half1_f32x2(acc0_6))
    shared_store_f32x2(sums, (row19 * 32 + row20) * 136 + (col21 * 64 + col22 * 2) + 56, half0_f32x2(acc0_7))
    shared_store_f32x2(sums, (row19 * 32 + row20) * 136 + (col21 * 64 + col22 * 2) + 1144, half1_f32x2(acc0_7))
    shared_store_f32x2(sums, (row19 * 32 + row20) * 136 + (col21 * 64 + col22 * 2) + 2176, half0_f32x2(acc1_0))
    shared_store_f32x2(sums, (row19 * 32 + row20) * 136 + (col21 * 64 + col22 * 2) + 3264, half1_f32x2(acc1_0))
    shared_store_f32x2(sums, (row19 * 32 + row20) * 136 + (col21 * 64 + col22 * 2) + 2184, half0_f32x2(acc1_1))
    shared_store_f32x2(sums, (row19 * 32 + row20) * 136 + (col21 * 64 + col22 * 2) + 3272, half1_f32x2(acc1_1))
    shared_store_f32x2(sums, (row19 * 32 + row20) * 136 + (col21 * 64 + col22 * 2) + 2192, half0_f32x2(acc1_2))
    shared_store_f32x2(sums, (row19 * 32 + row20) * 136 + (col21 * 64 + col22 * 2) + 3280, half1_f32x2(acc1_2))
    shared_store_f32x2(sums, (row19 * 32 + row20) * 136 + (col21 * 64 + col22 * 2) + 2200, half0_f32x2(acc1_3))
    shared_store_f32x2(sums, (row19 * 32 + row20) * 136 + (col21 * 64 + col22 * 2) + 3288, half1_f32x2(acc1_3))
    shared_store_f32x2(sums, (row19 * 32 + row20) * 136 + (col21 * 64 + col22 * 2) + 2208, half0_f32x2(acc1_4))
    shared_store_f32x2(sums, (row19 * 32 + row20) * 136 + (col21 * 64 + col22 * 2) + 3296, half1_f32x2(acc1_4))
    shared_store_f32x2(sums, (row19 * 32 + row20) * 136 + (col21 * 64 + col22 * 2) + 2216, half0_f32x2(acc1_5))
    shared_store_f32x2(sums, (row19 * 32 + row20) * 136 + (col21 * 64 + col22 * 2) + 3304, half1_f32x2(acc1_5))
    shared_store_f32x2(sums, (row19 * 32 + row20) * 136 + (col21 * 64 + col22 * 2) + 2224, half0_f32x2(acc1_6))
    shared_store_f32x2(sums, (row19 * 32 + row20) * 136 + (col21 * 64 + col22 * 2) + 3312, half1_f32x2(acc1_6))
    shared_store_f32x2(sums, (row19 * 32 + row20) * 136 + (col21 * 64 + col22 * 2) + 2232, half0_f32x2(acc1_7))
    shared_store_f32x2(sums, (row19 * 32 + row20) * 136 + (col21 * 64 + col22 * 2) + 3320, half1_f32x2(acc1_7))
    cuda.syncthreads()
    col23 = rest(col_block * 128 + thread, 64)
    row21 = quotient(col_block * 128 + thread, 64)
    for row_outer in range(64):
        if col_block * 128 + thread < 576:
            store_f32(partial, ((part * 64 + row_outer) * 64 + col23) * 3 * 3 + row21, shared_load_f32(sums, row_outer * 136 + thread))

@cuda.jit("void(i64, i64)", launch_bounds=(256, 1))
def sum_conv(grad_weight, partial):
    thread = cuda.threadIdx.x
    block = cuda.blockIdx.x
    row = quotient(block * 256 + thread, 576)
    col = rest(block * 256 + thread, 576)
    col1 = rest(col, 64)
    row1 = quotient(col, 64)
    acc = np.float32(0.0)
    for part in range(53):
        acc = add_f32(acc, load_f32(partial, ((part * 64 + row) * 64 + col1) * 3 * 3 + row1))
    store_bf16_f32(grad_weight, (row * 64 + col1) * 3 * 3 + row1, acc)

def address(array):
    """Where an array on the device begins."""
    return array.__cuda_array_interface__["data"][0]

# ---- the whole problem, on NumPy arrays
def run(input, grad_output):
    input = np.ascontiguousarray(input).view(np.uint16).reshape((32, 56, 56, 64))  # bfloat16's bits
    input = cuda.to_device(input)
    grad_output = np.ascontiguousarray(grad_output).view(np.uint16).reshape((32, 56, 56, 64))  # bfloat16's bits
    grad_output = cuda.to_device(grad_output)
    grad_weight = cuda.device_array((64, 64, 3, 3), np.uint16)
    partial = cuda.device_array(7815168, np.uint8)
    conv[265, 128, 0, 39936](address(input), address(grad_output), address(partial), 32)
    sum_conv[144, 256, 0, 0](address(grad_weight), address(partial))
    return grad_weight.copy_to_host()
