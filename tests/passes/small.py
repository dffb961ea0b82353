"""Hand-written programs that are small enough to read before and after a pass."""

from __future__ import annotations

from dataclasses import replace

from convgen.ir.build import add, floordiv, mul, sub
from convgen.ir.nodes import (
    Alloc,
    Arith,
    Buffer,
    Choose,
    Const,
    Fma,
    For,
    If,
    Index,
    Int,
    Less,
    Load,
    PaddedLoad,
    PaddingMode,
    Program,
    Stage,
    Stmt,
    Store,
    Transform,
    Value,
    Var,
)
from convgen.passes.pipeline import run_passes
from convgen.passes.register_tile import RegisterTile
from convgen.passes.vectorize import Vectorize
from convgen.transforms.linear import Add, LinearProgram, MulAdd, Sub

ZERO = Const(0.0, "float32")


def buffer(name: str, *shape: int | str) -> Buffer:
    """A float32 buffer; y is the result, s a workspace, all others are operands."""
    extents = tuple(Int(extent) if isinstance(extent, int) else Var(extent) for extent in shape)
    match name:
        case "y":
            return Buffer(name, "float32", extents, "result")
        case "s":
            return Buffer(name, "float32", extents, "workspace")
        case _:
            return Buffer(name, "float32", extents, "operand")


def at(name: str, *index: int | str | Index) -> Load:
    return Load(name, tuple(add(i) for i in index))


def put(name: str, *index: int | str | Index, value: Value) -> Store:
    return Store(name, tuple(add(i) for i in index), value)


def loop(var: str, extent: int | str, *body: Stmt) -> For:
    return For(var, add(extent), body)


def program(buffers: tuple[Buffer, ...], *bodies: Stmt, sizes: tuple[str, ...] = ("M",)) -> Program:
    """A program with a stage a body, called main, then stage1, ..."""
    names = ("main", *(f"stage{i}" for i in range(1, len(bodies))))
    stages = tuple(Stage(name, (body,)) for name, body in zip(names, bodies, strict=True))
    return Program("small", sizes, buffers, stages)


def accumulate(*update: Stmt, finish: Store) -> Alloc:
    return Alloc(Buffer("acc", "float32", (), "register"), (put("acc", value=ZERO), *update, finish))


def product() -> Program:
    """y[i, j] = sum over r of x[i, r] * w[r, j]."""
    update = loop("r", 3, put("acc", value=Fma(at("x", "i", "r"), at("w", "r", "j"), at("acc"))))
    nest = loop("i", "M", loop("j", 6, accumulate(update, finish=put("y", "i", "j", value=at("acc")))))
    return program((buffer("x", "M", 3), buffer("w", 3, 6), buffer("y", "M", 6)), nest)


def added_product() -> Program:
    """s[2 i + 1, j] = sum over r of x[i, r] * w[r, j] from the first column on, the others' sums added to it."""
    update = loop("r", 3, put("acc", value=Fma(at("x", "i", "r"), at("w", "r", "j"), at("acc"))))
    row = add(mul("i", 2), 1)
    total = put("s", row, "j", value=Arith("+", at("s", row, "j"), at("acc")))
    sums = (put("acc", value=ZERO), update, If(Less(Int(0), Var("b")), (total,)))
    body = (*sums, If(Less(Var("b"), Int(1)), (put("s", row, "j", value=at("acc")),)))
    alloc = Alloc(Buffer("acc", "float32", (), "register"), body)
    nest = loop("b", 2, loop("i", 2, loop("j", 4, alloc)))
    copy = loop("p", 2, loop("q", 4, put("y", "p", "q", value=at("s", add(mul("p", 2), 1), "q"))))
    return program((buffer("x", 2, 3), buffer("w", 3, 4), buffer("y", 2, 4), buffer("s", 4, 4)), nest, copy, sizes=())


