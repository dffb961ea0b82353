"""convgen: mb1_ic64oc64_iw1000ow992kw9 layout=channels_last
strategy  fft, n=32 pixels=14 lanes=32 tiles=14 fused=1
template  cpu/kernel.py.j2
again     convgen emit 'mb1_ic64oc64_iw1000ow992kw9 layout=channels_last' --strategy fft --config 'n=32 pixels=14 lanes=32 tiles=14 fused=1' -o .
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

def splat(b, x, vector):
    first = b.insert_element(vector(ir.Undefined), x, ir.IntType(32)(0))
    return b.shuffle_vector(first, first, ir.VectorType(ir.IntType(32), vector.count)(None))

def below(b, count, lanes):
    kind = ir.VectorType(ir.IntType(64), lanes)
    return b.icmp_signed("<", kind(list(range(lanes))), splat(b, count, kind))

i64, f32, f64, i32 = types.int64, types.float32, types.float64, types.int32
f32x16 = Vector(ir.FloatType(), 16)
f32x32 = Vector(ir.FloatType(), 32)
add_f32 = operation(f32, (f32, f32), lambda b, x, y: b.fadd(x, y))
add_f32x16 = operation(f32x16, (f32x16, f32x16), lambda b, x, y: b.fadd(x, y))
fma_f32 = operation(f32, (f32, f32, f32), lambda b, x, y, z: call(b, "llvm.fma.f32", x.type, x, y, z))
fma_f32x16 = operation(f32x16, (f32x16, f32x16, f32x16), lambda b, x, y, z: call(b, "llvm.fma.v16f32", x.type, x, y, z))
fma_f32x32 = operation(f32x32, (f32x32, f32x32, f32x32), lambda b, x, y, z: call(b, "llvm.fma.v32f32", x.type, x, y, z))
load_f32 = operation(f32, (i64, i64), lambda b, base, i: b.load(at(b, base, i, ir.FloatType(), 4), align=4))
load_f32x16 = operation(f32x16, (i64, i64), lambda b, base, i: b.load(at(b, base, i, f32x16.llvm, 4), align=4))
load_f32x32 = operation(f32x32, (i64, i64), lambda b, base, i: b.load(at(b, base, i, f32x32.llvm, 4), align=4))
load_if_f32x16 = operation(f32x16, (i64, i64, types.boolean), lambda b, base, i, c: b.load(place_if(b, c, at(b, base, i, f32x16.llvm, 4), f32x16.llvm), align=4))
mul_f32 = operation(f32, (f32, f32), lambda b, x, y: b.fmul(x, y))
splat_f32x16 = operation(f32x16, (f32,), lambda b, x: splat(b, x, f32x16.llvm))
splat_f32x32 = operation(f32x32, (f32,), lambda b, x: splat(b, x, f32x32.llvm))
store_f32 = operation(types.void, (i64, i64, f32), lambda b, base, i, x: b.store(x, at(b, base, i, ir.FloatType(), 4), align=4))
store_f32x16 = operation(types.void, (i64, i64, f32x16), lambda b, base, i, x: b.store(x, at(b, base, i, f32x16.llvm, 4), align=4))
store_f32x32 = operation(types.void, (i64, i64, f32x32), lambda b, base, i, x: b.store(x, at(b, base, i, f32x32.llvm, 4), align=4))
store_some_f32x16 = operation(types.void, (i64, i64, f32x16, i64), lambda b, base, i, x, n: call(b, "llvm.masked.store.v16f32.p0", ir.VoidType(), x, at(b, base, i, f32x16.llvm, 4), ir.IntType(32)(4), below(b, n, 16)))
sub_f32 = operation(f32, (f32, f32), lambda b, x, y: b.fsub(x, y))
sub_f32x16 = operation(f32x16, (f32x16, f32x16), lambda b, x, y: b.fsub(x, y))

# ---- stages: buffers holds addresses, sizes extents; begin..end are the tasks to run, worker numbers the thread
@njit(error_model="numpy", nogil=True)
def transform_weight(buffers, sizes, begin, end, worker):
    weight, u = buffers[1], buffers[3]
    OC = sizes[0]
    for task in range(begin, end):
        ob, c = task // 64, task % 64
        for u_lane in range(32):
            weight_at = ((ob * 32 + u_lane) * 64 + c) * 9
            inside = (ob * 32 + u_lane < OC)
            if inside:
                chosen = load_f32(weight, weight_at)
            else:
                chosen = np.float32(0.0)
            if inside:
                chosen1 = load_f32(weight, weight_at + 1)
            else:
                chosen1 = np.float32(0.0)
            if inside:
                chosen2 = load_f32(weight, weight_at + 2)
            else:
                chosen2 = np.float32(0.0)
            if inside:
                chosen3 = load_f32(weight, weight_at + 3)
            else:
                chosen3 = np.float32(0.0)
            if inside:
                chosen4 = load_f32(weight, weight_at + 4)
            else:
                chosen4 = np.float32(0.0)
            if inside:
                chosen5 = load_f32(weight, weight_at + 5)
            else:
                chosen5 = np.float32(0.0)
            if inside:
                chosen6 = load_f32(weight, weight_at + 6)
            else:
                chosen6 = np.float32(0.0)
            if inside:
                chosen7 = load_f32(weight, weight_at + 7)
            else:
                chosen7 = np.float32(0.0)
            if inside:
                chosen8 = load_f32(weight, weight_at + 8)
            else:
                chosen8 = np.float32(0.0)
            g0 = chosen
            g1 = chosen1
            g2 = chosen2
            g3 = chosen3
            g4 = chosen4
            g5 = chosen5
            g6 = chosen6
            g7 = chosen7
            g8 = chosen8
            # weight transform of FFT(32,9)
            factor_g0 = np.float32(0.7071067811865476)
            factor_g1 = np.float32(-0.7071067811865476)
            factor_g2 = np.float32(0.4142135623730951)
            factor_g3 = np.float32(-0.4142135623730951)
            factor_g4 = np.float32(0.9238795325112867)
            factor_g5 = np.float32(-0.9238795325112867)
            factor_g6 = np.float32(-0.140652283836026)
            factor_g7 = np.float32(0.2813045676720519)
            factor_g8 = np.float32(0.9807852804032304)
            factor_g9 = np.float32(-0.9807852804032304)
            factor_g10 = np.float32(-0.472473645916727)
            factor_g11 = np.float32(0.9449472918334539)
            factor_g12 = np.float32(0.8314696123025452)
            factor_g13 = np.float32(-0.8314696123025452)
            factor_g14 = np.float32(0.03125)
            factor_g15 = np.float32(0.0625)
            factor_g16 = np.float32(-0.0625)
            part_g0 = add_f32(g0, g8)
            part_g1 = sub_f32(g0, g8)
            part_g2 = add_f32(g4, part_g0)
            part_g3 = sub_f32(part_g0, g4)
            part_g4 = fma_f32(g4, factor_g0, g0)
            part_g5 = fma_f32(g4, factor_g0, g8)
            part_g6 = fma_f32(g4, factor_g1, g0)
            part_g7 = fma_f32(g4, factor_g1, g8)
            part_g8 = add_f32(g2, g6)
            part_g9 = sub_f32(g2, g6)
            part_g10 = add_f32(part_g2, part_g8)
            part_g11 = sub_f32(part_g2, part_g8)
            part_g12 = fma_f32(g6, factor_g2, g2)
            part_g13 = fma_f32(g2, factor_g2, g6)
            part_g14 = fma_f32(g6, factor_g3, g2)
            part_g15 = fma_f32(g2, factor_g3, g6)
            part_g16 = fma_f32(part_g12, factor_g4, part_g4)
            part_g17 = fma_f32(part_g13, factor_g4, part_g5)
            part_g18 = fma_f32(part_g12, factor_g5, part_g4)
            part_g19 = fma_f32(part_g13, factor_g5, part_g5)
            part_g20 = fma_f32(part_g15, factor_g4, part_g6)
            part_g21 = fma_f32(part_g14, factor_g4, part_g7)
            part_g22 = fma_f32(part_g15, factor_g5, part_g6)
            part_g23 = fma_f32(part_g14, factor_g5, part_g7)
            part_g24 = fma_f32(part_g9, factor_g0, part_g1)
            part_g25 = fma_f32(part_g8, factor_g0, g4)
            part_g26 = fma_f32(part_g9, factor_g1, part_g1)
            part_g27 = fma_f32(part_g8, factor_g1, g4)
            part_g28 = add_f32(g1, g5)
            part_g29 = sub_f32(g1, g5)
            part_g30 = fma_f32(g5, factor_g0, g1)
            part_g31 = fma_f32(g5, factor_g1, g1)
            part_g32 = add_f32(g3, g7)
            part_g33 = sub_f32(g7, g3)
            part_g34 = fma_f32(g3, factor_g0, g7)
            part_g35 = fma_f32(g3, factor_g1, g7)
            part_g36 = add_f32(part_g28, part_g32)
            part_g37 = sub_f32(part_g28, part_g32)
            part_g38 = add_f32(part_g10, part_g36)
            part_g39 = sub_f32(part_g10, part_g36)
            part_g40 = fma_f32(g5, factor_g6, part_g30)
            part_g41 = fma_f32(part_g30, factor_g7, g5)
            part_g42 = fma_f32(part_g34, factor_g7, g3)
            part_g43 = fma_f32(g3, factor_g6, part_g34)
            part_g44 = fma_f32(part_g42, factor_g0, part_g40)
            part_g45 = fma_f32(part_g41, factor_g0, part_g43)
            part_g46 = fma_f32(part_g42, factor_g1, part_g40)
            part_g47 = fma_f32(part_g41, factor_g1, part_g43)
            part_g48 = fma_f32(part_g44, factor_g8, part_g16)
            part_g49 = fma_f32(part_g45, factor_g8, part_g17)
            part_g50 = fma_f32(part_g44, factor_g9, part_g16)
            part_g51 = fma_f32(part_g45, factor_g9, part_g17)
            part_g52 = fma_f32(part_g47, factor_g8, part_g18)
            part_g53 = fma_f32(part_g46, factor_g8, part_g19)
            part_g54 = fma_f32(part_g47, factor_g9, part_g18)
            part_g55 = fma_f32(part_g46, factor_g9, part_g19)
            part_g56 = fma_f32(g5, factor_g3, g1)
            part_g57 = fma_f32(g1, factor_g2, g5)
            part_g58 = fma_f32(g3, factor_g3, g7)
            part_g59 = fma_f32(g7, factor_g2, g3)
            part_g60 = sub_f32(part_g56, part_g58)
            part_g61 = add_f32(part_g57, part_g59)
            part_g62 = add_f32(part_g56, part_g58)
            part_g63 = sub_f32(part_g59, part_g57)
            part_g64 = fma_f32(part_g60, factor_g4, part_g24)
            part_g65 = fma_f32(part_g61, factor_g4, part_g25)
            part_g66 = fma_f32(part_g60, factor_g5, part_g24)
            part_g67 = fma_f32(part_g61, factor_g5, part_g25)
            part_g68 = fma_f32(part_g63, factor_g4, part_g26)
            part_g69 = fma_f32(part_g62, factor_g4, part_g27)
            part_g70 = fma_f32(part_g63, factor_g5, part_g26)
            part_g71 = fma_f32(part_g62, factor_g5, part_g27)
            part_g72 = fma_f32(g5, factor_g10, part_g31)
            part_g73 = fma_f32(part_g31, factor_g11, g5)
            part_g74 = fma_f32(part_g35, factor_g11, g3)
            part_g75 = fma_f32(g3, factor_g10, part_g35)
            part_g76 = fma_f32(part_g74, factor_g1, part_g72)
            part_g77 = fma_f32(part_g73, factor_g1, part_g75)
            part_g78 = fma_f32(part_g74, factor_g0, part_g72)
            part_g79 = fma_f32(part_g73, factor_g0, part_g75)
            part_g80 = fma_f32(part_g76, factor_g12, part_g22)
            part_g81 = fma_f32(part_g77, factor_g12, part_g23)
            part_g82 = fma_f32(part_g76, factor_g13, part_g22)
            part_g83 = fma_f32(part_g77, factor_g13, part_g23)
            part_g84 = fma_f32(part_g79, factor_g13, part_g20)
            part_g85 = fma_f32(part_g78, factor_g13, part_g21)
            part_g86 = fma_f32(part_g79, factor_g12, part_g20)
            part_g87 = fma_f32(part_g78, factor_g12, part_g21)
            part_g88 = add_f32(part_g29, part_g33)
            part_g89 = sub_f32(part_g33, part_g29)
            part_g90 = fma_f32(part_g88, factor_g0, part_g3)
            part_g91 = fma_f32(part_g89, factor_g1, part_g9)
            part_g92 = fma_f32(part_g88, factor_g1, part_g3)
            part_g93 = fma_f32(part_g89, factor_g0, part_g9)
            part_g94 = add_f32(part_g48, part_g49)
            part_g95 = sub_f32(part_g48, part_g49)
            part_g96 = add_f32(part_g64, part_g65)
            part_g97 = sub_f32(part_g64, part_g65)
            part_g98 = sub_f32(part_g81, part_g80)
            part_g99 = add_f32(part_g80, part_g81)
            part_g100 = add_f32(part_g90, part_g91)
            part_g101 = sub_f32(part_g90, part_g91)
            part_g102 = add_f32(part_g86, part_g87)
            part_g103 = sub_f32(part_g86, part_g87)
            part_g104 = sub_f32(part_g71, part_g70)
            part_g105 = add_f32(part_g70, part_g71)
            part_g106 = sub_f32(part_g55, part_g54)
            part_g107 = add_f32(part_g54, part_g55)
            part_g108 = add_f32(part_g11, part_g37)
            part_g109 = sub_f32(part_g11, part_g37)
            part_g110 = add_f32(part_g52, part_g53)
            part_g111 = sub_f32(part_g52, part_g53)
            part_g112 = add_f32(part_g68, part_g69)
            part_g113 = sub_f32(part_g68, part_g69)
            part_g114 = sub_f32(part_g85, part_g84)
            part_g115 = add_f32(part_g84, part_g85)
            part_g116 = sub_f32(part_g93, part_g92)
            part_g117 = add_f32(part_g92, part_g93)
            part_g118 = add_f32(part_g82, part_g83)
            part_g119 = sub_f32(part_g82, part_g83)
            part_g120 = sub_f32(part_g67, part_g66)
            part_g121 = add_f32(part_g66, part_g67)
            part_g122 = sub_f32(part_g51, part_g50)
            part_g123 = add_f32(part_g50, part_g51)
            part_g124 = mul_f32(part_g38, factor_g14)
            part_g125 = mul_f32(part_g39, factor_g14)
            part_g126 = mul_f32(part_g48, factor_g15)
            part_g127 = mul_f32(part_g94, factor_g15)
            part_g128 = mul_f32(part_g95, factor_g15)
            part_g129 = mul_f32(part_g64, factor_g15)
            part_g130 = mul_f32(part_g96, factor_g15)
            part_g131 = mul_f32(part_g97, factor_g15)
            part_g132 = mul_f32(part_g80, factor_g15)
            part_g133 = mul_f32(part_g98, factor_g15)
            part_g134 = mul_f32(part_g99, factor_g16)
            part_g135 = mul_f32(part_g90, factor_g15)
            part_g136 = mul_f32(part_g100, factor_g15)
            part_g137 = mul_f32(part_g101, factor_g15)
            part_g138 = mul_f32(part_g86, factor_g15)
            part_g139 = mul_f32(part_g102, factor_g15)
            part_g140 = mul_f32(part_g103, factor_g15)
            part_g141 = mul_f32(part_g70, factor_g15)
            part_g142 = mul_f32(part_g104, factor_g15)
            part_g143 = mul_f32(part_g105, factor_g16)
            part_g144 = mul_f32(part_g54, factor_g15)
            part_g145 = mul_f32(part_g106, factor_g15)
            part_g146 = mul_f32(part_g107, factor_g16)
            part_g147 = mul_f32(part_g11, factor_g15)
            part_g148 = mul_f32(part_g108, factor_g15)
            part_g149 = mul_f32(part_g109, factor_g15)
            part_g150 = mul_f32(part_g52, factor_g15)
            part_g151 = mul_f32(part_g110, factor_g15)
            part_g152 = mul_f32(part_g111, factor_g15)
            part_g153 = mul_f32(part_g68, factor_g15)
            part_g154 = mul_f32(part_g112, factor_g15)
            part_g155 = mul_f32(part_g113, factor_g15)
            part_g156 = mul_f32(part_g84, factor_g15)
            part_g157 = mul_f32(part_g114, factor_g15)
            part_g158 = mul_f32(part_g115, factor_g16)
            part_g159 = mul_f32(part_g92, factor_g15)
            part_g160 = mul_f32(part_g116, factor_g15)
            part_g161 = mul_f32(part_g117, factor_g16)
            part_g162 = mul_f32(part_g82, factor_g15)
            part_g163 = mul_f32(part_g118, factor_g15)
            part_g164 = mul_f32(part_g119, factor_g15)
            part_g165 = mul_f32(part_g66, factor_g15)
            part_g166 = mul_f32(part_g120, factor_g15)
            part_g167 = mul_f32(part_g121, factor_g16)
            part_g168 = mul_f32(part_g50, factor_g15)
            part_g169 = mul_f32(part_g122, factor_g15)
            part_g170 = mul_f32(part_g123, factor_g16)
            g0 = part_g124
            g1 = part_g125
            g2 = part_g126
            g3 = part_g127
            g4 = part_g128
            g5 = part_g129
            g6 = part_g130
            g7 = part_g131
            g8 = part_g132
            g9 = part_g133
            g10 = part_g134
            g11 = part_g135
            g12 = part_g136
            g13 = part_g137
            g14 = part_g138
            g15 = part_g139
            g16 = part_g140
            g17 = part_g141
            g18 = part_g142
            g19 = part_g143
            g20 = part_g144
            g21 = part_g145
            g22 = part_g146
            g23 = part_g147
            g24 = part_g148
            g25 = part_g149
            g26 = part_g150
            g27 = part_g151
            g28 = part_g152
            g29 = part_g153
            g30 = part_g154
            g31 = part_g155
            g32 = part_g156
            g33 = part_g157
            g34 = part_g158
            g35 = part_g159
            g36 = part_g160
            g37 = part_g161
            g38 = part_g162
            g39 = part_g163
            g40 = part_g164
            g41 = part_g165
            g42 = part_g166
            g43 = part_g167
            g44 = part_g168
            g45 = part_g169
            g46 = part_g170
            u_at = (ob * 64 + c) * 32 + u_lane
            store_f32(u, u_at, g0)
            store_f32(u, u_at + (OC + 31) // 32 * 2048, g1)
            store_f32(u, u_at + (OC + 31) // 32 * 4096, g2)
            store_f32(u, u_at + (OC + 31) // 32 * 6144, g3)
            store_f32(u, u_at + (OC + 31) // 32 * 8192, g4)
            store_f32(u, u_at + (OC + 31) // 32 * 10240, g5)
            store_f32(u, u_at + (OC + 31) // 32 * 12288, g6)
            store_f32(u, u_at + (OC + 31) // 32 * 14336, g7)
            store_f32(u, u_at + (OC + 31) // 32 * 16384, g8)
            store_f32(u, u_at + (OC + 31) // 32 * 18432, g9)
            store_f32(u, u_at + (OC + 31) // 32 * 20480, g10)
            store_f32(u, u_at + (OC + 31) // 32 * 22528, g11)
            store_f32(u, u_at + (OC + 31) // 32 * 24576, g12)
            store_f32(u, u_at + (OC + 31) // 32 * 26624, g13)
            store_f32(u, u_at + (OC + 31) // 32 * 28672, g14)
            store_f32(u, u_at + (OC + 31) // 32 * 30720, g15)
            store_f32(u, u_at + (OC + 31) // 32 * 32768, g16)
            store_f32(u, u_at + (OC + 31) // 32 * 34816, g17)
            store_f32(u, u_at + (OC + 31) // 32 * 36864, g18)
            store_f32(u, u_at + (OC + 31) // 32 * 38912, g19)
            store_f32(u, u_at + (OC + 31) // 32 * 40960, g20)
            store_f32(u, u_at + (OC + 31) // 32 * 43008, g21)
            store_f32(u, u_at + (OC + 31) // 32 * 45056, g22)
            store_f32(u, u_at + (OC + 31) // 32 * 47104, g23)
            store_f32(u, u_at + (OC + 31) // 32 * 49152, g24)
            store_f32(u, u_at + (OC + 31) // 32 * 51200, g25)
            store_f32(u, u_at + (OC + 31) // 32 * 53248, g26)
            store_f32(u, u_at + (OC + 31) // 32 * 55296, g27)
            store_f32(u, u_at + (OC + 31) // 32 * 57344, g28)
            store_f32(u, u_at + (OC + 31) // 32 * 59392, g29)
            store_f32(u, u_at + (OC + 31) // 32 * 61440, g30)
            store_f32(u, u_at + (OC + 31) // 32 * 63488, g31)
            store_f32(u, u_at + (OC + 31) // 32 * 65536, g32)
            store_f32(u, u_at + (OC + 31) // 32 * 67584, g33)
            store_f32(u, u_at + (OC + 31) // 32 * 69632, g34)
            store_f32(u, u_at + (OC + 31) // 32 * 71680, g35)
            store_f32(u, u_at + (OC + 31) // 32 * 73728, g36)
            store_f32(u, u_at + (OC + 31) // 32 * 75776, g37)
            store_f32(u, u_at + (OC + 31) // 32 * 77824, g38)
            store_f32(u, u_at + (OC + 31) // 32 * 79872, g39)
            store_f32(u, u_at + (OC + 31) // 32 * 81920, g40)
            store_f32(u, u_at + (OC + 31) // 32 * 83968, g41)
            store_f32(u, u_at + (OC + 31) // 32 * 86016, g42)
            store_f32(u, u_at + (OC + 31) // 32 * 88064, g43)
            store_f32(u, u_at + (OC + 31) // 32 * 90112, g44)
            store_f32(u, u_at + (OC + 31) // 32 * 92160, g45)
            store_f32(u, u_at + (OC + 31) // 32 * 94208, g46)

@njit(error_model="numpy", nogil=True)
def conv(buffers, sizes, begin, end, worker):
    input, output, u = buffers[0], buffers[2], buffers[3]
    N, IW, OW, OC, T, worker_bytes = sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], sizes[5]
    v, m = buffers[4] + worker * worker_bytes, buffers[5] + worker * worker_bytes
    for block in range(begin, end):
        row = (OW + 23) // 24
        start = min(block * T, N * row - T)
        v_at0, v_at1, v_at2, v_at3, v_at4 = 0, T * 64 + 16, 2 * (T * 64 + 16), 3 * (T * 64 + 16), 4 * (T * 64 + 16)
        v_at5, v_at6, v_at7, v_at8 = 5 * (T * 64 + 16), 6 * (T * 64 + 16), 7 * (T * 64 + 16), 8 * (T * 64 + 16)
        v_at9, v_at10, v_at11, v_at12 = 9 * (T * 64 + 16), 10 * (T * 64 + 16), 11 * (T * 64 + 16), 12 * (T * 64 + 16)
        v_at13, v_at14, v_at15, v_at16 = 13 * (T * 64 + 16), 14 * (T * 64 + 16), 15 * (T * 64 + 16), 16 * (T * 64 + 16)
        v_at17, v_at18, v_at19, v_at20 = 17 * (T * 64 + 16), 18 * (T * 64 + 16), 19 * (T * 64 + 16), 20 * (T * 64 + 16)
        v_at21, v_at22, v_at23, v_at24 = 21 * (T * 64 + 16), 22 * (T * 64 + 16), 23 * (T * 64 + 16), 24 * (T * 64 + 16)
        v_at25, v_at26, v_at27, v_at28 = 25 * (T * 64 + 16), 26 * (T * 64 + 16), 27 * (T * 64 + 16), 28 * (T * 64 + 16)
        v_at29, v_at30, v_at31, v_at32 = 29 * (T * 64 + 16), 30 * (T * 64 + 16), 31 * (T * 64 + 16), 32 * (T * 64 + 16)
        v_at33, v_at34, v_at35, v_at36 = 33 * (T * 64 + 16), 34 * (T * 64 + 16), 35 * (T * 64 + 16), 36 * (T * 64 + 16)
        v_at37, v_at38, v_at39, v_at40 = 37 * (T * 64 + 16), 38 * (T * 64 + 16), 39 * (T * 64 + 16), 40 * (T * 64 + 16)
        v_at41, v_at42, v_at43, v_at44 = 41 * (T * 64 + 16), 42 * (T * 64 + 16), 43 * (T * 64 + 16), 44 * (T * 64 + 16)
        v_at45, v_at46, v_at47, v_at48, v_at49, v_at50 = 45 * (T * 64 + 16), 46 * (T * 64 + 16), 64, 128, 192, 256
        v_at51, v_at52, v_at53, v_at54, v_at55, v_at56, v_at57, v_at58 = 320, 384, 448, 512, 576, 640, 704, 768
        v_at59 = 832
        m_at0, m_at1, m_at2, m_at3, m_at4, m_at5, m_at6, m_at7, m_at8 = 0, 32, 64, 96, 128, 160, 192, 224, 256
        m_at9, m_at10, m_at11, m_at12, m_at13, m_at14, m_at15 = 288, 320, 352, 384, 416, T * 32 + 16, 2 * (T * 32 + 16)
        m_at16, m_at17, m_at18, m_at19 = 3 * (T * 32 + 16), 4 * (T * 32 + 16), 5 * (T * 32 + 16), 6 * (T * 32 + 16)
        m_at20, m_at21, m_at22, m_at23 = 7 * (T * 32 + 16), 8 * (T * 32 + 16), 9 * (T * 32 + 16), 10 * (T * 32 + 16)
        m_at24, m_at25, m_at26, m_at27 = 11 * (T * 32 + 16), 12 * (T * 32 + 16), 13 * (T * 32 + 16), 14 * (T * 32 + 16)
        m_at28, m_at29, m_at30, m_at31 = 15 * (T * 32 + 16), 16 * (T * 32 + 16), 17 * (T * 32 + 16), 18 * (T * 32 + 16)
        m_at32, m_at33, m_at34, m_at35 = 19 * (T * 32 + 16), 20 * (T * 32 + 16), 21 * (T * 32 + 16), 22 * (T * 32 + 16)
        m_at36, m_at37, m_at38, m_at39 = 23 * (T * 32 + 16), 24 * (T * 32 + 16), 25 * (T * 32 + 16), 26 * (T * 32 + 16)
        m_at40, m_at41, m_at42, m_at43 = 27 * (T * 32 + 16), 28 * (T * 32 + 16), 29 * (T * 32 + 16), 30 * (T * 32 + 16)
        m_at44, m_at45, m_at46, m_at47 = 31 * (T * 32 + 16), 32 * (T * 32 + 16), 33 * (T * 32 + 16), 34 * (T * 32 + 16)
        m_at48, m_at49, m_at50, m_at51 = 35 * (T * 32 + 16), 36 * (T * 32 + 16), 37 * (T * 32 + 16), 38 * (T * 32 + 16)
        m_at52, m_at53, m_at54, m_at55 = 39 * (T * 32 + 16), 40 * (T * 32 + 16), 41 * (T * 32 + 16), 42 * (T * 32 + 16)
        m_at56, m_at57, m_at58, m_at59 = 43 * (T * 32 + 16), 44 * (T * 32 + 16), 45 * (T * 32 + 16), 46 * (T * 32 + 16)
        for tile in range(T):
            row1 = (start + tile) // row
            col = start + tile - row1 * row
            for c_block in range(4):
                input_at = (row1 * IW + col * 24) * 64 + c_block * 16
                x0 = load_if_f32x16(input, input_at, (0 <= col * 24) & (col * 24 < IW))
                x1 = load_if_f32x16(input, input_at + 64, (0 <= col * 24 + 1) & (col * 24 + 1 < IW))
                x2 = load_if_f32x16(input, input_at + 128, (0 <= col * 24 + 2) & (col * 24 + 2 < IW))
                x3 = load_if_f32x16(input, input_at + 192, (0 <= col * 24 + 3) & (col * 24 + 3 < IW))
                x4 = load_if_f32x16(input, input_at + 256, (0 <= col * 24 + 4) & (col * 24 + 4 < IW))
                x5 = load_if_f32x16(input, input_at + 320, (0 <= col * 24 + 5) & (col * 24 + 5 < IW))
                x6 = load_if_f32x16(input, input_at + 384, (0 <= col * 24 + 6) & (col * 24 + 6 < IW))
                x7 = load_if_f32x16(input, input_at + 448, (0 <= col * 24 + 7) & (col * 24 + 7 < IW))
                x8 = load_if_f32x16(input, input_at + 512, (0 <= col * 24 + 8) & (col * 24 + 8 < IW))
                x9 = load_if_f32x16(input, input_at + 576, (0 <= col * 24 + 9) & (col * 24 + 9 < IW))
                x10 = load_if_f32x16(input, input_at + 640, (0 <= col * 24 + 10) & (col * 24 + 10 < IW))
                x11 = load_if_f32x16(input, input_at + 704, (0 <= col * 24 + 11) & (col * 24 + 11 < IW))
                x12 = load_if_f32x16(input, input_at + 768, (0 <= col * 24 + 12) & (col * 24 + 12 < IW))
                x13 = load_if_f32x16(input, input_at + 832, (0 <= col * 24 + 13) & (col * 24 + 13 < IW))
                x14 = load_if_f32x16(input, input_at + 896, (0 <= col * 24 + 14) & (col * 24 + 14 < IW))
                x15 = load_if_f32x16(input, input_at + 960, (0 <= col * 24 + 15) & (col * 24 + 15 < IW))
                x16 = load_if_f32x16(input, input_at + 1024, (0 <= col * 24 + 16) & (col * 24 + 16 < IW))
                x17 = load_if_f32x16(input, input_at + 1088, (0 <= col * 24 + 17) & (col * 24 + 17 < IW))
                x18 = load_if_f32x16(input, input_at + 1152, (0 <= col * 24 + 18) & (col * 24 + 18 < IW))
                x19 = load_if_f32x16(input, input_at + 1216, (0 <= col * 24 + 19) & (col * 24 + 19 < IW))
                x20 = load_if_f32x16(input, input_at + 1280, (0 <= col * 24 + 20) & (col * 24 + 20 < IW))
                x21 = load_if_f32x16(input, input_at + 1344, (0 <= col * 24 + 21) & (col * 24 + 21 < IW))
                x22 = load_if_f32x16(input, input_at + 1408, (0 <= col * 24 + 22) & (col * 24 + 22 < IW))
                x23 = load_if_f32x16(input, input_at + 1472, (0 <= col * 24 + 23) & (col * 24 + 23 < IW))
                x24 = load_if_f32x16(input, input_at + 1536, (0 <= col * 24 + 24) & (col * 24 + 24 < IW))
                x25 = load_if_f32x16(input, input_at + 1600, (0 <= col * 24 + 25) & (col * 24 + 25 < IW))
                x26 = load_if_f32x16(input, input_at + 1664, (0 <= col * 24 + 26) & (col * 24 + 26 < IW))
                x27 = load_if_f32x16(input, input_at + 1728, (0 <= col * 24 + 27) & (col * 24 + 27 < IW))
                x28 = load_if_f32x16(input, input_at + 1792, (0 <= col * 24 + 28) & (col * 24 + 28 < IW))
                x29 = load_if_f32x16(input, input_at + 1856, (0 <= col * 24 + 29) & (col * 24 + 29 < IW))
                x30 = load_if_f32x16(input, input_at + 1920, (0 <= col * 24 + 30) & (col * 24 + 30 < IW))
                x31 = load_if_f32x16(input, input_at + 1984, (0 <= col * 24 + 31) & (col * 24 + 31 < IW))
                # input transform of FFT(32,9)
                factor_x0 = splat_f32x16(0.7071067811865476)
                factor_x1 = splat_f32x16(-0.7071067811865476)
                factor_x2 = splat_f32x16(-0.4142135623730951)
                factor_x3 = splat_f32x16(0.4142135623730951)
                factor_x4 = splat_f32x16(0.9238795325112867)
                factor_x5 = splat_f32x16(-0.9238795325112867)
                factor_x6 = splat_f32x16(-0.19891236737965798)
                factor_x7 = splat_f32x16(0.19891236737965798)
                factor_x8 = splat_f32x16(0.9807852804032304)
                factor_x9 = splat_f32x16(-0.9807852804032304)
                factor_x10 = splat_f32x16(0.6681786379192989)
                factor_x11 = splat_f32x16(-0.6681786379192989)
                factor_x12 = splat_f32x16(0.8314696123025452)
                factor_x13 = splat_f32x16(-0.8314696123025452)
                part_x0 = add_f32x16(x0, x16)
                part_x1 = sub_f32x16(x0, x16)
                part_x2 = add_f32x16(x8, x24)
                part_x3 = sub_f32x16(x8, x24)
                part_x4 = add_f32x16(part_x0, part_x2)
                part_x5 = sub_f32x16(part_x0, part_x2)
                part_x6 = add_f32x16(x4, x20)
                part_x7 = sub_f32x16(x4, x20)
                part_x8 = add_f32x16(x12, x28)
                part_x9 = sub_f32x16(x28, x12)
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
                part_x20 = add_f32x16(x2, x18)
                part_x21 = sub_f32x16(x2, x18)
                part_x22 = add_f32x16(x10, x26)
                part_x23 = sub_f32x16(x10, x26)
                part_x24 = add_f32x16(part_x20, part_x22)
                part_x25 = sub_f32x16(part_x20, part_x22)
                part_x26 = add_f32x16(x14, x30)
                part_x27 = sub_f32x16(x30, x14)
                part_x28 = add_f32x16(x6, x22)
                part_x29 = sub_f32x16(x6, x22)
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
                part_x58 = add_f32x16(x1, x17)
                part_x59 = sub_f32x16(x1, x17)
                part_x60 = add_f32x16(x9, x25)
                part_x61 = sub_f32x16(x9, x25)
                part_x62 = add_f32x16(part_x58, part_x60)
                part_x63 = sub_f32x16(part_x58, part_x60)
                part_x64 = add_f32x16(x5, x21)
                part_x65 = sub_f32x16(x5, x21)
                part_x66 = add_f32x16(x13, x29)
                part_x67 = sub_f32x16(x29, x13)
                part_x68 = add_f32x16(part_x64, part_x66)
                part_x69 = sub_f32x16(part_x64, part_x66)
                part_x70 = add_f32x16(part_x62, part_x68)
                part_x71 = sub_f32x16(part_x62, part_x68)
                part_x72 = add_f32x16(part_x65, part_x67)
                part_x73 = sub_f32x16(part_x67, part_x65)
                part_x74 = fma_f32x16(part_x72, factor_x0, part_x59)
                part_x75 = fma_f32x16(part_x73, factor_x1, part_x61)
                part_x76 = fma_f32x16(part_x72, factor_x1, part_x59)
                part_x77 = fma_f32x16(part_x73, factor_x0, part_x61)
                part_x78 = add_f32x16(x15, x31)
                part_x79 = sub_f32x16(x31, x15)
                part_x80 = add_f32x16(x7, x23)
                part_x81 = sub_f32x16(x7, x23)
                part_x82 = add_f32x16(part_x78, part_x80)
                part_x83 = sub_f32x16(part_x78, part_x80)
                part_x84 = add_f32x16(x3, x19)
                part_x85 = sub_f32x16(x3, x19)
                part_x86 = add_f32x16(x11, x27)
                part_x87 = sub_f32x16(x27, x11)
                part_x88 = add_f32x16(part_x84, part_x86)
                part_x89 = sub_f32x16(part_x84, part_x86)
                part_x90 = add_f32x16(part_x82, part_x88)
                part_x91 = sub_f32x16(part_x82, part_x88)
                part_x92 = add_f32x16(part_x85, part_x87)
                part_x93 = sub_f32x16(part_x87, part_x85)
                part_x94 = fma_f32x16(part_x92, factor_x0, part_x79)
                part_x95 = fma_f32x16(part_x93, factor_x1, part_x81)
                part_x96 = fma_f32x16(part_x92, factor_x1, part_x79)
                part_x97 = fma_f32x16(part_x93, factor_x0, part_x81)
                part_x98 = add_f32x16(part_x70, part_x90)
                part_x99 = sub_f32x16(part_x70, part_x90)
                part_x100 = add_f32x16(part_x34, part_x98)
                part_x101 = sub_f32x16(part_x34, part_x98)
                part_x102 = fma_f32x16(part_x75, factor_x6, part_x74)
                part_x103 = fma_f32x16(part_x74, factor_x7, part_x75)
                part_x104 = fma_f32x16(part_x95, factor_x7, part_x94)
                part_x105 = fma_f32x16(part_x94, factor_x6, part_x95)
                part_x106 = add_f32x16(part_x102, part_x104)
                part_x107 = add_f32x16(part_x103, part_x105)
                part_x108 = sub_f32x16(part_x102, part_x104)
                part_x109 = sub_f32x16(part_x105, part_x103)
                part_x110 = fma_f32x16(part_x106, factor_x8, part_x44)
                part_x111 = fma_f32x16(part_x107, factor_x8, part_x45)
                part_x112 = fma_f32x16(part_x106, factor_x9, part_x44)
                part_x113 = fma_f32x16(part_x107, factor_x9, part_x45)
                part_x114 = fma_f32x16(part_x109, factor_x8, part_x46)
                part_x115 = fma_f32x16(part_x108, factor_x8, part_x47)
                part_x116 = fma_f32x16(part_x109, factor_x9, part_x46)
                part_x117 = fma_f32x16(part_x108, factor_x9, part_x47)
                part_x118 = fma_f32x16(part_x69, factor_x2, part_x63)
                part_x119 = fma_f32x16(part_x63, factor_x3, part_x69)
                part_x120 = fma_f32x16(part_x89, factor_x3, part_x83)
                part_x121 = fma_f32x16(part_x83, factor_x2, part_x89)
                part_x122 = add_f32x16(part_x118, part_x120)
                part_x123 = add_f32x16(part_x119, part_x121)
                part_x124 = sub_f32x16(part_x118, part_x120)
                part_x125 = sub_f32x16(part_x121, part_x119)
                part_x126 = fma_f32x16(part_x122, factor_x4, part_x54)
                part_x127 = fma_f32x16(part_x123, factor_x4, part_x55)
                part_x128 = fma_f32x16(part_x122, factor_x5, part_x54)
                part_x129 = fma_f32x16(part_x123, factor_x5, part_x55)
                part_x130 = fma_f32x16(part_x125, factor_x4, part_x56)
                part_x131 = fma_f32x16(part_x124, factor_x4, part_x57)
                part_x132 = fma_f32x16(part_x125, factor_x5, part_x56)
                part_x133 = fma_f32x16(part_x124, factor_x5, part_x57)
                part_x134 = fma_f32x16(part_x77, factor_x10, part_x76)
                part_x135 = fma_f32x16(part_x76, factor_x11, part_x77)
                part_x136 = fma_f32x16(part_x97, factor_x11, part_x96)
                part_x137 = fma_f32x16(part_x96, factor_x10, part_x97)
                part_x138 = add_f32x16(part_x134, part_x136)
                part_x139 = add_f32x16(part_x135, part_x137)
                part_x140 = sub_f32x16(part_x134, part_x136)
                part_x141 = sub_f32x16(part_x135, part_x137)
                part_x142 = fma_f32x16(part_x138, factor_x12, part_x50)
                part_x143 = fma_f32x16(part_x139, factor_x12, part_x51)
                part_x144 = fma_f32x16(part_x138, factor_x13, part_x50)
                part_x145 = fma_f32x16(part_x139, factor_x13, part_x51)
                part_x146 = fma_f32x16(part_x141, factor_x12, part_x48)
                part_x147 = fma_f32x16(part_x140, factor_x13, part_x49)
                part_x148 = fma_f32x16(part_x141, factor_x13, part_x48)
                part_x149 = fma_f32x16(part_x140, factor_x12, part_x49)
                part_x150 = add_f32x16(part_x71, part_x91)
                part_x151 = sub_f32x16(part_x91, part_x71)
                part_x152 = fma_f32x16(part_x150, factor_x0, part_x13)
                part_x153 = fma_f32x16(part_x151, factor_x1, part_x33)
                part_x154 = fma_f32x16(part_x150, factor_x1, part_x13)
                part_x155 = fma_f32x16(part_x151, factor_x0, part_x33)
                part_x156 = sub_f32x16(part_x110, part_x111)
                part_x157 = sub_f32x16(part_x126, part_x127)
                part_x158 = add_f32x16(part_x142, part_x143)
                part_x159 = sub_f32x16(part_x152, part_x153)
                part_x160 = sub_f32x16(part_x148, part_x149)
                part_x161 = add_f32x16(part_x132, part_x133)
                part_x162 = add_f32x16(part_x116, part_x117)
                part_x163 = sub_f32x16(part_x35, part_x99)
                part_x164 = sub_f32x16(part_x114, part_x115)
                part_x165 = sub_f32x16(part_x130, part_x131)
                part_x166 = add_f32x16(part_x146, part_x147)
                part_x167 = add_f32x16(part_x154, part_x155)
                part_x168 = sub_f32x16(part_x144, part_x145)
                part_x169 = add_f32x16(part_x128, part_x129)
                part_x170 = add_f32x16(part_x112, part_x113)
                x0 = part_x100
                x1 = part_x101
                x2 = part_x156
                x3 = part_x111
                x4 = part_x110
                x5 = part_x157
                x6 = part_x127
                x7 = part_x126
                x8 = part_x158
                x9 = part_x143
                x10 = part_x142
                x11 = part_x159
                x12 = part_x153
                x13 = part_x152
                x14 = part_x160
                x15 = part_x149
                x16 = part_x148
                x17 = part_x161
                x18 = part_x133
                x19 = part_x132
                x20 = part_x162
                x21 = part_x117
                x22 = part_x116
                x23 = part_x163
                x24 = part_x99
                x25 = part_x35
                x26 = part_x164
                x27 = part_x115
                x28 = part_x114
                x29 = part_x165
                x30 = part_x131
                x31 = part_x130
                x32 = part_x166
                x33 = part_x147
                x34 = part_x146
                x35 = part_x167
                x36 = part_x155
                x37 = part_x154
                x38 = part_x168
                x39 = part_x145
                x40 = part_x144
                x41 = part_x169
                x42 = part_x129
                x43 = part_x128
                x44 = part_x170
                x45 = part_x113
                x46 = part_x112
                v_by = tile * 64 + c_block * 16
                store_f32x16(v, v_at0 + v_by, x0)
                store_f32x16(v, v_at1 + v_by, x1)
                store_f32x16(v, v_at2 + v_by, x2)
                store_f32x16(v, v_at3 + v_by, x3)
                store_f32x16(v, v_at4 + v_by, x4)
                store_f32x16(v, v_at5 + v_by, x5)
                store_f32x16(v, v_at6 + v_by, x6)
                store_f32x16(v, v_at7 + v_by, x7)
                store_f32x16(v, v_at8 + v_by, x8)
                store_f32x16(v, v_at9 + v_by, x9)
                store_f32x16(v, v_at10 + v_by, x10)
                store_f32x16(v, v_at11 + v_by, x11)
                store_f32x16(v, v_at12 + v_by, x12)
                store_f32x16(v, v_at13 + v_by, x13)
                store_f32x16(v, v_at14 + v_by, x14)
                store_f32x16(v, v_at15 + v_by, x15)
                store_f32x16(v, v_at16 + v_by, x16)
                store_f32x16(v, v_at17 + v_by, x17)
                store_f32x16(v, v_at18 + v_by, x18)
                store_f32x16(v, v_at19 + v_by, x19)
                store_f32x16(v, v_at20 + v_by, x20)
                store_f32x16(v, v_at21 + v_by, x21)
                store_f32x16(v, v_at22 + v_by, x22)
                store_f32x16(v, v_at23 + v_by, x23)
                store_f32x16(v, v_at24 + v_by, x24)
                store_f32x16(v, v_at25 + v_by, x25)
                store_f32x16(v, v_at26 + v_by, x26)
                store_f32x16(v, v_at27 + v_by, x27)
                store_f32x16(v, v_at28 + v_by, x28)
                store_f32x16(v, v_at29 + v_by, x29)
                store_f32x16(v, v_at30 + v_by, x30)
                store_f32x16(v, v_at31 + v_by, x31)
                store_f32x16(v, v_at32 + v_by, x32)
                store_f32x16(v, v_at33 + v_by, x33)
                store_f32x16(v, v_at34 + v_by, x34)
                store_f32x16(v, v_at35 + v_by, x35)
                store_f32x16(v, v_at36 + v_by, x36)
                store_f32x16(v, v_at37 + v_by, x37)
                store_f32x16(v, v_at38 + v_by, x38)
                store_f32x16(v, v_at39 + v_by, x39)
                store_f32x16(v, v_at40 + v_by, x40)
                store_f32x16(v, v_at41 + v_by, x41)
                store_f32x16(v, v_at42 + v_by, x42)
                store_f32x16(v, v_at43 + v_by, x43)
                store_f32x16(v, v_at44 + v_by, x44)
                store_f32x16(v, v_at45 + v_by, x45)
                store_f32x16(v, v_at46 + v_by, x46)
        for ob in range((OC + 31) // 32):
            for point in range(47):
                for pixels in range((T + 13) // 14):
                    start1 = min(pixels * 14, T - 14)
                    acc0 = splat_f32x32(0.0)
                    acc1 = splat_f32x32(0.0)
                    acc2 = splat_f32x32(0.0)
                    acc3 = acc4 = acc5 = acc6 = acc7 = acc8 = acc9 = acc10 = acc11 = acc12 = acc13 = splat_f32x32(0.0)
                    for c in range(64):
                        v_by = point * (T * 64 + 16) + (start1 * 64 + c)
                        u_here = load_f32x32(u, ((point * ((OC + 31) // 32) + ob) * 64 + c) * 32)
                        acc0 = fma_f32x32(splat_f32x32(load_f32(v, v_at0 + v_by)), u_here, acc0)
                        acc1 = fma_f32x32(splat_f32x32(load_f32(v, v_at47 + v_by)), u_here, acc1)
                        acc2 = fma_f32x32(splat_f32x32(load_f32(v, v_at48 + v_by)), u_here, acc2)
                        acc3 = fma_f32x32(splat_f32x32(load_f32(v, v_at49 + v_by)), u_here, acc3)
                        acc4 = fma_f32x32(splat_f32x32(load_f32(v, v_at50 + v_by)), u_here, acc4)
                        acc5 = fma_f32x32(splat_f32x32(load_f32(v, v_at51 + v_by)), u_here, acc5)
                        acc6 = fma_f32x32(splat_f32x32(load_f32(v, v_at52 + v_by)), u_here, acc6)
                        acc7 = fma_f32x32(splat_f32x32(load_f32(v, v_at53 + v_by)), u_here, acc7)
                        acc8 = fma_f32x32(splat_f32x32(load_f32(v, v_at54 + v_by)), u_here, acc8)
                        acc9 = fma_f32x32(splat_f32x32(load_f32(v, v_at55 + v_by)), u_here, acc9)
                        acc10 = fma_f32x32(splat_f32x32(load_f32(v, v_at56 + v_by)), u_here, acc10)
                        acc11 = fma_f32x32(splat_f32x32(load_f32(v, v_at57 + v_by)), u_here, acc11)
                        acc12 = fma_f32x32(splat_f32x32(load_f32(v, v_at58 + v_by)), u_here, acc12)
                        acc13 = fma_f32x32(splat_f32x32(load_f32(v, v_at59 + v_by)), u_here, acc13)
                    m_by = point * (T * 32 + 16) + start1 * 32
                    store_f32x32(m, m_at0 + m_by, acc0)
                    store_f32x32(m, m_at1 + m_by, acc1)
                    store_f32x32(m, m_at2 + m_by, acc2)
                    store_f32x32(m, m_at3 + m_by, acc3)
                    store_f32x32(m, m_at4 + m_by, acc4)
                    store_f32x32(m, m_at5 + m_by, acc5)
                    store_f32x32(m, m_at6 + m_by, acc6)
                    store_f32x32(m, m_at7 + m_by, acc7)
                    store_f32x32(m, m_at8 + m_by, acc8)
                    store_f32x32(m, m_at9 + m_by, acc9)
                    store_f32x32(m, m_at10 + m_by, acc10)
                    store_f32x32(m, m_at11 + m_by, acc11)
                    store_f32x32(m, m_at12 + m_by, acc12)
                    store_f32x32(m, m_at13 + m_by, acc13)
            for tile in range(T):
                row1 = (start + tile) // row
                col = start + tile - row1 * row
                for y_block in range(2):
                    m_by = tile * 32 + y_block * 16
                    y0 = load_f32x16(m, m_at0 + m_by)
                    y1 = load_f32x16(m, m_at14 + m_by)
                    y2 = load_f32x16(m, m_at15 + m_by)
                    y3 = load_f32x16(m, m_at16 + m_by)
                    y4 = load_f32x16(m, m_at17 + m_by)
                    y5 = load_f32x16(m, m_at18 + m_by)
                    y6 = load_f32x16(m, m_at19 + m_by)
                    y7 = load_f32x16(m, m_at20 + m_by)
                    y8 = load_f32x16(m, m_at21 + m_by)
                    y9 = load_f32x16(m, m_at22 + m_by)
                    y10 = load_f32x16(m, m_at23 + m_by)
                    y11 = load_f32x16(m, m_at24 + m_by)
                    y12 = load_f32x16(m, m_at25 + m_by)
                    y13 = load_f32x16(m, m_at26 + m_by)
                    y14 = load_f32x16(m, m_at27 + m_by)
                    y15 = load_f32x16(m, m_at28 + m_by)
                    y16 = load_f32x16(m, m_at29 + m_by)
                    y17 = load_f32x16(m, m_at30 + m_by)
                    y18 = load_f32x16(m, m_at31 + m_by)
                    y19 = load_f32x16(m, m_at32 + m_by)
                    y20 = load_f32x16(m, m_at33 + m_by)
                    y21 = load_f32x16(m, m_at34 + m_by)
                    y22 = load_f32x16(m, m_at35 + m_by)
                    y23 = load_f32x16(m, m_at36 + m_by)
                    y24 = load_f32x16(m, m_at37 + m_by)
                    y25 = load_f32x16(m, m_at38 + m_by)
                    y26 = load_f32x16(m, m_at39 + m_by)
                    y27 = load_f32x16(m, m_at40 + m_by)
                    y28 = load_f32x16(m, m_at41 + m_by)
                    y29 = load_f32x16(m, m_at42 + m_by)
                    y30 = load_f32x16(m, m_at43 + m_by)
                    y31 = load_f32x16(m, m_at44 + m_by)
                    y32 = load_f32x16(m, m_at45 + m_by)
                    y33 = load_f32x16(m, m_at46 + m_by)
                    y34 = load_f32x16(m, m_at47 + m_by)
                    y35 = load_f32x16(m, m_at48 + m_by)
                    y36 = load_f32x16(m, m_at49 + m_by)
                    y37 = load_f32x16(m, m_at50 + m_by)
                    y38 = load_f32x16(m, m_at51 + m_by)
                    y39 = load_f32x16(m, m_at52 + m_by)
                    y40 = load_f32x16(m, m_at53 + m_by)
                    y41 = load_f32x16(m, m_at54 + m_by)
                    y42 = load_f32x16(m, m_at55 + m_by)
                    y43 = load_f32x16(m, m_at56 + m_by)
                    y44 = load_f32x16(m, m_at57 + m_by)
                    y45 = load_f32x16(m, m_at58 + m_by)
                    y46 = load_f32x16(m, m_at59 + m_by)
                    # output transform of FFT(32,9)
                    factor_y0 = splat_f32x16(0.6681786379192989)
                    factor_y1 = splat_f32x16(-0.6681786379192989)
                    factor_y2 = splat_f32x16(0.4142135623730951)
                    factor_y3 = splat_f32x16(-0.4142135623730951)
                    factor_y4 = splat_f32x16(-0.19891236737965798)
                    factor_y5 = splat_f32x16(0.19891236737965798)
                    factor_y6 = splat_f32x16(-0.8477590650225736)
                    factor_y7 = splat_f32x16(0.8477590650225735)
                    factor_y8 = splat_f32x16(0.7071067811865476)
                    factor_y9 = splat_f32x16(-0.7071067811865476)
                    factor_y10 = splat_f32x16(-0.7506605550357306)
                    factor_y11 = splat_f32x16(-0.9238795325112867)
                    factor_y12 = splat_f32x16(0.9238795325112867)
                    factor_y13 = splat_f32x16(0.6935199226610738)
                    factor_y14 = splat_f32x16(-0.6935199226610738)
                    factor_y15 = splat_f32x16(0.9419794025981426)
                    factor_y16 = splat_f32x16(0.9807852804032304)
                    factor_y17 = splat_f32x16(-0.9807852804032304)
                    factor_y18 = splat_f32x16(-0.9419794025981426)
                    factor_y19 = splat_f32x16(0.7653668647301796)
                    factor_y20 = splat_f32x16(-0.7653668647301796)
                    part_y0 = add_f32x16(y44, y45)
                    part_y1 = add_f32x16(y44, y46)
                    part_y2 = add_f32x16(y41, y42)
                    part_y3 = add_f32x16(y41, y43)
                    part_y4 = add_f32x16(y38, y39)
                    part_y5 = sub_f32x16(y40, y38)
                    part_y6 = add_f32x16(y35, y36)
                    part_y7 = add_f32x16(y35, y37)
                    part_y8 = add_f32x16(y32, y33)
                    part_y9 = add_f32x16(y32, y34)
                    part_y10 = add_f32x16(y29, y30)
                    part_y11 = sub_f32x16(y31, y29)
                    part_y12 = add_f32x16(y26, y27)
                    part_y13 = sub_f32x16(y28, y26)
                    part_y14 = add_f32x16(y23, y24)
                    part_y15 = sub_f32x16(y25, y23)
                    part_y16 = add_f32x16(y20, y21)
                    part_y17 = add_f32x16(y20, y22)
                    part_y18 = add_f32x16(y17, y18)
                    part_y19 = add_f32x16(y17, y19)
                    part_y20 = add_f32x16(y14, y15)
                    part_y21 = sub_f32x16(y16, y14)
                    part_y22 = add_f32x16(y11, y12)
                    part_y23 = sub_f32x16(y13, y11)
                    part_y24 = add_f32x16(y8, y9)
                    part_y25 = add_f32x16(y8, y10)
                    part_y26 = add_f32x16(y5, y6)
                    part_y27 = sub_f32x16(y7, y5)
                    part_y28 = add_f32x16(y2, y3)
                    part_y29 = sub_f32x16(y4, y2)
                    part_y30 = sub_f32x16(part_y7, part_y23)
                    part_y31 = add_f32x16(part_y7, part_y23)
                    part_y32 = sub_f32x16(part_y22, part_y6)
                    part_y33 = add_f32x16(part_y6, part_y22)
                    part_y34 = sub_f32x16(part_y32, part_y30)
                    part_y35 = add_f32x16(part_y30, part_y32)
                    part_y36 = sub_f32x16(part_y21, part_y9)
                    part_y37 = add_f32x16(part_y9, part_y21)
                    part_y38 = sub_f32x16(part_y8, part_y20)
                    part_y39 = add_f32x16(part_y8, part_y20)
                    part_y40 = sub_f32x16(part_y25, part_y5)
                    part_y41 = add_f32x16(part_y5, part_y25)
                    part_y42 = sub_f32x16(part_y24, part_y4)
                    part_y43 = add_f32x16(part_y4, part_y24)
                    part_y44 = add_f32x16(part_y38, part_y40)
                    part_y45 = sub_f32x16(part_y40, part_y38)
                    part_y46 = add_f32x16(part_y36, part_y42)
                    part_y47 = sub_f32x16(part_y36, part_y42)
                    part_y48 = fma_f32x16(part_y47, factor_y0, part_y45)
                    part_y49 = fma_f32x16(part_y45, factor_y1, part_y47)
                    part_y50 = fma_f32x16(part_y46, factor_y0, part_y44)
                    part_y51 = fma_f32x16(part_y44, factor_y1, part_y46)
                    part_y52 = sub_f32x16(part_y11, part_y19)
                    part_y53 = add_f32x16(part_y11, part_y19)
                    part_y54 = sub_f32x16(part_y10, part_y18)
                    part_y55 = add_f32x16(part_y10, part_y18)
                    part_y56 = sub_f32x16(part_y27, part_y3)
                    part_y57 = add_f32x16(part_y3, part_y27)
                    part_y58 = sub_f32x16(part_y26, part_y2)
                    part_y59 = add_f32x16(part_y2, part_y26)
                    part_y60 = sub_f32x16(part_y56, part_y54)
                    part_y61 = add_f32x16(part_y54, part_y56)
                    part_y62 = add_f32x16(part_y52, part_y58)
                    part_y63 = sub_f32x16(part_y58, part_y52)
                    part_y64 = fma_f32x16(part_y63, factor_y2, part_y61)
                    part_y65 = fma_f32x16(part_y61, factor_y3, part_y63)
                    part_y66 = fma_f32x16(part_y62, factor_y3, part_y60)
                    part_y67 = fma_f32x16(part_y60, factor_y2, part_y62)
                    part_y68 = sub_f32x16(part_y13, part_y17)
                    part_y69 = add_f32x16(part_y13, part_y17)
                    part_y70 = sub_f32x16(part_y12, part_y16)
                    part_y71 = add_f32x16(part_y12, part_y16)
                    part_y72 = sub_f32x16(part_y29, part_y1)
                    part_y73 = add_f32x16(part_y1, part_y29)
                    part_y74 = sub_f32x16(part_y28, part_y0)
                    part_y75 = add_f32x16(part_y0, part_y28)
                    part_y76 = sub_f32x16(part_y72, part_y70)
                    part_y77 = add_f32x16(part_y70, part_y72)
                    part_y78 = add_f32x16(part_y68, part_y74)
                    part_y79 = sub_f32x16(part_y68, part_y74)
                    part_y80 = fma_f32x16(part_y79, factor_y4, part_y77)
                    part_y81 = fma_f32x16(part_y77, factor_y5, part_y79)
                    part_y82 = fma_f32x16(part_y78, factor_y4, part_y76)
                    part_y83 = fma_f32x16(part_y76, factor_y5, part_y78)
                    part_y84 = add_f32x16(y0, y1)
                    part_y85 = sub_f32x16(y0, y1)
                    part_y86 = add_f32x16(part_y15, part_y85)
                    part_y87 = sub_f32x16(part_y85, part_y15)
                    part_y88 = fma_f32x16(part_y48, factor_y6, part_y80)
                    part_y89 = fma_f32x16(part_y48, factor_y7, part_y80)
                    part_y90 = fma_f32x16(part_y49, factor_y6, part_y81)
                    part_y91 = fma_f32x16(part_y49, factor_y7, part_y81)
                    part_y92 = sub_f32x16(part_y88, part_y90)
                    part_y93 = add_f32x16(part_y88, part_y90)
                    part_y94 = fma_f32x16(part_y35, factor_y8, part_y87)
                    part_y95 = fma_f32x16(part_y35, factor_y9, part_y87)
                    part_y96 = fma_f32x16(part_y93, factor_y10, part_y64)
                    part_y97 = fma_f32x16(part_y96, factor_y11, part_y95)
                    part_y98 = fma_f32x16(part_y64, factor_y12, part_y95)
                    part_y99 = fma_f32x16(part_y92, factor_y13, part_y98)
                    part_y100 = fma_f32x16(part_y92, factor_y14, part_y98)
                    part_y101 = fma_f32x16(part_y65, factor_y15, part_y91)
                    part_y102 = fma_f32x16(part_y101, factor_y16, part_y94)
                    part_y103 = fma_f32x16(part_y65, factor_y11, part_y94)
                    part_y104 = fma_f32x16(part_y89, factor_y16, part_y103)
                    part_y105 = fma_f32x16(part_y89, factor_y17, part_y103)
                    part_y106 = fma_f32x16(part_y50, factor_y6, part_y82)
                    part_y107 = fma_f32x16(part_y50, factor_y7, part_y82)
                    part_y108 = fma_f32x16(part_y51, factor_y6, part_y83)
                    part_y109 = fma_f32x16(part_y51, factor_y7, part_y83)
                    part_y110 = add_f32x16(part_y106, part_y108)
                    part_y111 = sub_f32x16(part_y106, part_y108)
                    part_y112 = fma_f32x16(part_y34, factor_y8, part_y86)
                    part_y113 = fma_f32x16(part_y34, factor_y9, part_y86)
                    part_y114 = fma_f32x16(part_y111, factor_y10, part_y66)
                    part_y115 = fma_f32x16(part_y114, factor_y11, part_y113)
                    part_y116 = fma_f32x16(part_y66, factor_y12, part_y113)
                    part_y117 = fma_f32x16(part_y110, factor_y13, part_y116)
                    part_y118 = fma_f32x16(part_y110, factor_y14, part_y116)
                    part_y119 = fma_f32x16(part_y67, factor_y18, part_y107)
                    part_y120 = fma_f32x16(part_y119, factor_y16, part_y112)
                    part_y121 = fma_f32x16(part_y67, factor_y12, part_y112)
                    part_y122 = fma_f32x16(part_y109, factor_y16, part_y121)
                    part_y123 = fma_f32x16(part_y109, factor_y17, part_y121)
                    part_y124 = sub_f32x16(part_y53, part_y57)
                    part_y125 = add_f32x16(part_y53, part_y57)
                    part_y126 = sub_f32x16(part_y59, part_y55)
                    part_y127 = add_f32x16(part_y55, part_y59)
                    part_y128 = sub_f32x16(part_y126, part_y124)
                    part_y129 = add_f32x16(part_y124, part_y126)
                    part_y130 = sub_f32x16(part_y37, part_y41)
                    part_y131 = add_f32x16(part_y37, part_y41)
                    part_y132 = sub_f32x16(part_y39, part_y43)
                    part_y133 = add_f32x16(part_y39, part_y43)
                    part_y134 = sub_f32x16(part_y73, part_y69)
                    part_y135 = add_f32x16(part_y69, part_y73)
                    part_y136 = sub_f32x16(part_y75, part_y71)
                    part_y137 = add_f32x16(part_y71, part_y75)
                    part_y138 = sub_f32x16(part_y134, part_y132)
                    part_y139 = add_f32x16(part_y132, part_y134)
                    part_y140 = add_f32x16(part_y130, part_y136)
                    part_y141 = sub_f32x16(part_y130, part_y136)
                    part_y142 = fma_f32x16(part_y141, factor_y3, part_y139)
                    part_y143 = fma_f32x16(part_y139, factor_y2, part_y141)
                    part_y144 = fma_f32x16(part_y140, factor_y3, part_y138)
                    part_y145 = fma_f32x16(part_y138, factor_y2, part_y140)
                    part_y146 = add_f32x16(part_y14, part_y84)
                    part_y147 = sub_f32x16(part_y84, part_y14)
                    part_y148 = add_f32x16(part_y31, part_y147)
                    part_y149 = sub_f32x16(part_y147, part_y31)
                    part_y150 = fma_f32x16(part_y129, factor_y19, part_y143)
                    part_y151 = fma_f32x16(part_y150, factor_y12, part_y149)
                    part_y152 = fma_f32x16(part_y129, factor_y9, part_y149)
                    part_y153 = fma_f32x16(part_y142, factor_y12, part_y152)
                    part_y154 = fma_f32x16(part_y142, factor_y11, part_y152)
                    part_y155 = fma_f32x16(part_y128, factor_y20, part_y144)
                    part_y156 = fma_f32x16(part_y155, factor_y12, part_y148)
                    part_y157 = fma_f32x16(part_y128, factor_y8, part_y148)
                    part_y158 = fma_f32x16(part_y145, factor_y12, part_y157)
                    part_y159 = fma_f32x16(part_y145, factor_y11, part_y157)
                    part_y160 = sub_f32x16(part_y135, part_y131)
                    part_y161 = add_f32x16(part_y131, part_y135)
                    part_y162 = sub_f32x16(part_y137, part_y133)
                    part_y163 = add_f32x16(part_y133, part_y137)
                    part_y164 = add_f32x16(part_y160, part_y162)
                    part_y165 = sub_f32x16(part_y160, part_y162)
                    part_y166 = add_f32x16(part_y33, part_y146)
                    part_y167 = sub_f32x16(part_y146, part_y33)
                    part_y168 = fma_f32x16(part_y165, factor_y9, part_y125)
                    part_y169 = sub_f32x16(part_y167, part_y168)
                    part_y170 = add_f32x16(part_y125, part_y167)
                    part_y171 = fma_f32x16(part_y164, factor_y8, part_y170)
                    part_y172 = fma_f32x16(part_y164, factor_y9, part_y170)
                    part_y173 = sub_f32x16(part_y161, part_y127)
                    part_y174 = add_f32x16(part_y166, part_y173)
                    part_y175 = add_f32x16(part_y127, part_y166)
                    part_y176 = add_f32x16(part_y163, part_y175)
                    part_y177 = sub_f32x16(part_y175, part_y163)
                    y0 = part_y176
                    y1 = part_y122
                    y2 = part_y158
                    y3 = part_y99
                    y4 = part_y171
                    y5 = part_y117
                    y6 = part_y153
                    y7 = part_y104
                    y8 = part_y174
                    y9 = part_y120
                    y10 = part_y156
                    y11 = part_y97
                    y12 = part_y169
                    y13 = part_y115
                    y14 = part_y151
                    y15 = part_y102
                    y16 = part_y177
                    y17 = part_y123
                    y18 = part_y159
                    y19 = part_y100
                    y20 = part_y172
                    y21 = part_y118
                    y22 = part_y154
                    y23 = part_y105
                    if col * 24 < OW:
                        store_some_f32x16(output, (row1 * OW + col * 24) * OC + (ob * 32 + y_block * 16), y0, OC - ob * 32 - y_block * 16)
                    if col * 24 + 1 < OW:
                        store_some_f32x16(output, (row1 * OW + col * 24) * OC + (ob * 32 + y_block * 16) + OC, y1, OC - ob * 32 - y_block * 16)
                    if col * 24 + 2 < OW:
                        store_some_f32x16(output, (row1 * OW + col * 24) * OC + (ob * 32 + y_block * 16) + OC * 2, y2, OC - ob * 32 - y_block * 16)
                    if col * 24 + 3 < OW:
                        store_some_f32x16(output, (row1 * OW + col * 24) * OC + (ob * 32 + y_block * 16) + OC * 3, y3, OC - ob * 32 - y_block * 16)
                    if col * 24 + 4 < OW:
                        store_some_f32x16(output, (row1 * OW + col * 24) * OC + (ob * 32 + y_block * 16) + OC * 4, y4, OC - ob * 32 - y_block * 16)
                    if col * 24 + 5 < OW:
                        store_some_f32x16(output, (row1 * OW + col * 24) * OC + (ob * 32 + y_block * 16) + OC * 5, y5, OC - ob * 32 - y_block * 16)
                    if col * 24 + 6 < OW:
                        store_some_f32x16(output, (row1 * OW + col * 24) * OC + (ob * 32 + y_block * 16) + OC * 6, y6, OC - ob * 32 - y_block * 16)
                    if col * 24 + 7 < OW:
                        store_some_f32x16(output, (row1 * OW + col * 24) * OC + (ob * 32 + y_block * 16) + OC * 7, y7, OC - ob * 32 - y_block * 16)
                    if col * 24 + 8 < OW:
                        store_some_f32x16(output, (row1 * OW + col * 24) * OC + (ob * 32 + y_block * 16) + OC * 8, y8, OC - ob * 32 - y_block * 16)
                    if col * 24 + 9 < OW:
                        store_some_f32x16(output, (row1 * OW + col * 24) * OC + (ob * 32 + y_block * 16) + OC * 9, y9, OC - ob * 32 - y_block * 16)
                    if col * 24 + 10 < OW:
                        store_some_f32x16(output, (row1 * OW + col * 24) * OC + (ob * 32 + y_block * 16) + OC * 10, y10, OC - ob * 32 - y_block * 16)
                    if col * 24 + 11 < OW:
                        store_some_f32x16(output, (row1 * OW + col * 24) * OC + (ob * 32 + y_block * 16) + OC * 11, y11, OC - ob * 32 - y_block * 16)
                    if col * 24 + 12 < OW:
                        store_some_f32x16(output, (row1 * OW + col * 24) * OC + (ob * 32 + y_block * 16) + OC * 12, y12, OC - ob * 32 - y_block * 16)
                    if col * 24 + 13 < OW:
                        store_some_f32x16(output, (row1 * OW + col * 24) * OC + (ob * 32 + y_block * 16) + OC * 13, y13, OC - ob * 32 - y_block * 16)
                    if col * 24 + 14 < OW:
                        store_some_f32x16(output, (row1 * OW + col * 24) * OC + (ob * 32 + y_block * 16) + OC * 14, y14, OC - ob * 32 - y_block * 16)
                    if col * 24 + 15 < OW:
                        store_some_f32x16(output, (row1 * OW + col * 24) * OC + (ob * 32 + y_block * 16) + OC * 15, y15, OC - ob * 32 - y_block * 16)
                    if col * 24 + 16 < OW:
                        store_some_f32x16(output, (row1 * OW + col * 24) * OC + (ob * 32 + y_block * 16) + OC * 16, y16, OC - ob * 32 - y_block * 16)
                    if col * 24 + 17 < OW:
                        store_some_f32x16(output, (row1 * OW + col * 24) * OC + (ob * 32 + y_block * 16) + OC * 17, y17, OC - ob * 32 - y_block * 16)
                    if col * 24 + 18 < OW:
                        store_some_f32x16(output, (row1 * OW + col * 24) * OC + (ob * 32 + y_block * 16) + OC * 18, y18, OC - ob * 32 - y_block * 16)
                    if col * 24 + 19 < OW:
                        store_some_f32x16(output, (row1 * OW + col * 24) * OC + (ob * 32 + y_block * 16) + OC * 19, y19, OC - ob * 32 - y_block * 16)
                    if col * 24 + 20 < OW:
                        store_some_f32x16(output, (row1 * OW + col * 24) * OC + (ob * 32 + y_block * 16) + OC * 20, y20, OC - ob * 32 - y_block * 16)
                    if col * 24 + 21 < OW:
                        store_some_f32x16(output, (row1 * OW + col * 24) * OC + (ob * 32 + y_block * 16) + OC * 21, y21, OC - ob * 32 - y_block * 16)
                    if col * 24 + 22 < OW:
                        store_some_f32x16(output, (row1 * OW + col * 24) * OC + (ob * 32 + y_block * 16) + OC * 22, y22, OC - ob * 32 - y_block * 16)
                    if col * 24 + 23 < OW:
                        store_some_f32x16(output, (row1 * OW + col * 24) * OC + (ob * 32 + y_block * 16) + OC * 23, y23, OC - ob * 32 - y_block * 16)

# ---- the whole problem on one thread
def run(input, weight):
    input = np.ascontiguousarray(input, np.float32).reshape((1, 1000, 64))
    weight = np.ascontiguousarray(weight, np.float32).reshape((64, 64, 9))
    output = np.empty((1, 992, 64), np.float32)
    u, v, m = (np.empty(size, np.uint8) for size in [770048, 171456, 87232])
    buffers = np.array([array.ctypes.data for array in (input, weight, output, u, v, m)])
    transform_weight(buffers, np.array([64], np.int64), 0, 128, 0)
    conv(buffers, np.array([1, 1000, 992, 64, 14, 258688], np.int64), 0, 3, 0)
    return output
