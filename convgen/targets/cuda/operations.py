"""The operations that a CUDA kernel uses, and how each is spelled in LLVM.

An operation is named after what it does and what it does it to: ``load_f32x4`` reads four neighbouring float32 of global
memory, ``shared_load_f32x4`` of the memory that a block shares. Everything else happens in the type that sums are kept in.
"""

from __future__ import annotations

from dataclasses import dataclass

from convgen.dtypes import DTYPES

_SHORT = {
    "float32": "f32",
    "float64": "f64",
    "float16": "f16",
    "bfloat16": "bf16",
    "int32": "i32",
    "int64": "i64",
    "int8": "i8",
    "uint8": "u8",
}
_ELEMENT = {
    "float32": "ir.FloatType()",
    "float64": "ir.DoubleType()",
    "float16": "ir.HalfType()",
    "bfloat16": "ir.IntType(16)",
    "int32": "ir.IntType(32)",
    "int64": "ir.IntType(64)",
    "int8": "ir.IntType(8)",
    "uint8": "ir.IntType(8)",
}
# Operations that move elements of 16 bits as they are: ``lanes`` registers of 32 bits, or one element where there are none.
RAW_KINDS = ("raw_load", "raw_store", "shared_raw_load", "shared_raw_store")
_RAW_SIZE = 2
# Copies to shared memory that arrive later; ``lanes`` are their bytes, or the groups that are not waited for.
COPY_KINDS = ("copy_async", "copy_group", "copy_wait")
_FLOAT_METHODS = {"add": "fadd", "sub": "fsub", "mul": "fmul", "div": "fdiv"}
_INT_METHODS = {"add": "add", "sub": "sub", "mul": "mul", "div": "sdiv"}
# Operations of a warp together, on its threads' parts of tiles: products, and loads of 16-bit elements; ``lanes`` registers of
# 32 bits are loaded. Elements of float32 are rounded to TF32 instead, and packed.
TILE_KINDS = ("mma", "matrix_load", "matrix_load_turned", "tf32")
_MMA = {"bfloat16": ("m16n8k16", "bf16"), "float16": ("m16n8k16", "f16"), "float32": ("m16n8k8", "tf32")}
_FUNCTIONS = {"exp": "__nv_exp", "tanh": "__nv_tanh", "erf": "__nv_erf"}


@dataclass(frozen=True, order=True)
class Operation:
    """One operation on ``lanes`` elements computed as ``dtype`` and, for loads, stores and conversions, kept as ``storage``.

    ``pattern`` says of how many lanes which one is broadcast.
    """

    kind: str
    dtype: str
    lanes: int = 1
    storage: str = ""
    pattern: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """The function's name in the generated source."""
        if self.kind in ("quotient", "rest"):
            return self.kind
        if self.kind in COPY_KINDS:
            return self.kind if self.kind == "copy_group" else f"{self.kind}_{self.lanes}"
        if self.kind in RAW_KINDS:
            return f"{self.kind}_{_raw_type(self.lanes)}"
        if self.kind in TILE_KINDS:
            return f"{self.kind}_{_SHORT[self.storage]}{f'x{self.lanes}' if self.lanes > 1 else ''}"
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
    """f32 or f32x4: the name of a scalar or vector type in the generated source."""
    return _SHORT[dtype] if lanes == 1 else f"{_SHORT[dtype]}x{lanes}"


def vector_texts(operations: tuple[Operation, ...]) -> tuple[VectorText, ...]:
    """The vector types of the operations."""
    computed = [op for op in operations if op.lanes > 1 and op.kind not in (*TILE_KINDS, *COPY_KINDS)]
    kinds = {(op.dtype, op.lanes) for op in computed}
    kinds |= {(op.storage, op.lanes) for op in computed if op.kind == "convert"}
    kinds |= {(op.dtype, op.pattern[0]) for op in operations if op.kind == "lane"}
    if any(op.kind in TILE_KINDS for op in operations):
        kinds |= {("int32", 4), ("int32", 2), ("float32", 4)}
    if any(op.kind.startswith("half") for op in operations):
        kinds.add(("float32", 4))
    return tuple(VectorText(type_name(dtype, lanes), _ELEMENT[dtype], lanes) for dtype, lanes in sorted(kinds))


