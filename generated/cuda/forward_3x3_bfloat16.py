"""convgen: mb32_ic64oc64_ih56oh56kh3ph1 layout=channels_last dtype=bfloat16 epilogue=bias+relu
for GPUs of compute capability 9.0
strategy  implicit_gemm, rows=256 cols=64 depth=32 row_tile=64 col_tile=32 split=1 matrix=1 stages=3
template  cuda/kernel.py.j2
again     convgen emit 'mb32_ic64oc64_ih56oh56kh3ph1 layout=channels_last dtype=bfloat16 epilogue=bias+relu' --target cuda --capability 9.0 --strategy implicit_gemm --config 'rows=256 cols=64 depth=32 row_tile=64 col_tile=32 split=1 matrix=1 stages=3' -o .
"""

from inspect import Parameter, Signature

import numpy as np
from llvmlite import ir
from numba import cuda, types
from numba.cuda import cgutils
from numba.cuda.extending import intrinsic, models, register_model
from cuda.bindings import driver

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

def extreme(b, x, y, order):
    """The larger (order ">") or smaller of two numbers; a NaN where one is."""
    def of(x, y):
        if isinstance(x.type, ir.IntType):
            return b.select(b.icmp_signed(order, x, y), x, y)
        return b.select(b.fcmp_unordered("!=", x, x), x, b.select(b.fcmp_ordered(order, x, y), x, y))
    return each_lane(b, of, x, y)

def from_bfloat16(b, x):
    wide = ir.IntType(32)
    return each_lane(b, lambda x: b.bitcast(b.shl(b.zext(x, wide), wide(16)), ir.FloatType()), x)

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
add_f32x4 = operation(f32x4, (f32x4, f32x4), lambda b, x, y: b.fadd(x, y))
copy_async_16 = operation(types.void, (i64, i64, i64, i64, types.boolean), lambda b, t, j, s, i, p: copy_async(b, shared_at(b, t, j, ir.IntType(8), 2), s, i, p, 2, 16))
copy_group = operation(types.void, (), lambda b: order(b, "cp.async.commit_group;"))
copy_wait_1 = operation(types.void, (), lambda b: order(b, "cp.async.wait_group 1;"))
half0_f32x2 = operation(f32x2, (f32x4,), lambda b, x: half(b, x, 0))
half1_f32x2 = operation(f32x2, (f32x4,), lambda b, x: half(b, x, 2))
load_bf16_f32x4 = operation(f32x4, (i64, i64), lambda b, s, i: from_bfloat16(b, b.load(at(b, s, i, ir.VectorType(ir.IntType(16), 4), 2), align=8)))
matrix_load_bf16x4 = operation(i32x4, (i64, i64), lambda b, s, i: matrix_load(b, shared_at(b, s, i, ir.IntType(8), 2), 4, ""))
matrix_load_turned_bf16x2 = operation(i32x2, (i64, i64), lambda b, s, i: matrix_load(b, shared_at(b, s, i, ir.IntType(8), 2), 2, ".trans"))
max_f32x4 = operation(f32x4, (f32x4, f32x4), lambda b, x, y: extreme(b, x, y, ">"))
mma_bf16 = operation(f32x4, (i32x4, i32x2, f32x4), lambda b, x, y, z: mma(b, x, y, z, "m16n8k16", "bf16"))
quotient = operation(i64, (i64, i64), quotient)
raw_load_u16 = operation(u16, (i64, i64), lambda b, s, i: b.load(at(b, s, i, ir.IntType(16), 2), align=2))
raw_store_u16 = operation(types.void, (i64, i64, u16), lambda b, s, i, x: b.store(x, at(b, s, i, ir.IntType(16), 2), align=2))
rest = operation(i64, (i64, i64), rest)
shared_load_f32x4 = operation(f32x4, (i64, i64), lambda b, s, i: b.load(shared_at(b, s, i, ir.VectorType(ir.FloatType(), 4), 4), align=16))
shared_store_f32x2 = operation(types.void, (i64, i64, f32x2), lambda b, s, i, x: b.store(x, shared_at(b, s, i, ir.VectorType(ir.FloatType(), 2), 4), align=8))
splat_f32x4 = operation(f32x4, (f32,), lambda b, x: splat(b, x, f32x4.llvm))
store_bf16_f32x4 = operation(types.void, (i64, i64, f32x4), lambda b, s, i, x: b.store(to_bfloat16(b, x), at(b, s, i, ir.VectorType(ir.IntType(16), 4), 2), align=8))

