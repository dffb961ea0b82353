"""convgen: mb64_ic64oc64_iw10ow10kw7pw3 layout=channels_last
strategy  fft, n=16 pixels=8 lanes=32 tiles=16 fused=1
template  cpu/kernel.py.j2
again     convgen emit 'mb64_ic64oc64_iw10ow10kw7pw3 layout=channels_last' --strategy fft --config 'n=16 pixels=8 lanes=32 tiles=16 fused=1' -o .
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

def place_if(b, condition, place, vector):
    """The place, or one that holds zeros where the condition does not hold: no branch, and nothing is read in vain."""
    name = f"zeros.{vector}"
    zeros = b.module.globals.get(name) or cgutils.global_constant(b.module, name, vector(None))
    return b.select(condition, place, b.bitcast(zeros, place.type))

def call(b, name, result, *values):
    function = ir.FunctionType(result, [value.type for value in values])
    return b.call(cgutils.get_or_insert_function(b.module, function, name), values)

def hold(b, base, index, size):
    """An address that LLVM knows nothing about: it would keep a pointer to each of many elements at constant distances."""
    place = b.add(base, b.mul(index, index.type(size)))
    return b.asm(ir.FunctionType(place.type, [place.type]), "", "=r,0", [place], False)

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
f32x16 = Vector(ir.FloatType(), 16)
f32x32 = Vector(ir.FloatType(), 32)
add_f32x16 = operation(f32x16, (f32x16, f32x16), lambda b, x, y: b.fadd(x, y))
fma_f32x16 = operation(f32x16, (f32x16, f32x16, f32x16), lambda b, x, y, z: call(b, "llvm.fma.v16f32", x.type, x, y, z))
fma_f32x32 = operation(f32x32, (f32x32, f32x32, f32x32), lambda b, x, y, z: call(b, "llvm.fma.v32f32", x.type, x, y, z))
load_f32 = operation(f32, (i64, i64), lambda b, base, i: b.load(at(b, base, i, ir.FloatType(), 4), align=4))
load_f32x16 = operation(f32x16, (i64, i64), lambda b, base, i: b.load(at(b, base, i, f32x16.llvm, 4), align=4))
load_f32x32 = operation(f32x32, (i64, i64), lambda b, base, i: b.load(at(b, base, i, f32x32.llvm, 4), align=4))
load_if_f32x16 = operation(f32x16, (i64, i64, types.boolean), lambda b, base, i, c: b.load(place_if(b, c, at(b, base, i, f32x16.llvm, 4), f32x16.llvm), align=4))
mul_f32x16 = operation(f32x16, (f32x16, f32x16), lambda b, x, y: b.fmul(x, y))
place_f32 = operation(i64, (i64, i64), lambda b, base, i: hold(b, base, i, 4))
prefetch_f32x16 = operation(types.void, (i64, i64), lambda b, base, i: prefetch(b, base, i, 4, 64))
splat_f32x16 = operation(f32x16, (f32,), lambda b, x: splat(b, x, f32x16.llvm))
splat_f32x32 = operation(f32x32, (f32,), lambda b, x: splat(b, x, f32x32.llvm))
store_f32 = operation(types.void, (i64, i64, f32), lambda b, base, i, x: b.store(x, at(b, base, i, ir.FloatType(), 4), align=4))
store_f32x16 = operation(types.void, (i64, i64, f32x16), lambda b, base, i, x: b.store(x, at(b, base, i, f32x16.llvm, 4), align=4))
store_f32x32 = operation(types.void, (i64, i64, f32x32), lambda b, base, i, x: b.store(x, at(b, base, i, f32x32.llvm, 4), align=4))
store_some_f32x16 = operation(types.void, (i64, i64, f32x16, i64), lambda b, base, i, x, n: call(b, "llvm.masked.store.v16f32.p0", ir.VoidType(), x, at(b, base, i, f32x16.llvm, 4), ir.IntType(32)(4), below(b, n, 16)))
sub_f32x16 = operation(f32x16, (f32x16, f32x16), lambda b, x, y: b.fsub(x, y))

# ---- stages: buffers holds addresses, sizes extents; begin..end are the tasks to run, worker numbers the thread
@njit(error_model="numpy", nogil=True)
def transform_weight(buffers, sizes, begin, end, worker):
    weight, u = buffers[1], buffers[3]
    OC, worker_bytes = sizes[0], sizes[1]
    taps = buffers[6] + worker * worker_bytes
    for task in range(begin, end):
        ob, c = task // 64, task % 64
        for u_lane in range(32):
            for tw in range(7):
                if ob * 32 + u_lane < OC:
                    chosen = load_f32(weight, ((ob * 32 + u_lane) * 64 + c) * 7 + tw)
                else:
                    chosen = np.float32(0.0)
                store_f32(taps, tw * 32 + u_lane, chosen)
        for w_block in range(2):
            taps_at = w_block * 16
            w0 = load_f32x16(taps, taps_at)
            w1 = load_f32x16(taps, taps_at + 32)
            w2 = load_f32x16(taps, taps_at + 64)
            w3 = load_f32x16(taps, taps_at + 96)
            w4 = load_f32x16(taps, taps_at + 128)
            w5 = load_f32x16(taps, taps_at + 160)
            w6 = load_f32x16(taps, taps_at + 192)
            # weight transform of FFT(16,7)
            factor_w0 = splat_f32x16(0.7071067811865476)
            factor_w1 = splat_f32x16(-0.7071067811865476)
            factor_w2 = splat_f32x16(-0.4142135623730951)
            factor_w3 = splat_f32x16(0.4142135623730951)
            factor_w4 = splat_f32x16(0.9238795325112867)
            factor_w5 = splat_f32x16(-0.9238795325112867)
            factor_w6 = splat_f32x16(0.0625)
            factor_w7 = splat_f32x16(0.125)
            factor_w8 = splat_f32x16(-0.125)
            part_w0 = add_f32x16(w0, w4)
            part_w1 = sub_f32x16(w0, w4)
            part_w2 = add_f32x16(w2, w6)
            part_w3 = sub_f32x16(w2, w6)
            part_w4 = add_f32x16(part_w0, part_w2)
            part_w5 = sub_f32x16(part_w0, part_w2)
            part_w6 = fma_f32x16(part_w3, factor_w0, w0)
            part_w7 = fma_f32x16(part_w2, factor_w0, w4)
            part_w8 = fma_f32x16(part_w3, factor_w1, w0)
            part_w9 = fma_f32x16(part_w2, factor_w1, w4)
            part_w10 = add_f32x16(w1, w5)
            part_w11 = sub_f32x16(w1, w5)
            part_w12 = add_f32x16(w3, part_w10)
            part_w13 = sub_f32x16(part_w10, w3)
            part_w14 = add_f32x16(part_w4, part_w12)
            part_w15 = sub_f32x16(part_w4, part_w12)
            part_w16 = fma_f32x16(w5, factor_w2, w1)
            part_w17 = fma_f32x16(w1, factor_w3, w5)
            part_w18 = fma_f32x16(w3, factor_w3, part_w16)
            part_w19 = add_f32x16(w3, part_w17)
            part_w20 = fma_f32x16(w3, factor_w2, part_w16)
            part_w21 = sub_f32x16(w3, part_w17)
            part_w22 = fma_f32x16(part_w18, factor_w4, part_w6)
            part_w23 = fma_f32x16(part_w19, factor_w4, part_w7)
            part_w24 = fma_f32x16(part_w18, factor_w5, part_w6)
            part_w25 = fma_f32x16(part_w19, factor_w5, part_w7)
            part_w26 = fma_f32x16(part_w21, factor_w4, part_w8)
            part_w27 = fma_f32x16(part_w20, factor_w4, part_w9)
            part_w28 = fma_f32x16(part_w21, factor_w5, part_w8)
            part_w29 = fma_f32x16(part_w20, factor_w5, part_w9)
            part_w30 = sub_f32x16(part_w11, w3)
            part_w31 = add_f32x16(w3, part_w11)
            part_w32 = fma_f32x16(part_w30, factor_w0, part_w1)
            part_w33 = fma_f32x16(part_w31, factor_w0, part_w3)
            part_w34 = fma_f32x16(part_w30, factor_w1, part_w1)
            part_w35 = fma_f32x16(part_w31, factor_w1, part_w3)
            part_w36 = add_f32x16(part_w22, part_w23)
            part_w37 = sub_f32x16(part_w22, part_w23)
            part_w38 = add_f32x16(part_w32, part_w33)
            part_w39 = sub_f32x16(part_w32, part_w33)
            part_w40 = sub_f32x16(part_w29, part_w28)
            part_w41 = add_f32x16(part_w28, part_w29)
            part_w42 = add_f32x16(part_w5, part_w13)
            part_w43 = sub_f32x16(part_w5, part_w13)
            part_w44 = add_f32x16(part_w26, part_w27)
            part_w45 = sub_f32x16(part_w26, part_w27)
            part_w46 = sub_f32x16(part_w35, part_w34)
            part_w47 = add_f32x16(part_w34, part_w35)
            part_w48 = sub_f32x16(part_w25, part_w24)
            part_w49 = add_f32x16(part_w24, part_w25)
            part_w50 = mul_f32x16(part_w14, factor_w6)
            part_w51 = mul_f32x16(part_w15, factor_w6)
            part_w52 = mul_f32x16(part_w22, factor_w7)
            part_w53 = mul_f32x16(part_w36, factor_w7)
            part_w54 = mul_f32x16(part_w37, factor_w7)
            part_w55 = mul_f32x16(part_w32, factor_w7)
            part_w56 = mul_f32x16(part_w38, factor_w7)
            part_w57 = mul_f32x16(part_w39, factor_w7)
            part_w58 = mul_f32x16(part_w28, factor_w7)
            part_w59 = mul_f32x16(part_w40, factor_w7)
            part_w60 = mul_f32x16(part_w41, factor_w8)
            part_w61 = mul_f32x16(part_w5, factor_w7)
            part_w62 = mul_f32x16(part_w42, factor_w7)
            part_w63 = mul_f32x16(part_w43, factor_w7)
            part_w64 = mul_f32x16(part_w26, factor_w7)
            part_w65 = mul_f32x16(part_w44, factor_w7)
            part_w66 = mul_f32x16(part_w45, factor_w7)
            part_w67 = mul_f32x16(part_w34, factor_w7)
            part_w68 = mul_f32x16(part_w46, factor_w7)
            part_w69 = mul_f32x16(part_w47, factor_w8)
            part_w70 = mul_f32x16(part_w24, factor_w7)
            part_w71 = mul_f32x16(part_w48, factor_w7)
            part_w72 = mul_f32x16(part_w49, factor_w8)
            w0 = part_w50
            w1 = part_w51
            w2 = part_w52
            w3 = part_w53
            w4 = part_w54
            w5 = part_w55
            w6 = part_w56
            w7 = part_w57
            w8 = part_w58
            w9 = part_w59
            w10 = part_w60
            w11 = part_w61
            w12 = part_w62
            w13 = part_w63
            w14 = part_w64
            w15 = part_w65
            w16 = part_w66
            w17 = part_w67
            w18 = part_w68
            w19 = part_w69
            w20 = part_w70
            w21 = part_w71
            w22 = part_w72
            u_at = (ob * 23 * 64 + c) * 32 + w_block * 16
            store_f32x16(u, u_at, w0)
            store_f32x16(u, u_at + 2048, w1)
            store_f32x16(u, u_at + 4096, w2)
            store_f32x16(u, u_at + 6144, w3)
            store_f32x16(u, u_at + 8192, w4)
            store_f32x16(u, u_at + 10240, w5)
            store_f32x16(u, u_at + 12288, w6)
            store_f32x16(u, u_at + 14336, w7)
            store_f32x16(u, u_at + 16384, w8)
            store_f32x16(u, u_at + 18432, w9)
            store_f32x16(u, u_at + 20480, w10)
            store_f32x16(u, u_at + 22528, w11)
            store_f32x16(u, u_at + 24576, w12)
            store_f32x16(u, u_at + 26624, w13)
            store_f32x16(u, u_at + 28672, w14)
            store_f32x16(u, u_at + 30720, w15)
            store_f32x16(u, u_at + 32768, w16)
            store_f32x16(u, u_at + 34816, w17)
            store_f32x16(u, u_at + 36864, w18)
            store_f32x16(u, u_at + 38912, w19)
            store_f32x16(u, u_at + 40960, w20)
            store_f32x16(u, u_at + 43008, w21)
            store_f32x16(u, u_at + 45056, w22)

@njit(error_model="numpy", nogil=True)
def conv(buffers, sizes, begin, end, worker):
    input, output, u = buffers[0], buffers[2], buffers[3]
    N, IW, OW, OC, T, worker_bytes = sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], sizes[5]
    v, m = buffers[4] + worker * worker_bytes, buffers[5] + worker * worker_bytes
    for block in range(begin, end):
        row = (OW + 9) // 10
        start = min(block * T, N * row - T)
        v_at0, v_at1, v_at2, v_at3 = T * 64 + 16, 2 * (T * 64 + 16), 3 * (T * 64 + 16), 4 * (T * 64 + 16)
        v_at4, v_at5, v_at6, v_at7 = 5 * (T * 64 + 16), 6 * (T * 64 + 16), 7 * (T * 64 + 16), 8 * (T * 64 + 16)
        v_at8, v_at9, v_at10, v_at11 = 9 * (T * 64 + 16), 10 * (T * 64 + 16), 11 * (T * 64 + 16), 12 * (T * 64 + 16)
        v_at12, v_at13, v_at14, v_at15 = 13 * (T * 64 + 16), 14 * (T * 64 + 16), 15 * (T * 64 + 16), 16 * (T * 64 + 16)
        v_at16, v_at17, v_at18, v_at19 = 17 * (T * 64 + 16), 18 * (T * 64 + 16), 19 * (T * 64 + 16), 20 * (T * 64 + 16)
        v_at20, v_at21 = 21 * (T * 64 + 16), 22 * (T * 64 + 16)
        m_at0, m_at1, m_at2, m_at3 = T * 32 + 16, 2 * (T * 32 + 16), 3 * (T * 32 + 16), 4 * (T * 32 + 16)
        m_at4, m_at5, m_at6, m_at7 = 5 * (T * 32 + 16), 6 * (T * 32 + 16), 7 * (T * 32 + 16), 8 * (T * 32 + 16)
        m_at8, m_at9, m_at10, m_at11 = 9 * (T * 32 + 16), 10 * (T * 32 + 16), 11 * (T * 32 + 16), 12 * (T * 32 + 16)
        m_at12, m_at13, m_at14, m_at15 = 13 * (T * 32 + 16), 14 * (T * 32 + 16), 15 * (T * 32 + 16), 16 * (T * 32 + 16)
        m_at16, m_at17, m_at18, m_at19 = 17 * (T * 32 + 16), 18 * (T * 32 + 16), 19 * (T * 32 + 16), 20 * (T * 32 + 16)
        m_at20, m_at21 = 21 * (T * 32 + 16), 22 * (T * 32 + 16)
        for tile in range(T):
            row1 = (start + tile) // row
            col = start + tile - row1 * row
            for c_block in range(4):
                prefetch_f32x16(input, (row1 * IW + col * 10) * 64 + c_block * 16 + 448)
                prefetch_f32x16(input, (row1 * IW + col * 10) * 64 + c_block * 16 + 512)
                prefetch_f32x16(input, (row1 * IW + col * 10) * 64 + c_block * 16 + 576)
                prefetch_f32x16(input, (row1 * IW + col * 10) * 64 + c_block * 16 + 640)
                prefetch_f32x16(input, (row1 * IW + col * 10) * 64 + c_block * 16 + 704)
                prefetch_f32x16(input, (row1 * IW + col * 10) * 64 + c_block * 16 + 768)
                prefetch_f32x16(input, (row1 * IW + col * 10) * 64 + c_block * 16 + 832)
                prefetch_f32x16(input, (row1 * IW + col * 10) * 64 + c_block * 16 + 896)
                prefetch_f32x16(input, (row1 * IW + col * 10) * 64 + c_block * 16 + 960)
                prefetch_f32x16(input, (row1 * IW + col * 10) * 64 + c_block * 16 + 1024)
                prefetch_f32x16(input, (row1 * IW + col * 10) * 64 + c_block * 16 + 1088)
                prefetch_f32x16(input, (row1 * IW + col * 10) * 64 + c_block * 16 + 1152)
                prefetch_f32x16(input, (row1 * IW + col * 10) * 64 + c_block * 16 + 1216)
                prefetch_f32x16(input, (row1 * IW + col * 10) * 64 + c_block * 16 + 1280)
                prefetch_f32x16(input, (row1 * IW + col * 10) * 64 + c_block * 16 + 1344)
                prefetch_f32x16(input, (row1 * IW + col * 10) * 64 + c_block * 16 + 1408)
                input_at = (row1 * IW + col * 10) * 64 + c_block * 16
                x0 = load_if_f32x16(input, input_at - 192, (0 <= col * 10 - 3) & (col * 10 - 3 < IW))
                x1 = load_if_f32x16(input, input_at - 128, (0 <= col * 10 - 2) & (col * 10 - 2 < IW))
                x2 = load_if_f32x16(input, input_at - 64, (0 <= col * 10 - 1) & (col * 10 - 1 < IW))
                x3 = load_if_f32x16(input, input_at, (0 <= col * 10) & (col * 10 < IW))
                x4 = load_if_f32x16(input, input_at + 64, (0 <= col * 10 + 1) & (col * 10 + 1 < IW))
                x5 = load_if_f32x16(input, input_at + 128, (0 <= col * 10 + 2) & (col * 10 + 2 < IW))
                x6 = load_if_f32x16(input, input_at + 192, (0 <= col * 10 + 3) & (col * 10 + 3 < IW))
                x7 = load_if_f32x16(input, input_at + 256, (0 <= col * 10 + 4) & (col * 10 + 4 < IW))
                x8 = load_if_f32x16(input, input_at + 320, (0 <= col * 10 + 5) & (col * 10 + 5 < IW))
                x9 = load_if_f32x16(input, input_at + 384, (0 <= col * 10 + 6) & (col * 10 + 6 < IW))
                x10 = load_if_f32x16(input, input_at + 448, (0 <= col * 10 + 7) & (col * 10 + 7 < IW))
                x11 = load_if_f32x16(input, input_at + 512, (0 <= col * 10 + 8) & (col * 10 + 8 < IW))
                x12 = load_if_f32x16(input, input_at + 576, (0 <= col * 10 + 9) & (col * 10 + 9 < IW))
                x13 = load_if_f32x16(input, input_at + 640, (0 <= col * 10 + 10) & (col * 10 + 10 < IW))
                x14 = load_if_f32x16(input, input_at + 704, (0 <= col * 10 + 11) & (col * 10 + 11 < IW))
                x15 = load_if_f32x16(input, input_at + 768, (0 <= col * 10 + 12) & (col * 10 + 12 < IW))
                # input transform of FFT(16,7)
                factor_x0 = splat_f32x16(0.7071067811865476)
                factor_x1 = splat_f32x16(-0.7071067811865476)
                factor_x2 = splat_f32x16(-0.4142135623730951)
                factor_x3 = splat_f32x16(0.4142135623730951)
                factor_x4 = splat_f32x16(0.9238795325112867)
                factor_x5 = splat_f32x16(-0.9238795325112867)
                part_x0 = add_f32x16(x0, x8)
                part_x1 = sub_f32x16(x0, x8)
                part_x2 = add_f32x16(x4, x12)
                part_x3 = sub_f32x16(x4, x12)
                part_x4 = add_f32x16(part_x0, part_x2)
                part_x5 = sub_f32x16(part_x0, part_x2)
                part_x6 = add_f32x16(x2, x10)
                part_x7 = sub_f32x16(x2, x10)
                part_x8 = add_f32x16(x6, x14)
                part_x9 = sub_f32x16(x14, x6)
                part_x10 = add_f32x16(part_x6, part_x8)
                part_x11 = sub_f32x16(part_x6, part_x8)
                part_x12 = add_f32x16(part_x4, part_x10)
                part_x13 = sub_f32x16(part_x4, part_x10)
                part_x14 = add_f32x16(part_x7, part_x9)
                part_x15 = sub_f32x16(part_x9, part_x7)
                part_x16 = fma_f32x16(part_x14, factor_x0, part_x1)
                part_x17 = fma_f32x16(part_x15, factor_x1, part_x3)
                part_x18 = fma_f32x16(part_x14, factor_x1, part_x1)
                part_x19 = fma_f32x16(part_x15, factor_x0, part_x3)
                part_x20 = add_f32x16(x1, x9)
                part_x21 = sub_f32x16(x1, x9)
                part_x22 = add_f32x16(x5, x13)
                part_x23 = sub_f32x16(x5, x13)
                part_x24 = add_f32x16(part_x20, part_x22)
                part_x25 = sub_f32x16(part_x20, part_x22)
                part_x26 = add_f32x16(x7, x15)
                part_x27 = sub_f32x16(x15, x7)
                part_x28 = add_f32x16(x3, x11)
                part_x29 = sub_f32x16(x3, x11)
                part_x30 = add_f32x16(part_x26, part_x28)
                part_x31 = sub_f32x16(part_x26, part_x28)
                part_x32 = add_f32x16(part_x24, part_x30)
                part_x33 = sub_f32x16(part_x24, part_x30)
                part_x34 = add_f32x16(part_x12, part_x32)
                part_x35 = sub_f32x16(part_x12, part_x32)
                part_x36 = fma_f32x16(part_x23, factor_x2, part_x21)
                part_x37 = fma_f32x16(part_x21, factor_x3, part_x23)
                part_x38 = fma_f32x16(part_x29, factor_x3, part_x27)
                part_x39 = fma_f32x16(part_x27, factor_x2, part_x29)
                part_x40 = add_f32x16(part_x36, part_x38)
                part_x41 = add_f32x16(part_x37, part_x39)
                part_x42 = sub_f32x16(part_x36, part_x38)
                part_x43 = sub_f32x16(part_x39, part_x37)
                part_x44 = fma_f32x16(part_x40, factor_x4, part_x16)
                part_x45 = fma_f32x16(part_x41, factor_x4, part_x17)
                part_x46 = fma_f32x16(part_x40, factor_x5, part_x16)
                part_x47 = fma_f32x16(part_x41, factor_x5, part_x17)
                part_x48 = fma_f32x16(part_x43, factor_x4, part_x18)
                part_x49 = fma_f32x16(part_x42, factor_x4, part_x19)
                part_x50 = fma_f32x16(part_x43, factor_x5, part_x18)
                part_x51 = fma_f32x16(part_x42, factor_x5, part_x19)
                part_x52 = add_f32x16(part_x25, part_x31)
                part_x53 = sub_f32x16(part_x31, part_x25)
                part_x54 = fma_f32x16(part_x52, factor_x0, part_x5)
                part_x55 = fma_f32x16(part_x53, factor_x1, part_x11)
                part_x56 = fma_f32x16(part_x52, factor_x1, part_x5)
                part_x57 = fma_f32x16(part_x53, factor_x0, part_x11)
                part_x58 = sub_f32x16(part_x44, part_x45)
                part_x59 = sub_f32x16(part_x54, part_x55)
                part_x60 = add_f32x16(part_x50, part_x51)
                part_x61 = sub_f32x16(part_x13, part_x33)
                part_x62 = sub_f32x16(part_x48, part_x49)
                part_x63 = add_f32x16(part_x56, part_x57)
                part_x64 = add_f32x16(part_x46, part_x47)
                x0 = part_x34
                x1 = part_x35
                x2 = part_x58
                x3 = part_x45
                x4 = part_x44
                x5 = part_x59
                x6 = part_x55
                x7 = part_x54
                x8 = part_x60
                x9 = part_x51
                x10 = part_x50
                x11 = part_x61
                x12 = part_x33
                x13 = part_x13
                x14 = part_x62
                x15 = part_x49
                x16 = part_x48
                x17 = part_x63
                x18 = part_x57
                x19 = part_x56
                x20 = part_x64
                x21 = part_x47
                x22 = part_x46
                v_by = c_block * T * 16 + tile * 16
                store_f32x16(v, v_by, x0)
                store_f32x16(v, v_at0 + v_by, x1)
                store_f32x16(v, v_at1 + v_by, x2)
                store_f32x16(v, v_at2 + v_by, x3)
                store_f32x16(v, v_at3 + v_by, x4)
                store_f32x16(v, v_at4 + v_by, x5)
                store_f32x16(v, v_at5 + v_by, x6)
                store_f32x16(v, v_at6 + v_by, x7)
                store_f32x16(v, v_at7 + v_by, x8)
                store_f32x16(v, v_at8 + v_by, x9)
                store_f32x16(v, v_at9 + v_by, x10)
                store_f32x16(v, v_at10 + v_by, x11)
                store_f32x16(v, v_at11 + v_by, x12)
                store_f32x16(v, v_at12 + v_by, x13)
                store_f32x16(v, v_at13 + v_by, x14)
                store_f32x16(v, v_at14 + v_by, x15)
                store_f32x16(v, v_at15 + v_by, x16)
                store_f32x16(v, v_at16 + v_by, x17)
                store_f32x16(v, v_at17 + v_by, x18)
                store_f32x16(v, v_at18 + v_by, x19)
                store_f32x16(v, v_at19 + v_by, x20)
                store_f32x16(v, v_at20 + v_by, x21)
                store_f32x16(v, v_at21 + v_by, x22)
        for ob in range((OC + 31) // 32):
            for point in range(23):
                for pixels in range((T + 7) // 8):
                    start1 = min(pixels * 8, T - 8)
                    acc0 = acc1 = acc2 = acc3 = acc4 = acc5 = acc6 = acc7 = splat_f32x32(0.0)
                    for c_block in range(4):
                        for c in range(16):
                            v_row = place_f32(v, point * (T * 64 + 16) + (c_block * T * 16 + start1 * 16 + c))
                            u_here = load_f32x32(u, ((ob * 23 + point) * 64 + (c_block * 16 + c)) * 32)
                            acc0 = fma_f32x32(splat_f32x32(load_f32(v_row, 0)), u_here, acc0)
                            acc1 = fma_f32x32(splat_f32x32(load_f32(v_row, 16)), u_here, acc1)
                            acc2 = fma_f32x32(splat_f32x32(load_f32(v_row, 32)), u_here, acc2)
                            acc3 = fma_f32x32(splat_f32x32(load_f32(v_row, 48)), u_here, acc3)
                            acc4 = fma_f32x32(splat_f32x32(load_f32(v_row, 64)), u_here, acc4)
                            acc5 = fma_f32x32(splat_f32x32(load_f32(v_row, 80)), u_here, acc5)
                            acc6 = fma_f32x32(splat_f32x32(load_f32(v_row, 96)), u_here, acc6)
                            acc7 = fma_f32x32(splat_f32x32(load_f32(v_row, 112)), u_here, acc7)
                    m_at22 = point * (T * 32 + 16) + start1 * 32
                    store_f32x32(m, m_at22, acc0)
                    store_f32x32(m, m_at22 + 32, acc1)
                    store_f32x32(m, m_at22 + 64, acc2)
                    store_f32x32(m, m_at22 + 96, acc3)
                    store_f32x32(m, m_at22 + 128, acc4)
                    store_f32x32(m, m_at22 + 160, acc5)
                    store_f32x32(m, m_at22 + 192, acc6)
                    store_f32x32(m, m_at22 + 224, acc7)
            for tile in range(T):
                row1 = (start + tile) // row
                col = start + tile - row1 * row
                for y_block in range(2):
                    prefetch_f32x16(output, (row1 * OW + col * 10) * OC + (ob * 32 + y_block * 16) + OC * 10)
                    prefetch_f32x16(output, (row1 * OW + col * 10) * OC + (ob * 32 + y_block * 16) + OC * 11)
                    prefetch_f32x16(output, (row1 * OW + col * 10) * OC + (ob * 32 + y_block * 16) + OC * 12)
                    prefetch_f32x16(output, (row1 * OW + col * 10) * OC + (ob * 32 + y_block * 16) + OC * 13)
                    prefetch_f32x16(output, (row1 * OW + col * 10) * OC + (ob * 32 + y_block * 16) + OC * 14)
                    prefetch_f32x16(output, (row1 * OW + col * 10) * OC + (ob * 32 + y_block * 16) + OC * 15)
                    prefetch_f32x16(output, (row1 * OW + col * 10) * OC + (ob * 32 + y_block * 16) + OC * 16)
                    prefetch_f32x16(output, (row1 * OW + col * 10) * OC + (ob * 32 + y_block * 16) + OC * 17)
                    prefetch_f32x16(output, (row1 * OW + col * 10) * OC + (ob * 32 + y_block * 16) + OC * 18)
                    prefetch_f32x16(output, (row1 * OW + col * 10) * OC + (ob * 32 + y_block * 16) + OC * 19)
                    m_by = tile * 32 + y_block * 16
                    y0 = load_f32x16(m, m_by)
                    y1 = load_f32x16(m, m_at0 + m_by)
                    y2 = load_f32x16(m, m_at1 + m_by)
                    y3 = load_f32x16(m, m_at2 + m_by)
                    y4 = load_f32x16(m, m_at3 + m_by)
                    y5 = load_f32x16(m, m_at4 + m_by)
                    y6 = load_f32x16(m, m_at5 + m_by)
                    y7 = load_f32x16(m, m_at6 + m_by)
                    y8 = load_f32x16(m, m_at7 + m_by)
                    y9 = load_f32x16(m, m_at8 + m_by)
                    y10 = load_f32x16(m, m_at9 + m_by)
                    y11 = load_f32x16(m, m_at10 + m_by)
                    y12 = load_f32x16(m, m_at11 + m_by)
                    y13 = load_f32x16(m, m_at12 + m_by)
                    y14 = load_f32x16(m, m_at13 + m_by)
                    y15 = load_f32x16(m, m_at14 + m_by)
                    y16 = load_f32x16(m, m_at15 + m_by)
                    y17 = load_f32x16(m, m_at16 + m_by)
                    y18 = load_f32x16(m, m_at17 + m_by)
                    y19 = load_f32x16(m, m_at18 + m_by)
                    y20 = load_f32x16(m, m_at19 + m_by)
                    y21 = load_f32x16(m, m_at20 + m_by)
                    y22 = load_f32x16(m, m_at21 + m_by)
                    # output transform of FFT(16,7)
                    factor_y0 = splat_f32x16(-0.4142135623730951)
                    factor_y1 = splat_f32x16(0.4142135623730951)
                    factor_y2 = splat_f32x16(0.7653668647301796)
                    factor_y3 = splat_f32x16(-0.7653668647301796)
                    factor_y4 = splat_f32x16(0.9238795325112867)
                    factor_y5 = splat_f32x16(0.7071067811865476)
                    factor_y6 = splat_f32x16(-0.9238795325112867)
                    factor_y7 = splat_f32x16(-0.7071067811865476)
                    part_y0 = add_f32x16(y20, y21)
                    part_y1 = add_f32x16(y20, y22)
                    part_y2 = add_f32x16(y17, y18)
                    part_y3 = add_f32x16(y17, y19)
                    part_y4 = add_f32x16(y14, y15)
                    part_y5 = sub_f32x16(y16, y14)
                    part_y6 = add_f32x16(y11, y12)
                    part_y7 = sub_f32x16(y13, y11)
                    part_y8 = add_f32x16(y8, y9)
                    part_y9 = add_f32x16(y8, y10)
                    part_y10 = add_f32x16(y5, y6)
                    part_y11 = sub_f32x16(y7, y5)
                    part_y12 = add_f32x16(y2, y3)
                    part_y13 = sub_f32x16(y4, y2)
                    part_y14 = sub_f32x16(part_y3, part_y11)
                    part_y15 = add_f32x16(part_y3, part_y11)
                    part_y16 = sub_f32x16(part_y10, part_y2)
                    part_y17 = add_f32x16(part_y2, part_y10)
                    part_y18 = sub_f32x16(part_y16, part_y14)
                    part_y19 = add_f32x16(part_y14, part_y16)
                    part_y20 = sub_f32x16(part_y5, part_y9)
                    part_y21 = add_f32x16(part_y5, part_y9)
                    part_y22 = sub_f32x16(part_y4, part_y8)
                    part_y23 = add_f32x16(part_y4, part_y8)
                    part_y24 = sub_f32x16(part_y13, part_y1)
                    part_y25 = add_f32x16(part_y1, part_y13)
                    part_y26 = sub_f32x16(part_y12, part_y0)
                    part_y27 = add_f32x16(part_y0, part_y12)
                    part_y28 = sub_f32x16(part_y24, part_y22)
                    part_y29 = add_f32x16(part_y22, part_y24)
                    part_y30 = add_f32x16(part_y20, part_y26)
                    part_y31 = sub_f32x16(part_y20, part_y26)
                    part_y32 = fma_f32x16(part_y31, factor_y0, part_y29)
                    part_y33 = fma_f32x16(part_y29, factor_y1, part_y31)
                    part_y34 = fma_f32x16(part_y30, factor_y0, part_y28)
                    part_y35 = fma_f32x16(part_y28, factor_y1, part_y30)
                    part_y36 = add_f32x16(y0, y1)
                    part_y37 = sub_f32x16(y0, y1)
                    part_y38 = add_f32x16(part_y7, part_y37)
                    part_y39 = sub_f32x16(part_y37, part_y7)
                    part_y40 = fma_f32x16(part_y19, factor_y2, part_y33)
                    part_y41 = fma_f32x16(part_y19, factor_y3, part_y32)
                    part_y42 = fma_f32x16(part_y41, factor_y4, part_y39)
                    part_y43 = fma_f32x16(part_y40, factor_y4, part_y39)
                    part_y44 = fma_f32x16(part_y18, factor_y3, part_y34)
                    part_y45 = fma_f32x16(part_y44, factor_y4, part_y38)
                    part_y46 = fma_f32x16(part_y18, factor_y5, part_y38)
                    part_y47 = fma_f32x16(part_y35, factor_y4, part_y46)
                    part_y48 = fma_f32x16(part_y35, factor_y6, part_y46)
                    part_y49 = fma_f32x16(part_y23, factor_y7, part_y15)
                    part_y50 = sub_f32x16(part_y25, part_y21)
                    part_y51 = add_f32x16(part_y21, part_y25)
                    part_y52 = fma_f32x16(part_y27, factor_y5, part_y49)
                    part_y53 = add_f32x16(part_y23, part_y27)
                    part_y54 = fma_f32x16(part_y50, factor_y7, part_y6)
                    part_y55 = add_f32x16(part_y6, part_y36)
                    part_y56 = sub_f32x16(part_y36, part_y54)
                    part_y57 = add_f32x16(part_y52, part_y56)
                    part_y58 = sub_f32x16(part_y56, part_y52)
                    part_y59 = sub_f32x16(part_y51, part_y17)
                    part_y60 = add_f32x16(part_y55, part_y59)
                    part_y61 = add_f32x16(part_y17, part_y55)
                    part_y62 = add_f32x16(part_y53, part_y61)
                    part_y63 = sub_f32x16(part_y61, part_y53)
                    y0 = part_y62
                    y1 = part_y47
                    y2 = part_y57
                    y3 = part_y42
                    y4 = part_y60
                    y5 = part_y45
                    y6 = part_y58
                    y7 = part_y43
                    y8 = part_y63
                    y9 = part_y48
                    if col * 10 < OW:
                        store_some_f32x16(output, (row1 * OW + col * 10) * OC + (ob * 32 + y_block * 16), y0, OC - ob * 32 - y_block * 16)
                    if col * 10 + 1 < OW:
                        store_some_f32x16(output, (row1 * OW + col * 10) * OC + (ob * 32 + y_block * 16) + OC, y1, OC - ob * 32 - y_block * 16)
                    if col * 10 + 2 < OW:
                        store_some_f32x16(output, (row1 * OW + col * 10) * OC + (ob * 32 + y_block * 16) + OC * 2, y2, OC - ob * 32 - y_block * 16)
                    if col * 10 + 3 < OW:
                        store_some_f32x16(output, (row1 * OW + col * 10) * OC + (ob * 32 + y_block * 16) + OC * 3, y3, OC - ob * 32 - y_block * 16)
                    if col * 10 + 4 < OW:
                        store_some_f32x16(output, (row1 * OW + col * 10) * OC + (ob * 32 + y_block * 16) + OC * 4, y4, OC - ob * 32 - y_block * 16)
                    if col * 10 + 5 < OW:
                        store_some_f32x16(output, (row1 * OW + col * 10) * OC + (ob * 32 + y_block * 16) + OC * 5, y5, OC - ob * 32 - y_block * 16)
                    if col * 10 + 6 < OW:
                        store_some_f32x16(output, (row1 * OW + col * 10) * OC + (ob * 32 + y_block * 16) + OC * 6, y6, OC - ob * 32 - y_block * 16)
                    if col * 10 + 7 < OW:
                        store_some_f32x16(output, (row1 * OW + col * 10) * OC + (ob * 32 + y_block * 16) + OC * 7, y7, OC - ob * 32 - y_block * 16)
                    if col * 10 + 8 < OW:
                        store_some_f32x16(output, (row1 * OW + col * 10) * OC + (ob * 32 + y_block * 16) + OC * 8, y8, OC - ob * 32 - y_block * 16)
                    if col * 10 + 9 < OW:
                        store_some_f32x16(output, (row1 * OW + col * 10) * OC + (ob * 32 + y_block * 16) + OC * 9, y9, OC - ob * 32 - y_block * 16)

# ---- the whole problem on one thread
def run(input, weight):
    input = np.ascontiguousarray(input, np.float32).reshape((64, 10, 64))
    weight = np.ascontiguousarray(weight, np.float32).reshape((64, 64, 7))
    output = np.empty((64, 10, 64), np.float32)
    u, v, m, taps = (np.empty(size, np.uint8) for size in [376832, 95680, 48576, 896])
    buffers = np.array([array.ctypes.data for array in (input, weight, output, u, v, m, taps)])
    transform_weight(buffers, np.array([64, 145152], np.int64), 0, 128, 0)
    conv(buffers, np.array([64, 10, 10, 64, 16, 145152], np.int64), 0, 4, 0)
    return output