def needed_functions(operations: tuple[Operation, ...]) -> frozenset[str]:
    """The functions of the prelude that the operations call."""
    needed: set[str] = set()
    for op in operations:
        match op.kind:
            case "quotient" | "rest":
                needed.add("quotient")
            case "splat" | "where":
                needed.add(op.kind)
            case "lane":
                needed.add("splat")
            case "half0" | "half1":
                needed.add("half")
            case "copy_async" | "copy_group" | "copy_wait":
                needed |= {"shared", "copies"}
            case "min" | "max":
                needed.add("extreme")
            case "convert" if op.dtype == "int32":
                needed.add("rint")
            case "exp" | "tanh" | "erf":
                needed.add("call")
            case "fma" if op.dtype != "int32":
                needed.add("call")
            case "matrix_load" | "matrix_load_turned":
                needed |= {"shared", "tiles"}
            case "mma" | "tf32":
                needed.add("tiles")
            case kind if kind.startswith("shared"):
                needed.add("shared")
            case _:
                pass
        if op.storage == "bfloat16" and op.kind not in TILE_KINDS:
            needed.add("from_bfloat16" if op.kind.endswith("load") else "to_bfloat16")
    return frozenset(needed)


def operation_text(op: Operation) -> OperationText:
    """How the template defines an operation."""
    kind = type_name(op.dtype, op.lanes) if op.dtype else ""
    match op.kind:
        case "copy_async":
            size = DTYPES[op.storage].itemsize
            places = f"shared_at(b, t, j, ir.IntType(8), {size}), s, i, p, {size}, {op.lanes}"
            operands = "i64, i64, i64, i64, types.boolean"
            return OperationText(op.name, "types.void", operands, f"lambda b, t, j, s, i, p: copy_async(b, {places})")
        case "copy_group":
            return OperationText(op.name, "types.void", "", 'lambda b: order(b, "cp.async.commit_group;")')
        case "copy_wait":
            text = f"cp.async.wait_group {op.lanes};"
            return OperationText(op.name, "types.void", "", f'lambda b: order(b, "{text}")')
        case "load" | "shared_load":
            return OperationText(op.name, kind, "i64, i64", f"lambda b, s, i: {_read(op)}")
        case "store" | "shared_store":
            return OperationText(op.name, "types.void", f"i64, i64, {kind}", f"lambda b, s, i, x: {_write(op)}")
        case "quotient" | "rest":
            return OperationText(op.name, "i64", "i64, i64", op.kind)
        case "raw_load" | "shared_raw_load":
            return OperationText(op.name, _raw_type(op.lanes), "i64, i64", f"lambda b, s, i: b.load({_raw_place(op)}")
        case "raw_store" | "shared_raw_store":
            kind = _raw_type(op.lanes)
            return OperationText(
                op.name, "types.void", f"i64, i64, {kind}", f"lambda b, s, i, x: b.store(x, {_raw_place(op)}"
            )
        case "mma":
            shape, factor = _MMA[op.storage]
            emit = f'lambda b, x, y, z: mma(b, x, y, z, "{shape}", "{factor}")'
            return OperationText(op.name, "f32x4", "i32x4, i32x2, f32x4", emit)
        case "matrix_load" | "matrix_load_turned":
            size, turned = DTYPES[op.storage].itemsize, ".trans" if op.kind.endswith("turned") else ""
            place = f"shared_at(b, s, i, ir.IntType(8), {size})"
            emit = f'lambda b, s, i: matrix_load(b, {place}, {op.lanes}, "{turned}")'
            return OperationText(op.name, f"i32x{op.lanes}", "i64, i64", emit)
        case "tf32":
            operands = ", ".join(["f32"] * op.lanes)
            return OperationText(op.name, f"i32x{op.lanes}", operands, "tf32")
        case "half0" | "half1":
            first = 2 * int(op.kind == "half1")
            return OperationText(op.name, kind, "f32x4,", f"lambda b, x: half(b, x, {first})")
        case "lane":
            source, lane = type_name(op.dtype, op.pattern[0]), op.pattern[1]
            emit = f"lambda b, x: splat(b, b.extract_element(x, ir.IntType(32)({lane})), {kind}.llvm)"
            return OperationText(op.name, kind, f"{source},", emit)
        case "splat":
            scalar = f"{type_name(op.dtype, 1)},"
            return OperationText(op.name, kind, scalar, f"lambda b, x: splat(b, x, {kind}.llvm)")
        case "fma":
            return OperationText(op.name, kind, ", ".join([kind] * 3), f"lambda b, x, y, z: {_fma(op)}")
        case "where":
            return OperationText(op.name, kind, ", ".join([kind] * 3), "where")
        case "min" | "max":
            order = ">" if op.kind == "max" else "<"
            return OperationText(op.name, kind, f"{kind}, {kind}", f'lambda b, x, y: extreme(b, x, y, "{order}")')
        case "exp" | "tanh" | "erf":
            name = _FUNCTIONS[op.kind] + ("f" if op.dtype == "float32" else "")
            return OperationText(op.name, kind, f"{kind},", f'lambda b, x: call(b, "{name}", x)')
        case "convert":
            given = type_name(op.storage, op.lanes)
            whole = "rint(b, x)" if op.dtype == "int32" else f"b.sitofp(x, {_llvm(op.dtype, op.lanes)})"
            return OperationText(op.name, kind, f"{given},", f"lambda b, x: {whole}")
        case _:
            method = (_INT_METHODS if op.dtype == "int32" else _FLOAT_METHODS)[op.kind]
            return OperationText(op.name, kind, f"{kind}, {kind}", f"lambda b, x, y: b.{method}(x, y)")


