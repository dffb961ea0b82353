"""convgen: mb1_ic64oc64_ih112oh56kh3sh2ph1 layout=channels_last dir=backward_data
strategy  direct, pixels=6 lanes=64 pixels_first=1
template  cpu/kernel.py.j2
again     convgen emit 'mb1_ic64oc64_ih112oh56kh3sh2ph1 layout=channels_last dir=backward_data' --strategy direct --config 'pixels=6 lanes=64 pixels_first=1' -o .
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
fma_f32x64 = operation(f32x64, (f32x64, f32x64, f32x64), lambda b, x, y, z: call(b, "llvm.fma.v64f32", x.type, x, y, z))
load_f32 = operation(f32, (i64, i64), lambda b, base, i: b.load(at(b, base, i, ir.FloatType(), 4), align=4))
load_f32x64 = operation(f32x64, (i64, i64), lambda b, base, i: b.load(at(b, base, i, f32x64.llvm, 4), align=4))
prefetch_f32x64 = operation(types.void, (i64, i64), lambda b, base, i: prefetch(b, base, i, 4, 256))
splat_f32x64 = operation(f32x64, (f32,), lambda b, x: splat(b, x, f32x64.llvm))
store_f32 = operation(types.void, (i64, i64, f32), lambda b, base, i, x: b.store(x, at(b, base, i, ir.FloatType(), 4), align=4))
store_f32x64 = operation(types.void, (i64, i64, f32x64), lambda b, base, i, x: b.store(x, at(b, base, i, f32x64.llvm, 4), align=4))
store_some_f32x64 = operation(types.void, (i64, i64, f32x64, i64), lambda b, base, i, x, n: call(b, "llvm.masked.store.v64f32.p0", ir.VoidType(), x, at(b, base, i, f32x64.llvm, 4), ir.IntType(32)(4), below(b, n, 64)))

# ---- stages: buffers holds addresses, sizes extents; begin..end are the tasks to run, worker numbers the thread
@njit(error_model="numpy", nogil=True)
def pack_weight(buffers, sizes, begin, end, worker):
    weight, packed = buffers[1], buffers[4]
    OC, packed_khs, packed_kws, packed_ics = sizes[0], sizes[1], sizes[2], sizes[3]
    for packed_block in range(begin, end):
        for packed_ic in range(packed_ics):
            for packed_kh in range(packed_khs):
                for packed_kw in range(packed_kws):
                    for packed_lane in range(64):
                        if packed_block * 64 + packed_lane < OC:
                            chosen = load_f32(weight, ((packed_ic * OC + (packed_block * 64 + packed_lane)) * packed_khs + packed_kh) * packed_kws + packed_kw)
                        else:
                            chosen = np.float32(0.0)
                        store_f32(packed, (((packed_block * packed_khs + packed_kh) * packed_kws + packed_kw) * packed_ics + packed_ic) * 64 + packed_lane, chosen)

@njit(error_model="numpy", nogil=True)
def conv0(buffers, sizes, begin, end, worker):
    grad_output, grad_input, packed = buffers[0], buffers[2], buffers[4]
    N, IH, IW, OH = sizes[0], sizes[1], sizes[2], sizes[3]
    OW, OC, RH, LH, LW = sizes[4], sizes[5], sizes[6], sizes[7], sizes[8]
    count_h, offset_h, start_h, tap_h = sizes[9], sizes[10], sizes[11], sizes[12]
    count_w, offset_w, start_w, tap_w, worker_bytes = sizes[13], sizes[14], sizes[15], sizes[16], sizes[17]
    padded = buffers[3] + worker * worker_bytes
    for task in range(begin, end):
        n, part_h = task // ((count_h + RH - 1) // RH), task % ((count_h + RH - 1) // RH)
        start = min(part_h * RH, count_h - RH)
        limit = max(0 - offset_w, 0)
        start1 = min(limit, count_w)
        limit1 = max(0 - start - offset_h, 0)
        start2 = min(limit1, RH)
        padded_at0 = (start2 * LW + start1) * 64
        for padded_h_fill in range(RH):
            for padded_w_fill in range(count_w):
                store_f32x64(padded, (padded_h_fill * LW + padded_w_fill) * 64, splat_f32x64(0.0))
        for padded_h in range(max(min(IH - start - offset_h, RH), start2) - start2):
            for padded_w in range(max(min(IW - offset_w, count_w), start1) - start1):
                store_f32x64(padded, padded_at0 + (padded_h * LW + padded_w) * 64, load_f32x64(grad_output, ((n * IH + (padded_h + start2 + start + offset_h)) * IW + (padded_w + start1 + offset_w)) * 64))
        for oc_block in range((OC + 63) // 64):
            for tile in range((RH * count_w + 5) // 6):
                start3 = min(tile * 6, RH * count_w - 6)
                row0, row1, row2 = start3 // count_w, (start3 + 1) // count_w, (start3 + 2) // count_w
                row3, row4, row5 = (start3 + 3) // count_w, (start3 + 4) // count_w, (start3 + 5) // count_w
                col0, col1, col2 = start3 - row0 * count_w, start3 + 1 - row1 * count_w, start3 + 2 - row2 * count_w
                col3, col4, col5 = start3 + 3 - row3 * count_w, start3 + 4 - row4 * count_w, start3 + 5 - row5 * count_w
                padded_at1, padded_at2 = (row0 * LW + col0) * 64, (row1 * LW + col1) * 64
                padded_at3, padded_at4 = (row2 * LW + col2) * 64, (row3 * LW + col3) * 64
                padded_at5, padded_at6 = (row4 * LW + col4) * 64, (row5 * LW + col5) * 64
                prefetch_f32x64(grad_input, ((n * OH + (start * 2 + row0 * 2 + start_h)) * OW + (col0 * 2 + start_w)) * OC + oc_block * 64)
                prefetch_f32x64(grad_input, ((n * OH + (start * 2 + row1 * 2 + start_h)) * OW + (col1 * 2 + start_w)) * OC + oc_block * 64)
                prefetch_f32x64(grad_input, ((n * OH + (start * 2 + row2 * 2 + start_h)) * OW + (col2 * 2 + start_w)) * OC + oc_block * 64)
                prefetch_f32x64(grad_input, ((n * OH + (start * 2 + row3 * 2 + start_h)) * OW + (col3 * 2 + start_w)) * OC + oc_block * 64)
                prefetch_f32x64(grad_input, ((n * OH + (start * 2 + row4 * 2 + start_h)) * OW + (col4 * 2 + start_w)) * OC + oc_block * 64)
                prefetch_f32x64(grad_input, ((n * OH + (start * 2 + row5 * 2 + start_h)) * OW + (col5 * 2 + start_w)) * OC + oc_block * 64)
                acc0 = acc1 = acc2 = acc3 = acc4 = acc5 = splat_f32x64(0.0)
                for ic in range(64):
                    packed_here = load_f32x64(packed, (((oc_block * 3 + tap_h) * 3 + tap_w) * 64 + ic) * 64)
                    acc0 = fma_f32x64(splat_f32x64(load_f32(padded, padded_at1 + ic)), packed_here, acc0)
                    acc1 = fma_f32x64(splat_f32x64(load_f32(padded, padded_at2 + ic)), packed_here, acc1)
                    acc2 = fma_f32x64(splat_f32x64(load_f32(padded, padded_at3 + ic)), packed_here, acc2)
                    acc3 = fma_f32x64(splat_f32x64(load_f32(padded, padded_at4 + ic)), packed_here, acc3)
                    acc4 = fma_f32x64(splat_f32x64(load_f32(padded, padded_at5 + ic)), packed_here, acc4)
                    acc5 = fma_f32x64(splat_f32x64(load_f32(padded, padded_at6 + ic)), packed_here, acc5)
                valid = OC - oc_block * 64
                store_some_f32x64(grad_input, ((n * OH + (start * 2 + row0 * 2 + start_h)) * OW + (col0 * 2 + start_w)) * OC + oc_block * 64, acc0, valid)
                store_some_f32x64(grad_input, ((n * OH + (start * 2 + row1 * 2 + start_h)) * OW + (col1 * 2 + start_w)) * OC + oc_block * 64, acc1, valid)
                store_some_f32x64(grad_input, ((n * OH + (start * 2 + row2 * 2 + start_h)) * OW + (col2 * 2 + start_w)) * OC + oc_block * 64, acc2, valid)
                store_some_f32x64(grad_input, ((n * OH + (start * 2 + row3 * 2 + start_h)) * OW + (col3 * 2 + start_w)) * OC + oc_block * 64, acc3, valid)
                store_some_f32x64(grad_input, ((n * OH + (start * 2 + row4 * 2 + start_h)) * OW + (col4 * 2 + start_w)) * OC + oc_block * 64, acc4, valid)
                store_some_f32x64(grad_input, ((n * OH + (start * 2 + row5 * 2 + start_h)) * OW + (col5 * 2 + start_w)) * OC + oc_block * 64, acc5, valid)

@njit(error_model="numpy", nogil=True)
def conv1(buffers, sizes, begin, end, worker):
    grad_output, grad_input, packed = buffers[0], buffers[2], buffers[4]
    N, IH, IW, OH = sizes[0], sizes[1], sizes[2], sizes[3]
    OW, OC, RH, LH, LW = sizes[4], sizes[5], sizes[6], sizes[7], sizes[8]
    count_h, offset_h, start_h, tap_h = sizes[9], sizes[10], sizes[11], sizes[12]
    count_w, offset_w, start_w, tap_w, worker_bytes = sizes[13], sizes[14], sizes[15], sizes[16], sizes[17]
    padded = buffers[3] + worker * worker_bytes
    for task in range(begin, end):
        n, part_h = task // ((count_h + RH - 1) // RH), task % ((count_h + RH - 1) // RH)
        start = min(part_h * RH, count_h - RH)
        limit = max(0 - offset_w + 1, 0)
        start1 = min(limit, count_w + 1)
        limit1 = max(0 - start - offset_h, 0)
        start2 = min(limit1, RH)
        padded_at0 = (start2 * LW + start1) * 64
        for padded_h_fill in range(RH):
            for padded_w_fill in range(count_w + 1):
                store_f32x64(padded, (padded_h_fill * LW + padded_w_fill) * 64, splat_f32x64(0.0))
        for padded_h in range(max(min(IH - start - offset_h, RH), start2) - start2):
            for padded_w in range(max(min(IW - offset_w + 1, count_w + 1), start1) - start1):
                store_f32x64(padded, padded_at0 + (padded_h * LW + padded_w) * 64, load_f32x64(grad_output, ((n * IH + (padded_h + start2 + start + offset_h)) * IW + (padded_w + start1 + offset_w)) * 64 - 64))
        for oc_block in range((OC + 63) // 64):
            for tile in range((RH * count_w + 5) // 6):
                start3 = min(tile * 6, RH * count_w - 6)
                row0, row1, row2 = start3 // count_w, (start3 + 1) // count_w, (start3 + 2) // count_w
                row3, row4, row5 = (start3 + 3) // count_w, (start3 + 4) // count_w, (start3 + 5) // count_w
                col0, col1, col2 = start3 - row0 * count_w, start3 + 1 - row1 * count_w, start3 + 2 - row2 * count_w
                col3, col4, col5 = start3 + 3 - row3 * count_w, start3 + 4 - row4 * count_w, start3 + 5 - row5 * count_w
                padded_at1, padded_at2 = (row0 * LW + (col0 + 1)) * 64, (row1 * LW + (col1 + 1)) * 64
                padded_at3, padded_at4 = (row2 * LW + (col2 + 1)) * 64, (row3 * LW + (col3 + 1)) * 64
                padded_at5, padded_at6 = (row4 * LW + (col4 + 1)) * 64, (row5 * LW + (col5 + 1)) * 64
                prefetch_f32x64(grad_input, ((n * OH + (start * 2 + row0 * 2 + start_h)) * OW + (col0 * 2 + start_w)) * OC + oc_block * 64)
                prefetch_f32x64(grad_input, ((n * OH + (start * 2 + row1 * 2 + start_h)) * OW + (col1 * 2 + start_w)) * OC + oc_block * 64)
                prefetch_f32x64(grad_input, ((n * OH + (start * 2 + row2 * 2 + start_h)) * OW + (col2 * 2 + start_w)) * OC + oc_block * 64)
                prefetch_f32x64(grad_input, ((n * OH + (start * 2 + row3 * 2 + start_h)) * OW + (col3 * 2 + start_w)) * OC + oc_block * 64)
                prefetch_f32x64(grad_input, ((n * OH + (start * 2 + row4 * 2 + start_h)) * OW + (col4 * 2 + start_w)) * OC + oc_block * 64)
                prefetch_f32x64(grad_input, ((n * OH + (start * 2 + row5 * 2 + start_h)) * OW + (col5 * 2 + start_w)) * OC + oc_block * 64)
                acc0 = acc1 = acc2 = acc3 = acc4 = acc5 = splat_f32x64(0.0)
                for kw in range(2):
                    for ic in range(64):
                        padded_by = (0 - kw) * 64 + ic
                        packed_here = load_f32x64(packed, (((oc_block * 3 + tap_h) * 3 + (kw * 2 + tap_w)) * 64 + ic) * 64)
                        acc0 = fma_f32x64(splat_f32x64(load_f32(padded, padded_at1 + padded_by)), packed_here, acc0)
                        acc1 = fma_f32x64(splat_f32x64(load_f32(padded, padded_at2 + padded_by)), packed_here, acc1)
                        acc2 = fma_f32x64(splat_f32x64(load_f32(padded, padded_at3 + padded_by)), packed_here, acc2)
                        acc3 = fma_f32x64(splat_f32x64(load_f32(padded, padded_at4 + padded_by)), packed_here, acc3)
                        acc4 = fma_f32x64(splat_f32x64(load_f32(padded, padded_at5 + padded_by)), packed_here, acc4)
                        acc5 = fma_f32x64(splat_f32x64(load_f32(padded, padded_at6 + padded_by)), packed_here, acc5)
                valid = OC - oc_block * 64
                store_some_f32x64(grad_input, ((n * OH + (start * 2 + row0 * 2 + start_h)) * OW + (col0 * 2 + start_w)) * OC + oc_block * 64, acc0, valid)
                store_some_f32x64(grad_input, ((n * OH + (start * 2 + row1 * 2 + start_h)) * OW + (col1 * 2 + start_w)) * OC + oc_block * 64, acc1, valid)
                store_some_f32x64(grad_input, ((n * OH + (start * 2 + row2 * 2 + start_h)) * OW + (col2 * 2 + start_w)) * OC + oc_block * 64, acc2, valid)
                store_some_f32x64(grad_input, ((n * OH + (start * 2 + row3 * 2 + start_h)) * OW + (col3 * 2 + start_w)) * OC + oc_block * 64, acc3, valid)
                store_some_f32x64(grad_input, ((n * OH + (start * 2 + row4 * 2 + start_h)) * OW + (col4 * 2 + start_w)) * OC + oc_block * 64, acc4, valid)
                store_some_f32x64(grad_input, ((n * OH + (start * 2 + row5 * 2 + start_h)) * OW + (col5 * 2 + start_w)) * OC + oc_block * 64, acc5, valid)

@njit(error_model="numpy", nogil=True)
def conv2(buffers, sizes, begin, end, worker):
    grad_output, grad_input, packed = buffers[0], buffers[2], buffers[4]
    N, IH, IW, OH = sizes[0], sizes[1], sizes[2], sizes[3]
    OW, OC, RH, LH, LW = sizes[4], sizes[5], sizes[6], sizes[7], sizes[8]
    count_h, offset_h, start_h, tap_h = sizes[9], sizes[10], sizes[11], sizes[12]
    count_w, offset_w, start_w, tap_w, worker_bytes = sizes[13], sizes[14], sizes[15], sizes[16], sizes[17]
    padded = buffers[3] + worker * worker_bytes
    for task in range(begin, end):
        n, part_h = task // ((count_h + RH - 1) // RH), task % ((count_h + RH - 1) // RH)
        start = min(part_h * RH, count_h - RH)
        limit = max(0 - offset_w, 0)
        start1 = min(limit, count_w)
        limit1 = max(0 - start - offset_h + 1, 0)
        start2 = min(limit1, RH + 1)
        for padded_h_fill in range(RH + 1):
            for padded_w_fill in range(count_w):
                store_f32x64(padded, (padded_h_fill * LW + padded_w_fill) * 64, splat_f32x64(0.0))
        for padded_h in range(max(min(IH - start - offset_h + 1, RH + 1), start2) - start2):
            for padded_w in range(max(min(IW - offset_w, count_w), start1) - start1):
                store_f32x64(padded, ((padded_h + start2) * LW + (padded_w + start1)) * 64, load_f32x64(grad_output, ((n * IH + (padded_h + start2 + start + offset_h)) * IW + (padded_w + start1 + offset_w)) * 64 - IW * 64))
        for oc_block in range((OC + 63) // 64):
            for tile in range((RH * count_w + 5) // 6):
                start3 = min(tile * 6, RH * count_w - 6)
                row0, row1, row2 = start3 // count_w, (start3 + 1) // count_w, (start3 + 2) // count_w
                row3, row4, row5 = (start3 + 3) // count_w, (start3 + 4) // count_w, (start3 + 5) // count_w
                col0, col1, col2 = start3 - row0 * count_w, start3 + 1 - row1 * count_w, start3 + 2 - row2 * count_w
                col3, col4, col5 = start3 + 3 - row3 * count_w, start3 + 4 - row4 * count_w, start3 + 5 - row5 * count_w
                padded_at0, padded_at1 = ((row0 + 1) * LW + col0) * 64, ((row1 + 1) * LW + col1) * 64
                padded_at2, padded_at3 = ((row2 + 1) * LW + col2) * 64, ((row3 + 1) * LW + col3) * 64
                padded_at4, padded_at5 = ((row4 + 1) * LW + col4) * 64, ((row5 + 1) * LW + col5) * 64
                prefetch_f32x64(grad_input, ((n * OH + (start * 2 + row0 * 2 + start_h)) * OW + (col0 * 2 + start_w)) * OC + oc_block * 64)
                prefetch_f32x64(grad_input, ((n * OH + (start * 2 + row1 * 2 + start_h)) * OW + (col1 * 2 + start_w)) * OC + oc_block * 64)
                prefetch_f32x64(grad_input, ((n * OH + (start * 2 + row2 * 2 + start_h)) * OW + (col2 * 2 + start_w)) * OC + oc_block * 64)
                prefetch_f32x64(grad_input, ((n * OH + (start * 2 + row3 * 2 + start_h)) * OW + (col3 * 2 + start_w)) * OC + oc_block * 64)
                prefetch_f32x64(grad_input, ((n * OH + (start * 2 + row4 * 2 + start_h)) * OW + (col4 * 2 + start_w)) * OC + oc_block * 64)
                prefetch_f32x64(grad_input, ((n * OH + (start * 2 + row5 * 2 + start_h)) * OW + (col5 * 2 + start_w)) * OC + oc_block * 64)
                acc0 = acc1 = acc2 = acc3 = acc4 = acc5 = splat_f32x64(0.0)
                for kh in range(2):
                    for ic in range(64):
                        padded_by = (0 - kh) * LW * 64 + ic
                        packed_here = load_f32x64(packed, (((oc_block * 3 + (kh * 2 + tap_h)) * 3 + tap_w) * 64 + ic) * 64)
                        acc0 = fma_f32x64(splat_f32x64(load_f32(padded, padded_at0 + padded_by)), packed_here, acc0)
                        acc1 = fma_f32x64(splat_f32x64(load_f32(padded, padded_at1 + padded_by)), packed_here, acc1)
                        acc2 = fma_f32x64(splat_f32x64(load_f32(padded, padded_at2 + padded_by)), packed_here, acc2)
                        acc3 = fma_f32x64(splat_f32x64(load_f32(padded, padded_at3 + padded_by)), packed_here, acc3)
                        acc4 = fma_f32x64(splat_f32x64(load_f32(padded, padded_at4 + padded_by)), packed_here, acc4)
                        acc5 = fma_f32x64(splat_f32x64(load_f32(padded, padded_at5 + padded_by)), packed_here, acc5)
                valid = OC - oc_block * 64
                store_some_f32x64(grad_input, ((n * OH + (start * 2 + row0 * 2 + start_h)) * OW + (col0 * 2 + start_w)) * OC + oc_block * 64, acc0, valid)
                store_some_f32x64(grad_input, ((n * OH + (start * 2 + row1 * 2 + start_h)) * OW + (col1 * 2 + start_w)) * OC + oc_block * 64, acc1, valid)
                store_some_f32x64(grad_input, ((n * OH + (start * 2 + row2 * 2 + start_h)) * OW + (col2 * 2 + start_w)) * OC + oc_block * 64, acc2, valid)
                store_some_f32x64(grad_input, ((n * OH + (start * 2 + row3 * 2 + start_h)) * OW + (col3 * 2 + start_w)) * OC + oc_block * 64, acc3, valid)
                store_some_f32x64(grad_input, ((n * OH + (start * 2 + row4 * 2 + start_h)) * OW + (col4 * 2 + start_w)) * OC + oc_block * 64, acc4, valid)
                store_some_f32x64(grad_input, ((n * OH + (start * 2 + row5 * 2 + start_h)) * OW + (col5 * 2 + start_w)) * OC + oc_block * 64, acc5, valid)

@njit(error_model="numpy", nogil=True)
def conv3(buffers, sizes, begin, end, worker):
    grad_output, grad_input, packed = buffers[0], buffers[2], buffers[4]
    N, IH, IW, OH = sizes[0], sizes[1], sizes[2], sizes[3]
    OW, OC, RH, LH, LW = sizes[4], sizes[5], sizes[6], sizes[7], sizes[8]
    count_h, offset_h, start_h, tap_h = sizes[9], sizes[10], sizes[11], sizes[12]
    count_w, offset_w, start_w, tap_w, worker_bytes = sizes[13], sizes[14], sizes[15], sizes[16], sizes[17]
    padded = buffers[3] + worker * worker_bytes
    for task in range(begin, end):
        n, part_h = task // ((count_h + RH - 1) // RH), task % ((count_h + RH - 1) // RH)
        start = min(part_h * RH, count_h - RH)
        limit = max(0 - offset_w + 1, 0)
        start1 = min(limit, count_w + 1)
        limit1 = max(0 - start - offset_h + 1, 0)
        start2 = min(limit1, RH + 1)
        for padded_h_fill in range(RH + 1):
            for padded_w_fill in range(count_w + 1):
                store_f32x64(padded, (padded_h_fill * LW + padded_w_fill) * 64, splat_f32x64(0.0))
        for padded_h in range(max(min(IH - start - offset_h + 1, RH + 1), start2) - start2):
            for padded_w in range(max(min(IW - offset_w + 1, count_w + 1), start1) - start1):
                store_f32x64(padded, ((padded_h + start2) * LW + (padded_w + start1)) * 64, load_f32x64(grad_output, ((n * IH + (padded_h + start2 + start + offset_h)) * IW + (padded_w + start1 + offset_w)) * 64 - (IW * 64 + 64)))
        for oc_block in range((OC + 63) // 64):
            for tile in range((RH * count_w + 5) // 6):
                start3 = min(tile * 6, RH * count_w - 6)
                row0, row1, row2 = start3 // count_w, (start3 + 1) // count_w, (start3 + 2) // count_w
                row3, row4, row5 = (start3 + 3) // count_w, (start3 + 4) // count_w, (start3 + 5) // count_w
                col0, col1, col2 = start3 - row0 * count_w, start3 + 1 - row1 * count_w, start3 + 2 - row2 * count_w
                col3, col4, col5 = start3 + 3 - row3 * count_w, start3 + 4 - row4 * count_w, start3 + 5 - row5 * count_w
                padded_at0, padded_at1 = ((row0 + 1) * LW + (col0 + 1)) * 64, ((row1 + 1) * LW + (col1 + 1)) * 64
                padded_at2, padded_at3 = ((row2 + 1) * LW + (col2 + 1)) * 64, ((row3 + 1) * LW + (col3 + 1)) * 64
                padded_at4, padded_at5 = ((row4 + 1) * LW + (col4 + 1)) * 64, ((row5 + 1) * LW + (col5 + 1)) * 64
                prefetch_f32x64(grad_input, ((n * OH + (start * 2 + row0 * 2 + start_h)) * OW + (col0 * 2 + start_w)) * OC + oc_block * 64)
                prefetch_f32x64(grad_input, ((n * OH + (start * 2 + row1 * 2 + start_h)) * OW + (col1 * 2 + start_w)) * OC + oc_block * 64)
                prefetch_f32x64(grad_input, ((n * OH + (start * 2 + row2 * 2 + start_h)) * OW + (col2 * 2 + start_w)) * OC + oc_block * 64)
                prefetch_f32x64(grad_input, ((n * OH + (start * 2 + row3 * 2 + start_h)) * OW + (col3 * 2 + start_w)) * OC + oc_block * 64)
                prefetch_f32x64(grad_input, ((n * OH + (start * 2 + row4 * 2 + start_h)) * OW + (col4 * 2 + start_w)) * OC + oc_block * 64)
                prefetch_f32x64(grad_input, ((n * OH + (start * 2 + row5 * 2 + start_h)) * OW + (col5 * 2 + start_w)) * OC + oc_block * 64)
                acc0 = acc1 = acc2 = acc3 = acc4 = acc5 = splat_f32x64(0.0)
                for kh in range(2):
                    for kw in range(2):
                        for ic in range(64):
                            padded_by = ((0 - kh) * LW + (0 - kw)) * 64 + ic
                            packed_here = load_f32x64(packed, (((oc_block * 3 + (kh * 2 + tap_h)) * 3 + (kw * 2 + tap_w)) * 64 + ic) * 64)
                            acc0 = fma_f32x64(splat_f32x64(load_f32(padded, padded_at0 + padded_by)), packed_here, acc0)
                            acc1 = fma_f32x64(splat_f32x64(load_f32(padded, padded_at1 + padded_by)), packed_here, acc1)
                            acc2 = fma_f32x64(splat_f32x64(load_f32(padded, padded_at2 + padded_by)), packed_here, acc2)
                            acc3 = fma_f32x64(splat_f32x64(load_f32(padded, padded_at3 + padded_by)), packed_here, acc3)
                            acc4 = fma_f32x64(splat_f32x64(load_f32(padded, padded_at4 + padded_by)), packed_here, acc4)
                            acc5 = fma_f32x64(splat_f32x64(load_f32(padded, padded_at5 + padded_by)), packed_here, acc5)
                valid = OC - oc_block * 64
                store_some_f32x64(grad_input, ((n * OH + (start * 2 + row0 * 2 + start_h)) * OW + (col0 * 2 + start_w)) * OC + oc_block * 64, acc0, valid)
                store_some_f32x64(grad_input, ((n * OH + (start * 2 + row1 * 2 + start_h)) * OW + (col1 * 2 + start_w)) * OC + oc_block * 64, acc1, valid)
                store_some_f32x64(grad_input, ((n * OH + (start * 2 + row2 * 2 + start_h)) * OW + (col2 * 2 + start_w)) * OC + oc_block * 64, acc2, valid)
                store_some_f32x64(grad_input, ((n * OH + (start * 2 + row3 * 2 + start_h)) * OW + (col3 * 2 + start_w)) * OC + oc_block * 64, acc3, valid)
                store_some_f32x64(grad_input, ((n * OH + (start * 2 + row4 * 2 + start_h)) * OW + (col4 * 2 + start_w)) * OC + oc_block * 64, acc4, valid)
                store_some_f32x64(grad_input, ((n * OH + (start * 2 + row5 * 2 + start_h)) * OW + (col5 * 2 + start_w)) * OC + oc_block * 64, acc5, valid)

# ---- the whole problem on one thread
def run(grad_output, weight):
    grad_output = np.ascontiguousarray(grad_output, np.float32).reshape((1, 56, 56, 64))
    weight = np.ascontiguousarray(weight, np.float32).reshape((64, 64, 3, 3))
    grad_input = np.empty((1, 112, 112, 64), np.float32)
    padded, packed = (np.empty(size, np.uint8) for size in [831744, 147456])
    buffers = np.array([array.ctypes.data for array in (grad_output, weight, grad_input, padded, packed)])
    pack_weight(buffers, np.array([64, 3, 3, 64], np.int64), 0, 1, 0)
    conv0(buffers, np.array([1, 56, 56, 112, 112, 64, 56, 57, 57, 56, 0, 0, 1, 56, 0, 0, 1, 831744], np.int64), 0, 1, 0)
    conv1(buffers, np.array([1, 56, 56, 112, 112, 64, 56, 57, 57, 56, 0, 0, 1, 56, 1, 1, 0, 831744], np.int64), 0, 1, 0)
    conv2(buffers, np.array([1, 56, 56, 112, 112, 64, 56, 57, 57, 56, 1, 1, 0, 56, 0, 0, 1, 831744], np.int64), 0, 1, 0)
    conv3(buffers, np.array([1, 56, 56, 112, 112, 64, 56, 57, 57, 56, 1, 1, 0, 56, 1, 1, 0, 831744], np.int64), 0, 1, 0)
    return grad_input
