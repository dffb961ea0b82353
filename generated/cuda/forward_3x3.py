"""convgen: mb32_ic64oc64_ih56oh56kh3ph1 layout=channels_last epilogue=bias+relu
for GPUs of compute capability 9.0
strategy  implicit_gemm, rows=128 cols=64 depth=8 row_tile=8 col_tile=4 split=1 matrix=0 stages=3
template  cuda/kernel.py.j2
again     convgen emit 'mb32_ic64oc64_ih56oh56kh3ph1 layout=channels_last epilogue=bias+relu' --target cuda --capability 9.0 --strategy implicit_gemm --config 'rows=128 cols=64 depth=8 row_tile=8 col_tile=4 split=1 matrix=0 stages=3' -o .
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

def call(b, name, *values):
    """A function of values of one type, such as one of NVIDIA's libdevice, of every lane."""
    def of(*lane):
        function = ir.FunctionType(lane[0].type, [x.type for x in lane])
        return b.call(cgutils.get_or_insert_function(b.module, function, name), lane)
    return each_lane(b, of, *values)

def extreme(b, x, y, order):
    """The larger (order ">") or smaller of two numbers; a NaN where one is."""
    def of(x, y):
        if isinstance(x.type, ir.IntType):
            return b.select(b.icmp_signed(order, x, y), x, y)
        return b.select(b.fcmp_unordered("!=", x, x), x, b.select(b.fcmp_ordered(order, x, y), x, y))
    return each_lane(b, of, x, y)

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
f32x4 = Vector(ir.FloatType(), 4)
add_f32x4 = operation(f32x4, (f32x4, f32x4), lambda b, x, y: b.fadd(x, y))
copy_async_16 = operation(types.void, (i64, i64, i64, i64, types.boolean), lambda b, t, j, s, i, p: copy_async(b, shared_at(b, t, j, ir.IntType(8), 4), s, i, p, 4, 16))
copy_group = operation(types.void, (), lambda b: order(b, "cp.async.commit_group;"))
copy_wait_1 = operation(types.void, (), lambda b: order(b, "cp.async.wait_group 1;"))
fma_f32x4 = operation(f32x4, (f32x4, f32x4, f32x4), lambda b, x, y, z: call(b, "llvm.fma.f32", x, y, z))
lane_f32x4_4_0 = operation(f32x4, (f32x4,), lambda b, x: splat(b, b.extract_element(x, ir.IntType(32)(0)), f32x4.llvm))
lane_f32x4_4_1 = operation(f32x4, (f32x4,), lambda b, x: splat(b, b.extract_element(x, ir.IntType(32)(1)), f32x4.llvm))
lane_f32x4_4_2 = operation(f32x4, (f32x4,), lambda b, x: splat(b, b.extract_element(x, ir.IntType(32)(2)), f32x4.llvm))
lane_f32x4_4_3 = operation(f32x4, (f32x4,), lambda b, x: splat(b, b.extract_element(x, ir.IntType(32)(3)), f32x4.llvm))
load_f32 = operation(f32, (i64, i64), lambda b, s, i: b.load(at(b, s, i, ir.FloatType(), 4), align=4))
load_f32x4 = operation(f32x4, (i64, i64), lambda b, s, i: b.load(at(b, s, i, ir.VectorType(ir.FloatType(), 4), 4), align=16))
max_f32x4 = operation(f32x4, (f32x4, f32x4), lambda b, x, y: extreme(b, x, y, ">"))
quotient = operation(i64, (i64, i64), quotient)
rest = operation(i64, (i64, i64), rest)
shared_load_f32x4 = operation(f32x4, (i64, i64), lambda b, s, i: b.load(shared_at(b, s, i, ir.VectorType(ir.FloatType(), 4), 4), align=16))
splat_f32x4 = operation(f32x4, (f32,), lambda b, x: splat(b, x, f32x4.llvm))
store_f32 = operation(types.void, (i64, i64, f32), lambda b, s, i, x: b.store(x, at(b, s, i, ir.FloatType(), 4), align=4))
store_f32x4 = operation(types.void, (i64, i64, f32x4), lambda b, s, i, x: b.store(x, at(b, s, i, ir.VectorType(ir.FloatType(), 4), 4), align=16))

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
        store_f32(packed, block * 256 + thread, load_f32(weight, (col * packed_2s + col1) * packed_0s * packed_1s + row1))

