"""convgen: mb1_ic256oc64_ih56oh56kh1 layout=channels_last
strategy  direct, pixels=6 lanes=64 pixels_first=1
template  cpu/kernel.py.j2
again     convgen emit 'mb1_ic256oc64_ih56oh56kh1 layout=channels_last' --strategy direct --config 'pixels=6 lanes=64 pixels_first=1' -o .
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
store_some_f32x64 = operation(types.void, (i64, i64, f32x64, i64), lambda b, base, i, x, n: call(b, "llvm.masked.store.v64f32.p0", ir.VoidType(), x, at(b, base, i, f32x64.llvm, 4), ir.IntType(32)(4), below(b, n, 64)))

# ---- stages: buffers holds addresses, sizes extents; begin..end are the tasks to run, worker numbers the thread
@njit(error_model="numpy", nogil=True)
def pack_weight(buffers, sizes, begin, end, worker):
    weight, packed = buffers[1], buffers[3]
    OC, packed_kws, packed_ics = sizes[0], sizes[1], sizes[2]
    for packed_block in range(begin, end):
        for packed_ic in range(packed_ics):
            for packed_kw in range(packed_kws):
                for packed_lane in range(64):
                    if packed_block * 64 + packed_lane < OC:
                        chosen = load_f32(weight, ((packed_block * 64 + packed_lane) * packed_ics + packed_ic) * packed_kws + packed_kw)
                    else:
                        chosen = np.float32(0.0)
                    store_f32(packed, ((packed_block * packed_kws + packed_kw) * packed_ics + packed_ic) * 64 + packed_lane, chosen)

@njit(error_model="numpy", nogil=True)
def conv(buffers, sizes, begin, end, worker):
    input, output, packed = buffers[0], buffers[2], buffers[3]
    N, IW, OW, OC = sizes[0], sizes[1], sizes[2], sizes[3]
    for task in range(begin, end):
        n = task // ((OC + 63) // 64 * (((OW + 5) // 6 + 15) // 16))
        part, oc_block = task // ((OC + 63) // 64) % (((OW + 5) // 6 + 15) // 16), task % ((OC + 63) // 64)
        for tile in range(min(16, (OW + 5) // 6 - part * 16)):
            start = min(part * 96 + tile * 6, OW - 6)
            prefetch_f32x64(output, (n * OW + start) * OC + oc_block * 64)
            prefetch_f32x64(output, (n * OW + start) * OC + oc_block * 64 + OC)
            prefetch_f32x64(output, (n * OW + start) * OC + oc_block * 64 + OC * 2)
            prefetch_f32x64(output, (n * OW + start) * OC + oc_block * 64 + OC * 3)
            prefetch_f32x64(output, (n * OW + start) * OC + oc_block * 64 + OC * 4)
            prefetch_f32x64(output, (n * OW + start) * OC + oc_block * 64 + OC * 5)
            acc0 = acc1 = acc2 = acc3 = acc4 = acc5 = splat_f32x64(0.0)
            for ic in range(256):
                input_at = (n * IW + start) * 256 + ic
                packed_here = load_f32x64(packed, (oc_block * 256 + ic) * 64)
                acc0 = fma_f32x64(splat_f32x64(load_f32(input, input_at)), packed_here, acc0)
                acc1 = fma_f32x64(splat_f32x64(load_f32(input, input_at + 256)), packed_here, acc1)
                acc2 = fma_f32x64(splat_f32x64(load_f32(input, input_at + 512)), packed_here, acc2)
                acc3 = fma_f32x64(splat_f32x64(load_f32(input, input_at + 768)), packed_here, acc3)
                acc4 = fma_f32x64(splat_f32x64(load_f32(input, input_at + 1024)), packed_here, acc4)
                acc5 = fma_f32x64(splat_f32x64(load_f32(input, input_at + 1280)), packed_here, acc5)
            output_at = (n * OW + start) * OC + oc_block * 64
            valid = OC - oc_block * 64
            store_some_f32x64(output, output_at, acc0, valid)
            store_some_f32x64(output, output_at + OC, acc1, valid)
            store_some_f32x64(output, output_at + OC * 2, acc2, valid)
            store_some_f32x64(output, output_at + OC * 3, acc3, valid)
            store_some_f32x64(output, output_at + OC * 4, acc4, valid)
            store_some_f32x64(output, output_at + OC * 5, acc5, valid)

# ---- the whole problem on one thread
def run(input, weight):
    input = np.ascontiguousarray(input, np.float32).reshape((1, 56, 56, 256))
    weight = np.ascontiguousarray(weight, np.float32).reshape((64, 256, 1, 1))
    output = np.empty((1, 56, 56, 64), np.float32)
    packed, = (np.empty(size, np.uint8) for size in [65536])
    buffers = np.array([array.ctypes.data for array in (input, weight, output, packed)])
    pack_weight(buffers, np.array([64, 1, 256], np.int64), 0, 1, 0)
    conv(buffers, np.array([1, 3136, 3136, 64], np.int64), 0, 33, 0)
    return output
