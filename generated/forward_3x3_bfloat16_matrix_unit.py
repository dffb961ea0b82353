"""convgen: mb1_ic64oc64_ih56oh56kh3ph1 layout=channels_last dtype=bfloat16 epilogue=bias+relu
strategy  direct, pixels=28 lanes=32 dot=2 matrix=32 height=14 pixels_first=1 by_rows=1
template  cpu/kernel.py.j2
again     convgen emit 'mb1_ic64oc64_ih56oh56kh3ph1 layout=channels_last dtype=bfloat16 epilogue=bias+relu' --strategy direct --config 'pixels=28 lanes=32 dot=2 matrix=32 height=14 pixels_first=1 by_rows=1' -o .
"""

from inspect import Parameter, Signature
import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils, datamodel
from numba.extending import intrinsic

import ctypes

# The operating system wants to be asked before the matrix unit is used: arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA).
if ctypes.CDLL(None).syscall(158, 0x1023, 18):
    raise SystemError("this process may not use the matrix unit")

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

class BFloat(ir.Type):
    """A type that llvmlite does not have."""
    def _to_string(self):
        return "bfloat"

bfloat = BFloat()

def below(b, count, lanes):
    kind = ir.VectorType(ir.IntType(64), lanes)
    return b.icmp_signed("<", kind(list(range(lanes))), splat(b, count, kind))

def from_bfloat16(b, x, wide):
    bits = b.zext(x, wide)
    return b.shl(bits, splat(b, ir.IntType(32)(16), wide) if isinstance(wide, ir.VectorType) else wide(16))

def to_bfloat16(b, bits, narrow):
    """Rounds to the nearest even; a NaN stays one."""
    def const(value):
        return splat(b, ir.IntType(32)(value), bits.type) if isinstance(bits.type, ir.VectorType) else bits.type(value)
    odd = b.and_(b.lshr(bits, const(16)), const(1))
    rounded = b.lshr(b.add(bits, b.add(odd, const(0x7FFF))), const(16))
    is_nan = b.icmp_unsigned(">", b.and_(bits, const(0x7FFFFFFF)), const(0x7F800000))
    return b.trunc(b.select(is_nan, b.or_(b.lshr(bits, const(16)), const(0x40)), rounded), narrow)

byte = ir.IntType(8)

def tile_call(b, name, *operands):
    call(b, "llvm.x86." + name, ir.VoidType(), *operands)

def tile_move(b, name, tile, base, index, step, size):
    """Loads or stores a tile whose rows are ``step`` elements of ``size`` bytes apart."""
    place = b.inttoptr(b.add(base, b.mul(index, index.type(size))), byte.as_pointer())
    tile_call(b, name, byte(tile), place, b.mul(step, step.type(size)))

def tile_config(b, shapes):
    """Gives every tile its rows and bytes a row: 64 bytes, of which the first names the layout, 16 begin with the bytes and 48 with
    the rows."""
    rows, sizes = shapes[::2], shapes[1::2]
    head = [1, *[0] * 15, *(part for size in sizes for part in (size & 255, size >> 8))]
    content = bytearray(64)
    content[: len(head)] = bytes(head)
    content[48 : 48 + len(rows)] = bytes(rows)
    kind = ir.ArrayType(byte, 64)
    place = cgutils.global_constant(b.module, "tiles", kind(content))
    place.align = 64
    tile_call(b, "ldtilecfg", b.bitcast(place, byte.as_pointer()))