def chosen_lanes(*conditions: Less) -> Program:
    """y[i, l] = x[i, l] if the conditions hold else 0."""
    value = Choose(conditions, at("x", "i", "l"), ZERO)
    nest = loop("i", 2, loop("l", 4, put("y", "i", "l", value=value)))
    return program((buffer("x", 2, 3), buffer("y", 2, 4)), nest, sizes=())


def long_product() -> Program:
    """y[i, j] = sum over r of x[i, r] * w[j, r]."""
    update = loop("r", 4, put("acc", value=Fma(at("x", "i", "r"), at("w", "j", "r"), at("acc"))))
    nest = loop("i", "M", loop("j", 2, accumulate(update, finish=put("y", "i", "j", value=at("acc")))))
    return program((buffer("x", "M", 4), buffer("w", 2, 4), buffer("y", "M", 2)), nest)


def long_rows() -> Program:
    """y[i, p, j] = sum over r of x[i, p, r] * w[r, j], for 32 j."""
    update = loop("r", 4, put("acc", value=Fma(at("x", "i", "p", "r"), at("w", "r", "j"), at("acc"))))
    body = accumulate(update, finish=put("y", "i", "p", "j", value=at("acc")))
    nest = loop("i", "M", loop("p", 2, loop("j", 32, body)))
    return program((buffer("x", "M", 2, 4), buffer("w", 4, 32), buffer("y", "M", 2, 32)), nest)


def narrow_product(dtypes: tuple[str, str], accumulator: str, terms: int, lanes: int = 4) -> Program:
    """y[i, j] = sum over r of x[i, r] * w[r, j] in narrow types."""
    total = Load("acc", ())
    update = loop("r", terms, put("acc", value=Fma(at("x", "i", "r"), at("w", "r", "j"), total)))
    zero = put("acc", value=Const(0, accumulator))
    body = Alloc(Buffer("acc", accumulator, (), "register"), (zero, update, put("y", "i", "j", value=total)))
    shapes: dict[str, tuple[int | str, int]] = {"x": ("M", terms), "w": (terms, lanes)}
    operands = tuple(
        replace(buffer(name, *shape), dtype=dtype) for dtype, (name, shape) in zip(dtypes, shapes.items(), strict=True)
    )
    return program(
        (*operands, replace(buffer("y", "M", lanes), dtype=accumulator)), loop("i", "M", loop("j", lanes, body))
    )


def diagonal_product() -> Program:
    """y[i] = sum over r of x[i, r] * w[r, r]."""
    update = loop("r", 2, put("acc", value=Fma(at("x", "i", "r"), at("w", "r", "r"), at("acc"))))
    nest = loop("i", "M", accumulate(update, finish=put("y", "i", value=at("acc"))))
    return program((buffer("x", "M", 2), buffer("w", 2, 2), buffer("y", "M")), nest)


def narrow_columns() -> Program:
    """y[j] = sum over r of x[r] * w[r, j] of bfloat16, for as many r as there are."""
    total = Load("acc", ())
    update = loop("r", "M", put("acc", value=Fma(at("x", "r"), at("w", "r", "j"), total)))
    nest = loop("j", 4, accumulate(update, finish=put("y", "j", value=total)))
    operands = (replace(buffer(name, *shape), dtype="bfloat16") for name, *shape in (("x", "M"), ("w", "M", 4)))
    return program((*operands, buffer("y", 4)), nest)


def copied_in_steps() -> Program:
    """y[i, j] = x[2 i - 1, j], surrounded by zeros."""
    image = PaddedLoad("x", (sub(mul("i", 2), 1), Var("j")), "zeros")
    return program(
        (buffer("x", 4, 3), buffer("y", "M", 3)), loop("i", "M", loop("j", 3, put("y", "i", "j", value=image)))
    )


def double() -> Program:
    """y[i, j] = x[i, j] + b[i]."""
    store = put("y", "i", "j", value=Arith("+", at("x", "i", "j"), at("b", "i")))
    shape = ("M", 6)
    return program((buffer("x", *shape), buffer("b", "M"), buffer("y", *shape)), loop("i", "M", loop("j", 6, store)))


