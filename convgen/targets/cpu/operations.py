"""The vector operations that a kernel uses, and how each is spelled in LLVM.

An operation is named after what it does and what it does it to: ``load_f32x64`` reads 64 consecutive float32. Narrow storage
types have loads and stores of their own (``load_f16_f32x64``); everything else happens in the type that sums are kept in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from convgen.dtypes import DTYPES
from convgen.ir.nodes import Function
from convgen.targets.cpu.tiles import TILE_KINDS, tile_text

_SHORT = {
    "float32": "f32",
    "float64": "f64",
    "float16": "f16",
    "bfloat16": "bf16",
    "int32": "i32",
    "int8": "i8",
    "uint8": "u8",
    "bits16": "b16",
}
_ELEMENT = {
    "float32": "ir.FloatType()",
    "float64": "ir.DoubleType()",
    "float16": "ir.HalfType()",
    "bfloat16": "ir.IntType(16)",
    "int32": "ir.IntType(32)",
    "int8": "ir.IntType(8)",
    "uint8": "ir.IntType(8)",
    "bits16": "ir.IntType(16)",
}
# Two bytes that are moved as they are.
BITS_DTYPE = "bits16"
# What several terms of a dot product, an accumulator's bytes of them, are kept as.
TERMS_DTYPE = "int32"
# LLVM's instructions that add products of terms of these types, by the bits of a vector, and the elements of their operands.
_DOTS = {
    "bfloat16": ("llvm.x86.avx512bf16.dpbf16ps", "bfloat", 2),
    "uint8": ("llvm.x86.avx512.vpdpbusd", "ir.IntType(8)", 4),
}
_FLOAT_METHODS = {"add": "fadd", "sub": "fsub", "mul": "fmul", "div": "fdiv"}
_INT_METHODS = {"add": "add", "sub": "sub", "mul": "mul", "div": "sdiv"}
_FLOAT_CALLS = {"min": "llvm.minimum", "max": "llvm.maximum"}
_INT_CALLS = {"min": "llvm.smin", "max": "llvm.smax"}
# Operations that store some lanes of a vector.
PARTIAL_STORES = frozenset({"store_some", "store_flushed_some"})
# Operations for which nothing is rounded or widened.
_AS_STORED = TILE_KINDS | {
    "dot",
    "interleave",
    "load_terms",
    "place",
    "prefetch",
    "store_terms",
    "transpose",
    "transpose_some",
}
_FUNCTIONS = frozenset(get_args(Function))


@dataclass(frozen=True, order=True)
class Operation:
    """One operation on ``lanes`` elements computed as ``dtype`` and, for loads and stores, kept as ``storage``.

    ``pattern`` says which lanes a spread takes: how many there are, and a Spread's repeat, step and first; of a dot product, how
    many lanes the processor's instruction has; of an operation on tiles, see targets/cpu/tiles.py. ``by_bits``: float16 is
    converted by operations on integers, for a processor without instructions that do. ``branches``: whether all lanes are there
    is asked first, for a processor that takes long to leave some out.
    """

    kind: str
    dtype: str
    lanes: int
    storage: str = ""
    pattern: tuple[int, ...] = ()
    by_bits: bool = False
    branches: bool = False

    @property
    def name(self) -> str:
        """The function's name in the generated source."""
        if self.kind in TILE_KINDS:
            return "_".join((self.kind, *((_SHORT[self.storage],) if self.storage else ()), *map(str, self.pattern)))
        stored = f"{_SHORT[self.storage]}_" if self.storage not in ("", self.dtype) else ""
        return "_".join((f"{self.kind}_{stored}{type_name(self.dtype, self.lanes)}", *map(str, self.pattern)))


@dataclass(frozen=True)
class VectorText:
    """A vector type as the template writes it."""

    name: str
    element: str
    lanes: int


@dataclass(frozen=True)
class OperationText:
    """An operation as the template writes it: its name, result, operands and the lambda that emits it."""

    name: str
    result: str
    operands: str
    emit: str


def type_name(dtype: str, lanes: int) -> str:
    """f32 or f32x64: the name of a scalar or vector type in the generated source."""
    return _SHORT[dtype] if lanes == 1 else f"{_SHORT[dtype]}x{lanes}"


def vector_texts(operations: tuple[Operation, ...]) -> tuple[VectorText, ...]:
    """The vector types of the operations."""
    computed = [op for op in operations if op.lanes > 1 and not op.kind.startswith("transpose")]
    kinds = sorted(
        {(op.dtype, op.lanes) for op in computed} | {(op.storage, op.lanes) for op in computed if op.kind == "convert"}
    )
    return tuple(VectorText(type_name(dtype, lanes), _ELEMENT[dtype], lanes) for dtype, lanes in kinds)