def _llvm(dtype: str, lanes: int) -> str:
    return _ELEMENT[dtype] if lanes == 1 else f"ir.VectorType({_ELEMENT[dtype]}, {lanes})"


def _place(op: Operation) -> tuple[str, int]:
    """Where the elements are, and the alignment of all of them together."""
    at = "shared_at" if op.kind.startswith("shared") else "at"
    size = DTYPES[op.storage].itemsize
    return f"{at}(b, s, i, {_llvm(op.storage, op.lanes)}, {size})", size * op.lanes


def _raw_type(lanes: int) -> str:
    return type_name("int32", lanes) if lanes else "u16"


def _raw_place(op: Operation) -> str:
    """Where the elements are, in units of one of them, and their alignment: the rest of a call."""
    at = "shared_at" if op.kind.startswith("shared") else "at"
    kind = _llvm("int32", op.lanes) if op.lanes else "ir.IntType(16)"
    return f"{at}(b, s, i, {kind}, {_RAW_SIZE}), align={4 * op.lanes or _RAW_SIZE})"


def _read(op: Operation) -> str:
    place, align = _place(op)
    loaded = f"b.load({place}, align={align})"
    match op.storage:
        case "bfloat16":
            return f"from_bfloat16(b, {loaded})"
        case "float16":
            return f"b.fpext({loaded}, {_llvm(op.dtype, op.lanes)})"
        case "int8":
            return f"b.sext({loaded}, {_llvm(op.dtype, op.lanes)})"
        case "uint8":
            return f"b.zext({loaded}, {_llvm(op.dtype, op.lanes)})"
        case _:
            return loaded


def _write(op: Operation) -> str:
    place, align = _place(op)
    match op.storage:
        case "bfloat16":
            value = "to_bfloat16(b, x)"
        case "float16":
            value = f"b.fptrunc(x, {_llvm('float16', op.lanes)})"
        case "int8" | "uint8":
            value = f"b.trunc(x, {_llvm(op.storage, op.lanes)})"
        case _:
            value = "x"
    return f"b.store({value}, {place}, align={align})"


def _fma(op: Operation) -> str:
    if op.dtype == "int32":
        return "b.add(b.mul(x, y), z)"
    return f'call(b, "llvm.fma.f{64 if op.dtype == "float64" else 32}", x, y, z)'
