"""Every requirement of the passes that deal work out to threads: a program that breaks it is refused by name."""

from __future__ import annotations

from dataclasses import replace

import pytest

from convgen.errors import PassError
from convgen.ir.build import add
from convgen.ir.nodes import Alloc, Arith, Buffer, Choose, Const, Fma, If, Int, Less, Prefetch, Program, Stmt, Var
from convgen.passes.block_reduction import BlockReduction
from convgen.passes.distribute import Distribute, ThreadAxis
from convgen.passes.launch_grid import LaunchGrid
from convgen.passes.pipeline import Pass, run_passes
from convgen.passes.pipeline_copies import PipelineCopies
from convgen.passes.predicate import Predicate
from convgen.passes.share_loops import ShareLoops
from convgen.passes.split_sum import SplitSum
from convgen.passes.stage_shared import StageShared
from convgen.passes.tensorize_warps import TensorizeWarps
from convgen.passes.tile import Tile
from convgen.passes.unroll import Unroll
from convgen.passes.whole_vectors import WholeVectors
from convgen.passes.widen_reads import WidenReads
from tests.passes.small import ZERO, accumulate, at, buffer, double, loop, narrow_product, product, program, put
from tests.passes.test_golden import BLOCKED, DEALT, HALVES, KEPT, SHARED, WARPS

INSIDE = Less(Var("r"), Int(2))


def after(given: Program, *passes: Pass) -> Program:
    return run_passes(given, passes)


def guarded_sum(*update: Stmt) -> Program:
    """y[i] = a sum over three r, of which the guard keeps two."""
    nest = loop("i", "M", accumulate(loop("r", 3, If(INSIDE, update)), finish=put("y", "i", value=at("acc"))))
    return program((buffer("x", "M", 3), buffer("w", 3), buffer("y", "M")), nest)


def guarded_prefetch() -> Program:
    body = (If(Less(Var("i"), Int(2)), (Prefetch("x", (Var("i"),), 1),)), put("y", "i", value=at("x", "i")))
    return program((buffer("x", "M"), buffer("y", "M")), loop("i", "M", *body))


def summed(*body: Stmt) -> Program:
    """A nest around a register, whatever is done with it."""
    return program(
        (buffer("x", 4, 4), buffer("w", 4), buffer("y", 4)),
        loop("i", 4, Alloc(Buffer("acc", "float32", (), "register"), body)),
        sizes=(),
    )


def alone() -> Program:
    """y[] = x[], without a loop."""
    return program((buffer("x"), buffer("y")), put("y", value=at("x")))


def triangle() -> Program:
    """for i in 3: for j in i: y[i, j] = x[i, j]."""
    body = loop("i", 3, loop("j", "i", put("y", "i", "j", value=at("x", "i", "j"))))
    return program((buffer("x", 3, 3), buffer("y", 3, 3)), body, sizes=())


def terms() -> Program:
    """y[i] = sum over r of x[i, r], which is no factor."""
    update = loop("r", 3, put("acc", value=Arith("+", at("acc"), at("x", "i", "r"))))
    nest = loop("i", "M", accumulate(update, finish=put("y", "i", value=at("acc"))))
    return program((buffer("x", "M", 3), buffer("y", "M")), nest)


def squares() -> Program:
    """y[i] = sum over r of x[i, r] * x[0, r]."""
    update = loop("r", 3, put("acc", value=Fma(at("x", "i", "r"), at("x", 0, "r"), at("acc"))))
    nest = loop("i", "M", accumulate(update, finish=put("y", "i", value=at("acc"))))
    return program((buffer("x", "M", 3), buffer("y", "M")), nest)


ADDED = put("acc", value=Arith("+", at("acc"), at("x", "i", "r")))
PRODUCT = put("acc", value=Fma(at("x", "i", "r"), at("w", "r"), at("acc")))
BEGIN, END = put("acc", value=ZERO), put("y", "i", value=at("acc"))

HALF = narrow_product(HALVES, "float32", 32, lanes=16)
# All of a warp's product but its last two passes.
STAGED = WARPS[:-2]
ROW, COL = ThreadAxis("i", 2, 2, 1), ThreadAxis("j", 1, 2, 2)


def warps(
    *,
    loops: tuple[str, str] = ("i", "j"),
    count: tuple[int, int] = (1, 1),
    reduction: str = "r",
    depth: int = 16,
) -> TensorizeWarps:
    return TensorizeWarps("main", loops, reduction, count, (16, 8, depth), "sums")


# Two factors along rows, in shared memory.
STAGED_ROWS: tuple[Pass, ...] = (StageShared("rb", "x", "xs", ("i", "r")), StageShared("rb", "w", "ws", ("i", "r")))