# ---- kernels: the addresses of arrays, then sizes
@cuda.jit("void(i64, i64, i64, i64, i64, i64)", launch_bounds=(256, 1))
def pack_weight(weight, packed, packed_0s, packed_1s, packed_2s, packed_3s):
    thread = cuda.threadIdx.x
    block = cuda.blockIdx.x
    col = rest(block * 256 + thread, packed_3s)
    row = quotient(block * 256 + thread, packed_3s)
    col1 = rest(row, packed_2s)
    row1 = quotient(row, packed_2s)
    if block * 256 + thread < packed_0s * packed_1s * packed_2s * packed_3s:
        raw_store_u16(packed, block * 256 + thread, raw_load_u16(weight, (col * packed_2s + col1) * packed_0s * packed_1s + row1))

@cuda.jit("void(i64, i64, i64, i64, i64)", launch_bounds=(256, 1))
def conv(input, bias, output, packed, N):
    rows = 0  # bytes into the shared memory
    cols = 61440  # bytes into the shared memory
    sums = 0  # bytes into the shared memory
    thread = cuda.threadIdx.x
    warp, lane = quotient(thread, 32), rest(thread, 32)
    row_block = cuda.blockIdx.x
    acc0_0 = splat_f32x4(np.float32(0.0))
    acc0_1 = splat_f32x4(np.float32(0.0))
    acc0_2 = splat_f32x4(np.float32(0.0))
    acc0_3 = splat_f32x4(np.float32(0.0))
    acc1_0 = splat_f32x4(np.float32(0.0))
    acc1_1 = splat_f32x4(np.float32(0.0))
    acc1_2 = splat_f32x4(np.float32(0.0))
    acc1_3 = splat_f32x4(np.float32(0.0))
    acc2_0 = splat_f32x4(np.float32(0.0))
    acc2_1 = splat_f32x4(np.float32(0.0))
    acc2_2 = splat_f32x4(np.float32(0.0))
    acc2_3 = splat_f32x4(np.float32(0.0))
    acc3_0 = splat_f32x4(np.float32(0.0))
    acc3_1 = splat_f32x4(np.float32(0.0))
    acc3_2 = splat_f32x4(np.float32(0.0))
    acc3_3 = splat_f32x4(np.float32(0.0))
    row = quotient(thread, 8)
    col = rest(thread, 8)
    copy_async_16(cols, row * 72 + col * 8, packed, row * 64 + col * 8, True)
    for rows_turn in range(4):
        row1 = quotient(rows_turn * 256 + thread, 4)
        col1 = rest(rows_turn * 256 + thread, 4)
        row2 = quotient(row_block * 256 + row1, 56)
        col2 = rest(row2, 56)
        col3 = rest(row_block * 256 + row1, 56)
        copy_async_16(rows, row1 * 40 + col1 * 8, input, (row_block * 256 + row1) * 64 + col1 * 8 + (-3648), row_block * 256 + row1 < N * 3136 and 0 <= col2 - 1 and col2 - 1 < 56 and 0 <= col3 - 1 and col3 - 1 < 56)
    copy_group()
    row3 = quotient(thread, 8)
    col4 = rest(thread, 8)
    copy_async_16(cols, row3 * 72 + col4 * 8 + 2304, packed, row3 * 64 + col4 * 8 + 2048, True)
    for rows_turn in range(4):
        row4 = quotient(rows_turn * 256 + thread, 4)
        col5 = rest(rows_turn * 256 + thread, 4)
        row5 = quotient(row_block * 256 + row4, 56)
        col6 = rest(row5, 56)
        col7 = rest(row_block * 256 + row4, 56)
        copy_async_16(rows, row4 * 40 + col5 * 8 + 10240, input, (row_block * 256 + row4) * 64 + col5 * 8 + (-3616), row_block * 256 + row4 < N * 3136 and 0 <= col6 - 1 and col6 - 1 < 56 and 0 <= col7 - 1 and col7 - 1 < 56)
    copy_group()
    for k_block in range(18):
        col8 = rest(k_block + 2, 3)
        row6 = quotient(k_block * 32 + 64, 64)
        row7 = quotient(row6, 3)
        col9 = rest(row6, 3)
        col10 = rest(k_block * 32 + 64, 64)
        col11 = rest(k_block, 3)
        copy_wait_1()
        cuda.syncthreads()
        if k_block + 2 < 18:
            row8 = quotient(thread, 8)
            col12 = rest(thread, 8)
            copy_async_16(cols, (col8 * 32 + row8) * 72 + col12 * 8, packed, (k_block * 32 + row8) * 64 + col12 * 8 + 4096, True)
            for rows_turn in range(4):
                row9 = quotient(rows_turn * 256 + thread, 4)
                col13 = rest(rows_turn * 256 + thread, 4)
                row10 = quotient(row_block * 256 + row9, 56)
                col14 = rest(row10, 56)
                col15 = rest(row_block * 256 + row9, 56)
                copy_async_16(rows, (col8 * 256 + row9) * 40 + col13 * 8, input, (row7 * 56 + (col9 + row_block * 256 + row9)) * 64 + (col10 + col13 * 8) + (-3648), row_block * 256 + row9 < N * 3136 and 0 <= col14 + row7 - 1 and col14 + row7 - 1 < 56 and 0 <= col15 + col9 - 1 and col15 + col9 - 1 < 56)
        copy_group()
        row11 = quotient(warp, 2)
        col16 = rest(warp, 2)
        for k_step in range(2):
            acc_rows0 = matrix_load_bf16x4(rows, (col11 * 256 + (row11 * 64 + rest(lane, 16))) * 40 + (k_step * 16 + quotient(lane, 16) * 8))
            acc_rows1 = matrix_load_bf16x4(rows, (col11 * 256 + (row11 * 64 + rest(lane, 16))) * 40 + (k_step * 16 + quotient(lane, 16) * 8) + 640)
            acc_rows2 = matrix_load_bf16x4(rows, (col11 * 256 + (row11 * 64 + rest(lane, 16))) * 40 + (k_step * 16 + quotient(lane, 16) * 8) + 1280)
            acc_rows3 = matrix_load_bf16x4(rows, (col11 * 256 + (row11 * 64 + rest(lane, 16))) * 40 + (k_step * 16 + quotient(lane, 16) * 8) + 1920)
            acc_cols0 = matrix_load_turned_bf16x2(cols, (col11 * 32 + (k_step * 16 + rest(quotient(lane, 8), 2) * 8 + rest(lane, 8))) * 72 + col16 * 32)
            acc_cols1 = matrix_load_turned_bf16x2(cols, (col11 * 32 + (k_step * 16 + rest(quotient(lane, 8), 2) * 8 + rest(lane, 8))) * 72 + col16 * 32 + 8)
            acc_cols2 = matrix_load_turned_bf16x2(cols, (col11 * 32 + (k_step * 16 + rest(quotient(lane, 8), 2) * 8 + rest(lane, 8))) * 72 + col16 * 32 + 16)
            acc_cols3 = matrix_load_turned_bf16x2(cols, (col11 * 32 + (k_step * 16 + rest(quotient(lane, 8), 2) * 8 + rest(lane, 8))) * 72 + col16 * 32 + 24)
            acc0_0 = mma_bf16(acc_rows0, acc_cols0, acc0_0)
            acc0_1 = mma_bf16(acc_rows0, acc_cols1, acc0_1)
            acc0_2 = mma_bf16(acc_rows0, acc_cols2, acc0_2)
            acc0_3 = mma_bf16(acc_rows0, acc_cols3, acc0_3)
            acc1_0 = mma_bf16(acc_rows1, acc_cols0, acc1_0)
            acc1_1 = mma_bf16(acc_rows1, acc_cols1, acc1_1)
            acc1_2 = mma_bf16(acc_rows1, acc_cols2, acc1_2)
            acc1_3 = mma_bf16(acc_rows1, acc_cols3, acc1_3)
            acc2_0 = mma_bf16(acc_rows2, acc_cols0, acc2_0)
            acc2_1 = mma_bf16(acc_rows2, acc_cols1, acc2_1)
            acc2_2 = mma_bf16(acc_rows2, acc_cols2, acc2_2)
            acc2_3 = mma_bf16(acc_rows2, acc_cols3, acc2_3)
            acc3_0 = mma_bf16(acc_rows3, acc_cols0, acc3_0)
            acc3_1 = mma_bf16(acc_rows3, acc_cols1, acc3_1)
            acc3_2 = mma_bf16(acc_rows3, acc_cols2, acc3_2)
            acc3_3 = mma_bf16(acc_rows3, acc_cols3, acc3_3)
    cuda.syncthreads()
    row12 = quotient(warp, 2)
    col17 = rest(warp, 2)
    row13 = quotient(lane, 4)
    col18 = rest(lane, 4)
    shared_store_f32x2(sums, (row12 * 64 + row13) * 72 + (col17 * 32 + col18 * 2), half0_f32x2(acc0_0))
    shared_store_f32x2(sums, (row12 * 64 + row13) * 72 + (col17 * 32 + col18 * 2) + 576, half1_f32x2(acc0_0))
    shared_store_f32x2(sums, (row12 * 64 + row13) * 72 + (col17 * 32 + col18 * 2) + 8, half0_f32x2(acc0_1))
    shared_store_f32x2(sums, (row12 * 64 + row13) * 72 + (col17 * 32 + col18 * 2) + 584, half1_f32x2(acc0_1))
    shared_store_f32x2(sums, (row12 * 64 + row13) * 72 + (col17 * 32 + col18 * 2) + 16, half0_f32x2(acc0_2))
    shared_store_f32x2(sums, (row12 * 64 + row13) * 72 + (col17 * 32 + col18 * 2) + 592, half1_f32x2(acc0_2))
    shared_store_f32x2(sums, (row12 * 64 + row13) * 72 + (col17 * 32 + col18 * 2) + 24, half0_f32x2(acc0_3))
    shared_store_f32x2(sums, (row12 * 64 + row13) * 72 + (col17 * 32 + col18 * 2) + 600, half1_f32x2(acc0_3))
    shared_store_f32x2(sums, (row12 * 64 + row13) * 72 + (col17 * 32 + col18 * 2) + 1152, half0_f32x2(acc1_0))
    shared_store_f32x2(sums, (row12 * 64 + row13) * 72 + (col17 * 32 + col18 * 2) + 1728, half1_f32x2(acc1_0))
    shared_store_f32x2(sums, (row12 * 64 + row13) * 72 + (col17 * 32 + col18 * 2) + 1160, half0_f32x2(acc1_1))
    shared_store_f32x2(sums, (row12 * 64 + row13) * 72 + (col17 * 32 + col18 * 2) + 1736, half1_f32x2(acc1_1))
    shared_store_f32x2(sums, (row12 * 64 + row13) * 72 + (col17 * 32 + col18 * 2) + 1168, half0_f32x2(acc1_2))
    shared_store_f32x2(sums, (row12 * 64 + row13) * 72 + (col17 * 32 + col18 * 2) + 1744, half1_f32x2(acc1_2))
    shared_store_f32x2(sums, (row12 * 64 + row13) * 72 + (col17 * 32 + col18 * 2) + 1176, half0_f32x2(acc1_3))
    shared_store_f32x2(sums, (row12 * 64 + row13) * 72 + (col17 * 32 + col18 * 2) + 1752, half1_f32x2(acc1_3))
    shared_store_f32x2(sums, (row12 * 64 + row13) * 72 + (col17 * 32 + col18 * 2) + 2304, half0_f32x2(acc2_0))
    shared_store_f32x2(sums, (row12 * 64 + row13) * 72 + (col17 * 32 + col18 * 2) + 2880, half1_f32x2(acc2_0))
    shared_store_f32x2(sums, (row12 * 64 + row13) * 72 + (col17 * 32 + col18 * 2) + 2312, half0_f32x2(acc2_1))
    shared_store_f32x2(sums, (row12 * 64 + row13) * 72 + (col17 * 32 + col18 * 2) + 2888, half1_f32x2(acc2_1))
    shared_store_f32x2(sums, (row12 * 64 + row13) * 72 + (col17 * 32 + col18 * 2) + 2320, half0_f32x2(acc2_2))
    shared_store_f32x2(sums, (row12 * 64 + row13) * 72 + (col17 * 32 + col18 * 2) + 2896, half1_f32x2(acc2_2))
    shared_store_f32x2(sums, (row12 * 64 + row13) * 72 + (col17 * 32 + col18 * 2) + 2328, half0_f32x2(acc2_3))
    shared_store_f32x2(sums, (row12 * 64 + row13) * 72 + (col17 * 32 + col18 * 2) + 2904, half1_f32x2(acc2_3))
    shared_store_f32x2(sums, (row12 * 64 + row13) * 72 + (col17 * 32 + col18 * 2) + 3456, half0_f32x2(acc3_0))
    shared_store_f32x2(sums, (row12 * 64 + row13) * 72 + (col17 * 32 + col18 * 2) + 4032, half1_f32x2(acc3_0))
    shared_store_f32x2(sums, (row12 * 64 + row13) * 72 + (col17 * 32 + col18 * 2) + 3464, half0_f32x2(acc3_1))
    shared_store_f32x2(sums, (row12 * 64 + row13) * 72 + (col17 * 32 + col18 * 2) + 4040, half1_f32x2(acc3_1))
    shared_store_f32x2(sums, (row12 * 64 + row13) * 72 + (col17 * 32 + col18 * 2) + 3472, half0_f32x2(acc3_2))
    shared_store_f32x2(sums, (row12 * 64 + row13) * 72 + (col17 * 32 + col18 * 2) + 4048, half1_f32x2(acc3_2))
    shared_store_f32x2(sums, (row12 * 64 + row13) * 72 + (col17 * 32 + col18 * 2) + 3480, half0_f32x2(acc3_3))
    shared_store_f32x2(sums, (row12 * 64 + row13) * 72 + (col17 * 32 + col18 * 2) + 4056, half1_f32x2(acc3_3))
    cuda.syncthreads()
    row14 = quotient(thread, 16)
    col19 = rest(thread, 16)
    for row_outer in range(16):
        if row_block * 256 + row_outer * 16 + row14 < N * 3136:
            store_bf16_f32x4(output, (row_block * 256 + row_outer * 16 + row14) * 64 + col19 * 4, max_f32x4(add_f32x4(shared_load_f32x4(sums, (row_outer * 16 + row14) * 72 + col19 * 4), load_bf16_f32x4(bias, col19 * 4)), splat_f32x4(np.float32(0.0))))

