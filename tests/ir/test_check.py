"""Each rule of the IR, broken once: the message names the offender."""

from __future__ import annotations

import pytest

from convgen.errors import IRError
from convgen.ir.check import check
from convgen.ir.nodes import (
    Alloc,
    Apply,
    Arith,
    Buffer,
    Choose,
    Const,
    Convert,
    Dot,
    Fma,
    For,
    If,
    Index,
    IndexOp,
    Int,
    Interleave,
    Less,
    Load,
    PaddedLoad,
    Prefetch,
    Program,
    Splat,
    Spread,
    Stage,
    Stmt,
    Store,
    Sum,
    TileDot,
    TileLoad,
    TileStore,
    TileZero,
    Transform,
    Transpose,
    Value,
    Var,
    Where,
)
from convgen.transforms.linear import Add, LinearProgram

I, N = Var("i"), Var("N")  # noqa: E741
ZERO = Const(0.0, "float32")
BUFFERS = (
    Buffer("x", "float32", (N, N), "operand"),
    Buffer("q", "int8", (N,), "operand"),
    Buffer("r", "int8", (N, Int(4)), "operand"),
    Buffer("u", "uint8", (N,), "operand"),
    Buffer("d", "float64", (N,), "operand"),
    Buffer("o", "float32", (), "operand"),
    Buffer("y", "float32", (N, N), "result"),
)


def program(
    *body: Stmt, buffers: tuple[Buffer, ...] = BUFFERS, bindings: tuple[tuple[str, Index], ...] = ()
) -> Program:
    return Program("p", ("N",), buffers, (Stage("s", body, bindings),))


def over_i(*body: Stmt) -> Program:
    return program(For("i", N, body))


def store(value: Value = ZERO, index: tuple[Index, ...] = (I, I), lanes: int = 1, count: Index | None = None) -> Store:
    return Store("y", index, value, lanes, count)


def alloc(buffer: Buffer, *body: Stmt) -> Alloc:
    return Alloc(buffer, body or (Store(buffer.name, (), ZERO),))


def register(name: str = "acc", *shape: Index, dtype: str = "float32") -> Buffer:
    return Buffer(name, dtype, shape, "register")


def parallel(var: str, *body: Stmt) -> For:
    return For(var, N, body, "parallel")


def turned(
    target: str = "y", source: str = "x", axes: tuple[int, int] = (0, 0), size: int = 4, rows: Index | None = None
) -> Transpose:
    return Transpose(target, (I, Int(0)), axes[0], source, (Int(0), I), axes[1], size, rows, None)


VALID: dict[str, Program] = {
    "store": over_i(store()),
    "binding": program(For("i", Var("b"), (store(),)), bindings=(("b", IndexOp("//", N, Int(2))),)),
    "vector": over_i(store(Splat(Load("o", ()), 4), lanes=4, count=IndexOp("-", N, I))),
    "same name in sibling loops": program(For("i", N, (store(),)), For("i", N, (store(),))),
    "transpose": over_i(turned(rows=IndexOp("-", N, I))),
    "nested parallel loops": program(parallel("i", parallel("j", store(index=(I, Var("j")))))),
    "dot": over_i(
        alloc(
            register(dtype="int32"),
            Store("acc", (), Const(0, "int32")),
            Store("acc", (), Dot(Load("u", (I,), terms=4), Load("r", (I, Int(0)), terms=4), Load("acc", ()))),
        )
    ),
    "narrow load": over_i(alloc(register(dtype="int32"), Store("acc", (), Load("q", (I,))))),
}


@pytest.mark.parametrize("name", VALID)
def test_valid_program_passes(name: str) -> None:
    check(VALID[name])


TWO_SUMS = LinearProgram(2, (Add(0, 1),), (2, 0))


def quads(buffer: str, *index: Index, lanes: int = 1, count: Index | None = None) -> Load:
    return Load(buffer, index, lanes, count, 4)


def dot_of(first: Load | Interleave, second: Load, dtype: str = "int32") -> Program:
    """A dot product of reads of a type to the accumulator."""
    update = Store("acc", (), Dot(first, second, Load("acc", ())))
    return over_i(alloc(register(dtype=dtype), Store("acc", (), Const(0, dtype)), update))


def tiles(name: str, dtype: str, *shape: int) -> Buffer:
    return Buffer(name, dtype, tuple(map(Int, shape)), "tile")


