"""The text form: exact, stable, and index expressions that mean in Python what they mean here."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from convgen.ir.interp import evaluate_index
from convgen.ir.nodes import (
    Alloc,
    Apply,
    Arith,
    Barrier,
    Buffer,
    Choose,
    Const,
    Convert,
    CopyAsync,
    CopyGroup,
    CopyWait,
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
    TileDot,
    TileLoad,
    TileStore,
    TileZero,
    Transform,
    Transpose,
    Var,
    Where,
)
from convgen.ir.printer import format_index, format_program
from convgen.nests.build import build_nest
from convgen.spec import ConvSpec
from convgen.transforms.linear import Add, LinearProgram
from tests.ir.golden import assert_golden

NAMES = {"a": 3, "b": -4, "c": 7}


def indices() -> st.SearchStrategy[Index]:
    """Expressions whose divisors are never 0."""
    leaves = st.one_of(st.integers(-9, 9).map(Int), st.sampled_from(sorted(NAMES)).map(Var))
    divisors = st.one_of(st.sampled_from((-3, 2, 5)).map(Int), st.sampled_from(sorted(NAMES)).map(Var))

    def grow(inner: st.SearchStrategy[Index]) -> st.SearchStrategy[Index]:
        plain = st.builds(IndexOp, st.sampled_from(("+", "-", "*", "min", "max")), inner, inner)
        return plain | st.builds(IndexOp, st.sampled_from(("//", "%")), inner, divisors)

    return st.recursive(leaves, grow, max_leaves=8)


def every_node() -> Program:
    """One of each node, and each option of them that has a notation."""
    i, n = Var("i"), Var("N")
    x4 = Load("x", (Int(0), i), 4, IndexOp("-", n, i))
    scalar = Choose(
        (Less(Int(-1), i), Less(i, n)), PaddedLoad("x", (i, IndexOp("-", i, Int(1))), "reflect"), Const(-1.5, "float32")
    )
    chain = Where(Load("acc", ()), Apply("exp", Load("acc", ())), Arith("max", scalar, Arith("/", scalar, scalar)))
    wide = Fma(Spread(x4, 4, 2, 1, 1), Splat(Load("acc", ()), 4), Convert(Const(25, "int32", 4), "float32"))
    dot = Dot(Splat(Load("w", (n, i), terms=2), 4), Load("w", (i, Int(0)), 4, terms=2), wide)
    apart = Dot(Interleave((Load("t", (n, i), 4), Load("t", (i, n), 4))), Load("w", (i, Int(0)), 4, terms=2), wide)
    stores = tuple(Store("y", (i, Int(0)), value, 4, Var("limit")) for value in (dot, apart))
    body = Alloc(Buffer("acc", "float32", (), "register"), (Store("acc", (), chain), If(Less(i, Int(2)), stores)))
    linear = LinearProgram(2, (Add(0, 1),), (2, 0))
    change = Alloc(Buffer("v", "float32", (Int(2),), "register"), (Transform("v", linear, "sums"),))
    turn = Transpose("l", (i, Int(0)), 0, "z", (Int(0), i), 0, 8, n, IndexOp("-", n, i))
    bare = (
        TileZero("c", (Int(0),)),
        TileLoad("a", (), "w", (n, Int(0)), 0, 2),
        TileDot("c", (Int(0),), "a", (), "b", ()),
        TileStore("l", (i, Int(0)), 0, "c", (Int(0),)),
    )
    unit: Stmt = Alloc(Buffer("c", "float32", (Int(1), Int(2), Int(3)), "tile"), bare)
    unit = Alloc(Buffer("a", "bfloat16", (Int(2), Int(2)), "tile"), (unit,))
    unit = Alloc(Buffer("b", "bfloat16", (Int(1), Int(6)), "tile"), (unit,))
    nest = For(
        "n",
        n,
        (For("i", IndexOp("+", n, Int(1)), (body, change, unit, turn, Prefetch("z", (n, i), 8))),),
        "parallel",
    )
    buffers = (
        Buffer("x", "float16", (n, n), "operand"),
        Buffer("y", "float32", (n, IndexOp("*", Int(4), n)), "result"),
        Buffer("w", "bfloat16", (n, Int(2)), "packed"),
        Buffer("p", "int8", (Int(3),), "packed"),
        Buffer("t", "bfloat16", (n, n), "workspace"),
        Buffer("l", "float32", (n, n), "local"),
        Buffer("z", "float32", (n, n), "workspace"),
    )
    thread, warp = Var("thread"), Var("warp")
    begin = CopyAsync("l", (Int(0), thread), "z", (n, thread), 4, (Less(thread, n), Less(Int(-1), n)))
    turned: tuple[Stmt, ...] = (
        TileLoad("b", (), "w", (n, Int(0)), 0, turned=True),
        TileDot("c", (warp,), "a", (), "b", (), turned=True),
    )
    shared = For(
        "block",
        n,
        (
            For("thread", Int(64), (begin, CopyAsync("l", (n, n), "z", (n, thread), 1)), "thread"),
            CopyGroup(),
            CopyWait(2),
            CopyWait(0),
            Barrier(),
            For("warp", Int(2), turned, "warp"),
        ),
        "parallel",
    )
    bound = Stage("first", (nest,), (("limit", IndexOp("//", n, Int(2))), ("offset", Int(-1))))
    return Program("everything", ("N",), buffers, (bound, Stage("threads", (shared,)), Stage("empty", ())))


def test_text_of_every_node() -> None:
    assert_golden("ir_every_node", format_program(every_node()))


def test_text_of_a_convolution() -> None:
    spec = ConvSpec(batch=1, in_channels=4, out_channels=4, spatial_size=(5, 5), kernel_size=3, padding=1, groups=2)
    assert_golden("ir_conv2d", format_program(build_nest(spec).program))


def test_text_of_a_data_gradient_with_a_stride() -> None:
    spec = ConvSpec(
        batch=1, in_channels=2, out_channels=3, spatial_size=6, kernel_size=3, stride=2, direction="backward_data"
    )
    assert_golden("ir_conv1d_data_gradient", format_program(build_nest(spec).program))


def test_text_is_the_same_every_time() -> None:
    assert format_program(every_node()) == format_program(every_node())


@given(indices())
def test_index_text_means_in_python_what_it_means_here(expression: Index) -> None:
    text = format_index(expression)
    assert eval(text, {"min": min, "max": max}, dict(NAMES)) == evaluate_index(expression, NAMES)


def test_parentheses_only_where_they_matter() -> None:
    a, b, c = Var("a"), Var("b"), Var("c")
    assert format_index(IndexOp("-", IndexOp("-", a, b), c)) == "a - b - c"
    assert format_index(IndexOp("-", a, IndexOp("-", b, c))) == "a - (b - c)"
    assert format_index(IndexOp("*", IndexOp("+", a, b), c)) == "(a + b) * c"
    assert format_index(IndexOp("+", IndexOp("*", a, b), c)) == "a * b + c"
    assert format_index(IndexOp("%", a, IndexOp("//", b, c))) == "a % (b // c)"
    assert format_index(IndexOp("+", a, Int(-1))) == "a + (-1)"
    assert format_index(IndexOp("min", IndexOp("+", a, b), c)) == "min(a + b, c)"