def shifted(mode: PaddingMode = "zeros") -> Program:
    """y[i] = x[i - 1], continued beyond the edges."""
    store = put("y", "i", value=PaddedLoad("x", (sub("i", 1),), mode))
    return program((buffer("x", "M"), buffer("y", "M")), loop("i", "M", store))


def padded_window(mode: PaddingMode = "zeros") -> Program:
    """y[i] = sum over k of x[i + k - 1] * w[k], x continued beyond the edges."""
    image = PaddedLoad("x", (sub(add("i", "k"), 1),), mode)
    update = loop("k", 3, put("acc", value=Fma(image, at("w", "k"), at("acc"))))
    nest = loop("i", "M", accumulate(update, finish=put("y", "i", value=at("acc"))))
    return program((buffer("x", "M"), buffer("w", 3), buffer("y", "M")), nest)


def neighbours() -> Program:
    """y[j] = sum over i of x[i, j] * x[i + 1, j], a vector of j at a time."""
    update = loop("i", 3, put("acc", value=Fma(at("x", "i", "j"), at("x", add("i", 1), "j"), at("acc"))))
    nest = loop("j", 4, accumulate(update, finish=put("y", "j", value=at("acc"))))
    return run_passes(program((buffer("x", 4, 4), buffer("y", 4)), nest), (RegisterTile(("j",)), Vectorize("j")))


def every_other() -> Program:
    """y[i, j] = x[2 i - 1 + k, j] surrounded by zeros, for the only k, which is 0."""
    image = PaddedLoad("x", (sub(add(mul("i", 2), "k"), 1), Var("j")), "zeros")
    nest = loop("i", 3, loop("j", 3, loop("k", 1, put("y", "i", "j", value=image))))
    return program((buffer("x", 6, 3), buffer("y", 3, 3)), nest)


def padded_copy(mode: PaddingMode = "zeros") -> Program:
    """y[j, i] = x[i - 1, j + 1], surrounded by zeros: a copy one row too early and one column too late."""
    store = put("y", "j", "i", value=PaddedLoad("x", (sub("i", 1), add("j", 1)), mode))
    return program((buffer("x", "M", 3), buffer("y", 4, 5)), loop("i", 5, loop("j", 4, store)))


def repeated() -> Program:
    """y[i, l] = x[i, l // 2 * 3 + 1]."""
    store = put("y", "i", "l", value=at("x", "i", add(mul(floordiv("l", 2), 3), 1)))
    return program((buffer("x", "M", 6), buffer("y", "M", 4)), loop("i", "M", loop("l", 4, store)))


def double_sum() -> Program:
    """y[i] = sum over q and r of x[i, q] * w[q, r]."""
    update = put("acc", value=Fma(at("x", "i", "q"), at("w", "q", "r"), at("acc")))
    nest = accumulate(loop("q", 3, loop("r", 2, update)), finish=put("y", "i", value=at("acc")))
    return program((buffer("x", "M", 3), buffer("w", 3, 2), buffer("y", "M")), loop("i", "M", nest))


def with_epilogue() -> Program:
    """s[2 i] = x[2 i] and s[2 i + 1] = 0, then y[j] = max(s[j] + b[j], 0)."""
    even = loop("i", 2, put("s", mul("i", 2), value=at("x", mul("i", 2))))
    odd = loop("i", 2, put("s", add(mul("i", 2), 1), value=ZERO))
    last = loop("j", 4, put("y", "j", value=Arith("max", Arith("+", at("s", "j"), at("b", "j")), ZERO)))
    return program((buffer("x", 4), buffer("b", 4), buffer("y", 4), buffer("s", 4)), even, odd, last, sizes=())


