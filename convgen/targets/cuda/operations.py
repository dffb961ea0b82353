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
_FLOAT_METHODS = {"add": "fadd", "sub": "fsub", "mul": "fmul", "div": "fdiv"}
_INT_METHODS = {"add": "add", "sub": "sub", "mul": "mul", "div": "sdiv"}
_FUNCTIONS = {"exp": "__nv_exp", "tanh": "__nv_tanh", "erf": "__nv_erf"}


@dataclass(frozen=True, order=True)
class Operation:
    """One operation on ``lanes`` elements computed as ``dtype`` and, for loads, stores and conversions, kept as ``storage``."""

    kind: str
    dtype: str
    lanes: int = 1
    storage: str = ""

    @property
    def name(self) -> str:
        """The function's name in the generated source."""
        if self.kind in ("quotient", "rest"):
            return self.kind
        stored = f"{_SHORT[self.storage]}_" if self.storage not in ("", self.dtype) else ""
        return f"{self.kind}_{stored}{type_name(self.dtype, self.lanes)}"


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
    computed = [op for op in operations if op.lanes > 1]
    kinds = {(op.dtype, op.lanes) for op in computed}
    kinds |= {(op.storage, op.lanes) for op in computed if op.kind == "convert"}
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
            case "min" | "max":
                needed.add("extreme")
            case "convert" if op.dtype == "int32":
                needed.add("rint")
            case "exp" | "tanh" | "erf":
                needed.add("call")
            case "fma" if op.dtype != "int32":
                needed.add("call")
            case kind if kind.startswith("shared"):
                needed.add("shared")
            case _:
                pass
        if op.storage == "bfloat16":
            needed.add("from_bfloat16" if op.kind.endswith("load") else "to_bfloat16")
    return frozenset(needed)


def operation_text(op: Operation) -> OperationText:
    """How the template defines an operation."""
    kind = type_name(op.dtype, op.lanes)
    match op.kind:
        case "load" | "shared_load":
            return OperationText(op.name, kind, "i64, i64", f"lambda b, s, i: {_read(op)}")
        case "store" | "shared_store":
            return OperationText(op.name, "types.void", f"i64, i64, {kind}", f"lambda b, s, i, x: {_write(op)}")
        case "quotient" | "rest":
            return OperationText(op.name, "i64", "i64, i64", op.kind)
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
