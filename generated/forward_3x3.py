"""convgen: mb1_ic64oc64_ih56oh56kh3ph1 layout=channels_last epilogue=bias+relu
strategy  direct, pixels=6 lanes=64 pixels_first=1
template  cpu/kernel.py.j2
again     convgen emit 'mb1_ic64oc64_ih56oh56kh3ph1 layout=channels_last epilogue=bias+relu' --strategy direct --config 'pixels=6 lanes=64 pixels_first=1' -o .
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

def prefetch(b, base, index, size, length):
    """Asks for the cache lines of so many bytes to come to the second level."""
    place, kind = b.add(base, b.mul(index, index.type(size))), ir.IntType(32)
    for line in range(0, length, 64):
        here = b.inttoptr(b.add(place, place.type(line)), ir.IntType(8).as_pointer())
        call(b, "llvm.prefetch.p0", ir.VoidType(), here, kind(0), kind(2), kind(1))

def splat(b, x, vector):
    first = b.insert_element(vector(ir.Undefined), x, ir.IntType(32)(0))
    return b.shuffle_vector(first, first, ir.VectorType(ir.IntType(32), vector.count)(None))

def below(b, count, lanes):
    kind = ir.VectorType(ir.IntType(64), lanes)
    return b.icmp_signed("<", kind(list(range(lanes))), splat(b, count, kind))

i64, f32, f64, i32 = types.int64, types.float32, types.float64, types.int32
f32x64 = Vector(ir.FloatType(), 64)
add_f32x64 = operation(f32x64, (f32x64, f32x64), lambda b, x, y: b.fadd(x, y))
fma_f32x64 = operation(f32x64, (f32x64, f32x64, f32x64), lambda b, x, y, z: call(b, "llvm.fma.v64f32", x.type, x, y, z))
load_f32 = operation(f32, (i64, i64), lambda b, base, i: b.load(at(b, base, i, ir.FloatType(), 4), align=4))
load_f32x64 = operation(f32x64, (i64, i64), lambda b, base, i: b.load(at(b, base, i, f32x64.llvm, 4), align=4))
load_some_f32x64 = operation(f32x64, (i64, i64, i64), lambda b, base, i, n: call(b, "llvm.masked.load.v64f32.p0", f32x64.llvm, at(b, base, i, f32x64.llvm, 4), ir.IntType(32)(4), below(b, n, 64), f32x64.llvm(None)))
max_f32x64 = operation(f32x64, (f32x64, f32x64), lambda b, x, y: call(b, "llvm.maximum.v64f32", x.type, x, y))
prefetch_f32x64 = operation(types.void, (i64, i64), lambda b, base, i: prefetch(b, base, i, 4, 256))
splat_f32x64 = operation(f32x64, (f32,), lambda b, x: splat(b, x, f32x64.llvm))
store_f32 = operation(types.void, (i64, i64, f32), lambda b, base, i, x: b.store(x, at(b, base, i, ir.FloatType(), 4), align=4))
store_f32x64 = operation(types.void, (i64, i64, f32x64), lambda b, base, i, x: b.store(x, at(b, base, i, f32x64.llvm, 4), align=4))
store_some_f32x64 = operation(types.void, (i64, i64, f32x64, i64), lambda b, base, i, x, n: call(b, "llvm.masked.store.v64f32.p0", ir.VoidType(), x, at(b, base, i, f32x64.llvm, 4), ir.IntType(32)(4), below(b, n, 64)))

# ---- stages: buffers holds addresses, sizes extents; begin..end are the tasks to run, worker numbers the thread
@njit(error_model="numpy", nogil=True)
def pack_weight(buffers, sizes, begin, end, worker):
    weight, packed = buffers[1], buffers[5]
    OC, packed_khs, packed_kws, packed_ics = sizes[0], sizes[1], sizes[2], sizes[3]
    for packed_block in range(begin, end):
        for packed_ic in range(packed_ics):
            for packed_kh in range(packed_khs):
                for packed_kw in range(packed_kws):
                    for packed_lane in range(64):
                        if packed_block * 64 + packed_lane < OC:
                            chosen = load_f32(weight, (((packed_block * 64 + packed_lane) * packed_ics + packed_ic) * packed_khs + packed_kh) * packed_kws + packed_kw)
                        else:
                            chosen = np.float32(0.0)
                        store_f32(packed, (((packed_block * packed_khs + packed_kh) * packed_kws + packed_kw) * packed_ics + packed_ic) * 64 + packed_lane, chosen)

@njit(error_model="numpy", nogil=True)
def conv(buffers, sizes, begin, end, worker):
    input, bias, output, packed = buffers[0], buffers[2], buffers[3], buffers[5]
    N, IH, IW, OH, OW = sizes[0], sizes[1], sizes[2], sizes[3], sizes[4]
    OC, RH, LH, LW, worker_bytes = sizes[5], sizes[6], sizes[7], sizes[8], sizes[9]
    padded = buffers[4] + worker * worker_bytes
    for task in range(begin, end):
        n, part_h = task // ((OH + RH - 1) // RH), task % ((OH + RH - 1) // RH)
        start0, start1 = min(part_h * RH, OH - RH), min(1, OW + 2)
        limit = max(0 - start0 + 1, 0)
        start2 = min(limit, RH + 2)
        padded_at0 = (start2 * LW + start1) * 64
        for padded_h_fill in range(RH + 2):
            for padded_w_fill in range(OW + 2):
                store_f32x64(padded, (padded_h_fill * LW + padded_w_fill) * 64, splat_f32x64(0.0))
        for padded_h in range(max(min(IH - start0 + 1, RH + 2), start2) - start2):
            for padded_w in range(max(min(IW + 1, OW + 2), start1) - start1):
                store_f32x64(padded, padded_at0 + (padded_h * LW + padded_w) * 64, load_f32x64(input, ((n * IH + (padded_h + start2 + start0)) * IW + (padded_w + start1)) * 64 - (IW * 64 + 64)))
        for oc_block in range((OC + 63) // 64):
            for tile in range((RH * OW + 5) // 6):
                start3 = min(tile * 6, RH * OW - 6)
                row0, row1, row2, row3 = start3 // OW, (start3 + 1) // OW, (start3 + 2) // OW, (start3 + 3) // OW
                row4, row5 = (start3 + 4) // OW, (start3 + 5) // OW
                col0, col1, col2 = start3 - row0 * OW, start3 + 1 - row1 * OW, start3 + 2 - row2 * OW
                col3, col4, col5 = start3 + 3 - row3 * OW, start3 + 4 - row4 * OW, start3 + 5 - row5 * OW
                padded_at1, padded_at2 = (row0 * LW + col0) * 64, (row1 * LW + col1) * 64
                padded_at3, padded_at4 = (row2 * LW + col2) * 64, (row3 * LW + col3) * 64
                padded_at5, padded_at6 = (row4 * LW + col4) * 64, (row5 * LW + col5) * 64
                prefetch_f32x64(output, ((n * OH + start0) * OW + start3) * OC + oc_block * 64)
                prefetch_f32x64(output, ((n * OH + start0) * OW + start3) * OC + oc_block * 64 + OC)
                prefetch_f32x64(output, ((n * OH + start0) * OW + start3) * OC + oc_block * 64 + OC * 2)
                prefetch_f32x64(output, ((n * OH + start0) * OW + start3) * OC + oc_block * 64 + OC * 3)
                prefetch_f32x64(output, ((n * OH + start0) * OW + start3) * OC + oc_block * 64 + OC * 4)
                prefetch_f32x64(output, ((n * OH + start0) * OW + start3) * OC + oc_block * 64 + OC * 5)
                acc0 = acc1 = acc2 = acc3 = acc4 = acc5 = splat_f32x64(0.0)
                for kh in range(3):
                    for kw in range(3):
                        for ic in range(64):
                            padded_by = (kh * LW + kw) * 64 + ic
                            packed_here = load_f32x64(packed, (((oc_block * 3 + kh) * 3 + kw) * 64 + ic) * 64)
                            acc0 = fma_f32x64(splat_f32x64(load_f32(padded, padded_at1 + padded_by)), packed_here, acc0)
                            acc1 = fma_f32x64(splat_f32x64(load_f32(padded, padded_at2 + padded_by)), packed_here, acc1)
                            acc2 = fma_f32x64(splat_f32x64(load_f32(padded, padded_at3 + padded_by)), packed_here, acc2)
                            acc3 = fma_f32x64(splat_f32x64(load_f32(padded, padded_at4 + padded_by)), packed_here, acc3)
                            acc4 = fma_f32x64(splat_f32x64(load_f32(padded, padded_at5 + padded_by)), packed_here, acc4)
                            acc5 = fma_f32x64(splat_f32x64(load_f32(padded, padded_at6 + padded_by)), packed_here, acc5)
                output_at = ((n * OH + start0) * OW + start3) * OC + oc_block * 64
                bias_here = load_some_f32x64(bias, oc_block * 64, OC - oc_block * 64)
                constant = splat_f32x64(0.0)
                valid = OC - oc_block * 64
                store_some_f32x64(output, output_at, max_f32x64(add_f32x64(acc0, bias_here), constant), valid)
                store_some_f32x64(output, output_at + OC, max_f32x64(add_f32x64(acc1, bias_here), constant), valid)
                store_some_f32x64(output, output_at + OC * 2, max_f32x64(add_f32x64(acc2, bias_here), constant), valid)
                store_some_f32x64(output, output_at + OC * 3, max_f32x64(add_f32x64(acc3, bias_here), constant), valid)
                store_some_f32x64(output, output_at + OC * 4, max_f32x64(add_f32x64(acc4, bias_here), constant), valid)
                store_some_f32x64(output, output_at + OC * 5, max_f32x64(add_f32x64(acc5, bias_here), constant), valid)

# ---- the whole problem on one thread
def run(input, weight, bias):
    input = np.ascontiguousarray(input, np.float32).reshape((1, 56, 56, 64))
    weight = np.ascontiguousarray(weight, np.float32).reshape((64, 64, 3, 3))
    bias = np.ascontiguousarray(bias, np.float32).reshape((64,))
    output = np.empty((1, 56, 56, 64), np.float32)
    padded, packed = (np.empty(size, np.uint8) for size in [861184, 147456])
    buffers = np.array([array.ctypes.data for array in (input, weight, bias, output, padded, packed)])
    pack_weight(buffers, np.array([64, 3, 3, 64], np.int64), 0, 1, 0)
    conv(buffers, np.array([1, 56, 56, 56, 56, 64, 56, 58, 58, 861184], np.int64), 0, 1, 0)
    return output
