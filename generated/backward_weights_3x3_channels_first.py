"""convgen: mb1_ic64oc64_ih56oh56kh3ph1 dir=backward_weights
strategy  direct, pixels=16 lanes=16 turned=1
template  cpu/kernel.py.j2
again     convgen emit 'mb1_ic64oc64_ih56oh56kh3ph1 dir=backward_weights' --strategy direct --config 'pixels=16 lanes=16 turned=1' -o .
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

def hold(b, base, index, size):
    """An address that LLVM knows nothing about: it would keep a pointer to each of many elements at constant distances."""
    place = b.add(base, b.mul(index, index.type(size)))
    return b.asm(ir.FunctionType(place.type, [place.type]), "", "=r,0", [place], False)

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
f32x16 = Vector(ir.FloatType(), 16)
f32x64 = Vector(ir.FloatType(), 64)
fma_f32x16 = operation(f32x16, (f32x16, f32x16, f32x16), lambda b, x, y, z: call(b, "llvm.fma.v16f32", x.type, x, y, z))
load_f32 = operation(f32, (i64, i64), lambda b, base, i: b.load(at(b, base, i, ir.FloatType(), 4), align=4))
load_f32x16 = operation(f32x16, (i64, i64), lambda b, base, i: b.load(at(b, base, i, f32x16.llvm, 4), align=4))
place_f32 = operation(i64, (i64, i64), lambda b, base, i: hold(b, base, i, 4))
splat_f32x16 = operation(f32x16, (f32,), lambda b, x: splat(b, x, f32x16.llvm))
splat_f32x64 = operation(f32x64, (f32,), lambda b, x: splat(b, x, f32x64.llvm))
store_f32x16 = operation(types.void, (i64, i64, f32x16), lambda b, base, i, x: b.store(x, at(b, base, i, f32x16.llvm, 4), align=4))
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
    grad_weight, padded, plain = buffers[2], buffers[3], buffers[4]
    N, OH, OW, OC, PH, PW, worker_bytes = sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], sizes[5], sizes[6]
    unpacked = buffers[5] + worker * worker_bytes
    for task in range(begin, end):
        lanes, tile = task // ((OC + 15) // 16), task % ((OC + 15) // 16)
        start = min(tile * 16, OC - 16)
        for k in range(9):
            row = k // 3
            col = k - row * 3
            acc0 = splat_f32x16(0.0)
            acc1 = splat_f32x16(0.0)
            acc2 = splat_f32x16(0.0)
            acc3 = splat_f32x16(0.0)
            acc4 = acc5 = acc6 = acc7 = acc8 = acc9 = acc10 = acc11 = acc12 = acc13 = acc14 = acc15 = splat_f32x16(0.0)
            for n in range(N):
                for oh in range(OH):
                    for ow in range(OW):
                        plain_row = place_f32(plain, ((n * OH + oh) * OW + ow) * OC + start)
                        padded_here = load_f32x16(padded, ((n * PH + (oh + row)) * PW + (ow + col)) * 64 + lanes * 16)
                        acc0 = fma_f32x16(padded_here, splat_f32x16(load_f32(plain_row, 0)), acc0)
                        acc1 = fma_f32x16(padded_here, splat_f32x16(load_f32(plain_row, 1)), acc1)
                        acc2 = fma_f32x16(padded_here, splat_f32x16(load_f32(plain_row, 2)), acc2)
                        acc3 = fma_f32x16(padded_here, splat_f32x16(load_f32(plain_row, 3)), acc3)
                        acc4 = fma_f32x16(padded_here, splat_f32x16(load_f32(plain_row, 4)), acc4)
                        acc5 = fma_f32x16(padded_here, splat_f32x16(load_f32(plain_row, 5)), acc5)
                        acc6 = fma_f32x16(padded_here, splat_f32x16(load_f32(plain_row, 6)), acc6)
                        acc7 = fma_f32x16(padded_here, splat_f32x16(load_f32(plain_row, 7)), acc7)
                        acc8 = fma_f32x16(padded_here, splat_f32x16(load_f32(plain_row, 8)), acc8)
                        acc9 = fma_f32x16(padded_here, splat_f32x16(load_f32(plain_row, 9)), acc9)
                        acc10 = fma_f32x16(padded_here, splat_f32x16(load_f32(plain_row, 10)), acc10)
                        acc11 = fma_f32x16(padded_here, splat_f32x16(load_f32(plain_row, 11)), acc11)
                        acc12 = fma_f32x16(padded_here, splat_f32x16(load_f32(plain_row, 12)), acc12)
                        acc13 = fma_f32x16(padded_here, splat_f32x16(load_f32(plain_row, 13)), acc13)
                        acc14 = fma_f32x16(padded_here, splat_f32x16(load_f32(plain_row, 14)), acc14)
                        acc15 = fma_f32x16(padded_here, splat_f32x16(load_f32(plain_row, 15)), acc15)
            unpacked_at = k * 16
            store_f32x16(unpacked, unpacked_at, acc0)
            store_f32x16(unpacked, unpacked_at + 144, acc1)
            store_f32x16(unpacked, unpacked_at + 288, acc2)
            store_f32x16(unpacked, unpacked_at + 432, acc3)
            store_f32x16(unpacked, unpacked_at + 576, acc4)
            store_f32x16(unpacked, unpacked_at + 720, acc5)
            store_f32x16(unpacked, unpacked_at + 864, acc6)
            store_f32x16(unpacked, unpacked_at + 1008, acc7)
            store_f32x16(unpacked, unpacked_at + 1152, acc8)
            store_f32x16(unpacked, unpacked_at + 1296, acc9)
            store_f32x16(unpacked, unpacked_at + 1440, acc10)
            store_f32x16(unpacked, unpacked_at + 1584, acc11)
            store_f32x16(unpacked, unpacked_at + 1728, acc12)
            store_f32x16(unpacked, unpacked_at + 1872, acc13)
            store_f32x16(unpacked, unpacked_at + 2016, acc14)
            store_f32x16(unpacked, unpacked_at + 2160, acc15)
        for unpacked_oc in range(16):
            transpose_some_f32x16(unpacked, unpacked_oc * 9 * 16, 16, grad_weight, ((unpacked_oc + start) * 64 + lanes * 16) * 9, 9, 9, 16)

# ---- the whole problem on one thread
def run(input, grad_output):
    input = np.ascontiguousarray(input, np.float32).reshape((1, 64, 56, 56))
    grad_output = np.ascontiguousarray(grad_output, np.float32).reshape((1, 64, 56, 56))
    grad_weight = np.empty((64, 64, 3, 3), np.float32)
    padded, plain, unpacked = (np.empty(size, np.uint8) for size in [861184, 802816, 9216])
    buffers = np.array([array.ctypes.data for array in (input, grad_output, grad_weight, padded, plain, unpacked)])
    pad_input(buffers, np.array([1, 56, 56, 58, 58, 64], np.int64), 0, 58, 0)
    pack_grad_output(buffers, np.array([1, 56, 56, 64], np.int64), 0, 4, 0)
    conv(buffers, np.array([1, 56, 56, 64, 58, 58, 9216], np.int64), 0, 16, 0)
    return grad_weight
