"""convgen: g144mb1_ic144oc144_ih56oh56kh3ph1 layout=channels_last
strategy  direct, pixels=16 lanes=16 pixels_first=1
template  cpu/kernel.py.j2
again     convgen emit 'g144mb1_ic144oc144_ih56oh56kh3ph1 layout=channels_last' --strategy direct --config 'pixels=16 lanes=16 pixels_first=1' -o .
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

def below(b, count, lanes):
    kind = ir.VectorType(ir.IntType(64), lanes)
    return b.icmp_signed("<", kind(list(range(lanes))), splat(b, count, kind))

i64, f32, f64, i32 = types.int64, types.float32, types.float64, types.int32
f32x16 = Vector(ir.FloatType(), 16)
f32x64 = Vector(ir.FloatType(), 64)
fma_f32x16 = operation(f32x16, (f32x16, f32x16, f32x16), lambda b, x, y, z: call(b, "llvm.fma.v16f32", x.type, x, y, z))
load_f32 = operation(f32, (i64, i64), lambda b, base, i: b.load(at(b, base, i, ir.FloatType(), 4), align=4))
load_f32x16 = operation(f32x16, (i64, i64), lambda b, base, i: b.load(at(b, base, i, f32x16.llvm, 4), align=4))
load_some_f32x64 = operation(f32x64, (i64, i64, i64), lambda b, base, i, n: call(b, "llvm.masked.load.v64f32.p0", f32x64.llvm, at(b, base, i, f32x64.llvm, 4), ir.IntType(32)(4), below(b, n, 64), f32x64.llvm(None)))
splat_f32x16 = operation(f32x16, (f32,), lambda b, x: splat(b, x, f32x16.llvm))
splat_f32x64 = operation(f32x64, (f32,), lambda b, x: splat(b, x, f32x64.llvm))
store_f32 = operation(types.void, (i64, i64, f32), lambda b, base, i, x: b.store(x, at(b, base, i, ir.FloatType(), 4), align=4))
store_f32x16 = operation(types.void, (i64, i64, f32x16), lambda b, base, i, x: b.store(x, at(b, base, i, f32x16.llvm, 4), align=4))
store_some_f32x64 = operation(types.void, (i64, i64, f32x64, i64), lambda b, base, i, x, n: call(b, "llvm.masked.store.v64f32.p0", ir.VoidType(), x, at(b, base, i, f32x64.llvm, 4), ir.IntType(32)(4), below(b, n, 64)))

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
    N, IH, IW, OH = sizes[0], sizes[1], sizes[2], sizes[3]
    OW, RH, LH, LW, worker_bytes = sizes[4], sizes[5], sizes[6], sizes[7], sizes[8]
    padded = buffers[3] + worker * worker_bytes
    for task in range(begin, end):
        n, part_h = task // ((OH + RH - 1) // RH), task % ((OH + RH - 1) // RH)
        start0, start1 = min(part_h * RH, OH - RH), min(1, OW + 2)
        limit = max(0 - start0 + 1, 0)
        start2 = min(limit, RH + 2)
        for padded_h_fill in range(RH + 2):
            for padded_w_fill in range(OW + 2):
                for padded_g_fill_block in range(3):
                    store_some_f32x64(padded, (padded_h_fill * LW + padded_w_fill) * 144 + padded_g_fill_block * 64, splat_f32x64(0.0), 0 - padded_g_fill_block * 64 + 144)
        for padded_h in range(max(min(IH - start0 + 1, RH + 2), start2) - start2):
            for padded_w in range(max(min(IW + 1, OW + 2), start1) - start1):
                for padded_g_block in range(3):
                    store_some_f32x64(padded, ((padded_h + start2) * LW + (padded_w + start1)) * 144 + padded_g_block * 64, load_some_f32x64(input, ((n * IH + (padded_h + start2 + start0)) * IW + (padded_w + start1)) * 144 + padded_g_block * 64 - (IW * 144 + 144), 0 - padded_g_block * 64 + 144), 0 - padded_g_block * 64 + 144)
        for g_block in range(9):
            for tile in range((RH * OW + 15) // 16):
                start3 = min(tile * 16, RH * OW - 16)
                row0, row1, row2, row3 = start3 // OW, (start3 + 1) // OW, (start3 + 2) // OW, (start3 + 3) // OW
                row4, row5, row6, row7 = (start3 + 4) // OW, (start3 + 5) // OW, (start3 + 6) // OW, (start3 + 7) // OW
                row8, row9, row10 = (start3 + 8) // OW, (start3 + 9) // OW, (start3 + 10) // OW
                row11, row12, row13 = (start3 + 11) // OW, (start3 + 12) // OW, (start3 + 13) // OW
                row14, row15 = (start3 + 14) // OW, (start3 + 15) // OW
                col0, col1, col2 = start3 - row0 * OW, start3 + 1 - row1 * OW, start3 + 2 - row2 * OW
                col3, col4, col5 = start3 + 3 - row3 * OW, start3 + 4 - row4 * OW, start3 + 5 - row5 * OW
                col6, col7, col8 = start3 + 6 - row6 * OW, start3 + 7 - row7 * OW, start3 + 8 - row8 * OW
                col9, col10, col11 = start3 + 9 - row9 * OW, start3 + 10 - row10 * OW, start3 + 11 - row11 * OW
                col12, col13, col14 = start3 + 12 - row12 * OW, start3 + 13 - row13 * OW, start3 + 14 - row14 * OW
                col15 = start3 + 15 - row15 * OW
                padded_at0 = (row0 * LW + col0) * 144 + g_block * 16
                padded_at1 = (row1 * LW + col1) * 144 + g_block * 16
                padded_at2 = (row2 * LW + col2) * 144 + g_block * 16
                padded_at3 = (row3 * LW + col3) * 144 + g_block * 16
                padded_at4 = (row4 * LW + col4) * 144 + g_block * 16
                padded_at5 = (row5 * LW + col5) * 144 + g_block * 16
                padded_at6 = (row6 * LW + col6) * 144 + g_block * 16
                padded_at7 = (row7 * LW + col7) * 144 + g_block * 16
                padded_at8 = (row8 * LW + col8) * 144 + g_block * 16
                padded_at9 = (row9 * LW + col9) * 144 + g_block * 16
                padded_at10 = (row10 * LW + col10) * 144 + g_block * 16
                padded_at11 = (row11 * LW + col11) * 144 + g_block * 16
                padded_at12 = (row12 * LW + col12) * 144 + g_block * 16
                padded_at13 = (row13 * LW + col13) * 144 + g_block * 16
                padded_at14 = (row14 * LW + col14) * 144 + g_block * 16
                padded_at15 = (row15 * LW + col15) * 144 + g_block * 16
                acc0 = splat_f32x16(0.0)
                acc1 = splat_f32x16(0.0)
                acc2 = splat_f32x16(0.0)
                acc3 = splat_f32x16(0.0)
                acc4 = splat_f32x16(0.0)
                acc5 = acc6 = acc7 = acc8 = acc9 = acc10 = acc11 = acc12 = acc13 = acc14 = acc15 = splat_f32x16(0.0)
                for kh in range(3):
                    for kw in range(3):
                        padded_by = (kh * LW + kw) * 144
                        packed_here = load_f32x16(packed, ((g_block * 3 + kh) * 3 + kw) * 16)
                        acc0 = fma_f32x16(load_f32x16(padded, padded_at0 + padded_by), packed_here, acc0)
                        acc1 = fma_f32x16(load_f32x16(padded, padded_at1 + padded_by), packed_here, acc1)
                        acc2 = fma_f32x16(load_f32x16(padded, padded_at2 + padded_by), packed_here, acc2)
                        acc3 = fma_f32x16(load_f32x16(padded, padded_at3 + padded_by), packed_here, acc3)
                        acc4 = fma_f32x16(load_f32x16(padded, padded_at4 + padded_by), packed_here, acc4)
                        acc5 = fma_f32x16(load_f32x16(padded, padded_at5 + padded_by), packed_here, acc5)
                        acc6 = fma_f32x16(load_f32x16(padded, padded_at6 + padded_by), packed_here, acc6)
                        acc7 = fma_f32x16(load_f32x16(padded, padded_at7 + padded_by), packed_here, acc7)
                        acc8 = fma_f32x16(load_f32x16(padded, padded_at8 + padded_by), packed_here, acc8)
                        acc9 = fma_f32x16(load_f32x16(padded, padded_at9 + padded_by), packed_here, acc9)
                        acc10 = fma_f32x16(load_f32x16(padded, padded_at10 + padded_by), packed_here, acc10)
                        acc11 = fma_f32x16(load_f32x16(padded, padded_at11 + padded_by), packed_here, acc11)
                        acc12 = fma_f32x16(load_f32x16(padded, padded_at12 + padded_by), packed_here, acc12)
                        acc13 = fma_f32x16(load_f32x16(padded, padded_at13 + padded_by), packed_here, acc13)
                        acc14 = fma_f32x16(load_f32x16(padded, padded_at14 + padded_by), packed_here, acc14)
                        acc15 = fma_f32x16(load_f32x16(padded, padded_at15 + padded_by), packed_here, acc15)
                output_at = ((n * OH + start0) * OW + start3) * 144 + g_block * 16
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
                store_f32x16(output, output_at + 2016, acc14)
                store_f32x16(output, output_at + 2160, acc15)

# ---- the whole problem on one thread
def run(input, weight):
    input = np.ascontiguousarray(input, np.float32).reshape((1, 56, 56, 144))
    weight = np.ascontiguousarray(weight, np.float32).reshape((144, 1, 3, 3))
    output = np.empty((1, 56, 56, 144), np.float32)
    padded, packed = (np.empty(size, np.uint8) for size in [701568, 5184])
    buffers = np.array([array.ctypes.data for array in (input, weight, output, padded, packed)])
    pack_weight(buffers, np.array([3, 3], np.int64), 0, 9, 0)
    conv(buffers, np.array([1, 56, 56, 56, 56, 19, 21, 58, 701568], np.int64), 0, 3, 0)
    return output