i64, f32, f64, i32 = types.int64, types.float32, types.float64, types.int32
b16 = types.uint16
b16x64 = Vector(ir.IntType(16), 64)
f32x32 = Vector(ir.FloatType(), 32)
f32x64 = Vector(ir.FloatType(), 64)
add_f32x32 = operation(f32x32, (f32x32, f32x32), lambda b, x, y: b.fadd(x, y))
load_b16x64 = operation(b16x64, (i64, i64), lambda b, base, i: b.load(at(b, base, i, b16x64.llvm, 2), align=2))
load_bf16_f32 = operation(f32, (i64, i64), lambda b, base, i: b.bitcast(from_bfloat16(b, b.load(at(b, base, i, ir.IntType(16), 2), align=2), ir.IntType(32)), ir.FloatType()))
load_some_bf16_f32x32 = operation(f32x32, (i64, i64, i64), lambda b, base, i, n: b.bitcast(from_bfloat16(b, call(b, "llvm.masked.load.v32i16.p0", ir.VectorType(ir.IntType(16), 32), at(b, base, i, ir.VectorType(ir.IntType(16), 32), 2), ir.IntType(32)(2), below(b, n, 32), ir.VectorType(ir.IntType(16), 32)(None)), ir.VectorType(ir.IntType(32), 32)), f32x32.llvm))
load_some_f32x32 = operation(f32x32, (i64, i64, i64), lambda b, base, i, n: call(b, "llvm.masked.load.v32f32.p0", f32x32.llvm, at(b, base, i, f32x32.llvm, 4), ir.IntType(32)(4), below(b, n, 32), f32x32.llvm(None)))
max_f32x32 = operation(f32x32, (f32x32, f32x32), lambda b, x, y: call(b, "llvm.maximum.v32f32", x.type, x, y))
splat_f32x32 = operation(f32x32, (f32,), lambda b, x: splat(b, x, f32x32.llvm))
splat_f32x64 = operation(f32x64, (f32,), lambda b, x: splat(b, x, f32x64.llvm))
store_b16x64 = operation(types.void, (i64, i64, b16x64), lambda b, base, i, x: b.store(x, at(b, base, i, b16x64.llvm, 2), align=2))
store_bf16_f32 = operation(types.void, (i64, i64, f32), lambda b, base, i, x: b.store(to_bfloat16(b, b.bitcast(x, ir.IntType(32)), ir.IntType(16)), at(b, base, i, ir.IntType(16), 2), align=2))
store_flushed_bf16_f32x64 = operation(types.void, (i64, i64, f32x64), lambda b, base, i, x: b.store(b.bitcast(b.fptrunc(x, ir.VectorType(bfloat, 64)), ir.VectorType(ir.IntType(16), 64)), at(b, base, i, ir.VectorType(ir.IntType(16), 64), 2), align=2))
store_flushed_some_bf16_f32x32 = operation(types.void, (i64, i64, f32x32, i64), lambda b, base, i, x, n: call(b, "llvm.masked.store.v32i16.p0", ir.VoidType(), b.bitcast(b.fptrunc(x, ir.VectorType(bfloat, 32)), ir.VectorType(ir.IntType(16), 32)), at(b, base, i, ir.VectorType(ir.IntType(16), 32), 2), ir.IntType(32)(2), below(b, n, 32)))
tile_config_14_64_14_64_14_64_14_64_14_64_14_64_16_64_16_64 = operation(types.void, (), lambda b: tile_config(b, (14, 64, 14, 64, 14, 64, 14, 64, 14, 64, 14, 64, 16, 64, 16, 64,)))
tile_dot_bf16_0_4_6 = operation(types.void, (), lambda b: tile_call(b, "tdpbf16ps", byte(0), byte(4), byte(6)))
tile_dot_bf16_1_4_7 = operation(types.void, (), lambda b: tile_call(b, "tdpbf16ps", byte(1), byte(4), byte(7)))
tile_dot_bf16_2_5_6 = operation(types.void, (), lambda b: tile_call(b, "tdpbf16ps", byte(2), byte(5), byte(6)))
tile_dot_bf16_3_5_7 = operation(types.void, (), lambda b: tile_call(b, "tdpbf16ps", byte(3), byte(5), byte(7)))
tile_load_bf16_4 = operation(types.void, (i64, i64, i64), lambda b, base, i, step: tile_move(b, "tileloadd64", 4, base, i, step, 2))
tile_load_bf16_5 = operation(types.void, (i64, i64, i64), lambda b, base, i, step: tile_move(b, "tileloadd64", 5, base, i, step, 2))
tile_load_bf16_6 = operation(types.void, (i64, i64, i64), lambda b, base, i, step: tile_move(b, "tileloadd64", 6, base, i, step, 2))
tile_load_bf16_7 = operation(types.void, (i64, i64, i64), lambda b, base, i, step: tile_move(b, "tileloadd64", 7, base, i, step, 2))
tile_release = operation(types.void, (), lambda b: tile_call(b, "tilerelease"))
tile_store_f32_0 = operation(types.void, (i64, i64, i64), lambda b, base, i, step: tile_move(b, "tilestored64", 0, base, i, step, 4))
tile_store_f32_1 = operation(types.void, (i64, i64, i64), lambda b, base, i, step: tile_move(b, "tilestored64", 1, base, i, step, 4))
tile_store_f32_2 = operation(types.void, (i64, i64, i64), lambda b, base, i, step: tile_move(b, "tilestored64", 2, base, i, step, 4))
tile_store_f32_3 = operation(types.void, (i64, i64, i64), lambda b, base, i, step: tile_move(b, "tilestored64", 3, base, i, step, 4))
tile_zero_0 = operation(types.void, (), lambda b: tile_call(b, "tilezero", byte(0)))
tile_zero_1 = operation(types.void, (), lambda b: tile_call(b, "tilezero", byte(1)))
tile_zero_2 = operation(types.void, (), lambda b: tile_call(b, "tilezero", byte(2)))
tile_zero_3 = operation(types.void, (), lambda b: tile_call(b, "tilezero", byte(3)))