def both_along_rows() -> Program:
    """y[i, j] = sum over r of x[i, r] * w[i, r]."""
    given = narrow_product(HALVES, "float32", 32, lanes=16)
    update = loop("r", 32, put("acc", value=Fma(at("x", "i", "r"), at("w", "i", "r"), at("acc"))))
    nest = loop("i", 16, loop("j", 16, accumulate(update, finish=put("y", "i", "j", value=at("acc")))))
    return replace(given, stages=(replace(given.stages[0], body=(nest,)),))


def begun_with_one() -> Program:
    """The staged product whose sums begin with one."""
    nest = HALF.stages[0].body[0]
    inner = nest.body[0].body[0]  # type: ignore[union-attr]
    assert isinstance(inner, Alloc)
    changed = replace(inner, body=(put("acc", value=Const(1, "float32")), *inner.body[1:]))
    whole = loop("i", "M", loop("j", 16, changed))
    return after(replace(HALF, stages=(replace(HALF.stages[0], body=(whole,)),)), *STAGED)


def stored_last() -> Program:
    """A loop that stores to shared memory after it has read it."""
    copy = loop("k", 4, put("l", "k", value=at("x", "b", "k")))
    use = loop("k", 4, put("y", "b", "k", value=at("l", "k")))
    local = replace(buffer("l", 4), space="local")
    return program((buffer("x", 3, 4), buffer("y", 3, 4), local), loop("b", 3, use, copy), sizes=())


CASES: tuple[tuple[str, Pass, Program, str], ...] = (
    ("predicate prefetch", Predicate(), guarded_prefetch(), "a prefetch stands under a guard"),
    ("predicate no product", Predicate(), guarded_sum(ADDED), "not on a product of two reads that depend on it"),
    (
        "predicate one factor",
        Predicate(),
        guarded_sum(put("acc", value=Fma(at("x", "i", "r"), at("w", 0), at("acc")))),
        "not on a product of two reads that depend on it",
    ),
    (
        "predicate register",
        Predicate(),
        guarded_sum(put("acc", value=Fma(at("x", "i", "r"), at("acc"), at("acc")))),
        "not on a product of two reads that depend on it",
    ),
    (
        "predicate other choice",
        Predicate(),
        guarded_sum(put("acc", value=Fma(Choose((INSIDE,), at("x", "i", "r"), at("w", 0)), at("w", "r"), at("acc")))),
        "not on a product of two reads that depend on it",
    ),
    (
        "predicate begun",
        Predicate(),
        after(product(), BlockReduction("r", 2, "j", "part")),
        "not on a product of two reads that depend on it",
    ),
    ("stage_shared loop", StageShared("q", "x", "xs", ("r",)), product(), "no loop q"),
    ("stage_shared extents", StageShared("i", "x", "xs", ("i",)), product(), "are not loops of constant extents in i"),
    ("stage_shared axes", StageShared("j", "w", "ws", ("q",)), product(), "axes=.'q',. of ws are not loops"),
    ("stage_shared two", StageShared("i", "x", "xs", ("r",)), squares(), "x is read by 2 factors in loop i"),
    ("stage_shared none", StageShared("i", "y", "ys", ("r",)), product(), "y is read by 0 factors in loop i"),
    ("stage_shared no factor", StageShared("i", "x", "xs", ("r",)), terms(), "x is not read as a factor in loop i"),
    ("stage_shared more", StageShared("i", "w", "ws", ("r",)), product(), "read of w depends on more than .'r',."),
    ("share_loops apart", ShareLoops(("xs_r", "q"), "xs", 4), after(product(), *SHARED), "are not perfectly nested"),
    ("share_loops extents", ShareLoops(("i", "j"), "t", 4), double(), "not of constant extents that 1 lanes divide"),
    ("share_loops lanes", ShareLoops(("xs_r", "xs_i"), "xs", 4, 3), after(product(), *SHARED), "that 3 lanes divide"),
    (
        "distribute extent",
        Distribute("main", (ThreadAxis("j", 1, 2, 2),)),
        double(),
        "loop j has not 4 iterations",
    ),
    (
        "distribute registers",
        Distribute("main", (COL, ROW), ("rb",)),
        after(product(), *BLOCKED, Tile("i", 2, "i", "i2"), Unroll("i2")),
        "has not 4 iterations|does not begin with the axes",
    ),
    (
        "distribute other registers",
        Distribute("main", (ROW, ThreadAxis("j", 2, 2, 2)), ("rb",)),
        after(product(), *SHARED, ShareLoops(("xs_r", "xs_i"), "xs", 4)),
        "register acc does not begin with the axes .'i', 'j'.",
    ),
    ("launch_grid nothing", LaunchGrid("main", 4), alone(), "stage main has no loops to be threads"),
    ("launch_grid triangle", LaunchGrid("main", 4), triangle(), "extent of loop j depends on another loop"),
    ("whole_vectors extent", WholeVectors("i"), double(), "extent of loop i is not constant"),
    ("whole_vectors loop", WholeVectors("q"), double(), "no loop q"),
    ("widen_reads lanes", WidenReads("x", 1), product(), "lanes=1 of x must be at least 2"),
    ("split_sum parts", SplitSum("main", "r", 1), product(), "parts=1 of loop r must be at least 2"),
    ("split_sum nest", SplitSum("main", "j", 2), double(), "main is not a nest around one sum"),
    ("split_sum loop", SplitSum("main", "j", 2), product(), "main does not sum along j"),
    (
        "split_sum begun",
        SplitSum("main", "r", 2),
        summed(put("acc", value=at("w", "i")), loop("r", 4, PRODUCT), END),
        "main is not a nest around one sum",
    ),
    (
        "split_sum unread",
        SplitSum("main", "r", 2),
        summed(BEGIN, loop("r", 4, PRODUCT), put("y", "i", value=ZERO)),
        "or does not store the sum",
    ),
    (
        "split_sum stores",
        SplitSum("main", "r", 2),
        summed(BEGIN, loop("r", 4, PRODUCT), END, END),
        "main is not a nest around one sum",
    ),
    ("tensorize_warps nest", warps(), double(), "main is not loops around one block of sums"),
    ("tensorize_warps warps", warps(count=(2, 1)), after(HALF, *STAGED), "16 sums are not whole tiles of 16 for 2 warps"),
    ("tensorize_warps begun", warps(), begun_with_one(), "acc does not begin with zero"),
    ("tensorize_warps reduction", warps(reduction="q"), after(HALF, *STAGED), "not summed by a loop q of whole tiles"),
    ("tensorize_warps depth", warps(depth=12), after(HALF, *STAGED), "not summed by a loop r of whole tiles"),
    (
        "tensorize_warps factors",
        warps(),
        after(HALF, *WARPS[:8]),
        "acc is not a sum of products of two local buffers",
    ),
    ("tensorize_warps places", warps(loops=("i", "q")), after(HALF, *STAGED), "ws is not read at one of .'i', 'q'. and r"),
    (
        "tensorize_warps sides",
        warps(),
        after(both_along_rows(), *WARPS[:7], *STAGED_ROWS),
        "xs and ws are both read along i",
    ),
    (
        "tensorize_warps type",
        warps(depth=8),
        after(narrow_product(("int8", "int8"), "int32", 32, lanes=16), *STAGED),
        "a tile of 16 rows|are no product",
    ),
    ("pipeline_copies stages", PipelineCopies("rb", ("xs",), 1), after(product(), *DEALT), "stages=1 of loop rb"),
    ("pipeline_copies loop", PipelineCopies("q", ("xs",), 2), after(product(), *DEALT), "no loop q"),
    ("pipeline_copies first", PipelineCopies("b", ("l",), 2), stored_last(), "does not begin with the copies to .'l',."),
)  # fmt: skip


