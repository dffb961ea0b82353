"""The rules of tasks that have threads, each broken once: the message names the offender."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from convgen.errors import IRError
from convgen.ir.check import check
from convgen.ir.nodes import (
    Alloc,
    Barrier,
    Buffer,
    Const,
    CopyAsync,
    CopyGroup,
    CopyWait,
    For,
    If,
    Index,
    Int,
    Less,
    Load,
    LoopKind,
    Program,
    Stage,
    Stmt,
    Store,
    TileDot,
    TileLoad,
    TileStore,
    TileZero,
    Var,
)

B, T, W = Var("task"), Var("t"), Var("w")
ZERO = Const(0.0, "float32")
BUFFERS = (
    Buffer("x", "float32", (Int(4), Int(64)), "operand"),
    Buffer("h", "float16", (Int(4), Int(64)), "operand"),
    Buffer("y", "float32", (Int(4), Int(64)), "result"),
    Buffer("l", "float32", (Int(16), Int(64)), "local"),
    Buffer("m", "float16", (Int(16), Int(64)), "local"),
)


def task(*body: Stmt) -> Program:
    """A stage whose tasks are rows of y."""
    return Program("p", ("N",), BUFFERS, (Stage("s", (For("task", Int(4), body, "parallel"),)),))


def threads(*body: Stmt, var: str = "t", count: Index | None = None, kind: LoopKind = "thread") -> For:
    return For(var, Int(64) if count is None else count, body, kind)


def warps(*body: Stmt, count: int = 2) -> For:
    return threads(*body, var="w", count=Int(count), kind="warp")


def put(*index: Index, buffer: str = "y", value: Load | Const = ZERO) -> Store:
    return Store(buffer, index, value)


def registers(*body: Stmt, name: str = "acc") -> Alloc:
    """A register for each thread."""
    return Alloc(Buffer(name, "float32", (Int(64),), "register"), body)


def tiles(*body: Stmt, a: str = "float16", b: str = "float16", c: str = "float32", depth: int = 16) -> Alloc:
    """Sums of two warps, 16 times 8 of each, and one tile of each factor."""
    inner: tuple[Stmt, ...] = body
    for name, dtype, shape in (("a", a, (16, 16)), ("b", b, (8, depth)), ("c", c, (2, 16, 8))):
        inner = (Alloc(Buffer(name, dtype, tuple(map(Int, shape)), "tile"), inner),)
    (found,) = inner
    assert isinstance(found, Alloc)
    return found


def copy(source: str = "x", target: str = "l", lanes: int = 4, *conditions: Less) -> CopyAsync:
    return CopyAsync(target, (Int(0), T), source, (B, T), lanes, conditions)


DOT = TileDot("c", (W,), "a", (), "b", (), turned=True)

VALID: dict[str, Program] = {
    "registers that live on": task(
        registers(threads(put(T, buffer="acc")), Barrier(), threads(put(B, T, value=Load("acc", (T,)))))
    ),
    "registers of their own": task(
        threads(Alloc(Buffer("own", "float32", (Int(2),), "register"), (put(Int(1), buffer="own"),)))
    ),
    "warps and threads": task(threads(put(B, T)), tiles(warps(TileZero("c", (W,)), DOT))),
    "a tile of a warp": task(
        tiles(warps(TileLoad("b", (), "m", (Int(0), Int(8)), 0, 1, turned=True), TileStore("l", (Int(0), W), 0, "c", (W,))))
    ),
    "copies": task(
        threads(copy()), CopyGroup(), For("k", Int(3), (CopyWait(0), Barrier(), threads(put(B, T))))
    ),
    "a guarded copy": task(threads(copy("h", "m", 8, Less(T, Var("N"))))),
    "names of two thread loops": task(threads(put(B, T)), threads(put(B, Var("u")), var="u")),
}  # fmt: skip


@pytest.mark.parametrize("name", VALID)
def test_valid_program_passes(name: str) -> None:
    check(VALID[name])


BROKEN: dict[str, tuple[Program, str]] = {
    "more threads later": (
        task(threads(put(B, T)), threads(put(B, T), count=Int(32))),
        r"stage s: thread loops of \['32', '64'\] iterations are not all as long",
    ),
    "more warps than threads": (
        task(threads(put(B, T)), tiles(warps(DOT, count=4))),
        r"thread loops of \['128', '64'\] iterations are not all as long",
    ),
    "as many threads as a size": (task(threads(put(B, T), count=Var("N"))), r"thread loops of \['N'\] iterations"),
    "no threads": (task(threads(put(B, T), count=Int(0))), r"thread loops of \['0'\] iterations"),
    "a barrier in a thread": (task(threads(put(B, T), Barrier())), "a barrier or threads stand in thread loop t"),
    "a barrier under a guard": (
        task(threads(If(Less(T, Int(3)), (Barrier(),)))),
        "a barrier or threads stand in thread loop t",
    ),
    "a barrier in a warp": (task(tiles(warps(Barrier()))), "a barrier or threads stand in thread loop w"),
    "a group in a thread": (task(threads(CopyGroup())), "a barrier or threads stand in thread loop t"),
    "a wait in a thread": (task(threads(CopyWait(1))), "a barrier or threads stand in thread loop t"),
    "threads in threads": (
        task(threads(threads(put(B, T), var="u"))),
        "a barrier or threads stand in thread loop t",
    ),
    "warps in a loop of threads": (task(tiles(threads(warps(DOT)))), "a barrier or threads stand in thread loop t"),
    "another thread's register": (
        task(registers(threads(put(Int(0), buffer="acc")))),
        "acc is not numbered by thread t",
    ),
    "the register of a neighbour": (
        task(registers(threads(put(B, T, value=Load("acc", (B,)))))),
        "acc is not numbered by thread t",
    ),
    "another loop's number": (
        task(registers(threads(For("k", Int(4), (put(Var("k"), buffer="acc"),))))),
        "acc is not numbered by thread t",
    ),
    "a tile by a thread": (
        task(tiles(threads(TileZero("c", (T,))))),
        "tile c is not numbered by 1 constants, the first of which may be a warp",
    ),
    "a tile by a task": (task(tiles(warps(TileZero("c", (B,))))), "tile c is not numbered by 1 constants"),
    "a turned product of two types": (
        task(tiles(warps(DOT), b="bfloat16")),
        "tiles c, a and turned b are no product: float32, float16, bfloat16",
    ),
    "a turned product in bytes": (
        task(tiles(warps(DOT), a="int8", b="int8", c="int32")),
        "tiles c, a and turned b are no product: int32, int8, int8",
    ),
    "a turned product to another type": (
        task(tiles(warps(DOT), c="float16")),
        "tiles c, a and turned b are no product: float16, float16, float16",
    ),
    "a turned product of other terms": (task(tiles(warps(DOT), depth=8)), "tiles c, a and turned b are no product"),
    "a plain product of turned tiles": (
        task(tiles(warps(TileDot("c", (W,), "a", (), "b", ())))),
        "tiles c, a and b are no product: float32, float16, float16",
    ),
    "a copy to memory": (
        task(threads(CopyAsync("y", (B, T), "x", (B, T), 4))),
        "x is not copied to local memory of its type: y",
    ),
    "a copy of another type": (task(threads(copy("h", "l"))), "h is not copied to local memory of its type: l"),
    "a copy inside local memory": (
        task(threads(CopyAsync("l", (Int(1), T), "l", (Int(0), T), 4))),
        "l is not copied to local memory of its type: l",
    ),
    "a copy of a register": (
        task(registers(threads(CopyAsync("l", (Int(0), T), "acc", (T,), 1)))),
        "acc is not copied to local memory of its type: l",
    ),
    "a copy to an operand": (task(threads(CopyAsync("x", (B, T), "y", (B, T), 4))), "operand x is stored to"),
    "a copy from nowhere": (task(threads(copy("z"))), "z"),
    "a copy under an unknown condition": (
        task(threads(copy("x", "l", 4, Less(Var("q"), T)))),
        "q is used in q but not defined",
    ),
    "a copy at a place of another rank": (
        task(threads(CopyAsync("l", (T,), "x", (B, T), 4))),
        "buffer l has 2 axes, not 1",
    ),
    "a copy without lanes": (task(threads(copy("x", "l", 0))), "access to l with 0 lanes"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_rule_is_named(name: str) -> None:
    broken, message = BROKEN[name]
    with pytest.raises(IRError, match=message):
        check(broken)


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: If(Less(B, Int(2)), (s,)), lambda s: For("k", Int(2), (s,))])
def test_threads_may_stand_in_what_all_of_them_go_through(wrap: Callable[[Stmt], Stmt]) -> None:
    check(task(wrap(threads(put(B, T))), wrap(Barrier())))