@cuda.jit("void(i64, i64, i64, i64, i64)", launch_bounds=(256, 1))
def conv(input, bias, output, packed, N):
    rows = 0  # bytes into the shared memory
    cols = 18432  # bytes into the shared memory
    thread = cuda.threadIdx.x
    row_block = cuda.blockIdx.x
    acc0_0 = splat_f32x4(np.float32(0.0))
    acc0_1 = splat_f32x4(np.float32(0.0))
    acc0_2 = splat_f32x4(np.float32(0.0))
    acc0_3 = splat_f32x4(np.float32(0.0))
    acc1_0 = splat_f32x4(np.float32(0.0))
    acc1_1 = splat_f32x4(np.float32(0.0))
    acc1_2 = splat_f32x4(np.float32(0.0))
    acc1_3 = splat_f32x4(np.float32(0.0))
    row = quotient(thread, 16)
    col = rest(thread, 16)
    if thread < 128:
        copy_async_16(cols, row * 68 + col * 4, packed, row * 64 + col * 4, True)
    row1 = quotient(thread, 2)
    col1 = rest(thread, 2)
    row2 = quotient(row_block * 128 + row1, 56)
    col2 = rest(row2, 56)
    col3 = rest(row_block * 128 + row1, 56)
    copy_async_16(rows, row1 * 12 + col1 * 4, input, (row_block * 128 + row1) * 64 + col1 * 4 + (-3648), row_block * 128 + row1 < N * 3136 and 0 <= col2 - 1 and col2 - 1 < 56 and 0 <= col3 - 1 and col3 - 1 < 56)
    copy_group()
    row3 = quotient(thread, 16)
    col4 = rest(thread, 16)
    if thread < 128:
        copy_async_16(cols, row3 * 68 + col4 * 4 + 544, packed, row3 * 64 + col4 * 4 + 512, True)
    row4 = quotient(thread, 2)
    col5 = rest(thread, 2)
    row5 = quotient(row_block * 128 + row4, 56)
    col6 = rest(row5, 56)
    col7 = rest(row_block * 128 + row4, 56)
    copy_async_16(rows, row4 * 12 + col5 * 4 + 1536, input, (row_block * 128 + row4) * 64 + col5 * 4 + (-3640), row_block * 128 + row4 < N * 3136 and 0 <= col6 - 1 and col6 - 1 < 56 and 0 <= col7 - 1 and col7 - 1 < 56)
    copy_group()
    for k_block in range(72):
        col8 = rest(k_block + 2, 3)
        row6 = quotient(k_block * 8 + 16, 64)
        row7 = quotient(row6, 3)
        col9 = rest(row6, 3)
        col10 = rest(k_block * 8 + 16, 64)
        col11 = rest(k_block, 3)
        copy_wait_1()
        cuda.syncthreads()
        if k_block + 2 < 72:
            row8 = quotient(thread, 16)
            col12 = rest(thread, 16)
            if thread < 128:
                copy_async_16(cols, (col8 * 8 + row8) * 68 + col12 * 4, packed, (k_block * 8 + row8) * 64 + col12 * 4 + 1024, True)
            row9 = quotient(thread, 2)
            col13 = rest(thread, 2)
            row10 = quotient(row_block * 128 + row9, 56)
            col14 = rest(row10, 56)
            col15 = rest(row_block * 128 + row9, 56)
            copy_async_16(rows, (col8 * 128 + row9) * 12 + col13 * 4, input, (row7 * 56 + (col9 + row_block * 128 + row9)) * 64 + (col10 + col13 * 4) + (-3648), row_block * 128 + row9 < N * 3136 and 0 <= col14 + row7 - 1 and col14 + row7 - 1 < 56 and 0 <= col15 + col9 - 1 and col15 + col9 - 1 < 56)
        copy_group()
        row11 = quotient(thread, 16)
        col16 = rest(thread, 16)
        for k_some in range(2):
            rows_at = (col11 * 128 + row11 * 4) * 12 + k_some * 4
            cols_at = (col11 * 8 + k_some * 4) * 68 + col16 * 4
            rows_here = shared_load_f32x4(rows, rows_at)
            cols_here = shared_load_f32x4(cols, cols_at)
            rows_here1 = shared_load_f32x4(rows, rows_at + 12)
            rows_here2 = shared_load_f32x4(rows, rows_at + 24)
            rows_here3 = shared_load_f32x4(rows, rows_at + 36)
            rows_here4 = shared_load_f32x4(rows, rows_at + 768)
            rows_here5 = shared_load_f32x4(rows, rows_at + 780)
            rows_here6 = shared_load_f32x4(rows, rows_at + 792)
            rows_here7 = shared_load_f32x4(rows, rows_at + 804)
            cols_here1 = shared_load_f32x4(cols, cols_at + 68)
            cols_here2 = shared_load_f32x4(cols, cols_at + 136)
            cols_here3 = shared_load_f32x4(cols, cols_at + 204)
            acc0_0 = fma_f32x4(lane_f32x4_4_0(rows_here), cols_here, acc0_0)
            acc0_1 = fma_f32x4(lane_f32x4_4_0(rows_here1), cols_here, acc0_1)
            acc0_2 = fma_f32x4(lane_f32x4_4_0(rows_here2), cols_here, acc0_2)
            acc0_3 = fma_f32x4(lane_f32x4_4_0(rows_here3), cols_here, acc0_3)
            acc1_0 = fma_f32x4(lane_f32x4_4_0(rows_here4), cols_here, acc1_0)
            acc1_1 = fma_f32x4(lane_f32x4_4_0(rows_here5), cols_here, acc1_1)
            acc1_2 = fma_f32x4(lane_f32x4_4_0(rows_here6), cols_here, acc1_2)
            acc1_3 = fma_f32x4(lane_f32x4_4_0(rows_here7), cols_here, acc1_3)
            acc0_0 = fma_f32x4(lane_f32x4_4_1(rows_here), cols_here1, acc0_0)
            acc0_1 = fma_f32x4(lane_f32x4_4_1(rows_here1), cols_here1, acc0_1)
            acc0_2 = fma_f32x4(lane_f32x4_4_1(rows_here2), cols_here1, acc0_2)
            acc0_3 = fma_f32x4(lane_f32x4_4_1(rows_here3), cols_here1, acc0_3)
            acc1_0 = fma_f32x4(lane_f32x4_4_1(rows_here4), cols_here1, acc1_0)
            acc1_1 = fma_f32x4(lane_f32x4_4_1(rows_here5), cols_here1, acc1_1)
            acc1_2 = fma_f32x4(lane_f32x4_4_1(rows_here6), cols_here1, acc1_2)
            acc1_3 = fma_f32x4(lane_f32x4_4_1(rows_here7), cols_here1, acc1_3)
            acc0_0 = fma_f32x4(lane_f32x4_4_2(rows_here), cols_here2, acc0_0)
            acc0_1 = fma_f32x4(lane_f32x4_4_2(rows_here1), cols_here2, acc0_1)
            acc0_2 = fma_f32x4(lane_f32x4_4_2(rows_here2), cols_here2, acc0_2)
            acc0_3 = fma_f32x4(lane_f32x4_4_2(rows_here3), cols_here2, acc0_3)
            acc1_0 = fma_f32x4(lane_f32x4_4_2(rows_here4), cols_here2, acc1_0)
            acc1_1 = fma_f32x4(lane_f32x4_4_2(rows_here5), cols_here2, acc1_1)
            acc1_2 = fma_f32x4(lane_f32x4_4_2(rows_here6), cols_here2, acc1_2)
            acc1_3 = fma_f32x4(lane_f32x4_4_2(rows_here7), cols_here2, acc1_3)
            acc0_0 = fma_f32x4(lane_f32x4_4_3(rows_here), cols_here3, acc0_0)
            acc0_1 = fma_f32x4(lane_f32x4_4_3(rows_here1), cols_here3, acc0_1)
            acc0_2 = fma_f32x4(lane_f32x4_4_3(rows_here2), cols_here3, acc0_2)
            acc0_3 = fma_f32x4(lane_f32x4_4_3(rows_here3), cols_here3, acc0_3)
            acc1_0 = fma_f32x4(lane_f32x4_4_3(rows_here4), cols_here3, acc1_0)
            acc1_1 = fma_f32x4(lane_f32x4_4_3(rows_here5), cols_here3, acc1_1)
            acc1_2 = fma_f32x4(lane_f32x4_4_3(rows_here6), cols_here3, acc1_2)
            acc1_3 = fma_f32x4(lane_f32x4_4_3(rows_here7), cols_here3, acc1_3)
    row12 = quotient(thread, 16)
    col17 = rest(thread, 16)
    if row_block * 128 + row12 * 4 < N * 3136:
        store_f32x4(output, (row_block * 128 + row12 * 4) * 64 + col17 * 4, max_f32x4(add_f32x4(acc0_0, load_f32x4(bias, col17 * 4)), splat_f32x4(np.float32(0.0))))
    if row_block * 128 + row12 * 4 + 1 < N * 3136:
        store_f32x4(output, (row_block * 128 + row12 * 4) * 64 + col17 * 4 + 64, max_f32x4(add_f32x4(acc0_1, load_f32x4(bias, col17 * 4)), splat_f32x4(np.float32(0.0))))
    if row_block * 128 + row12 * 4 + 2 < N * 3136:
        store_f32x4(output, (row_block * 128 + row12 * 4) * 64 + col17 * 4 + 128, max_f32x4(add_f32x4(acc0_2, load_f32x4(bias, col17 * 4)), splat_f32x4(np.float32(0.0))))
    if row_block * 128 + row12 * 4 + 3 < N * 3136:
        store_f32x4(output, (row_block * 128 + row12 * 4) * 64 + col17 * 4 + 192, max_f32x4(add_f32x4(acc0_3, load_f32x4(bias, col17 * 4)), splat_f32x4(np.float32(0.0))))
    if row_block * 128 + row12 * 4 + 64 < N * 3136:
        store_f32x4(output, (row_block * 128 + row12 * 4) * 64 + col17 * 4 + 4096, max_f32x4(add_f32x4(acc1_0, load_f32x4(bias, col17 * 4)), splat_f32x4(np.float32(0.0))))
    if row_block * 128 + row12 * 4 + 65 < N * 3136:
        store_f32x4(output, (row_block * 128 + row12 * 4) * 64 + col17 * 4 + 4160, max_f32x4(add_f32x4(acc1_1, load_f32x4(bias, col17 * 4)), splat_f32x4(np.float32(0.0))))
    if row_block * 128 + row12 * 4 + 66 < N * 3136:
        store_f32x4(output, (row_block * 128 + row12 * 4) * 64 + col17 * 4 + 4224, max_f32x4(add_f32x4(acc1_2, load_f32x4(bias, col17 * 4)), splat_f32x4(np.float32(0.0))))
    if row_block * 128 + row12 * 4 + 67 < N * 3136:
        store_f32x4(output, (row_block * 128 + row12 * 4) * 64 + col17 * 4 + 4288, max_f32x4(add_f32x4(acc1_3, load_f32x4(bias, col17 * 4)), splat_f32x4(np.float32(0.0))))

def address(array):
    """Where an array on the device begins."""
    return array.__cuda_array_interface__["data"][0]

# ---- the whole problem, on NumPy arrays
def run(input, weight, bias):
    input = np.ascontiguousarray(input, np.float32).reshape((32, 56, 56, 64))
    input = cuda.to_device(input)
    weight = np.ascontiguousarray(weight, np.float32).reshape((64, 64, 3, 3))
    weight = cuda.to_device(weight)
    bias = np.ascontiguousarray(bias, np.float32).reshape((64,))
    bias = cuda.to_device(bias)
    output = cuda.device_array((32, 56, 56, 64), np.float32)
    packed = cuda.device_array(147456, np.uint8)
    pack_weight[144, 256, 0, 0](address(weight), address(packed), 3, 3, 64, 64)
    conv[784, 256, 0, 24960](address(input), address(bias), address(output), address(packed), 32)
    return output.copy_to_host()
