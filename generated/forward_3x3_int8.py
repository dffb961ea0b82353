"""convgen: mb1_ic64oc64_ih56oh56kh3ph1 layout=channels_last dtype=int8 epilogue=bias+relu+requantize
strategy  direct, pixels=4 lanes=64 pixels_first=0 dot=4
template  cpu/kernel.py.j2
again     convgen emit 'mb1_ic64oc64_ih56oh56kh3ph1 layout=channels_last dtype=int8 epilogue=bias+relu+requantize' --strategy direct --config 'pixels=4 lanes=64 pixels_first=0 dot=4' -o .
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

def joined(b, x, y):
    return b.shuffle_vector(x, y, ir.VectorType(ir.IntType(32), 2 * x.type.count)(list(range(2 * x.type.count))))

def dot(b, x, y, z, name, part, terms):
    """x . y + z, ``part`` lanes at a time by an instruction that takes them as vectors of ``terms``."""
    parts = []
    for first in range(0, z.type.count, part):
        order = ir.VectorType(ir.IntType(32), part)(list(range(first, first + part)))
        x_part, y_part, z_part = (b.shuffle_vector(v, v, order) for v in (x, y, z))
        operands = (z_part, b.bitcast(x_part, terms), b.bitcast(y_part, terms))
        parts.append(call(b, name, z_part.type, *operands))
    while len(parts) > 1:
        parts = [joined(b, *parts[i : i + 2]) for i in range(0, len(parts), 2)]
    return parts[0]

def below(b, count, lanes):
    kind = ir.VectorType(ir.IntType(64), lanes)
    return b.icmp_signed("<", kind(list(range(lanes))), splat(b, count, kind))

i64, f32, f64, i32 = types.int64, types.float32, types.float64, types.int32
f32x64 = Vector(ir.FloatType(), 64)
i32x64 = Vector(ir.IntType(32), 64)
i8x64 = Vector(ir.IntType(8), 64)
add_i32x64 = operation(i32x64, (i32x64, i32x64), lambda b, x, y: b.add(x, y))
convert_i32_f32x64 = operation(f32x64, (i32x64,), lambda b, x: b.sitofp(x, f32x64.llvm))
convert_f32_i32x64 = operation(i32x64, (f32x64,), lambda b, x: call(b, "llvm.lrint.v64i32.v64f32", i32x64.llvm, x))
dot_u8_i32x64_16 = operation(i32x64, (i32x64, i32x64, i32x64), lambda b, x, y, z: dot(b, x, y, z, "llvm.x86.avx512.vpdpbusd.512", 16, ir.VectorType(ir.IntType(8), 64)))
fma_i32 = operation(i32, (i32, i32, i32), lambda b, x, y, z: b.add(b.mul(x, y), z))
load_i8_i32 = operation(i32, (i64, i64), lambda b, base, i: b.sext(b.load(at(b, base, i, ir.IntType(8), 1), align=1), ir.IntType(32)))
load_i32x64 = operation(i32x64, (i64, i64), lambda b, base, i: b.load(at(b, base, i, i32x64.llvm, 4), align=4))
load_some_f32x64 = operation(f32x64, (i64, i64, i64), lambda b, base, i, n: call(b, "llvm.masked.load.v64f32.p0", f32x64.llvm, at(b, base, i, f32x64.llvm, 4), ir.IntType(32)(4), below(b, n, 64), f32x64.llvm(None)))
load_some_i32x64 = operation(i32x64, (i64, i64, i64), lambda b, base, i, n: call(b, "llvm.masked.load.v64i32.p0", i32x64.llvm, at(b, base, i, i32x64.llvm, 4), ir.IntType(32)(4), below(b, n, 64), i32x64.llvm(None)))
load_some_i8_i32x64 = operation(i32x64, (i64, i64, i64), lambda b, base, i, n: b.sext(call(b, "llvm.masked.load.v64i8.p0", ir.VectorType(ir.IntType(8), 64), at(b, base, i, ir.VectorType(ir.IntType(8), 64), 1), ir.IntType(32)(1), below(b, n, 64), ir.VectorType(ir.IntType(8), 64)(None)), i32x64.llvm))
load_terms_u8_i32 = operation(i32, (i64, i64), lambda b, base, i: b.load(at(b, base, i, ir.IntType(32), 1), align=1))
load_terms_i8_i32x64 = operation(i32x64, (i64, i64), lambda b, base, i: b.load(at(b, base, i, i32x64.llvm, 1), align=1))
max_f32x64 = operation(f32x64, (f32x64, f32x64), lambda b, x, y: call(b, "llvm.maximum.v64f32", x.type, x, y))
max_i32x64 = operation(i32x64, (i32x64, i32x64), lambda b, x, y: call(b, "llvm.smax.v64i32", x.type, x, y))
min_f32x64 = operation(f32x64, (f32x64, f32x64), lambda b, x, y: call(b, "llvm.minimum.v64f32", x.type, x, y))
mul_f32x64 = operation(f32x64, (f32x64, f32x64), lambda b, x, y: b.fmul(x, y))
prefetch_i8x64 = operation(types.void, (i64, i64), lambda b, base, i: prefetch(b, base, i, 1, 64))
splat_f32x64 = operation(f32x64, (f32,), lambda b, x: splat(b, x, f32x64.llvm))
splat_i32x64 = operation(i32x64, (i32,), lambda b, x: splat(b, x, i32x64.llvm))
store_i32 = operation(types.void, (i64, i64, i32), lambda b, base, i, x: b.store(x, at(b, base, i, ir.IntType(32), 4), align=4))
store_i8_i32 = operation(types.void, (i64, i64, i32), lambda b, base, i, x: b.store(b.trunc(x, ir.IntType(8)), at(b, base, i, ir.IntType(8), 1), align=1))
store_some_i8_i32x64 = operation(types.void, (i64, i64, i32x64, i64), lambda b, base, i, x, n: call(b, "llvm.masked.store.v64i8.p0", ir.VoidType(), b.trunc(x, ir.VectorType(ir.IntType(8), 64)), at(b, base, i, ir.VectorType(ir.IntType(8), 64), 1), ir.IntType(32)(1), below(b, n, 64)))
store_some_u8_i32x64 = operation(types.void, (i64, i64, i32x64, i64), lambda b, base, i, x, n: call(b, "llvm.masked.store.v64i8.p0", ir.VoidType(), b.trunc(x, ir.VectorType(ir.IntType(8), 64)), at(b, base, i, ir.VectorType(ir.IntType(8), 64), 1), ir.IntType(32)(1), below(b, n, 64)))

# ---- stages: buffers holds addresses, sizes extents; begin..end are the tasks to run, worker numbers the thread
@njit(error_model="numpy", nogil=True)
def pad_input(buffers, sizes, begin, end, worker):
    input, padded = buffers[0], buffers[5]
    N, IH, IW, PH, PW, padded_cs = sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], sizes[5]
    for task in range(begin, end):
        padded_n, padded_h = task // PH, task % PH
        start = min(1, PW)
        padded_at0 = (padded_n * PH + padded_h) * PW * padded_cs
        padded_at1 = ((padded_n * PH + padded_h) * PW + start) * padded_cs
        for padded_w_fill in range(PW):
            for padded_c_fill_block in range((padded_cs + 63) // 64):
                store_some_u8_i32x64(padded, padded_at0 + (padded_w_fill * padded_cs + padded_c_fill_block * 64), add_i32x64(splat_i32x64(0), splat_i32x64(128)), padded_cs - padded_c_fill_block * 64)
        if 0 <= padded_h - 1:
            if padded_h - 1 < IH:
                for padded_w in range(max(min(IW + 1, PW), start) - start):
                    for padded_c_block in range((padded_cs + 63) // 64):
                        store_some_u8_i32x64(padded, padded_at1 + (padded_w * padded_cs + padded_c_block * 64), add_i32x64(load_some_i8_i32x64(input, ((padded_n * IH + padded_h) * IW + (padded_w + start)) * padded_cs + padded_c_block * 64 - (padded_cs + IW * padded_cs), padded_cs - padded_c_block * 64), splat_i32x64(128)), padded_cs - padded_c_block * 64)

@njit(error_model="numpy", nogil=True)
def pack_weight(buffers, sizes, begin, end, worker):
    weight, packed = buffers[1], buffers[6]
    OC, packed_khs, packed_kws = sizes[0], sizes[1], sizes[2]
    for packed_block in range(begin, end):
        for packed_ic in range(16):
            for packed_kh in range(packed_khs):
                for packed_kw in range(packed_kws):
                    for packed_lane in range(64):
                        for packed_term in range(4):
                            if packed_block * 64 + packed_lane < OC:
                                chosen = load_i8_i32(weight, (((packed_block * 64 + packed_lane) * 64 + (packed_ic * 4 + packed_term)) * packed_khs + packed_kh) * packed_kws + packed_kw)
                            else:
                                chosen = np.int32(0)
                            store_i8_i32(packed, ((((packed_block * packed_khs + packed_kh) * packed_kws + packed_kw) * 16 + packed_ic) * 64 + packed_lane) * 4 + packed_term, chosen)

@njit(error_model="numpy", nogil=True)
def sum_packed(buffers, sizes, begin, end, worker):
    packed, offsets = buffers[6], buffers[7]
    OC = sizes[0]
    for offsets_0 in range(begin, end):
        for offsets_4 in range(64):
            total = np.int32(0)
            for offsets_1 in range(3):
                for offsets_2 in range(3):
                    for offsets_3 in range(16):
                        for offsets_5 in range(4):
                            total = fma_i32(load_i8_i32(packed, ((((offsets_0 * 3 + offsets_1) * 3 + offsets_2) * 16 + offsets_3) * 64 + offsets_4) * 4 + offsets_5), np.int32(-128), total)
            store_i32(offsets, offsets_0 * 64 + offsets_4, total)

@njit(error_model="numpy", nogil=True)
def conv(buffers, sizes, begin, end, worker):
    bias, requantize, output = buffers[2], buffers[3], buffers[4]
    padded, packed, offsets = buffers[5], buffers[6], buffers[7]
    N, OH, OW, OC, PH, PW = sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], sizes[5]
    for task in range(begin, end):
        oc_block, n = task // (((OH * OW + 3) // 4 + 15) // 16 * N), task // (((OH * OW + 3) // 4 + 15) // 16) % N
        part = task % (((OH * OW + 3) // 4 + 15) // 16)
        for tile in range(min(16, (OH * OW + 3) // 4 - part * 16)):
            start = min(part * 64 + tile * 4, OH * OW - 4)
            row0, row1, row2, row3 = start // OW, (start + 1) // OW, (start + 2) // OW, (start + 3) // OW
            col0, col1, col2 = start - row0 * OW, start + 1 - row1 * OW, start + 2 - row2 * OW
            col3 = start + 3 - row3 * OW
            padded_at0, padded_at1 = ((n * PH + row0) * PW + col0) * 64, ((n * PH + row1) * PW + col1) * 64
            padded_at2, padded_at3 = ((n * PH + row2) * PW + col2) * 64, ((n * PH + row3) * PW + col3) * 64
            prefetch_i8x64(output, (n * OH * OW + start) * OC + oc_block * 64)
            prefetch_i8x64(output, (n * OH * OW + start) * OC + oc_block * 64 + OC)
            prefetch_i8x64(output, (n * OH * OW + start) * OC + oc_block * 64 + OC * 2)
            prefetch_i8x64(output, (n * OH * OW + start) * OC + oc_block * 64 + OC * 3)
            offsets_here = load_i32x64(offsets, oc_block * 64)
            acc0 = acc1 = acc2 = acc3 = offsets_here
            for kh in range(3):
                for kw in range(3):
                    for ic_terms in range(16):
                        padded_by = (kh * PW + kw) * 64 + ic_terms * 4
                        packed_here = load_terms_i8_i32x64(packed, (((oc_block * 3 + kh) * 3 + kw) * 16 + ic_terms) * 64 * 4)
                        acc0 = dot_u8_i32x64_16(splat_i32x64(load_terms_u8_i32(padded, padded_at0 + padded_by)), packed_here, acc0)
                        acc1 = dot_u8_i32x64_16(splat_i32x64(load_terms_u8_i32(padded, padded_at1 + padded_by)), packed_here, acc1)
                        acc2 = dot_u8_i32x64_16(splat_i32x64(load_terms_u8_i32(padded, padded_at2 + padded_by)), packed_here, acc2)
                        acc3 = dot_u8_i32x64_16(splat_i32x64(load_terms_u8_i32(padded, padded_at3 + padded_by)), packed_here, acc3)
            output_at = (n * OH * OW + start) * OC + oc_block * 64
            bias_here = load_some_i32x64(bias, oc_block * 64, OC - oc_block * 64)
            constant = splat_i32x64(0)
            requantize_here = load_some_f32x64(requantize, oc_block * 64, OC - oc_block * 64)
            constant1 = splat_f32x64(-128.0)
            constant2 = splat_f32x64(127.0)
            valid = OC - oc_block * 64
            store_some_i8_i32x64(output, output_at, convert_f32_i32x64(min_f32x64(max_f32x64(mul_f32x64(convert_i32_f32x64(max_i32x64(add_i32x64(acc0, bias_here), constant)), requantize_here), constant1), constant2)), valid)
            store_some_i8_i32x64(output, output_at + OC, convert_f32_i32x64(min_f32x64(max_f32x64(mul_f32x64(convert_i32_f32x64(max_i32x64(add_i32x64(acc1, bias_here), constant)), requantize_here), constant1), constant2)), valid)
            store_some_i8_i32x64(output, output_at + OC * 2, convert_f32_i32x64(min_f32x64(max_f32x64(mul_f32x64(convert_i32_f32x64(max_i32x64(add_i32x64(acc2, bias_here), constant)), requantize_here), constant1), constant2)), valid)
            store_some_i8_i32x64(output, output_at + OC * 3, convert_f32_i32x64(min_f32x64(max_f32x64(mul_f32x64(convert_i32_f32x64(max_i32x64(add_i32x64(acc3, bias_here), constant)), requantize_here), constant1), constant2)), valid)

# ---- the whole problem on one thread
def run(input, weight, bias, requantize):
    input = np.ascontiguousarray(input, np.int8).reshape((1, 56, 56, 64))
    weight = np.ascontiguousarray(weight, np.int8).reshape((64, 64, 3, 3))
    bias = np.ascontiguousarray(bias, np.int32).reshape((64,))
    requantize = np.ascontiguousarray(requantize, np.float32).reshape((64,))
    output = np.empty((1, 56, 56, 64), np.int8)
    padded, packed, offsets = (np.empty(size, np.uint8) for size in [215296, 36864, 256])
    buffers = np.array([array.ctypes.data for array in (input, weight, bias, requantize, output, padded, packed, offsets)])
    pad_input(buffers, np.array([1, 56, 56, 58, 58, 64], np.int64), 0, 58, 0)
    pack_weight(buffers, np.array([64, 3, 3], np.int64), 0, 1, 0)
    sum_packed(buffers, np.array([64], np.int64), 0, 1, 0)
    conv(buffers, np.array([1, 56, 56, 64, 58, 58], np.int64), 0, 49, 0)
    return output