@pytest.mark.parametrize(("step", "given", "message"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_refused(step: Pass, given: Program, message: str) -> None:
    with pytest.raises(PassError, match=rf"^{type(step).__name__}: .*({message})"):
        run_passes(given, [step])


def test_copies_of_another_type_or_size_wait() -> None:
    """What a thread cannot copy without waiting is stored as before, in the same parts."""
    given = narrow_product(HALVES, "float32", 4, lanes=8)
    staged = after(given, *BLOCKED, StageShared("rb", "w", "ws", ("r", "j")), KEPT)
    kept = after(staged, PipelineCopies("rb", ("ws",), 2))
    text = str(kept)
    assert "CopyAsync" not in text
    assert "CopyWait" in text
    assert kept.buffer("ws").shape == (Int(2), *staged.buffer("ws").shape)


def test_a_factor_with_a_function_is_stored_by_threads() -> None:
    """Products of a choice other than zero are no copies."""
    other = Choose((Less(add("i", "r"), Int(3)),), at("x", "i", "r"), Const(1.0, "float32"))
    update = loop("r", 4, put("acc", value=Fma(other, at("w", "r", "j"), at("acc"))))
    nest = loop("i", 4, loop("j", 8, accumulate(update, finish=put("y", "i", "j", value=at("acc")))))
    given = program((buffer("x", 4, 4), buffer("w", 4, 8), buffer("y", 4, 8)), nest, sizes=())
    kept = after(given, *SHARED, KEPT, PipelineCopies("rb", ("xs",), 2))
    assert "CopyAsync" not in str(kept)
