"""The interpreter: what each node means, and that it shows accesses and reads that are wrong."""

from __future__ import annotations

import math

import numpy as np
import pytest

from convgen.dtypes import DTYPES
from convgen.errors import IRError
from convgen.ir.build import add, mul, sub
from convgen.ir.interp import interpret
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
    LoopKind,
    PaddedLoad,
    PaddingMode,
    Program,
    Space,
    Splat,
    Stage,
    Stmt,
    Store,
    TileDot,
    TileLoad,
    TileStore,
    TileZero,
    Value,
    Var,
    Where,
)

I = Var("i")  # noqa: E741
X = np.array([5.0, -3.0, 2.0, 7.0], np.float32)


def run(*body: Stmt, length: int = 4, dtype: str = "float32", x: np.ndarray = X, space: Space = "result") -> np.ndarray:
    """What y[length] holds after a stage that may read x."""
    buffers = (Buffer("x", dtype, (Int(len(x)),), "operand"), Buffer("y", dtype, (Int(length),), space))
    return interpret(Program("p", (), buffers, (Stage("s", body),)), {}, {"x": x})["y"]


def value_of(value: Value) -> float:
    return float(run(Store("y", (Int(0),), value), length=1)[0])


def const(number: float) -> Const:
    return Const(number, "float32")


@pytest.mark.parametrize(
    ("mode", "wanted"),
    [
        ("zeros", [0, 0, 5, -3, 2, 7, 0, 0]),
        ("reflect", [2, -3, 5, -3, 2, 7, 2, -3]),
        ("replicate", [5, 5, 5, -3, 2, 7, 7, 7]),
        ("circular", [2, 7, 5, -3, 2, 7, 5, -3]),
    ],
)
def test_padded_load_continues_the_buffer(mode: PaddingMode, wanted: list[float]) -> None:
    body = For("i", Int(8), (Store("y", (I,), PaddedLoad("x", (sub(I, 2),), mode)),))
    np.testing.assert_array_equal(run(body, length=8), wanted)


def test_reflection_beyond_the_buffer_is_an_error() -> None:
    """Of four elements, positions -6 to 6 are reached by reflecting once at each edge."""
    assert value_of(PaddedLoad("x", (Int(-6),), "reflect")) == X[0]
    assert value_of(PaddedLoad("x", (Int(-4),), "reflect")) == X[2]
    assert value_of(PaddedLoad("x", (Int(6),), "reflect")) == X[0]
    for index in (-7, 7):
        with pytest.raises(IRError, match=r"stage s: padded access x\[-?\d\] lies outside \(4,\)"):
            value_of(PaddedLoad("x", (Int(index),), "reflect"))


@pytest.mark.parametrize("index", [-1, 4])
def test_access_outside_a_buffer_is_an_error(index: int) -> None:
    with pytest.raises(IRError, match=rf"stage s: access x\[{index}\] x1 lies outside \(4,\)"):
        run(Store("y", (Int(0),), Load("x", (Int(index),))))
    with pytest.raises(IRError, match=rf"stage s: access y\[{index}\] x1 lies outside \(4,\)"):
        run(Store("y", (Int(index),), const(0.0)))


def test_one_lane_outside_a_buffer_is_an_error() -> None:
    with pytest.raises(IRError, match=r"access x\[1\] x4 lies outside"):
        run(Store("y", (Int(0),), Load("x", (Int(1),), 4), 4))
    with pytest.raises(IRError, match=r"access y\[-1\] x4 lies outside"):
        run(Store("y", (Int(-1),), Load("x", (Int(0),), 4), 4))


@pytest.mark.parametrize("count", [-2, 0, 1, 3, 4, 9])
def test_lanes_beyond_the_count_are_zero_and_left_alone(count: int) -> None:
    """At x[2:6] of x[4]: a masked lane may lie outside the buffer."""
    inside = max(0, min(count, 4))
    body = (
        Store("y", (Int(0),), Splat(const(9.0), 4), 4),
        Store("y", (Int(0),), Load("x", (Int(2 if inside <= 2 else 0),), 4, Int(count)), 4),
    )
    start = 2 if inside <= 2 else 0
    np.testing.assert_array_equal(run(*body), [*X[start : start + inside], *[0] * (4 - inside)])
    masked = (body[0], Store("y", (Int(4 - inside),), Splat(const(1.0), 4), 4, Int(count)))
    np.testing.assert_array_equal(run(*masked), [9] * (4 - inside) + [1] * inside)