def needed_functions(operations: tuple[Operation, ...]) -> frozenset[str]:
    """The functions of the prelude that the operations call."""
    kinds = {op.kind for op in operations}
    needed: set[str] = set()
    if kinds & ({"load_some", "load_some_if"} | PARTIAL_STORES):
        needed |= {"mask", "splat", "call"}
    if kinds & {"load_if", "load_some_if"}:
        needed.add("place_if")
    if "splat" in kinds:
        needed.add("splat")
    if "sum" in kinds:
        needed.add("sum")
    if "spread" in kinds:
        needed.add("spread")
    if "interleave" in kinds:
        needed.add("interleave")
    if "place" in kinds:
        needed.add("hold")
    if "prefetch" in kinds:
        needed |= {"prefetch", "call"}
    if any(op.dtype == BITS_DTYPE for op in operations):
        needed.add("bits")
    if any(op.storage == "bfloat16" and (op.kind == "dot" or op.kind.startswith("store_flushed")) for op in operations):
        needed.add("bfloat")
    if "dot" in kinds:
        needed |= {"dot", "call"}
    if kinds & {"fma", "min", "max", "convert"}:
        needed.add("call")
    if kinds & TILE_KINDS:
        needed |= {"tiles", "call"}
    if any(kind.startswith("emulated") for kind in kinds):
        needed.add("emulated_tiles")
    if functions := kinds & _FUNCTIONS:
        needed |= {"functions", "call", "splat", *functions}
        needed |= {_SHORT[op.dtype] for op in operations if op.kind in functions}
    if "transpose" in kinds:
        needed.add("transpose")
    if "transpose_some" in kinds:
        needed |= {"transpose", "transpose_some", "mask", "splat", "call"}
    if any(op.storage == "bfloat16" and op.kind not in _AS_STORED for op in operations):
        needed |= {"bfloat16", "splat"}
    if any(op.branches for op in operations):
        needed.add("store_some")
    if any(op.by_bits for op in operations):
        needed |= {"float16", "splat"}
    return frozenset(needed)