def address(array):
    """Where an array on the device begins."""
    return array.__cuda_array_interface__["data"][0]

def share(kernel, size):
    """More than 48 KB of memory for a block to share is given only when asked for."""
    attribute = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    for compiled in kernel.overloads.values():
        function = compiled.library.get_cufunc()
        (error,) = driver.cuKernelSetAttribute(attribute, size, function.handle, function.device.id)
        if error != driver.CUresult.CUDA_SUCCESS:
            raise RuntimeError(f"a block cannot share {size} bytes: {error}")

# ---- the whole problem, on NumPy arrays
def run(input, weight, bias):
    input = np.ascontiguousarray(input).view(np.uint16).reshape((32, 56, 56, 64))  # bfloat16's bits
    input = cuda.to_device(input)
    weight = np.ascontiguousarray(weight).view(np.uint16).reshape((64, 64, 3, 3))  # bfloat16's bits
    weight = cuda.to_device(weight)
    bias = np.ascontiguousarray(bias).view(np.uint16).reshape((64,))  # bfloat16's bits
    bias = cuda.to_device(bias)
    output = cuda.device_array((32, 56, 56, 64), np.uint16)
    packed = cuda.device_array(73728, np.uint8)
    pack_weight[144, 256, 0, 0](address(weight), address(packed), 3, 3, 64, 64)
    share(conv, 75264)
    conv[392, 256, 0, 75264](address(input), address(bias), address(output), address(packed), 32)
    return output.copy_to_host()
