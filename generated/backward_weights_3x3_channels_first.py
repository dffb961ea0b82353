"""convgen: mb1_ic64oc64_ih56oh56kh3ph1 dir=backward_weights
strategy  direct, pixels=4 lanes=64
template  cpu/kernel.py.j2
again     convgen emit 'mb1_ic64oc64_ih56oh56kh3ph1 dir=backward_weights' --strategy direct --config 'pixels=4 lanes=64' -o .
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

def square(b, rows, write):
    """Writes rows as columns: round by round, squares of half the size change places across the diagonal."""
    lanes = half = len(rows)
    while half := half // 2:
        first = [lane + lanes - half if lane & half else lane for lane in range(lanes)]
        second = [lane + lanes if lane & half else lane + half for lane in range(lanes)]
        for i in (i for i in range(lanes) if not i & half):
            pair, order = (rows[i], rows[i + half]), ir.VectorType(ir.IntType(32), lanes)
            rows[i], rows[i + half] = b.shuffle_vector(*pair, order(first)), b.shuffle_vector(*pair, order(second))
    for i, row in enumerate(rows):
        write(i, row)

def row_at(b, base, first, step, i, kind, size):
    return at(b, base, b.add(first, b.mul(step, step.type(i))), kind, size)

def transpose(b, kind, size, s, i, p, t, j, q):
    rows = [b.load(row_at(b, s, i, p, r, kind, size), align=size) for r in range(kind.count)]
    square(b, rows, lambda r, x: b.store(x, row_at(b, t, j, q, r, kind, size), align=size))

def transpose_some(b, kind, size, s, i, p, t, j, q, m, n, name):
    """Like transpose, for the first m rows and n columns."""
    align, none = ir.IntType(32)(size), m.type(0)
    def mask(r, count, others):
        return below(b, b.select(b.icmp_signed("<", count.type(r), others), count, none), kind.count)
    def read(r):
        place = row_at(b, s, i, p, r, kind, size)
        return call(b, f"llvm.masked.load.{name}.p0", kind, place, align, mask(r, n, m), kind(None))
    def write(r, x):
        place = row_at(b, t, j, q, r, kind, size)
        call(b, f"llvm.masked.store.{name}.p0", ir.VoidType(), x, place, align, mask(r, m, n))
    with b.if_else(b.icmp_signed("<", b.select(b.icmp_signed("<", m, n), m, n), m.type(kind.count))) as (part, whole):
        with part:
            square(b, [read(r) for r in range(kind.count)], write)
        with whole:
            transpose(b, kind, size, s, i, p, t, j, q)

i64, f32, f64, i32 = types.int64, types.float32, types.float64, types.int32
f32x64 = Vector(ir.FloatType(), 64)
fma_f32x64 = operation(f32x64, (f32x64, f32x64, f32x64), lambda b, x, y, z: call(b, "llvm.fma.v64f32", x.type, x, y, z))
load_f32 = operation(f32, (i64, i64), lambda b, base, i: b.load(at(b, base, i, ir.FloatType(), 4), align=4))
load_some_f32x64 = operation(f32x64, (i64, i64, i64), lambda b, base, i, n: call(b, "llvm.masked.load.v64f32.p0", f32x64.llvm, at(b, base, i, f32x64.llvm, 4), ir.IntType(32)(4), below(b, n, 64), f32x64.llvm(None)))
splat_f32x64 = operation(f32x64, (f32,), lambda b, x: splat(b, x, f32x64.llvm))
store_f32 = operation(types.void, (i64, i64, f32), lambda b, base, i, x: b.store(x, at(b, base, i, ir.FloatType(), 4), align=4))
store_some_f32x64 = operation(types.void, (i64, i64, f32x64, i64), lambda b, base, i, x, n: call(b, "llvm.masked.store.v64f32.p0", ir.VoidType(), x, at(b, base, i, f32x64.llvm, 4), ir.IntType(32)(4), below(b, n, 64)))
transpose_some_f32x16 = operation(types.void, (i64, i64, i64, i64, i64, i64, i64, i64), lambda b, s, i, p, t, j, q, m, n: transpose_some(b, ir.VectorType(ir.FloatType(), 16), 4, s, i, p, t, j, q, m, n, "v16f32"))

# ---- stages: buffers holds addresses, sizes extents; begin..end are the tasks to run, worker numbers the thread
@njit(error_model="numpy", nogil=True)
def pad_input(buffers, sizes, begin, end, worker):
    input, padded = buffers[0], buffers[3]
    N, IH, IW, PH, PW, padded_cs = sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], sizes[5]
    for task in range(begin, end):
        padded_n, padded_h = task // PH, task % PH
        start0, start1 = min(1, PW), min(IW + 1, PW)
        limit = max(start1, start0)
        for padded_w_fill in range(PW):
            for padded_c_fill_block in range((padded_cs + 63) // 64):
                store_some_f32x64(padded, ((padded_n * PH + padded_h) * PW + padded_w_fill) * padded_cs + padded_c_fill_block * 64, splat_f32x64(0.0), padded_cs - padded_c_fill_block * 64)
        if 0 <= padded_h - 1:
            if padded_h - 1 < IH:
                for padded_c_block in range((padded_cs + 15) // 16):
                    for padded_w_block in range((limit - start0 + 15) // 16):
                        transpose_some_f32x16(input, ((padded_n * padded_cs + padded_c_block * 16) * IH + padded_h) * IW + (padded_w_block * 16 + start0) - (IW + 1), IH * IW, padded, ((padded_n * PH + padded_h) * PW + (padded_w_block * 16 + start0)) * padded_cs + padded_c_block * 16, padded_cs, padded_cs - padded_c_block * 16, limit - start0 - padded_w_block * 16)

@njit(error_model="numpy", nogil=True)
def pack_grad_output(buffers, sizes, begin, end, worker):
    grad_output, plain = buffers[1], buffers[4]
    N, OH, OW, OC = sizes[0], sizes[1], sizes[2], sizes[3]
    for task in range(begin, end):
        plain_n, plain_c_block = task // ((OC + 15) // 16), task % ((OC + 15) // 16)
        for plain_h in range(OH):
            for plain_w_block in range((OW + 15) // 16):
                transpose_some_f32x16(grad_output, ((plain_n * OC + plain_c_block * 16) * OH + plain_h) * OW + plain_w_block * 16, OH * OW, plain, ((plain_n * OH + plain_h) * OW + plain_w_block * 16) * OC + plain_c_block * 16, OC, OC - plain_c_block * 16, OW - plain_w_block * 16)

@njit(error_model="numpy", nogil=True)
def conv(buffers, sizes, begin, end, worker):
    padded, plain, unpacked = buffers[3], buffers[4], buffers[5]
    N, OH, OW, OC, PH, PW = sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], sizes[5]
    for task in range(begin, end):
        kh, kw, oc_block = task // ((OC + 63) // 64 * 3), task // ((OC + 63) // 64) % 3, task % ((OC + 63) // 64)
        for tile in range(16):
            acc0 = acc1 = acc2 = acc3 = splat_f32x64(0.0)
            for n in range(N):
                for oh in range(OH):
                    for ow in range(OW):
                        padded_at = ((n * PH + (oh + kh)) * PW + (ow + kw)) * 64 + tile * 4
                        plain_here = load_some_f32x64(plain, ((n * OH + oh) * OW + ow) * OC + oc_block * 64, OC - oc_block * 64)
                        valid = OC - oc_block * 64
                        acc0 = fma_f32x64(splat_f32x64(load_f32(padded, padded_at)), plain_here, acc0)
                        acc1 = fma_f32x64(splat_f32x64(load_f32(padded, padded_at + 1)), plain_here, acc1)
                        acc2 = fma_f32x64(splat_f32x64(load_f32(padded, padded_at + 2)), plain_here, acc2)
                        acc3 = fma_f32x64(splat_f32x64(load_f32(padded, padded_at + 3)), plain_here, acc3)
            unpacked_at = ((kh * 3 + kw) * 64 + tile * 4) * OC + oc_block * 64
            valid = OC - oc_block * 64
            store_some_f32x64(unpacked, unpacked_at, acc0, valid)
            store_some_f32x64(unpacked, unpacked_at + OC, acc1, valid)
            store_some_f32x64(unpacked, unpacked_at + OC * 2, acc2, valid)
            store_some_f32x64(unpacked, unpacked_at + OC * 3, acc3, valid)

@njit(error_model="numpy", nogil=True)
def unpack_grad_weight(buffers, sizes, begin, end, worker):
    grad_weight, unpacked = buffers[2], buffers[5]
    OC = sizes[0]
    for unpacked_oc in range(begin, end):
        for unpacked_ic in range(64):
            for unpacked_kh in range(3):
                for unpacked_kw in range(3):
                    store_f32(grad_weight, ((unpacked_oc * 64 + unpacked_ic) * 3 + unpacked_kh) * 3 + unpacked_kw, load_f32(unpacked, ((unpacked_kh * 3 + unpacked_kw) * 64 + unpacked_ic) * OC + unpacked_oc))

# ---- the whole problem on one thread
def run(input, grad_output):
    input = np.ascontiguousarray(input, np.float32).reshape((1, 64, 56, 56))
    grad_output = np.ascontiguousarray(grad_output, np.float32).reshape((1, 64, 56, 56))
    grad_weight = np.empty((64, 64, 3, 3), np.float32)
    padded, plain, unpacked = (np.empty(size, np.uint8) for size in [861184, 802816, 147456])
    buffers = np.array([array.ctypes.data for array in (input, grad_output, grad_weight, padded, plain, unpacked)])
    pad_input(buffers, np.array([1, 56, 56, 58, 58, 64], np.int64), 0, 58, 0)
    pack_grad_output(buffers, np.array([1, 56, 56, 64], np.int64), 0, 4, 0)
    conv(buffers, np.array([1, 56, 56, 64, 58, 58], np.int64), 0, 9, 0)
    unpack_grad_weight(buffers, np.array([64], np.int64), 0, 64, 0)
    return grad_weight