def operation_text(op: Operation) -> OperationText:
    """How the template writes the operation."""
    if op.kind in TILE_KINDS:
        return OperationText(op.name, *tile_text(op.kind, op.storage, op.pattern))
    kind = type_name(op.dtype, op.lanes)
    match op.kind:
        case "load":
            return OperationText(op.name, kind, "i64, i64", f"lambda b, base, i: {_load(op)}")
        case "load_if":
            return OperationText(op.name, kind, "i64, i64, types.boolean", f"lambda b, base, i, c: {_load_if(op)}")
        case "load_some":
            return OperationText(op.name, kind, "i64, i64, i64", f"lambda b, base, i, n: {_load_some(op)}")
        case "load_some_if":
            operands = "i64, i64, i64, types.boolean"
            return OperationText(op.name, kind, operands, f"lambda b, base, i, n, c: {_load_some_if(op)}")
        case "store" | "store_flushed":
            return OperationText(op.name, "types.void", f"i64, i64, {kind}", f"lambda b, base, i, x: {_store(op)}")
        case "store_some" | "store_flushed_some":
            emit = f"lambda b, base, i, x, n: {_store_some(op)}"
            return OperationText(op.name, "types.void", f"i64, i64, {kind}, i64", emit)
        case "store_terms":
            size = _size(op.storage)
            emit = (
                f"lambda b, base, i, x: b.store(x, at(b, base, i, {_llvm(op.dtype, op.lanes)}, {size}), align={size})"
            )
            return OperationText(op.name, "types.void", f"i64, i64, {kind}", emit)
        case "splat":
            scalar = type_name(op.dtype, 1)
            return OperationText(op.name, kind, f"{scalar},", f"lambda b, x: splat(b, x, {kind}.llvm)")
        case "spread":
            count, repeat, step, first = op.pattern
            emit = f"lambda b, x: spread(b, x, [{first} + i // {repeat} * {step} for i in range({op.lanes})])"
            return OperationText(op.name, kind, f"{type_name(op.dtype, count)},", emit)
        case "interleave":
            part = type_name(op.storage, op.lanes)
            return OperationText(op.name, kind, f"{part}, {part}", f"lambda b, x, y: interleave(b, x, y, {kind}.llvm)")
        case "sum":
            add = (_FLOAT_METHODS if _is_float(op.dtype) else _INT_METHODS)["add"]
            return OperationText(op.name, type_name(op.dtype, 1), f"{kind},", f"lambda b, x: lane_sum(b, x, b.{add})")
        case "dot":
            terms = type_name(TERMS_DTYPE, op.lanes)
            return OperationText(op.name, kind, f"{terms}, {terms}, {kind}", f"lambda b, x, y, z: {_dot(op)}")
        case "load_terms":
            place = f"at(b, base, i, {_llvm(op.dtype, op.lanes)}, {_size(op.storage)})"
            emit = f"lambda b, base, i: b.load({place}, align={_size(op.storage)})"
            return OperationText(op.name, kind, "i64, i64", emit)
        case "fma":
            return OperationText(op.name, kind, f"{kind}, {kind}, {kind}", f"lambda b, x, y, z: {_fma(op)}")
        case "where":
            zero = f"{_llvm(op.dtype, op.lanes)}(None)"
            test = f'b.fcmp_ordered("<", t, {zero})' if _is_float(op.dtype) else f'b.icmp_signed("<", t, {zero})'
            emit = f"lambda b, t, x, y: b.select({test}, x, y)"
            return OperationText(op.name, kind, f"{kind}, {kind}, {kind}", emit)
        case "convert":
            given = type_name(op.storage, op.lanes)
            return OperationText(op.name, kind, f"{given},", f"lambda b, x: {_convert(op)}")
        case "exp" | "tanh" | "erf":
            return OperationText(op.name, kind, f"{kind},", f"lambda b, x: {op.kind}(b, x)")
        case "min" | "max":
            return OperationText(op.name, kind, f"{kind}, {kind}", f"lambda b, x, y: {_call(op, 'x, y')}")
        case "transpose" | "transpose_some":
            return _transpose(op)
        case "place":
            size = _size(op.storage)
            return OperationText(op.name, "i64", "i64, i64", f"lambda b, base, i: hold(b, base, i, {size})")
        case "prefetch":
            size = _size(op.storage)
            emit = f"lambda b, base, i: prefetch(b, base, i, {size}, {op.lanes * size})"
            return OperationText(op.name, "types.void", "i64, i64", emit)
        case _:
            method = (_FLOAT_METHODS if _is_float(op.dtype) else _INT_METHODS)[op.kind]
            return OperationText(op.name, kind, f"{kind}, {kind}", f"lambda b, x, y: b.{method}(x, y)")


def _is_float(dtype: str) -> bool:
    return "float" in dtype


def _llvm(dtype: str, lanes: int) -> str:
    """The LLVM type of what is stored; types that are computed in have a name."""
    if lanes == 1:
        return _ELEMENT[dtype]
    named = dtype == BITS_DTYPE or DTYPES[dtype].accumulator == dtype
    return f"{type_name(dtype, lanes)}.llvm" if named else f"ir.VectorType({_ELEMENT[dtype]}, {lanes})"


def _size(storage: str) -> int:
    """The bytes of an element in memory."""
    return 2 if storage == BITS_DTYPE else DTYPES[storage].itemsize


def _bits(lanes: int, bits: int = 32) -> str:
    return f"ir.IntType({bits})" if lanes == 1 else f"ir.VectorType(ir.IntType({bits}), {lanes})"


def _suffix(dtype: str, lanes: int) -> str:
    """f32 or v64f32: how LLVM tells its overloaded intrinsics apart."""
    element = {"bfloat16": "i16", BITS_DTYPE: "i16", "uint8": "i8"}.get(dtype, _SHORT[dtype])
    return element if lanes == 1 else f"v{lanes}{element}"


def _place(op: Operation) -> tuple[str, int]:
    size = _size(op.storage)
    return f"at(b, base, i, {_llvm(op.storage, op.lanes)}, {size})", size


def _load(op: Operation) -> str:
    place, size = _place(op)
    return _widened(op, f"b.load({place}, align={size})")


def _load_if(op: Operation) -> str:
    place, size = _place(op)
    return _widened(op, f"b.load(place_if(b, c, {place}, {_llvm(op.storage, op.lanes)}), align={size})")


def _load_some_if(op: Operation) -> str:
    """Where the condition does not hold zeros are read: to mask all lanes of memory that is not there takes a processor long."""
    place, size = _place(op)
    return _masked_load(op, f"place_if(b, c, {place}, {_llvm(op.storage, op.lanes)})", size)