def with_tiles(*body: Stmt, total: Buffer | None = None) -> Program:
    """Statements where tiles of sums, of an image and of weights are allocated: 2 rows times 3 lanes, 8 terms."""
    inner: tuple[Stmt, ...] = body
    for buffer in (tiles("w8", "int8", 2, 12), tiles("x8", "int8", 2, 8), total or tiles("sums", "int32", 1, 2, 3)):
        inner = (Alloc(buffer, inner),)
    return over_i(*inner)


PRODUCT = TileDot("sums", (Int(0),), "x8", (), "w8", ())
VALID["tiles"] = with_tiles(
    TileZero("sums", (Int(0),)),
    TileLoad("x8", (), "r", (I, Int(0)), 0, 2),
    PRODUCT,
)

BROKEN: dict[str, tuple[Program, str]] = {
    "tiles of one axis": (with_tiles(total=tiles("sums", "int32", 3)), "sums is not of tiles of a known type"),
    "tiles too long": (with_tiles(total=tiles("sums", "int32", 1, 17, 3)), "a tile of 17 rows of 12 bytes is none"),
    "tiles too wide": (with_tiles(total=tiles("sums", "int32", 1, 2, 17)), "a tile of 2 rows of 68 bytes is none"),
    "tile of memory": (over_i(TileZero("y", ())), "y is not a buffer of tiles"),
    "tile by a loop": (with_tiles(TileZero("sums", (I,))), "tile sums is not numbered by 1 constants"),
    "tile without number": (with_tiles(TileZero("sums", ())), "tile sums is not numbered by 1 constants"),
    "tile of another type": (with_tiles(TileLoad("x8", (), "x", (I, I), 0)), "rows of x8 are not rows of memory"),
    "tile along the last axis": (
        with_tiles(TileLoad("x8", (), "r", (I, I), 1)),
        "along axis 1 of r, which is not before",
    ),
    "tile backwards": (with_tiles(TileLoad("x8", (), "r", (I, Int(0)), 0, 0)), "rows of x8 along axis 0 of r"),
    "tile to an operand": (with_tiles(TileStore("r", (I, Int(0)), 0, "x8", ())), "operand r is stored to"),
    "tile product of sums": (
        with_tiles(TileDot("sums", (Int(0),), "sums", (Int(0),), "w8", ())),
        "tiles sums, sums and w8 are no product: int32, int32, int8",
    ),
    "tile product of other shapes": (
        with_tiles(PRODUCT, total=tiles("sums", "int32", 1, 2, 4)),
        "tiles sums, x8 and w8 are no product",
    ),
    "conversion to nothing new": (
        over_i(store(Convert(Load("x", (I, I)), "float32"))),
        "float32 is not converted to float32",
    ),
    "conversion of a double": (
        over_i(store(Convert(Load("d", (I,)), "float32"))),
        "float64 is not converted to float32",
    ),
    "dot of scalars": (dot_of(Load("q", (I,)), Load("q", (I,))), "dot joins operands of types"),
    "dot of other pieces": (
        dot_of(Interleave((Load("q", (I,)), Load("q", (N,)))), quads("q", I)),
        r"dot joins operands of types .'int8\*2', 1., .'int8\*4', 1.",
    ),
    "pieces of two types": (
        dot_of(Interleave((Load("q", (I,)), Load("u", (I,)))), quads("q", I)),
        "vectors that are not alike",
    ),
    "pieces of two lengths": (
        dot_of(Interleave((Load("q", (I,)), Load("q", (I,), 4))), quads("q", I)),
        "vectors that are not alike",
    ),
    "pieces of several terms": (
        dot_of(Interleave((quads("q", I), quads("q", N))), quads("q", I)),
        "or several terms a lane",
    ),
    "pieces of sums": (
        dot_of(Interleave((Load("q", (I,)), Const(0, "int32"))), quads("q", I)),
        "interleave joins reads",
    ),
    "pieces stored in part": (
        over_i(store(Interleave((Load("x", (I, I)), Load("x", (I, N)))), count=N)),
        "terms of y are counted",
    ),
    "pieces stored in a row": (
        over_i(store(Interleave((Load("x", (I, I)), Load("x", (I, N)))))),
        "are not the last axis of y",
    ),
    "pieces of registers": (
        dot_of(Interleave((Load("acc", ()), Load("acc", ()))), quads("q", I)),
        "or no elements of memory",
    ),
    "dot of other terms": (
        dot_of(Load("u", (I,), terms=2), quads("q", I)),
        r"dot joins operands of types .'uint8\*2', 1., .'int8\*4', 1. and .'int32', 1.",
    ),
    "dot of a wide type": (dot_of(quads("x", I, I), quads("x", I, I), "float32"), "dot joins operands"),
    "dot to another type": (dot_of(quads("u", I), quads("q", I), "float32"), "dot joins operands"),
    "dot of signed bytes": (dot_of(quads("q", I), quads("q", I)), "dot joins operands"),
    "terms in other lanes": (
        dot_of(quads("q", I, lanes=4), quads("q", I, lanes=4)),
        "lanes of 4 terms are not the last",
    ),
    "terms from the middle": (
        dot_of(quads("r", I, Int(1), lanes=4), quads("r", I, Int(0), lanes=4)),
        "lanes of 4 terms are not the last axis of r",
    ),
    "terms counted": (dot_of(quads("r", I, Int(0), lanes=4, count=N), quads("q", I)), "terms of r are counted"),
    "terms of a register": (
        over_i(alloc(register("acc", Int(4)), store(Load("acc", (Int(0),), terms=4)))),
        "terms of acc are counted, or no elements of memory",
    ),
    "buffer twice": (program(buffers=(*BUFFERS, BUFFERS[0])), "buffer x is defined twice"),
    "size twice": (Program("p", ("N", "N"), (), ()), "size N is defined twice"),
    "stage named as a buffer": (Program("p", ("N",), BUFFERS, (Stage("x", ()),)), "stage x has the name of a buffer"),
    "stage twice": (Program("p", ("N",), (), (Stage("s", ()), Stage("s", ()))), "stage s is defined twice"),
    "register in the program": (program(buffers=(register(),)), "buffer acc: register buffers belong to an alloc"),
    "buffer type": (program(buffers=(Buffer("b", "float8", (), "operand"),)), "buffer b: unknown data type float8"),
    "buffer shape": (program(buffers=(Buffer("b", "int8", (Var("K"),), "operand"),)), "K is used in K but not defined"),
    "binding twice": (program(bindings=(("b", Int(1)), ("b", Int(2)))), "stage s: binding b is defined twice"),
    "binding shadows": (program(bindings=(("N", Int(1)),)), "stage s: binding N shadows a size"),
    "binding value": (program(bindings=(("b", Var("c")),)), "stage s: c is used in c but not defined"),
    "extent": (program(For("i", Var("K"), (store(),))), "stage s: K is used in K but not defined"),
    "loop shadows loop": (over_i(For("i", N, (store(),))), "stage s: loop i shadows a name"),
    "loop shadows size": (program(For("N", N, ())), "stage s: loop N shadows a name"),
    "parallel inside serial": (over_i(parallel("j", store(index=(I, Var("j"))))), "parallel loop j is not outermost"),
    "parallel beside another": (
        program(parallel("i", store()), parallel("j", store(index=(Var("j"), Int(0))))),
        "parallel loop i is not outermost",
    ),
    "parallel under a guard": (
        program(If(Less(Int(0), N), (parallel("i", store()),))),
        "parallel loop i is not outermost",
    ),
    "parallel to one place": (
        program(parallel("i", store(index=(Int(0), Int(0))))),
        "iterations of parallel loop i store to the same place of y",
    ),
    "alloc shadows": (over_i(alloc(register("x"))), "alloc x shadows a buffer"),
    "alloc named as a loop": (over_i(alloc(register("i"))), "alloc i has the name of a loop or a size"),
    "loop named as an alloc": (
        over_i(alloc(register("acc"), For("acc", N, (store(),)))),
        "loop acc has the name of a buffer",
    ),
    "alloc twice": (over_i(alloc(register(), alloc(register()))), "alloc acc shadows a buffer"),
    "alloc space": (over_i(alloc(Buffer("m", "float32", (), "workspace"))), "alloc m needs a register buffer"),
    "alloc shape": (over_i(alloc(register("acc", N), store())), "alloc acc needs a register buffer of constant shape"),
    "alloc type": (over_i(alloc(register(dtype="float16"))), "alloc acc: float16 is not a type that is computed in"),
    "transform of memory": (over_i(Transform("y", TWO_SUMS, "sums")), "transform of y, which is not a register"),
    "transform of a scalar": (over_i(alloc(register(), Transform("acc", TWO_SUMS, "sums"))), "transform of acc, which"),
    "transform too long": (
        over_i(alloc(register("acc", Int(1)), Transform("acc", TWO_SUMS, "sums"))),
        "transform of acc needs 2 elements, not 1",
    ),
    "transpose of a vector": (over_i(turned(source="q")), "buffer q has 1 axes, not 2"),
    "transpose in place": (over_i(turned(source="y")), "transpose of y into y, which are not two buffers of one type"),
    "transpose to an operand": (over_i(turned(target="x", source="y")), "operand x is stored to"),
    "transpose along the last axis": (over_i(turned(axes=(0, 1))), "transpose along axis 1 of x, which is not before"),
    "transpose of three rows": (over_i(turned(size=3)), "transpose of 3 rows, which is not a power of two above 1"),
    "rows of a transpose": (over_i(turned(rows=Var("k"))), "k is used in k but not defined"),
    "transpose to one place": (
        program(parallel("i", Transpose("y", (Int(0), Int(0)), 0, "x", (I, Int(0)), 0, 4))),
        "iterations of parallel loop i store to the same place of y",
    ),
    "prefetch of nothing": (over_i(Prefetch("z", (I,), 4)), "buffer z is not defined"),
    "prefetch of a register": (
        over_i(alloc(register("acc", Int(4)), Prefetch("acc", (Int(0),), 4))),
        "prefetch of acc, which is a register",
    ),
    "place of a prefetch": (over_i(Prefetch("x", (I, Var("k")), 4)), "k is used in k but not defined"),
    "guard": (over_i(If(Less(Var("k"), N), (store(),))), "k is used in k but not defined"),
    "unknown buffer": (over_i(Store("z", (), ZERO)), "buffer z is not defined"),
    "alloc has ended": (
        over_i(alloc(register()), store(Load("acc", ()))),
        "buffer acc is not defined",
    ),
    "rank of a store": (over_i(store(index=(I,))), "buffer y has 2 axes, not 1"),
    "rank of a load": (over_i(store(Load("x", (I,)))), "buffer x has 2 axes, not 1"),
    "rank of a padded load": (over_i(store(PaddedLoad("x", (I,), "zeros"))), "buffer x has 2 axes, not 1"),
    "index": (over_i(store(index=(I, IndexOp("+", I, Var("k"))))), "k is used in i [+] k but not defined"),
    "count": (over_i(store(Splat(ZERO, 2), lanes=2, count=Var("k"))), "k is used in k but not defined"),
    "no lanes": (over_i(store(lanes=0)), "access to y with 0 lanes"),
    "lanes without an axis": (over_i(store(Load("o", (), 4), lanes=4)), "access to o with 4 lanes"),
    "operand stored": (over_i(Store("x", (I, I), ZERO)), "operand x is stored to"),
    "condition of a choice": (
        over_i(store(Choose((Less(Var("k"), N),), ZERO, ZERO))),
        "k is used in k but not defined",
    ),
    "type of a store": (over_i(store(Load("d", (I,)))), "store to y takes float32 x 1, not float64 x 1"),
    "lanes of a store": (over_i(store(lanes=4)), "store to y takes float32 x 4, not float32 x 1"),
    "types of a sum": (over_i(store(Arith("+", ZERO, Load("d", (I,))))), r"\+ joins operands of different types"),
    "types of an fma": (over_i(store(Fma(ZERO, ZERO, Load("q", (I,))))), "fma or where joins operands"),
    "lanes of a where": (over_i(store(Where(ZERO, ZERO, Splat(ZERO, 2)))), "fma or where joins operands"),
    "types of a choice": (over_i(store(Choose((), ZERO, Const(0.0, "int32")))), "choose joins operands"),
    "spread of a scalar": (over_i(store(Spread(ZERO, 4, 2, 1, 0), lanes=4)), "spread takes lanes"),
    "spread beyond the lanes": (over_i(store(Spread(Splat(ZERO, 2), 4, 1, 1, 0), lanes=4)), "spread takes lanes"),
    "sum of a scalar": (over_i(store(Sum(ZERO))), "sum takes a power of two of lanes, not 1"),
    "sum of three lanes": (over_i(store(Sum(Splat(ZERO, 3)))), "sum takes a power of two of lanes, not 3"),
    "splat of a vector": (over_i(store(Apply("exp", Splat(Splat(ZERO, 2), 4)))), "splat takes a scalar, not 2 lanes"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_rule_is_named(name: str) -> None:
    broken, message = BROKEN[name]
    with pytest.raises(IRError, match=message):
        check(broken)