# ---- stages: buffers holds addresses, sizes extents; begin..end are the tasks to run, worker numbers the thread
@njit(error_model="numpy", nogil=True)
def pack_weight(buffers, sizes, begin, end, worker):
    weight, packed = buffers[1], buffers[5]
    OC, packed_khs, packed_kws = sizes[0], sizes[1], sizes[2]
    for packed_block in range(begin, end):
        for packed_ic in range(32):
            for packed_kh in range(packed_khs):
                for packed_kw in range(packed_kws):
                    for packed_lane in range(16):
                        for packed_term in range(2):
                            if packed_block * 16 + packed_lane < OC:
                                chosen = load_bf16_f32(weight, (((packed_block * 16 + packed_lane) * 64 + (packed_ic * 2 + packed_term)) * packed_khs + packed_kh) * packed_kws + packed_kw)
                            else:
                                chosen = np.float32(0.0)
                            store_bf16_f32(packed, ((((packed_block * packed_khs + packed_kh) * packed_kws + packed_kw) * 32 + packed_ic) * 16 + packed_lane) * 2 + packed_term, chosen)

@njit(error_model="numpy", nogil=True)
def conv(buffers, sizes, begin, end, worker):
    input, bias, output, packed = buffers[0], buffers[2], buffers[3], buffers[5]
    N, IH, IW, OH, OW = sizes[0], sizes[1], sizes[2], sizes[3], sizes[4]
    OC, RH, RW, LH, LW, worker_bytes = sizes[5], sizes[6], sizes[7], sizes[8], sizes[9], sizes[10]
    padded, sums = buffers[4] + worker * worker_bytes, buffers[6] + worker * worker_bytes
    tile_config_14_64_14_64_14_64_14_64_14_64_14_64_16_64_16_64()
    for task in range(begin, end):
        n = task // ((OW + RW - 1) // RW * ((OH + RH - 1) // RH))
        part_h, part_w = task // ((OW + RW - 1) // RW) % ((OH + RH - 1) // RH), task % ((OW + RW - 1) // RW)
        start0, start1 = min(part_h * RH, OH - RH), min(part_w * RW, OW - RW)
        limit0, limit1 = max(0 - start0 + 1, 0), max(0 - start1 + 1, 0)
        start2, start3 = min(limit0, RH + 2), min(limit1, RW + 2)
        padded_at0 = (start2 * LW + start3) * 64
        for padded_h_fill in range(RH + 2):
            for padded_w_fill in range(RW + 2):
                store_flushed_bf16_f32x64(padded, (padded_h_fill * LW + padded_w_fill) * 64, splat_f32x64(0.0))
        for padded_h in range(max(min(IH - start0 + 1, RH + 2), start2) - start2):
            for padded_w in range(max(min(IW - start1 + 1, RW + 2), start3) - start3):
                store_b16x64(padded, padded_at0 + (padded_h * LW + padded_w) * 64, load_b16x64(input, ((n * IH + (padded_h + start2 + start0)) * IW + (padded_w + start3 + start1)) * 64 - (IW * 64 + 64)))
        for oc_block in range((OC + 31) // 32):
            for in_h in range(RH):
                for tile in range((RW + 27) // 28):
                    start4 = min(tile * 28, RW - 28)
                    tile_zero_0()
                    tile_zero_1()
                    tile_zero_2()
                    tile_zero_3()
                    for kh in range(min(3, IH - start0 - in_h + 1) - max(0, 0 - start0 - in_h + 1)):
                        for kw in range(3):
                            for ic in range(2):
                                tile_load_bf16_6(packed, (((oc_block * 2 * 3 + (max(0, 0 - start0 - in_h + 1) + kh)) * 3 + kw) * 32 + ic * 16) * 16 * 2, 32)
                                tile_load_bf16_7(packed, (((oc_block * 2 * 3 + (max(0, 0 - start0 - in_h + 1) + kh)) * 3 + kw) * 32 + ic * 16) * 16 * 2 + 9216, 32)
                                tile_load_bf16_4(padded, ((in_h + max(0, 0 - start0 - in_h + 1) + kh) * LW + (start4 + kw)) * 64 + ic * 32, 64)
                                tile_dot_bf16_0_4_6()
                                tile_dot_bf16_1_4_7()
                                tile_load_bf16_5(padded, ((in_h + max(0, 0 - start0 - in_h + 1) + kh) * LW + (start4 + kw)) * 64 + ic * 32 + 896, 64)
                                tile_dot_bf16_2_5_6()
                                tile_dot_bf16_3_5_7()
                    tile_store_f32_0(sums, 0, 32)
                    tile_store_f32_1(sums, 16, 32)
                    tile_store_f32_2(sums, 448, 32)
                    tile_store_f32_3(sums, 464, 32)
                    for px in range(28):
                        store_flushed_some_bf16_f32x32(output, ((n * OH + (start0 + in_h)) * OW + (start1 + start4 + px)) * OC + oc_block * 32, max_f32x32(add_f32x32(load_some_f32x32(sums, px * 32, OC - oc_block * 32), load_some_bf16_f32x32(bias, oc_block * 32, OC - oc_block * 32)), splat_f32x32(0.0)), OC - oc_block * 32)
    tile_release()

# ---- the whole problem on one thread
def run(input, weight, bias):
    input = np.ascontiguousarray(input).view(np.uint16).reshape((1, 56, 56, 64))  # bfloat16's bits
    weight = np.ascontiguousarray(weight).view(np.uint16).reshape((64, 64, 3, 3))  # bfloat16's bits
    bias = np.ascontiguousarray(bias).view(np.uint16).reshape((64,))  # bfloat16's bits
    output = np.empty((1, 56, 56, 64), np.uint16)
    padded, packed, sums = (np.empty(size, np.uint8) for size in [430592, 73728, 3584])
    buffers = np.array([array.ctypes.data for array in (input, weight, bias, output, padded, packed, sums)])
    pack_weight(buffers, np.array([64, 3, 3], np.int64), 0, 4, 0)
    conv(buffers, np.array([1, 56, 56, 56, 56, 64, 56, 56, 58, 58, 434176], np.int64), 0, 1, 0)
    return output
