"""convgen: g144mb1_ic144oc144_ih56oh56kh3ph1 layout=channels_last
strategy  direct, pixels=14 lanes=16 pixels_first=1 by_rows=1
template  cpu/kernel.py.j2
again     convgen emit 'g144mb1_ic144oc144_ih56oh56kh3ph1 layout=channels_last' --strategy direct --config 'pixels=14 lanes=16 pixels_first=1 by_rows=1' -o .
"""

from inspect import Parameter, Signature
import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils, datamodel
from numba.extending import intrinsic

# ---- vectors: each operation is one LLVM instruction, or a few
class Vector(types.Type):
    """Lanes of one element type, kept in vector registers."""
    def __init__(self, element, lanes):
        self.llvm = ir.VectorType(element, lanes)
        super().__init__(f"Vector({self.llvm})")

datamodel.register_default(Vector)(lambda manager, v: datamodel.models.PrimitiveModel(manager, v, v.llvm))

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

def at(b, base, index, llvm, size):
    return b.inttoptr(b.add(base, b.mul(index, index.type(size))), llvm.as_pointer())

def call(b, name, result, *values):
    function = ir.FunctionType(result, [value.type for value in values])
    return b.call(cgutils.get_or_insert_function(b.module, function, name), values)

def splat(b, x, vector):
    first = b.insert_element(vector(ir.Undefined), x, ir.IntType(32)(0))
    return b.shuffle_vector(first, first, ir.VectorType(ir.IntType(32), vector.count)(None))

i64, f32, f64, i32 = types.int64, types.float32, types.float64, types.int32
f32x16 = Vector(ir.FloatType(), 16)
fma_f32x16 = operation(f32x16, (f32x16, f32x16, f32x16), lambda b, x, y, z: call(b, "llvm.fma.v16f32", x.type, x, y, z))
load_f32 = operation(f32, (i64, i64), lambda b, base, i: b.load(at(b, base, i, ir.FloatType(), 4), align=4))
load_f32x16 = operation(f32x16, (i64, i64), lambda b, base, i: b.load(at(b, base, i, f32x16.llvm, 4), align=4))
splat_f32x16 = operation(f32x16, (f32,), lambda b, x: splat(b, x, f32x16.llvm))
store_f32 = operation(types.void, (i64, i64, f32), lambda b, base, i, x: b.store(x, at(b, base, i, ir.FloatType(), 4), align=4))
store_f32x16 = operation(types.void, (i64, i64, f32x16), lambda b, base, i, x: b.store(x, at(b, base, i, f32x16.llvm, 4), align=4))

# ---- stages: buffers holds addresses, sizes extents; begin..end are the tasks to run, worker numbers the thread
@njit(error_model="numpy", nogil=True)
def pack_weight(buffers, sizes, begin, end, worker):
    weight, packed = buffers[1], buffers[4]
    packed_khs, packed_kws = sizes[0], sizes[1]
    for packed_block in range(begin, end):
        for packed_kh in range(packed_khs):
            for packed_kw in range(packed_kws):
                for packed_lane in range(16):
                    store_f32(packed, ((packed_block * packed_khs + packed_kh) * packed_kws + packed_kw) * 16 + packed_lane, load_f32(weight, ((packed_block * 16 + packed_lane) * packed_khs + packed_kh) * packed_kws + packed_kw))

