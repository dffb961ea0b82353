"""The interpreter on what threads of a task do: order, copies that arrive late, tiles that are turned."""

from __future__ import annotations

import numpy as np
import pytest

from convgen.dtypes import DTYPES
from convgen.ir.build import add, mul
from convgen.ir.interp import interpret
from convgen.ir.nodes import (
    Alloc,
    Arith,
    Barrier,
    Buffer,
    Choose,
    Const,
    CopyAsync,
    CopyGroup,
    CopyWait,
    For,
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

T = Var("t")
X = np.array([5.0, -3.0, 2.0, 7.0], np.float32)


def threads(*body: Stmt, kind: LoopKind = "thread") -> For:
    return For("t", Int(4), body, kind)


def run(*body: Stmt, seed: int | None = None) -> np.ndarray:
    """What y[4] holds after a task that reads x[4] and has memory l[4] of its own."""
    spaces = {"x": "operand", "y": "result", "l": "local"}
    buffers = tuple(Buffer(name, "float32", (Int(4),), space) for name, space in spaces.items())  # type: ignore[arg-type]
    program = Program("p", (), buffers, (Stage("s", (For("b", Int(1), body, "parallel"),)),))
    shuffle = None if seed is None else np.random.default_rng(seed)
    return interpret(program, {}, {"x": X}, shuffle=shuffle)["y"]


COPY = threads(CopyAsync("l", (T,), "x", (T,), 1))
READ = threads(Store("y", (T,), Load("l", (T,))))


def test_a_copy_is_there_when_its_group_has_been_waited_for() -> None:
    np.testing.assert_array_equal(run(COPY, CopyGroup(), CopyWait(0), Barrier(), READ), X)


@pytest.mark.parametrize(
    "body",
    [
        (COPY, READ),
        (COPY, CopyGroup(), READ),
        (COPY, CopyWait(0), READ),
        (COPY, CopyGroup(), CopyWait(1), READ),
    ],
    ids=["at once", "without a wait", "without a group", "with a group too few"],
)
def test_a_copy_that_is_not_waited_for_is_undefined(body: tuple[Stmt, ...]) -> None:
    assert np.isnan(run(*body)).all()


def test_a_copy_makes_what_was_there_undefined() -> None:
    stored = threads(Store("l", (T,), Const(1.0, "float32")))
    assert np.isnan(run(stored, COPY, CopyGroup(), READ)).all()
    np.testing.assert_array_equal(run(stored, READ), np.ones(4))


def test_all_groups_but_the_last_ones_arrive_in_order() -> None:
    """Two groups of half the elements; one is waited for."""
    first, second = (threads(CopyAsync("l", (add(T, at),), "x", (add(T, at),), 1)) for at in (0, 2))
    halves = (
        For("t", Int(2), first.body, "thread"),
        CopyGroup(),
        For("t", Int(2), second.body, "thread"),
        CopyGroup(),
    )
    found = run(*halves, CopyWait(1), READ)
    np.testing.assert_array_equal(found[:2], X[:2])
    assert np.isnan(found[2:]).all()
    np.testing.assert_array_equal(run(*halves, CopyWait(1), CopyWait(0), READ), X)


def test_a_copy_reads_when_it_begins() -> None:
    """y is copied, then stored to, then what was copied arrives."""
    whole = threads(Store("y", (T,), Load("x", (T,))))
    copy = threads(CopyAsync("l", (T,), "y", (T,), 1))
    over = threads(Store("y", (T,), Const(0.0, "float32")))
    np.testing.assert_array_equal(run(whole, copy, over, CopyGroup(), CopyWait(0), READ), X)


def test_where_a_condition_does_not_hold_zeros_are_copied_and_nothing_is_read() -> None:
    beyond = CopyAsync("l", (T,), "x", (add(T, 2),), 1, (Less(T, Int(2)),))
    np.testing.assert_array_equal(run(threads(beyond), CopyGroup(), CopyWait(0), READ), [*X[2:], 0, 0])


def test_several_elements_are_copied_at_once() -> None:
    place = (mul(T, 2),)
    wide = For("t", Int(2), (CopyAsync("l", place, "x", place, 2),), "thread")
    np.testing.assert_array_equal(run(wide, CopyGroup(), CopyWait(0), READ), X)


@pytest.mark.parametrize("kind", ["thread", "warp"])
def test_threads_run_in_any_order(kind: LoopKind) -> None:
    """y[t] = 1 + y[t - 1], which depends on it."""
    before = Choose((Less(Int(0), T),), Load("y", (add(T, -1),)), Const(0.0, "float32"))
    body = threads(Store("y", (T,), Arith("+", before, Const(1.0, "float32"))), kind=kind)
    np.testing.assert_array_equal(run(body), [1, 2, 3, 4])
    assert any(np.isnan(run(body, seed=seed)).any() for seed in range(3))


# ---- tiles whose columns are in memory what rows of others are


def turned(dtype: str, *, load: bool) -> Program:
    """y[i, j] = sum over k of x[i, k] * w[j, k], 16 times 8 of 8 terms; with ``load`` w is [k, j] in memory."""
    shapes = {"x": (16, 8), "w": (8, 8), "y": (16, 8)}
    buffers = tuple(
        Buffer(
            name, "float32" if name == "y" else dtype, tuple(map(Int, shape)), "result" if name == "y" else "operand"
        )
        for name, shape in shapes.items()
    )
    origin = (Int(0), Int(0))
    body: Stmt = Alloc(
        Buffer("a", dtype, (Int(16), Int(8)), "tile"),
        (
            TileZero("c", (Var("w0"),)),
            TileLoad("a", (), "x", origin, 0),
            TileLoad("b", (), "w", origin, 0, turned=load),
            TileDot("c", (Var("w0"),), "a", (), "b", (), turned=True),
            TileStore("y", origin, 0, "c", (Var("w0"),)),
        ),
    )
    warp = For("w0", Int(1), (Alloc(Buffer("b", dtype, (Int(8), Int(8)), "tile"), (body,)),), "warp")
    whole = Alloc(Buffer("c", "float32", (Int(1), Int(16), Int(8)), "tile"), (warp,))
    return Program("p", (), buffers, (Stage("s", (whole,)),))


@pytest.mark.parametrize("load", [False, True], ids=["rows", "columns"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_turned_tiles_are_products_with_a_transposed_matrix(dtype: str, load: bool) -> None:
    rng = np.random.default_rng(0)
    x, w = (rng.integers(-3, 4, shape).astype(DTYPES[dtype].numpy) for shape in ((16, 8), (8, 8)))
    found = interpret(turned(dtype, load=load), {}, {"x": x, "w": w})["y"]
    wide = w.astype(np.float64)
    np.testing.assert_array_equal(found, x.astype(np.float64) @ (wide if load else wide.T))


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (1 + 2.0**-10, 1 + 2.0**-10),
        (1 + 2.0**-11, 1 + 2.0**-10),
        (-1 - 2.0**-11, -1 - 2.0**-10),
        (1 + 2.0**-11 - 2.0**-23, 1.0),
        (1 + 3 * 2.0**-11, 1 + 2.0**-9),
        (2 - 2.0**-23, 2.0),
        (0.0, 0.0),
        (2.0**-136, 2.0**-136),
    ],
)
def test_factors_of_float32_are_rounded_to_ten_bits_with_halves_away_from_zero(value: float, wanted: float) -> None:
    x = np.zeros((16, 8), np.float32)
    x[3, 5] = value
    w = np.zeros((8, 8), np.float32)
    w[2, 5] = 1.0
    found = interpret(turned("float32", load=False), {}, {"x": x, "w": w})["y"]
    assert found[3, 2] == np.float32(wanted)
    swapped = interpret(turned("float32", load=False), {}, {"x": x * 0 + (x != 0), "w": w * np.float32(value)})["y"]
    assert swapped[3, 2] == np.float32(wanted)


def test_infinities_stay_and_denormals_of_16_bits_count() -> None:
    x, w = np.zeros((16, 8), np.float32), np.zeros((8, 8), np.float32)
    x[0, 0], w[:, 0] = np.inf, 1.0
    found = interpret(turned("float32", load=False), {}, {"x": x, "w": w})["y"]
    assert np.isposinf(found[0]).all()
    half = np.zeros((16, 8), DTYPES["bfloat16"].numpy)
    half[0, 0] = 1e-39
    other = np.ones((8, 8), half.dtype)
    found = interpret(turned("bfloat16", load=False), {}, {"x": half, "w": other})["y"]
    assert found[0, 0] == np.float32(half[0, 0])
    assert found[0, 0] > 0