@pytest.mark.parametrize(
    ("dtype", "poison"), [("float32", math.nan), ("float16", math.nan), ("int32", 2**31 - 1), ("int8", 127)]
)
def test_memory_that_nobody_stored_to_shows(dtype: str, poison: float) -> None:
    left = run(length=2, dtype=dtype, x=np.zeros(1))
    np.testing.assert_array_equal(left.astype(np.float64), [poison, poison])


def test_register_that_nobody_stored_to_shows() -> None:
    acc = Buffer("acc", "float32", (), "register")
    body = For("i", Int(2), (Alloc(acc, (Store("y", (I,), Load("acc", ())), Store("acc", (), const(1.0)))),))
    assert np.isnan(run(body, length=2)).all()


def racing(kind: LoopKind) -> Program:
    """y[i] = i + y[i - 1], which depends on the order of iterations."""
    before = Choose((Less(Int(0), I),), Load("y", (sub(I, 1),)), const(0.0))
    body = For("i", Int(6), (Store("y", (I,), Arith("+", before, Load("x", (I,)))),), kind)
    buffers = (Buffer("x", "float32", (Int(6),), "operand"), Buffer("y", "float32", (Int(6),), "result"))
    return Program("p", (), buffers, (Stage("s", (body,)),))


def test_shuffle_reorders_parallel_iterations_only() -> None:
    operands = {"x": np.ones(6, np.float32)}
    in_order = interpret(racing("parallel"), {}, operands)["y"]
    np.testing.assert_array_equal(in_order, [1, 2, 3, 4, 5, 6])
    shuffled = interpret(racing("parallel"), {}, operands, shuffle=np.random.default_rng(0))["y"]
    assert np.isnan(shuffled).any()
    serial = interpret(racing("serial"), {}, operands, shuffle=np.random.default_rng(0))["y"]
    np.testing.assert_array_equal(serial, in_order)


def test_values() -> None:
    x0, x1 = Load("x", (Int(0),)), Load("x", (Int(1),))
    assert value_of(Arith("-", x0, x1)) == 8
    assert value_of(Arith("*", x0, x1)) == -15
    assert value_of(Arith("/", x1, const(2.0))) == -1.5
    assert value_of(Arith("min", x0, x1)) == -3
    assert value_of(Arith("max", x0, x1)) == 5
    assert value_of(Fma(x0, x1, const(1.0))) == -14
    assert value_of(Where(x1, const(1.0), const(2.0))) == 1
    assert value_of(Where(const(0.0), const(1.0), const(2.0))) == 2
    assert value_of(Apply("exp", x1)) == np.float32(math.exp(-3))
    assert value_of(Apply("tanh", x1)) == np.float32(math.tanh(-3))
    assert value_of(Apply("erf", const(0.5))) == np.float32(math.erf(0.5))


def test_conversions_round_halves_to_even() -> None:
    wanted = {0.5: 0, 1.5: 2, -2.5: -2, 2.75: 3, -0.75: -1}
    for number, integer in wanted.items():
        value = Convert(const(number), "int32")
        assert run(Store("y", (Int(0),), value), length=1, dtype="int32", x=np.zeros(1, np.int32))[0] == integer
    assert value_of(Convert(Const(2**24 + 1, "int32"), "float32")) == 2**24


def test_fma_rounds_once() -> None:
    tiny = 2.0**-12
    a = const(1.0 + tiny)
    assert value_of(Fma(a, a, const(-1.0))) == np.float32(2 * tiny + tiny * tiny)
    assert value_of(Arith("+", Arith("*", a, a), const(-1.0))) == np.float32(2 * tiny)