def _load_some(op: Operation) -> str:
    return _masked_load(op, *_place(op))


def _masked_load(op: Operation, place: str, size: int) -> str:
    kind = _llvm(op.storage, op.lanes)
    name = f"llvm.masked.load.{_suffix(op.storage, op.lanes)}.p0"
    mask = f"below(b, n, {op.lanes})"
    return _widened(op, f'call(b, "{name}", {kind}, {place}, ir.IntType(32)({size}), {mask}, {kind}(None))')


def _store(op: Operation) -> str:
    place, size = _place(op)
    return f"b.store({_narrowed(op)}, {place}, align={size})"


def _store_some(op: Operation) -> str:
    place, size = _place(op)
    name = f"llvm.masked.store.{_suffix(op.storage, op.lanes)}.p0"
    if op.branches:
        return f'store_some(b, {_narrowed(op)}, {place}, {size}, n, "{name}")'
    mask = f"below(b, n, {op.lanes})"
    return f'call(b, "{name}", ir.VoidType(), {_narrowed(op)}, {place}, ir.IntType(32)({size}), {mask})'


def _transpose(op: Operation) -> OperationText:
    """Source, place and distance of rows, the same of the target, and the numbers of rows and columns if they vary."""
    place = f"ir.VectorType({_ELEMENT[op.storage]}, {op.lanes}), {_size(op.storage)}"
    names = "s, i, p, t, j, q" if op.kind == "transpose" else "s, i, p, t, j, q, m, n"
    function = f"{op.kind}(b, {place}, {names}{_masked_names(op)})"
    operands = ", ".join(["i64"] * len(names.split(",")))
    return OperationText(op.name, "types.void", operands, f"lambda b, {names}: {function}")


def _masked_names(op: Operation) -> str:
    return f', "{_suffix(op.storage, op.lanes)}"' if op.kind == "transpose_some" else ""


def _widened(op: Operation, value: str) -> str:
    wide = _llvm(op.dtype, op.lanes)
    match op.storage:
        case "float16" if op.by_bits:
            return f"from_float16(b, {value}, {_bits(op.lanes, 16)}, {_bits(op.lanes)}, {wide})"
        case "float16":
            return f"b.fpext({value}, {wide})"
        case "bfloat16":
            return f"b.bitcast(from_bfloat16(b, {value}, {_bits(op.lanes)}), {wide})"
        case "int8":
            return f"b.sext({value}, {wide})"
        case "uint8":
            return f"b.zext({value}, {wide})"
        case _:
            return value


def _narrowed(op: Operation) -> str:
    narrow = _llvm(op.storage, op.lanes)
    match op.storage:
        case "float16" if op.by_bits:
            return f"to_float16(b, x, {_bits(op.lanes, 16)}, {_bits(op.lanes)}, {narrow})"
        case "float16":
            return f"b.fptrunc(x, {narrow})"
        case "bfloat16" if op.kind.startswith("store_flushed"):
            return f"b.bitcast(b.fptrunc(x, {narrow.replace(_ELEMENT[op.storage], 'bfloat')}), {narrow})"
        case "bfloat16":
            return f"to_bfloat16(b, b.bitcast(x, {_bits(op.lanes)}), {narrow})"
        case "int8" | "uint8":
            return f"b.trunc(x, {narrow})"
        case _:
            return "x"


def _fma(op: Operation) -> str:
    if not _is_float(op.dtype):
        return "b.add(b.mul(x, y), z)"
    return f'call(b, "llvm.fma.{_suffix(op.dtype, op.lanes)}", x.type, x, y, z)'


def _convert(op: Operation) -> str:
    wide = _llvm(op.dtype, op.lanes)
    if _is_float(op.dtype):
        return f"b.sitofp(x, {wide})"
    name = f"llvm.lrint.{_suffix(op.dtype, op.lanes)}.{_suffix(op.storage, op.lanes)}"
    return f'call(b, "{name}", {wide}, x)'


def _dot(op: Operation) -> str:
    name, element, terms = _DOTS[op.storage]
    (part,) = op.pattern
    bits = 8 * part * DTYPES[op.dtype].itemsize
    return f'dot(b, x, y, z, "{name}.{bits}", {part}, ir.VectorType({element}, {terms * part}))'


def _call(op: Operation, operands: str) -> str:
    name = (_FLOAT_CALLS if _is_float(op.dtype) else _INT_CALLS)[op.kind]
    return f'call(b, "{name}.{_suffix(op.dtype, op.lanes)}", x.type, {operands})'