def chained() -> Program:
    """s[i, j] = x[i, j], then y[i, j] = s[i, j]."""
    first = loop("i", "M", loop("j", 2, put("s", "i", "j", value=at("x", "i", "j"))))
    second = loop("i", "M", loop("j", 2, put("y", "i", "j", value=at("s", "i", "j"))))
    return program((buffer("x", "M", 2), buffer("y", "M", 2), buffer("s", "M", 2)), first, second)


def guarded_block(guard: Less) -> Program:
    """A guard between the loops of a tile: y[b, l] = sum over r of x[b, r] * w[r, b, l] where the guard holds."""
    update = loop("r", 2, put("acc", value=Fma(at("x", "b", "r"), at("w", "r", "b", "l"), at("acc"))))
    body = If(guard, (accumulate(update, finish=put("y", "b", "l", value=at("acc"))),))
    buffers = (buffer("x", 2, 2), buffer("w", 2, 2, 4), buffer("y", 2, 4))
    return program(buffers, loop("b", 2, loop("l", 4, body)))


def double_vectors() -> Program:
    """A loop whose body is in vectors already: y[i, 0 :4] = x[i, 0 :4]."""
    place = (add("i"), Int(0))
    body = Store("y", place, Load("x", place, 4), 4)
    return program((buffer("x", 4, 4), buffer("y", 4, 4)), loop("i", 4, body))


DIFFERENCES = LinearProgram(3, (Add(0, 2), MulAdd(1, 0.5, 3), Sub(0, 2)), (4, 1, 5, 3))


def transformed_columns(columns: int = 6) -> Program:
    """y[:, c] = (x0 + x1 / 2 + x2, x1, x0 - x2, x0 + x2) of column c of x, by way of a worker's own memory."""
    move = loop("i", 3, put("d", "i", value=at("x", "n", "i", "c")))
    keep = loop("i", 4, put("t", "i", "c", value=at("d", "i")))
    registers = Buffer("d", "float32", (Int(4),), "register")
    forward = Alloc(registers, (move, Transform("d", DIFFERENCES, "differences"), keep))
    back = loop("i", 4, put("y", "n", "i", "c", value=at("t", "i", "c")))
    buffers = (
        buffer("x", "M", 3, columns),
        buffer("y", "M", 4, columns),
        replace(buffer("t", 4, columns), space="local"),
    )
    body = (loop("c", columns, forward), loop("c", columns, back))
    return program(buffers, For("n", Var("M"), body, "parallel"))


def padded_sums(mode: PaddingMode = "zeros") -> Program:
    """s[i] = x[i - 1], continued; then y[j] = sum over r of s[j + r] * w[r]."""
    first = For("i", add("M", 2), (put("s", "i", value=PaddedLoad("x", (sub("i", 1),), mode)),))
    update = loop("r", 3, put("acc", value=Fma(at("s", add("j", "r")), at("w", "r"), at("acc"))))
    second = loop("j", "M", accumulate(update, finish=put("y", "j", value=at("acc"))))
    padded = replace(buffer("s", "M"), shape=(add("M", 2),))
    buffers = (buffer("x", "M"), buffer("w", 3), buffer("y", "M"), padded)
    return program(buffers, first, second)


def padded_plane(mode: PaddingMode = "zeros") -> Program:
    """y[i, j] = x[i - 1, j - 2], continued beyond the edges of a 4 x 3 array."""
    store = put("y", "i", "j", value=PaddedLoad("x", (sub("i", 1), sub("j", 2)), mode))
    return program((buffer("x", 4, 3), buffer("y", 6, 7)), loop("i", 6, loop("j", 7, store)))


def turned_copy() -> Program:
    """y[c, n, j] = x[n, j, c]."""
    store = put("y", "c", "n", "j", value=at("x", "n", "j", "c"))
    nest = loop("n", 2, loop("c", 8, loop("j", "M", store)))
    return program((buffer("x", 2, "M", 8), buffer("y", 8, 2, "M")), nest)
