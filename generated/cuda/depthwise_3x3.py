"""convgen: g144mb32_ic144oc144_ih56oh56kh3ph1 layout=channels_last
for GPUs of compute capability 9.0
strategy  depthwise, pixels=8 lanes=4
template  cuda/kernel.py.j2
again     convgen emit 'g144mb32_ic144oc144_ih56oh56kh3ph1 layout=channels_last' --target cuda --capability 9.0 --strategy depthwise --config 'pixels=8 lanes=4' -o .
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
fma_f32x4 = operation(f32x4, (f32x4, f32x4, f32x4), lambda b, x, y, z: call(b, "llvm.fma.f32", x, y, z))
load_f32 = operation(f32, (i64, i64), lambda b, s, i: b.load(at(b, s, i, ir.FloatType(), 4), align=4))
load_f32x4 = operation(f32x4, (i64, i64), lambda b, s, i: b.load(at(b, s, i, ir.VectorType(ir.FloatType(), 4), 4), align=16))
quotient = operation(i64, (i64, i64), quotient)
rest = operation(i64, (i64, i64), rest)
splat_f32x4 = operation(f32x4, (f32,), lambda b, x: splat(b, x, f32x4.llvm))
store_f32 = operation(types.void, (i64, i64, f32), lambda b, s, i, x: b.store(x, at(b, s, i, ir.FloatType(), 4), align=4))
store_f32x4 = operation(types.void, (i64, i64, f32x4), lambda b, s, i, x: b.store(x, at(b, s, i, ir.VectorType(ir.FloatType(), 4), 4), align=16))

# ---- kernels: the addresses of arrays, then sizes
@cuda.jit("void(i64, i64, i64, i64, i64)", launch_bounds=(256, 1))
def pack_weight(weight, packed, packed_0s, packed_1s, packed_2s):
    thread = cuda.threadIdx.x
    block = cuda.blockIdx.x
    col = rest(block * 256 + thread, packed_2s)
    row = quotient(block * 256 + thread, packed_2s)
    if block * 256 + thread < packed_0s * packed_1s * packed_2s:
        store_f32(packed, block * 256 + thread, load_f32(weight, col * packed_0s * packed_1s + row))

@cuda.jit("void(i64, i64, i64, i64)", launch_bounds=(128, 1))
def conv(input, output, packed, N):
    thread = cuda.threadIdx.x
    block = cuda.blockIdx.x
    row = quotient(block * 128 + thread, 36)
    row1 = quotient(row, 7)
    col = rest(row, 7)
    col1 = rest(block * 128 + thread, 36)
    col2 = rest(row1, 56)
    if block * 128 + thread < N * 14112:
        acc0 = splat_f32x4(np.float32(0.0))
        acc1 = splat_f32x4(np.float32(0.0))
        acc2 = splat_f32x4(np.float32(0.0))
        acc3 = splat_f32x4(np.float32(0.0))
        acc4 = splat_f32x4(np.float32(0.0))
        acc5 = splat_f32x4(np.float32(0.0))
        acc6 = splat_f32x4(np.float32(0.0))
        acc7 = splat_f32x4(np.float32(0.0))
        for kh in range(3):
            input_at = ((kh + row1) * 56 + col * 8) * 144 + col1 * 4
            packed_at = kh * 3 * 144 + col1 * 4
            packed_here = load_f32x4(packed, packed_at)
            packed_here1 = load_f32x4(packed, packed_at + 144)
            packed_here2 = load_f32x4(packed, packed_at + 288)
            if 0 <= col2 + kh - 1 and col2 + kh - 1 < 56 and 0 <= col * 8 - 1:
                chosen = load_f32x4(input, input_at + (-8208))
            else:
                chosen = splat_f32x4(np.float32(0.0))
            acc0 = fma_f32x4(chosen, packed_here, acc0)
            if 0 <= col2 + kh - 1 and col2 + kh - 1 < 56:
                chosen1 = load_f32x4(input, input_at + (-8064))
            else:
                chosen1 = splat_f32x4(np.float32(0.0))
            acc1 = fma_f32x4(chosen1, packed_here, acc1)
            if 0 <= col2 + kh - 1 and col2 + kh - 1 < 56:
                chosen2 = load_f32x4(input, input_at + (-7920))
            else:
                chosen2 = splat_f32x4(np.float32(0.0))
            acc2 = fma_f32x4(chosen2, packed_here, acc2)
            if 0 <= col2 + kh - 1 and col2 + kh - 1 < 56:
                chosen3 = load_f32x4(input, input_at + (-7776))
            else:
                chosen3 = splat_f32x4(np.float32(0.0))
            acc3 = fma_f32x4(chosen3, packed_here, acc3)
            if 0 <= col2 + kh - 1 and col2 + kh - 1 < 56:
                chosen4 = load_f32x4(input, input_at + (-7632))
            else:
                chosen4 = splat_f32x4(np.float32(0.0))
            acc4 = fma_f32x4(chosen4, packed_here, acc4)
            if 0 <= col2 + kh - 1 and col2 + kh - 1 < 56:
                chosen5 = load_f32x4(input, input_at + (-7488))
            else:
                chosen5 = splat_f32x4(np.float32(0.0))
            acc5 = fma_f32x4(chosen5, packed_here, acc5)
            if 0 <= col2 + kh - 1 and col2 + kh - 1 < 56:
                chosen6 = load_f32x4(input, input_at + (-7344))
            else:
                chosen6 = splat_f32x4(np.float32(0.0))
            acc6 = fma_f32x4(chosen6, packed_here, acc6)
            if 0 <= col2 + kh - 1 and col2 + kh - 1 < 56:
                chosen7 = load_f32x4(input, input_at + (-7200))
            else:
                chosen7 = splat_f32x4(np.float32(0.0))
            acc7 = fma_f32x4(chosen7, packed_here, acc7)
            acc0 = fma_f32x4(chosen1, packed_here1, acc0)
            acc1 = fma_f32x4(chosen2, packed_here1, acc1)
            acc2 = fma_f32x4(chosen3, packed_here1, acc2)
            acc3 = fma_f32x4(chosen4, packed_here1, acc3)
            acc4 = fma_f32x4(chosen5, packed_here1, acc4)
            acc5 = fma_f32x4(chosen6, packed_here1, acc5)
            acc6 = fma_f32x4(chosen7, packed_here1, acc6)
            if 0 <= col2 + kh - 1 and col2 + kh - 1 < 56:
                chosen8 = load_f32x4(input, input_at + (-7056))
            else:
                chosen8 = splat_f32x4(np.float32(0.0))
            acc7 = fma_f32x4(chosen8, packed_here1, acc7)
            acc0 = fma_f32x4(chosen2, packed_here2, acc0)
            acc1 = fma_f32x4(chosen3, packed_here2, acc1)
            acc2 = fma_f32x4(chosen4, packed_here2, acc2)
            acc3 = fma_f32x4(chosen5, packed_here2, acc3)
            acc4 = fma_f32x4(chosen6, packed_here2, acc4)
            acc5 = fma_f32x4(chosen7, packed_here2, acc5)
            acc6 = fma_f32x4(chosen8, packed_here2, acc6)
            if 0 <= col2 + kh - 1 and col2 + kh - 1 < 56 and col * 8 + 8 < 56:
                chosen9 = load_f32x4(input, input_at + (-6912))
            else:
                chosen9 = splat_f32x4(np.float32(0.0))
            acc7 = fma_f32x4(chosen9, packed_here2, acc7)
        output_at = (row1 * 56 + col * 8) * 144 + col1 * 4
        store_f32x4(output, output_at, acc0)
        store_f32x4(output, output_at + 144, acc1)
        store_f32x4(output, output_at + 288, acc2)
        store_f32x4(output, output_at + 432, acc3)
        store_f32x4(output, output_at + 576, acc4)
        store_f32x4(output, output_at + 720, acc5)
        store_f32x4(output, output_at + 864, acc6)
        store_f32x4(output, output_at + 1008, acc7)

def address(array):
    """Where an array on the device begins."""
    return array.__cuda_array_interface__["data"][0]

# ---- the whole problem, on NumPy arrays
def run(input, weight):
    input = np.ascontiguousarray(input, np.float32).reshape((32, 56, 56, 144))
    input = cuda.to_device(input)
    weight = np.ascontiguousarray(weight, np.float32).reshape((144, 1, 3, 3))
    weight = cuda.to_device(weight)
    output = cuda.device_array((32, 56, 56, 144), np.float32)
    packed = cuda.device_array(5184, np.uint8)
    pack_weight[6, 256, 0, 0](address(weight), address(packed), 3, 3, 144)
    conv[3528, 128, 0, 0](address(input), address(output), address(packed), 32)
    return output.copy_to_host()