@njit(error_model="numpy", nogil=True)
def conv(buffers, sizes, begin, end, worker):
    input, output, packed = buffers[0], buffers[2], buffers[4]
    N, IH, IW, OH, OW = sizes[0], sizes[1], sizes[2], sizes[3], sizes[4]
    RH, RW, LH, LW, worker_bytes = sizes[5], sizes[6], sizes[7], sizes[8], sizes[9]
    padded = buffers[3] + worker * worker_bytes
    for task in range(begin, end):
        n = task // (9 * ((OW + RW - 1) // RW) * ((OH + RH - 1) // RH))
        part_h, part_w = task // (9 * ((OW + RW - 1) // RW)) % ((OH + RH - 1) // RH), task // 9 % ((OW + RW - 1) // RW)
        g_block = task % 9
        start0, start1 = min(part_h * RH, OH - RH), min(part_w * RW, OW - RW)
        limit0, limit1 = max(0 - start0 + 1, 0), max(0 - start1 + 1, 0)
        start2, start3 = min(limit0, RH + 2), min(limit1, RW + 2)
        padded_at0 = (start2 * LW + start3) * 16
        for padded_h_fill in range(RH + 2):
            for padded_w_fill in range(RW + 2):
                store_f32x16(padded, (padded_h_fill * LW + padded_w_fill) * 16, splat_f32x16(0.0))
        for padded_h in range(max(min(IH - start0 + 1, RH + 2), start2) - start2):
            for padded_w in range(max(min(IW - start1 + 1, RW + 2), start3) - start3):
                store_f32x16(padded, padded_at0 + (padded_h * LW + padded_w) * 16, load_f32x16(input, ((n * IH + (padded_h + start2 + start0)) * IW + (padded_w + start3 + start1)) * 144 + g_block * 16 - (IW * 144 + 144)))
        for in_h in range(RH):
            limit2 = max(0, 0 - start0 - in_h + 1)
            for tile in range((RW + 13) // 14):
                start4 = min(tile * 14, RW - 14)
                acc0 = splat_f32x16(0.0)
                acc1 = splat_f32x16(0.0)
                acc2 = splat_f32x16(0.0)
                acc3 = acc4 = acc5 = acc6 = acc7 = acc8 = acc9 = acc10 = acc11 = acc12 = acc13 = splat_f32x16(0.0)
                for kh in range(min(3, IH - start0 - in_h + 1) - limit2):
                    for kw in range(3):
                        padded_at1 = ((in_h + limit2 + kh) * LW + (start4 + kw)) * 16
                        packed_here = load_f32x16(packed, ((g_block * 3 + (limit2 + kh)) * 3 + kw) * 16)
                        acc0 = fma_f32x16(load_f32x16(padded, padded_at1), packed_here, acc0)
                        acc1 = fma_f32x16(load_f32x16(padded, padded_at1 + 16), packed_here, acc1)
                        acc2 = fma_f32x16(load_f32x16(padded, padded_at1 + 32), packed_here, acc2)
                        acc3 = fma_f32x16(load_f32x16(padded, padded_at1 + 48), packed_here, acc3)
                        acc4 = fma_f32x16(load_f32x16(padded, padded_at1 + 64), packed_here, acc4)
                        acc5 = fma_f32x16(load_f32x16(padded, padded_at1 + 80), packed_here, acc5)
                        acc6 = fma_f32x16(load_f32x16(padded, padded_at1 + 96), packed_here, acc6)
                        acc7 = fma_f32x16(load_f32x16(padded, padded_at1 + 112), packed_here, acc7)
                        acc8 = fma_f32x16(load_f32x16(padded, padded_at1 + 128), packed_here, acc8)
                        acc9 = fma_f32x16(load_f32x16(padded, padded_at1 + 144), packed_here, acc9)
                        acc10 = fma_f32x16(load_f32x16(padded, padded_at1 + 160), packed_here, acc10)
                        acc11 = fma_f32x16(load_f32x16(padded, padded_at1 + 176), packed_here, acc11)
                        acc12 = fma_f32x16(load_f32x16(padded, padded_at1 + 192), packed_here, acc12)
                        acc13 = fma_f32x16(load_f32x16(padded, padded_at1 + 208), packed_here, acc13)
                output_at = ((n * OH + (start0 + in_h)) * OW + (start1 + start4)) * 144 + g_block * 16
                store_f32x16(output, output_at, acc0)
                store_f32x16(output, output_at + 144, acc1)
                store_f32x16(output, output_at + 288, acc2)
                store_f32x16(output, output_at + 432, acc3)
                store_f32x16(output, output_at + 576, acc4)
                store_f32x16(output, output_at + 720, acc5)
                store_f32x16(output, output_at + 864, acc6)
                store_f32x16(output, output_at + 1008, acc7)
                store_f32x16(output, output_at + 1152, acc8)
                store_f32x16(output, output_at + 1296, acc9)
                store_f32x16(output, output_at + 1440, acc10)
                store_f32x16(output, output_at + 1584, acc11)
                store_f32x16(output, output_at + 1728, acc12)
                store_f32x16(output, output_at + 1872, acc13)

# ---- the whole problem on one thread
def run(input, weight):
    input = np.ascontiguousarray(input, np.float32).reshape((1, 56, 56, 144))
    weight = np.ascontiguousarray(weight, np.float32).reshape((144, 1, 3, 3))
    output = np.empty((1, 56, 56, 144), np.float32)
    padded, packed = (np.empty(size, np.uint8) for size in [111360, 5184])
    buffers = np.array([array.ctypes.data for array in (input, weight, output, padded, packed)])
    pack_weight(buffers, np.array([3, 3], np.int64), 0, 9, 0)
    conv(buffers, np.array([1, 56, 56, 56, 56, 56, 28, 58, 30, 111360], np.int64), 0, 18, 0)
    return output