def test_dot_adds_the_products_of_all_terms() -> None:
    x, w = np.array([250, 3, 0, 7], np.uint8), np.arange(-4, 4, dtype=np.int8).reshape(2, 4)
    total = Dot(Splat(Load("x", (Int(0),), terms=4), 2), Load("w", (Int(0), Int(0)), 2, terms=4), Const(7, "int32", 2))
    operands = (Buffer("x", "uint8", (Int(4),), "operand"), Buffer("w", "int8", (Int(2), Int(4)), "operand"))
    result = Buffer("y", "int32", (Int(2),), "result")
    program = Program("p", (), (*operands, result), (Stage("s", (Store("y", (Int(0),), total, 2),)),))
    found = interpret(program, {}, {"x": x, "w": w})["y"]
    np.testing.assert_array_equal(found, w.astype(int) @ x.astype(int) + 7)


def test_terms_that_lie_apart_are_interleaved() -> None:
    x, w = np.arange(6, dtype=DTYPES["bfloat16"].numpy).reshape(2, 3), np.array([3.0, -5.0], DTYPES["bfloat16"].numpy)
    rows = Interleave((Load("x", (Int(0), Int(0)), 3), Load("x", (Int(1), Int(0)), 3, Int(2))))
    total = Dot(rows, Splat(Load("w", (Int(0),), terms=2), 3), Const(7, "float32", 3))
    operands = (Buffer("x", "bfloat16", (Int(2), Int(3)), "operand"), Buffer("w", "bfloat16", (Int(2),), "operand"))
    result = Buffer("y", "float32", (Int(3),), "result")
    program = Program("p", (), (*operands, result), (Stage("s", (Store("y", (Int(0),), total, 3),)),))
    np.testing.assert_array_equal(interpret(program, {}, {"x": x, "w": w})["y"], [-8.0, -10.0, 13.0])


def test_interleaved_rows_are_stored_lane_by_lane() -> None:
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    beyond = Choose((Less(Int(1), Var("N")),), Load("x", (Int(1), Int(0)), 3), Const(0.0, "float32", 3))
    rows = Interleave((Load("x", (Int(0), Int(0)), 3), beyond))
    operand, result = (
        Buffer("x", "float32", (Int(2), Int(3)), "operand"),
        Buffer("y", "float32", (Int(3), Int(2)), "result"),
    )
    body = (Store("y", (Int(0), Int(0)), rows, 3),)
    program = Program("p", ("N",), (operand, result), (Stage("s", body),))
    np.testing.assert_array_equal(interpret(program, {"N": 2}, {"x": x})["y"], x.T)
    np.testing.assert_array_equal(interpret(program, {"N": 1}, {"x": x})["y"], [[0, 0], [1, 0], [2, 0]])


def test_dot_of_bfloat16_takes_denormals_for_zeros() -> None:
    x = np.array([1e-39, 2.0], DTYPES["bfloat16"].numpy)
    pair = Load("x", (Int(0),), terms=2)
    operand, result = Buffer("x", "bfloat16", (Int(2),), "operand"), Buffer("y", "float32", (), "result")
    for start, wanted in ((1.0, 5.0), (1e-39, 4.0)):
        program = Program("p", (), (operand, result), (Stage("s", (Store("y", (), Dot(pair, pair, const(start))),)),))
        assert interpret(program, {}, {"x": x})["y"] == wanted


def of_tiles(step: int, place: int = 0) -> Program:
    """y[r, c] = sum over k of x[place + r * step, k] * w[k // 4, c, k % 4], two rows of three lanes, by tiles."""
    shapes: dict[str, tuple[int, ...]] = {"x": (4, 8), "w": (2, 3, 4), "y": (2, 3)}
    dtypes = {"x": "int8", "w": "int8", "y": "int32"}
    buffers = tuple(
        Buffer(name, dtypes[name], tuple(map(Int, shape)), "result" if name == "y" else "operand")
        for name, shape in shapes.items()
    )
    zero = (Int(0), Int(0))
    body: Stmt = Alloc(
        Buffer("a", "int8", (Int(2), Int(8)), "tile"),
        (
            TileZero("c", ()),
            TileLoad("a", (), "x", (Int(place), Int(0)), 0, step),
            TileLoad("b", (), "w", (*zero, Int(0)), 0),
            TileDot("c", (), "a", (), "b", ()),
            TileDot("c", (), "a", (), "b", ()),
            TileStore("y", zero, 0, "c", ()),
        ),
    )
    for name, dtype, shape in (("b", "int8", (2, 12)), ("c", "int32", (2, 3))):
        body = Alloc(Buffer(name, dtype, tuple(map(Int, shape)), "tile"), (body,))
    return Program("p", (), buffers, (Stage("s", (body,)),))


