"""convgen: mb1_ic64oc64_ih56oh56kh3ph1 layout=channels_last epilogue=bias+relu
strategy  winograd, m=6 pixels=14 lanes=32 tiles=28 fused=1
template  cpu/kernel.py.j2
again     convgen emit 'mb1_ic64oc64_ih56oh56kh3ph1 layout=channels_last epilogue=bias+relu' --strategy winograd --config 'm=6 pixels=14 lanes=32 tiles=28 fused=1' -o .
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
load_some_f32x16 = operation(f32x16, (i64, i64, i64), lambda b, base, i, n: call(b, "llvm.masked.load.v16f32.p0", f32x16.llvm, at(b, base, i, f32x16.llvm, 4), ir.IntType(32)(4), below(b, n, 16), f32x16.llvm(None)))
max_f32x16 = operation(f32x16, (f32x16, f32x16), lambda b, x, y: call(b, "llvm.maximum.v16f32", x.type, x, y))
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
    weight, u = buffers[1], buffers[4]
    OC, worker_bytes = sizes[0], sizes[1]
    taps, w_kept = buffers[7] + worker * worker_bytes, buffers[8] + worker * worker_bytes
    for task in range(begin, end):
        ob, c = task // 64, task % 64
        for u_lane in range(32):
            for th in range(3):
                for tw in range(3):
                    if ob * 32 + u_lane < OC:
                        chosen = load_f32(weight, (((ob * 32 + u_lane) * 64 + c) * 3 + th) * 3 + tw)
                    else:
                        chosen = np.float32(0.0)
                    store_f32(taps, (th * 3 + tw) * 32 + u_lane, chosen)
        for w_block in range(2):
            for iw in range(3):
                taps_at = iw * 32 + w_block * 16
                w0 = load_f32x16(taps, taps_at)
                w1 = load_f32x16(taps, taps_at + 96)
                w2 = load_f32x16(taps, taps_at + 192)
                # weight transform of F(6,3)
                factor_w0 = splat_f32x16(4.0)
                factor_w1 = splat_f32x16(0.25)
                factor_w2 = splat_f32x16(0.5)
                factor_w3 = splat_f32x16(-0.5)
                factor_w4 = splat_f32x16(2.0)
                factor_w5 = splat_f32x16(-2.0)
                factor_w6 = splat_f32x16(-1.0)
                factor_w7 = splat_f32x16(-0.2222222222222222)
                factor_w8 = splat_f32x16(0.2222222222222222)
                factor_w9 = splat_f32x16(0.022222222222222223)
                factor_w10 = splat_f32x16(-0.022222222222222223)
                factor_w11 = splat_f32x16(0.35555555555555557)
                factor_w12 = splat_f32x16(-0.35555555555555557)
                part_w0 = add_f32x16(w0, w2)
                part_w1 = fma_f32x16(w2, factor_w0, w0)
                part_w2 = fma_f32x16(w2, factor_w1, w0)
                part_w3 = add_f32x16(w1, part_w0)
                part_w4 = sub_f32x16(w1, part_w0)
                part_w5 = fma_f32x16(part_w1, factor_w2, w1)
                part_w6 = fma_f32x16(part_w1, factor_w3, w1)
                part_w7 = fma_f32x16(part_w2, factor_w4, w1)
                part_w8 = fma_f32x16(part_w2, factor_w5, w1)
                part_w9 = mul_f32x16(w0, factor_w6)
                part_w10 = mul_f32x16(part_w3, factor_w7)
                part_w11 = mul_f32x16(part_w4, factor_w8)
                part_w12 = mul_f32x16(part_w5, factor_w9)
                part_w13 = mul_f32x16(part_w6, factor_w10)
                part_w14 = mul_f32x16(part_w7, factor_w11)
                part_w15 = mul_f32x16(part_w8, factor_w12)
                moved_w2 = w2
                w0 = part_w9
                w1 = part_w10
                w2 = part_w11
                w3 = part_w12
                w4 = part_w13
                w5 = part_w14
                w6 = part_w15
                w7 = moved_w2
                w_kept_at = iw * 16
                store_f32x16(w_kept, w_kept_at, w0)
                store_f32x16(w_kept, w_kept_at + 48, w1)
                store_f32x16(w_kept, w_kept_at + 96, w2)
                store_f32x16(w_kept, w_kept_at + 144, w3)
                store_f32x16(w_kept, w_kept_at + 192, w4)
                store_f32x16(w_kept, w_kept_at + 240, w5)
                store_f32x16(w_kept, w_kept_at + 288, w6)
                store_f32x16(w_kept, w_kept_at + 336, w7)
            for ih in range(8):
                w_kept_at = ih * 3 * 16
                w0 = load_f32x16(w_kept, w_kept_at)
                w1 = load_f32x16(w_kept, w_kept_at + 16)
                w2 = load_f32x16(w_kept, w_kept_at + 32)
                # weight transform of F(6,3)
                factor_w0 = splat_f32x16(4.0)
                factor_w1 = splat_f32x16(0.25)
                factor_w2 = splat_f32x16(0.5)
                factor_w3 = splat_f32x16(-0.5)
                factor_w4 = splat_f32x16(2.0)
                factor_w5 = splat_f32x16(-2.0)
                factor_w6 = splat_f32x16(-1.0)
                factor_w7 = splat_f32x16(-0.2222222222222222)
                factor_w8 = splat_f32x16(0.2222222222222222)
                factor_w9 = splat_f32x16(0.022222222222222223)
                factor_w10 = splat_f32x16(-0.022222222222222223)
                factor_w11 = splat_f32x16(0.35555555555555557)
                factor_w12 = splat_f32x16(-0.35555555555555557)
                part_w0 = add_f32x16(w0, w2)
                part_w1 = fma_f32x16(w2, factor_w0, w0)
                part_w2 = fma_f32x16(w2, factor_w1, w0)
                part_w3 = add_f32x16(w1, part_w0)
                part_w4 = sub_f32x16(w1, part_w0)
                part_w5 = fma_f32x16(part_w1, factor_w2, w1)
                part_w6 = fma_f32x16(part_w1, factor_w3, w1)
                part_w7 = fma_f32x16(part_w2, factor_w4, w1)
                part_w8 = fma_f32x16(part_w2, factor_w5, w1)
                part_w9 = mul_f32x16(w0, factor_w6)
                part_w10 = mul_f32x16(part_w3, factor_w7)
                part_w11 = mul_f32x16(part_w4, factor_w8)
                part_w12 = mul_f32x16(part_w5, factor_w9)
                part_w13 = mul_f32x16(part_w6, factor_w10)
                part_w14 = mul_f32x16(part_w7, factor_w11)
                part_w15 = mul_f32x16(part_w8, factor_w12)
                moved_w2 = w2
                w0 = part_w9
                w1 = part_w10
                w2 = part_w11
                w3 = part_w12
                w4 = part_w13
                w5 = part_w14
                w6 = part_w15
                w7 = moved_w2
                u_at = ((ob * 64 + ih * 8) * 64 + c) * 32 + w_block * 16
                store_f32x16(u, u_at, w0)
                store_f32x16(u, u_at + 2048, w1)
                store_f32x16(u, u_at + 4096, w2)
                store_f32x16(u, u_at + 6144, w3)
                store_f32x16(u, u_at + 8192, w4)
                store_f32x16(u, u_at + 10240, w5)
                store_f32x16(u, u_at + 12288, w6)
                store_f32x16(u, u_at + 14336, w7)

@njit(error_model="numpy", nogil=True)
def conv(buffers, sizes, begin, end, worker):
    input, bias, output, u = buffers[0], buffers[2], buffers[3], buffers[4]
    N, IH, IW, OH = sizes[0], sizes[1], sizes[2], sizes[3]
    OW, OC, T, worker_bytes = sizes[4], sizes[5], sizes[6], sizes[7]
    v, m = buffers[5] + worker * worker_bytes, buffers[6] + worker * worker_bytes
    x_kept, y_kept = buffers[9] + worker * worker_bytes, buffers[10] + worker * worker_bytes
    for block in range(begin, end):
        row0, row1 = (OH + 5) // 6, (OW + 5) // 6
        start = min(block * T, N * row0 * row1 - T)
        v_at0, v_at1, v_at2, v_at3 = T * 64 + 16, 2 * (T * 64 + 16), 3 * (T * 64 + 16), 4 * (T * 64 + 16)
        v_at4, v_at5, v_at6 = 5 * (T * 64 + 16), 6 * (T * 64 + 16), 7 * (T * 64 + 16)
        m_at0, m_at1, m_at2, m_at3 = 8 * (T * 32 + 16), 16 * (T * 32 + 16), 24 * (T * 32 + 16), 32 * (T * 32 + 16)
        m_at4, m_at5, m_at6 = 40 * (T * 32 + 16), 48 * (T * 32 + 16), 56 * (T * 32 + 16)
        for tile in range(T):
            row2 = (start + tile) // row1
            col = start + tile - row2 * row1
            row3 = row2 // row0
            col1 = row2 - row3 * row0
            for c_block in range(4):
                for iw in range(8):
                    prefetch_f32x16(input, ((row3 * IH + col1 * 6) * IW + (col * 6 + iw)) * 64 + c_block * 16 + (0 - IW * 64 + 320))
                    prefetch_f32x16(input, ((row3 * IH + col1 * 6) * IW + (col * 6 + iw)) * 64 + c_block * 16 + 320)
                    prefetch_f32x16(input, ((row3 * IH + col1 * 6) * IW + (col * 6 + iw)) * 64 + c_block * 16 + (IW * 64 + 320))
                    prefetch_f32x16(input, ((row3 * IH + col1 * 6) * IW + (col * 6 + iw)) * 64 + c_block * 16 + (IW * 128 + 320))
                    prefetch_f32x16(input, ((row3 * IH + col1 * 6) * IW + (col * 6 + iw)) * 64 + c_block * 16 + (IW * 192 + 320))
                    prefetch_f32x16(input, ((row3 * IH + col1 * 6) * IW + (col * 6 + iw)) * 64 + c_block * 16 + (IW * 256 + 320))
                    prefetch_f32x16(input, ((row3 * IH + col1 * 6) * IW + (col * 6 + iw)) * 64 + c_block * 16 + (IW * 320 + 320))
                    prefetch_f32x16(input, ((row3 * IH + col1 * 6) * IW + (col * 6 + iw)) * 64 + c_block * 16 + (IW * 384 + 320))
                    input_at = ((row3 * IH + col1 * 6) * IW + (col * 6 + iw)) * 64 + c_block * 16
                    inside = (0 <= col * 6 + iw - 1) & (col * 6 + iw - 1 < IW)
                    x0 = load_if_f32x16(input, input_at - (IW * 64 + 64), (0 <= col1 * 6 - 1) & (col1 * 6 - 1 < IH) & inside)
                    x1 = load_if_f32x16(input, input_at - 64, (0 <= col1 * 6) & (col1 * 6 < IH) & inside)
                    x2 = load_if_f32x16(input, input_at + (IW * 64 - 64), (0 <= col1 * 6 + 1) & (col1 * 6 + 1 < IH) & inside)
                    x3 = load_if_f32x16(input, input_at + (IW * 128 - 64), (0 <= col1 * 6 + 2) & (col1 * 6 + 2 < IH) & inside)
                    x4 = load_if_f32x16(input, input_at + (IW * 192 - 64), (0 <= col1 * 6 + 3) & (col1 * 6 + 3 < IH) & inside)
                    x5 = load_if_f32x16(input, input_at + (IW * 256 - 64), (0 <= col1 * 6 + 4) & (col1 * 6 + 4 < IH) & inside)
                    x6 = load_if_f32x16(input, input_at + (IW * 320 - 64), (0 <= col1 * 6 + 5) & (col1 * 6 + 5 < IH) & inside)
                    x7 = load_if_f32x16(input, input_at + (IW * 384 - 64), (0 <= col1 * 6 + 6) & (col1 * 6 + 6 < IH) & inside)
                    # input transform of F(6,3)
                    factor_x0 = splat_f32x16(4.0)
                    factor_x1 = splat_f32x16(0.25)
                    factor_x2 = splat_f32x16(-0.2)
                    factor_x3 = splat_f32x16(-5.0)
                    factor_x4 = splat_f32x16(-0.8)
                    factor_x5 = splat_f32x16(-1.25)
                    factor_x6 = splat_f32x16(-4.25)
                    factor_x7 = splat_f32x16(5.25)
                    factor_x8 = splat_f32x16(-5.25)
                    factor_x9 = splat_f32x16(-2.5)
                    factor_x10 = splat_f32x16(2.5)
                    part_x0 = add_f32x16(x1, x5)
                    part_x1 = add_f32x16(x2, x6)
                    part_x2 = fma_f32x16(x5, factor_x0, x1)
                    part_x3 = fma_f32x16(x5, factor_x1, x1)
                    part_x4 = fma_f32x16(x2, factor_x1, x6)
                    part_x5 = fma_f32x16(x2, factor_x0, x6)
                    part_x6 = fma_f32x16(part_x2, factor_x2, x3)
                    part_x7 = fma_f32x16(x4, factor_x3, part_x5)
                    part_x8 = fma_f32x16(part_x3, factor_x4, x3)
                    part_x9 = fma_f32x16(x4, factor_x5, part_x4)
                    part_x10 = fma_f32x16(x3, factor_x6, part_x0)
                    part_x11 = fma_f32x16(x4, factor_x6, part_x1)
                    part_x12 = sub_f32x16(x6, x0)
                    part_x13 = fma_f32x16(x2, factor_x7, part_x12)
                    part_x14 = fma_f32x16(x4, factor_x8, part_x13)
                    part_x15 = add_f32x16(part_x10, part_x11)
                    part_x16 = sub_f32x16(part_x11, part_x10)
                    part_x17 = fma_f32x16(part_x6, factor_x9, part_x9)
                    part_x18 = fma_f32x16(part_x6, factor_x10, part_x9)
                    part_x19 = fma_f32x16(part_x8, factor_x9, part_x7)
                    part_x20 = fma_f32x16(part_x8, factor_x10, part_x7)
                    part_x21 = sub_f32x16(x7, x1)
                    part_x22 = fma_f32x16(x3, factor_x7, part_x21)
                    part_x23 = fma_f32x16(x5, factor_x8, part_x22)
                    x0 = part_x14
                    x1 = part_x15
                    x2 = part_x16
                    x3 = part_x17
                    x4 = part_x18
                    x5 = part_x19
                    x6 = part_x20
                    x7 = part_x23
                    x_kept_at = iw * 16
                    store_f32x16(x_kept, x_kept_at, x0)
                    store_f32x16(x_kept, x_kept_at + 128, x1)
                    store_f32x16(x_kept, x_kept_at + 256, x2)
                    store_f32x16(x_kept, x_kept_at + 384, x3)
                    store_f32x16(x_kept, x_kept_at + 512, x4)
                    store_f32x16(x_kept, x_kept_at + 640, x5)
                    store_f32x16(x_kept, x_kept_at + 768, x6)
                    store_f32x16(x_kept, x_kept_at + 896, x7)
                for ih in range(8):
                    x_kept_at = ih * 8 * 16
                    x0 = load_f32x16(x_kept, x_kept_at)
                    x1 = load_f32x16(x_kept, x_kept_at + 16)
                    x2 = load_f32x16(x_kept, x_kept_at + 32)
                    x3 = load_f32x16(x_kept, x_kept_at + 48)
                    x4 = load_f32x16(x_kept, x_kept_at + 64)
                    x5 = load_f32x16(x_kept, x_kept_at + 80)
                    x6 = load_f32x16(x_kept, x_kept_at + 96)
                    x7 = load_f32x16(x_kept, x_kept_at + 112)
                    # input transform of F(6,3)
                    factor_x0 = splat_f32x16(4.0)
                    factor_x1 = splat_f32x16(0.25)
                    factor_x2 = splat_f32x16(-0.2)
                    factor_x3 = splat_f32x16(-5.0)
                    factor_x4 = splat_f32x16(-0.8)
                    factor_x5 = splat_f32x16(-1.25)
                    factor_x6 = splat_f32x16(-4.25)
                    factor_x7 = splat_f32x16(5.25)
                    factor_x8 = splat_f32x16(-5.25)
                    factor_x9 = splat_f32x16(-2.5)
                    factor_x10 = splat_f32x16(2.5)
                    part_x0 = add_f32x16(x1, x5)
                    part_x1 = add_f32x16(x2, x6)
                    part_x2 = fma_f32x16(x5, factor_x0, x1)
                    part_x3 = fma_f32x16(x5, factor_x1, x1)
                    part_x4 = fma_f32x16(x2, factor_x1, x6)
                    part_x5 = fma_f32x16(x2, factor_x0, x6)
                    part_x6 = fma_f32x16(part_x2, factor_x2, x3)
                    part_x7 = fma_f32x16(x4, factor_x3, part_x5)
                    part_x8 = fma_f32x16(part_x3, factor_x4, x3)
                    part_x9 = fma_f32x16(x4, factor_x5, part_x4)
                    part_x10 = fma_f32x16(x3, factor_x6, part_x0)
                    part_x11 = fma_f32x16(x4, factor_x6, part_x1)
                    part_x12 = sub_f32x16(x6, x0)
                    part_x13 = fma_f32x16(x2, factor_x7, part_x12)
                    part_x14 = fma_f32x16(x4, factor_x8, part_x13)
                    part_x15 = add_f32x16(part_x10, part_x11)
                    part_x16 = sub_f32x16(part_x11, part_x10)
                    part_x17 = fma_f32x16(part_x6, factor_x9, part_x9)
                    part_x18 = fma_f32x16(part_x6, factor_x10, part_x9)
                    part_x19 = fma_f32x16(part_x8, factor_x9, part_x7)
                    part_x20 = fma_f32x16(part_x8, factor_x10, part_x7)
                    part_x21 = sub_f32x16(x7, x1)
                    part_x22 = fma_f32x16(x3, factor_x7, part_x21)
                    part_x23 = fma_f32x16(x5, factor_x8, part_x22)
                    x0 = part_x14
                    x1 = part_x15
                    x2 = part_x16
                    x3 = part_x17
                    x4 = part_x18
                    x5 = part_x19
                    x6 = part_x20
                    x7 = part_x23
                    v_by = ih * 8 * (T * 64 + 16) + (c_block * T * 16 + tile * 16)
                    store_f32x16(v, v_by, x0)
                    store_f32x16(v, v_at0 + v_by, x1)
                    store_f32x16(v, v_at1 + v_by, x2)
                    store_f32x16(v, v_at2 + v_by, x3)
                    store_f32x16(v, v_at3 + v_by, x4)
                    store_f32x16(v, v_at4 + v_by, x5)
                    store_f32x16(v, v_at5 + v_by, x6)
                    store_f32x16(v, v_at6 + v_by, x7)
        for ob in range((OC + 31) // 32):
            for point in range(64):
                for pixels in range((T + 13) // 14):
                    start1 = min(pixels * 14, T - 14)
                    acc0 = splat_f32x32(0.0)
                    acc1 = splat_f32x32(0.0)
                    acc2 = splat_f32x32(0.0)
                    acc3 = acc4 = acc5 = acc6 = acc7 = acc8 = acc9 = acc10 = acc11 = acc12 = acc13 = splat_f32x32(0.0)
                    for c_block in range(4):
                        for c in range(16):
                            v_row = place_f32(v, point * (T * 64 + 16) + (c_block * T * 16 + start1 * 16 + c))
                            u_here = load_f32x32(u, ((ob * 64 + point) * 64 + (c_block * 16 + c)) * 32)
                            acc0 = fma_f32x32(splat_f32x32(load_f32(v_row, 0)), u_here, acc0)
                            acc1 = fma_f32x32(splat_f32x32(load_f32(v_row, 16)), u_here, acc1)
                            acc2 = fma_f32x32(splat_f32x32(load_f32(v_row, 32)), u_here, acc2)
                            acc3 = fma_f32x32(splat_f32x32(load_f32(v_row, 48)), u_here, acc3)
                            acc4 = fma_f32x32(splat_f32x32(load_f32(v_row, 64)), u_here, acc4)
                            acc5 = fma_f32x32(splat_f32x32(load_f32(v_row, 80)), u_here, acc5)
                            acc6 = fma_f32x32(splat_f32x32(load_f32(v_row, 96)), u_here, acc6)
                            acc7 = fma_f32x32(splat_f32x32(load_f32(v_row, 112)), u_here, acc7)
                            acc8 = fma_f32x32(splat_f32x32(load_f32(v_row, 128)), u_here, acc8)
                            acc9 = fma_f32x32(splat_f32x32(load_f32(v_row, 144)), u_here, acc9)
                            acc10 = fma_f32x32(splat_f32x32(load_f32(v_row, 160)), u_here, acc10)
                            acc11 = fma_f32x32(splat_f32x32(load_f32(v_row, 176)), u_here, acc11)
                            acc12 = fma_f32x32(splat_f32x32(load_f32(v_row, 192)), u_here, acc12)
                            acc13 = fma_f32x32(splat_f32x32(load_f32(v_row, 208)), u_here, acc13)
                    m_at7 = point * (T * 32 + 16) + start1 * 32
                    store_f32x32(m, m_at7, acc0)
                    store_f32x32(m, m_at7 + 32, acc1)
                    store_f32x32(m, m_at7 + 64, acc2)
                    store_f32x32(m, m_at7 + 96, acc3)
                    store_f32x32(m, m_at7 + 128, acc4)
                    store_f32x32(m, m_at7 + 160, acc5)
                    store_f32x32(m, m_at7 + 192, acc6)
                    store_f32x32(m, m_at7 + 224, acc7)
                    store_f32x32(m, m_at7 + 256, acc8)
                    store_f32x32(m, m_at7 + 288, acc9)
                    store_f32x32(m, m_at7 + 320, acc10)
                    store_f32x32(m, m_at7 + 352, acc11)
                    store_f32x32(m, m_at7 + 384, acc12)
                    store_f32x32(m, m_at7 + 416, acc13)
            for tile in range(T):
                row2 = (start + tile) // row1
                col = start + tile - row2 * row1
                row3 = row2 // row0
                col1 = row2 - row3 * row0
                for y_block in range(2):
                    for iw in range(8):
                        m_by = iw * (T * 32 + 16) + (tile * 32 + y_block * 16)
                        y0 = load_f32x16(m, m_by)
                        y1 = load_f32x16(m, m_at0 + m_by)
                        y2 = load_f32x16(m, m_at1 + m_by)
                        y3 = load_f32x16(m, m_at2 + m_by)
                        y4 = load_f32x16(m, m_at3 + m_by)
                        y5 = load_f32x16(m, m_at4 + m_by)
                        y6 = load_f32x16(m, m_at5 + m_by)
                        y7 = load_f32x16(m, m_at6 + m_by)
                        # output transform of F(6,3)
                        factor_y0 = splat_f32x16(2.0)
                        factor_y1 = splat_f32x16(0.5)
                        factor_y2 = splat_f32x16(4.0)
                        factor_y3 = splat_f32x16(0.25)
                        factor_y4 = splat_f32x16(8.0)
                        factor_y5 = splat_f32x16(0.125)
                        factor_y6 = splat_f32x16(16.0)
                        factor_y7 = splat_f32x16(0.0625)
                        factor_y8 = splat_f32x16(32.0)
                        factor_y9 = splat_f32x16(0.03125)
                        part_y0 = add_f32x16(y1, y2)
                        part_y1 = sub_f32x16(y1, y2)
                        part_y2 = add_f32x16(y3, y4)
                        part_y3 = sub_f32x16(y3, y4)
                        part_y4 = add_f32x16(y5, y6)
                        part_y5 = sub_f32x16(y5, y6)
                        part_y6 = add_f32x16(y0, part_y0)
                        part_y7 = add_f32x16(part_y6, part_y2)
                        part_y8 = add_f32x16(part_y7, part_y4)
                        part_y9 = fma_f32x16(part_y3, factor_y0, part_y1)
                        part_y10 = fma_f32x16(part_y5, factor_y1, part_y9)
                        part_y11 = fma_f32x16(part_y2, factor_y2, part_y0)
                        part_y12 = fma_f32x16(part_y4, factor_y3, part_y11)
                        part_y13 = fma_f32x16(part_y3, factor_y4, part_y1)
                        part_y14 = fma_f32x16(part_y5, factor_y5, part_y13)
                        part_y15 = fma_f32x16(part_y2, factor_y6, part_y0)
                        part_y16 = fma_f32x16(part_y4, factor_y7, part_y15)
                        part_y17 = add_f32x16(y7, part_y1)
                        part_y18 = fma_f32x16(part_y3, factor_y8, part_y17)
                        part_y19 = fma_f32x16(part_y5, factor_y9, part_y18)
                        y0 = part_y8
                        y1 = part_y10
                        y2 = part_y12
                        y3 = part_y14
                        y4 = part_y16
                        y5 = part_y19
                        y_kept_at = iw * 16
                        store_f32x16(y_kept, y_kept_at, y0)
                        store_f32x16(y_kept, y_kept_at + 128, y1)
                        store_f32x16(y_kept, y_kept_at + 256, y2)
                        store_f32x16(y_kept, y_kept_at + 384, y3)
                        store_f32x16(y_kept, y_kept_at + 512, y4)
                        store_f32x16(y_kept, y_kept_at + 640, y5)
                    for ih in range(6):
                        prefetch_f32x16(output, ((row3 * OH + (col1 * 6 + ih)) * OW + col * 6) * OC + (ob * 32 + y_block * 16) + OC * 6)
                        prefetch_f32x16(output, ((row3 * OH + (col1 * 6 + ih)) * OW + col * 6) * OC + (ob * 32 + y_block * 16) + OC * 7)
                        prefetch_f32x16(output, ((row3 * OH + (col1 * 6 + ih)) * OW + col * 6) * OC + (ob * 32 + y_block * 16) + OC * 8)
                        prefetch_f32x16(output, ((row3 * OH + (col1 * 6 + ih)) * OW + col * 6) * OC + (ob * 32 + y_block * 16) + OC * 9)
                        prefetch_f32x16(output, ((row3 * OH + (col1 * 6 + ih)) * OW + col * 6) * OC + (ob * 32 + y_block * 16) + OC * 10)
                        prefetch_f32x16(output, ((row3 * OH + (col1 * 6 + ih)) * OW + col * 6) * OC + (ob * 32 + y_block * 16) + OC * 11)
                        y_kept_at = ih * 8 * 16
                        y0 = load_f32x16(y_kept, y_kept_at)
                        y1 = load_f32x16(y_kept, y_kept_at + 16)
                        y2 = load_f32x16(y_kept, y_kept_at + 32)
                        y3 = load_f32x16(y_kept, y_kept_at + 48)
                        y4 = load_f32x16(y_kept, y_kept_at + 64)
                        y5 = load_f32x16(y_kept, y_kept_at + 80)
                        y6 = load_f32x16(y_kept, y_kept_at + 96)
                        y7 = load_f32x16(y_kept, y_kept_at + 112)
                        # output transform of F(6,3)
                        factor_y0 = splat_f32x16(2.0)
                        factor_y1 = splat_f32x16(0.5)
                        factor_y2 = splat_f32x16(4.0)
                        factor_y3 = splat_f32x16(0.25)
                        factor_y4 = splat_f32x16(8.0)
                        factor_y5 = splat_f32x16(0.125)
                        factor_y6 = splat_f32x16(16.0)
                        factor_y7 = splat_f32x16(0.0625)
                        factor_y8 = splat_f32x16(32.0)
                        factor_y9 = splat_f32x16(0.03125)
                        part_y0 = add_f32x16(y1, y2)
                        part_y1 = sub_f32x16(y1, y2)
                        part_y2 = add_f32x16(y3, y4)
                        part_y3 = sub_f32x16(y3, y4)
                        part_y4 = add_f32x16(y5, y6)
                        part_y5 = sub_f32x16(y5, y6)
                        part_y6 = add_f32x16(y0, part_y0)
                        part_y7 = add_f32x16(part_y6, part_y2)
                        part_y8 = add_f32x16(part_y7, part_y4)
                        part_y9 = fma_f32x16(part_y3, factor_y0, part_y1)
                        part_y10 = fma_f32x16(part_y5, factor_y1, part_y9)
                        part_y11 = fma_f32x16(part_y2, factor_y2, part_y0)
                        part_y12 = fma_f32x16(part_y4, factor_y3, part_y11)
                        part_y13 = fma_f32x16(part_y3, factor_y4, part_y1)
                        part_y14 = fma_f32x16(part_y5, factor_y5, part_y13)
                        part_y15 = fma_f32x16(part_y2, factor_y6, part_y0)
                        part_y16 = fma_f32x16(part_y4, factor_y7, part_y15)
                        part_y17 = add_f32x16(y7, part_y1)
                        part_y18 = fma_f32x16(part_y3, factor_y8, part_y17)
                        part_y19 = fma_f32x16(part_y5, factor_y9, part_y18)
                        y0 = part_y8
                        y1 = part_y10
                        y2 = part_y12
                        y3 = part_y14
                        y4 = part_y16
                        y5 = part_y19
                        if col1 * 6 + ih < OH:
                            if col * 6 < OW:
                                store_some_f32x16(output, ((row3 * OH + (col1 * 6 + ih)) * OW + col * 6) * OC + (ob * 32 + y_block * 16), max_f32x16(add_f32x16(y0, load_some_f32x16(bias, ob * 32 + y_block * 16, OC - ob * 32 - y_block * 16)), splat_f32x16(0.0)), OC - ob * 32 - y_block * 16)
                        if col1 * 6 + ih < OH:
                            if col * 6 + 1 < OW:
                                store_some_f32x16(output, ((row3 * OH + (col1 * 6 + ih)) * OW + col * 6) * OC + (ob * 32 + y_block * 16) + OC, max_f32x16(add_f32x16(y1, load_some_f32x16(bias, ob * 32 + y_block * 16, OC - ob * 32 - y_block * 16)), splat_f32x16(0.0)), OC - ob * 32 - y_block * 16)
                        if col1 * 6 + ih < OH:
                            if col * 6 + 2 < OW:
                                store_some_f32x16(output, ((row3 * OH + (col1 * 6 + ih)) * OW + col * 6) * OC + (ob * 32 + y_block * 16) + OC * 2, max_f32x16(add_f32x16(y2, load_some_f32x16(bias, ob * 32 + y_block * 16, OC - ob * 32 - y_block * 16)), splat_f32x16(0.0)), OC - ob * 32 - y_block * 16)
                        if col1 * 6 + ih < OH:
                            if col * 6 + 3 < OW:
                                store_some_f32x16(output, ((row3 * OH + (col1 * 6 + ih)) * OW + col * 6) * OC + (ob * 32 + y_block * 16) + OC * 3, max_f32x16(add_f32x16(y3, load_some_f32x16(bias, ob * 32 + y_block * 16, OC - ob * 32 - y_block * 16)), splat_f32x16(0.0)), OC - ob * 32 - y_block * 16)
                        if col1 * 6 + ih < OH:
                            if col * 6 + 4 < OW:
                                store_some_f32x16(output, ((row3 * OH + (col1 * 6 + ih)) * OW + col * 6) * OC + (ob * 32 + y_block * 16) + OC * 4, max_f32x16(add_f32x16(y4, load_some_f32x16(bias, ob * 32 + y_block * 16, OC - ob * 32 - y_block * 16)), splat_f32x16(0.0)), OC - ob * 32 - y_block * 16)
                        if col1 * 6 + ih < OH:
                            if col * 6 + 5 < OW:
                                store_some_f32x16(output, ((row3 * OH + (col1 * 6 + ih)) * OW + col * 6) * OC + (ob * 32 + y_block * 16) + OC * 5, max_f32x16(add_f32x16(y5, load_some_f32x16(bias, ob * 32 + y_block * 16, OC - ob * 32 - y_block * 16)), splat_f32x16(0.0)), OC - ob * 32 - y_block * 16)

# ---- the whole problem on one thread
def run(input, weight, bias):
    input = np.ascontiguousarray(input, np.float32).reshape((1, 56, 56, 64))
    weight = np.ascontiguousarray(weight, np.float32).reshape((64, 64, 3, 3))
    bias = np.ascontiguousarray(bias, np.float32).reshape((64,))
    output = np.empty((1, 56, 56, 64), np.float32)
    u, v, m, taps, w_kept, x_kept, y_kept = (np.empty(size, np.uint8) for size in [1048576, 462848, 233472, 1152, 1536, 4096, 3072])
    buffers = np.array([array.ctypes.data for array in (input, weight, bias, output, u, v, m, taps, w_kept, x_kept, y_kept)])
    transform_weight(buffers, np.array([64, 706176], np.int64), 0, 128, 0)
    conv(buffers, np.array([1, 56, 56, 56, 56, 64, 28, 706176], np.int64), 0, 4, 0)
    return output