@pytest.mark.parametrize("step", [1, 2, 3])
def test_tiles_are_products_of_matrices(step: int) -> None:
    x, w = (np.arange(count, dtype=np.int8).reshape(shape) for count, shape in ((32, (4, 8)), (24, (2, 3, 4))))
    found = interpret(of_tiles(step), {}, {"x": x, "w": w})["y"]
    rows, lanes = x[::step][:2].astype(int), w.transpose(0, 2, 1).reshape(8, 3).astype(int)
    np.testing.assert_array_equal(found, 2 * (rows @ lanes))


def test_a_tile_outside_of_a_buffer_is_an_error() -> None:
    operands = {"x": np.zeros((4, 8), np.int8), "w": np.zeros((2, 3, 4), np.int8)}
    with pytest.raises(IRError, match=r"tile at x\[2, 0\] lies outside \(4, 8\)"):
        interpret(of_tiles(2, place=2), {}, operands)


def test_choose_does_not_evaluate_what_it_does_not_choose() -> None:
    outside = Load("x", (Int(99),))
    assert value_of(Choose((Less(Int(0), Int(1)),), const(1.0), outside)) == 1
    assert value_of(Choose((Less(Int(0), Int(1)), Less(Int(1), Int(0))), outside, const(2.0))) == 2


def test_guard_sizes_bindings_and_index_operators() -> None:
    """12 // 5 = 2, -7 % 4 = 1, and so 2 * 2 + 1 - 3 = 2."""
    place: Index = add(mul("half", 2), "low", -3)
    body = For("i", Var("N"), (If(Less(I, Int(1)), (Store("y", (place,), const(4.0)),)),))
    bindings: tuple[tuple[str, Index], ...] = (
        ("half", IndexOp("//", mul("N", 4), Int(5))),
        ("low", IndexOp("%", sub(-4, "N"), Int(4))),
    )
    buffers = (Buffer("y", "float32", (Var("N"),), "result"),)
    got = interpret(Program("p", ("N",), buffers, (Stage("s", (body,), bindings),)), {"N": 3}, {})["y"]
    np.testing.assert_array_equal(got, [np.nan, np.nan, 4])


def test_sizes_that_a_stage_is_not_made_for_are_refused() -> None:
    body = For("i", Var("N"), (Store("y", (I,), const(1.0)),))
    stage = Stage("s", (body,), (("half", IndexOp("//", Var("N"), Int(2))),), needs=(Less(Int(1), Var("half")),))
    program = Program("p", ("N",), (Buffer("y", "float32", (Var("N"),), "result"),), (stage,))
    np.testing.assert_array_equal(interpret(program, {"N": 4}, {})["y"], np.ones(4))
    with pytest.raises(IRError, match="stage s needs 2 <= half"):
        interpret(program, {"N": 3}, {})


def test_stores_round_to_the_type_of_the_buffer_and_loads_widen() -> None:
    half = run(For("i", Int(2), (Store("y", (I,), Arith("+", Load("x", (I,)), const(2.0**-11))),)), length=2,
               dtype="float16", x=np.array([1.0, 2.0**-11]))  # fmt: skip
    np.testing.assert_array_equal(half, np.array([1.0, 2.0**-10], np.float16))
    product = Arith("*", Load("x", (Int(0),)), Load("x", (Int(0),)))
    buffers = (Buffer("x", "int8", (Int(1),), "operand"), Buffer("y", "int32", (Int(1),), "result"))
    program = Program("p", (), buffers, (Stage("s", (Store("y", (Int(0),), product),)),))
    assert interpret(program, {}, {"x": np.array([-100], np.int8)})["y"][0] == 10000


def test_operands_are_reshaped_and_not_changed() -> None:
    buffers = (Buffer("x", "float32", (Int(2), Int(2)), "operand"), Buffer("y", "float32", (), "result"))
    program = Program("p", (), buffers, (Stage("s", (Store("y", (), Load("x", (Int(1), Int(0)))),)),))
    x = X.copy()
    assert interpret(program, {}, {"x": x})["y"] == 2
    np.testing.assert_array_equal(x, X)
