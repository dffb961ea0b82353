"""Every requirement of every pass: a program that breaks it is refused by a PassError that names the pass."""

from __future__ import annotations

from dataclasses import replace

import pytest

from convgen.errors import PassError
from convgen.ir.build import add, floordiv, mul
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
    Program,
    Splat,
    Stage,
    Stmt,
    Store,
    Transpose,
    Var,
)
from convgen.passes.block_reduction import BlockReduction
from convgen.passes.clear_padding import ClearPadding
from convgen.passes.compute_at import ComputeAt
from convgen.passes.copy_in import CopiedAxis, CopyIn
from convgen.passes.dot_products import DotProducts
from convgen.passes.expand_padding import ExpandPadding
from convgen.passes.flatten import Flatten
from convgen.passes.fuse_epilogue import FuseEpilogue
from convgen.passes.interleave_copy import InterleaveCopy
from convgen.passes.order_sum import OrderSum
from convgen.passes.pack import Pack, PackedAxis
from convgen.passes.pad import Pad
from convgen.passes.parallelize import Parallelize
from convgen.passes.peel_border import PeelBorder
from convgen.passes.pieces import Pieces
from convgen.passes.pipeline import Pass, run_passes
from convgen.passes.register_tile import RegisterTile
from convgen.passes.relayout import Relayout
from convgen.passes.reorder import Reorder
from convgen.passes.round_up import RoundUp
from convgen.passes.simplify import Simplify
from convgen.passes.split_border import SplitBorder
from convgen.passes.split_padding import SplitPadding
from convgen.passes.tensorize import Tensorize
from convgen.passes.tile import Tile
from convgen.passes.transpose_blocks import TransposeBlocks
from convgen.passes.trim import Trim
from convgen.passes.unpack import Unpack
from convgen.passes.unpack_at import UnpackAt
from convgen.passes.unroll import Unroll
from convgen.passes.unsigned import Unsigned
from convgen.passes.vectorize import Vectorize
from convgen.passes.vectorize_sum import VectorizeSum
from tests.passes.small import (
    ZERO,
    accumulate,
    at,
    buffer,
    chained,
    chosen_lanes,
    diagonal_product,
    double,
    double_sum,
    double_vectors,
    guarded_block,
    long_product,
    loop,
    narrow_product,
    padded_copy,
    padded_sums,
    product,
    program,
    put,
    shifted,
    turned_copy,
    with_epilogue,
)

J = CopiedAxis("j", Int(6), Var("j"))
WIDE = (Int(4), Int(2))
WHOLE = (PackedAxis(0), PackedAxis(1))


def in_place(*, step: int) -> Program:
    """s[i] = x[i] in one stage, then s[i] = s[i + step] in the next."""
    first = loop("k", 9, put("s", "k", value=at("x", "k")))
    second = loop("i", 4, put("s", "i", value=at("s", add("i", step))))
    return program((buffer("x", 9), buffer("y", 9), buffer("s", 9)), first, second, sizes=())


def sums_in_memory() -> Program:
    """y[i] is its own accumulator, in two loops."""
    body = loop("i", 2, loop("j", 3, put("y", "i", value=Arith("+", at("y", "i"), at("x", "j")))))
    return program((buffer("x", 3), buffer("y", 2)), body, sizes=())


def stored_in_sum() -> Program:
    """y[i] is stored again with each term of its sum."""
    update = loop("r", 3, put("acc", value=Arith("+", at("acc"), at("x", "r"))), put("y", "i", value=at("acc")))
    nest = loop("i", 2, accumulate(update, finish=put("y", "i", value=at("acc"))))
    return program((buffer("x", 3), buffer("y", 2)), nest, sizes=())


def triangle() -> Program:
    """for i in 3: for j in i: y[i, j] = x[i, j]."""
    body = loop("i", 3, loop("j", "i", put("y", "i", "j", value=at("x", "i", "j"))))
    return program((buffer("x", 3, 3), buffer("y", 3, 3)), body, sizes=())


def vectors() -> Program:
    """y[0 :4] = x[0 :4]."""
    store = Store("y", (Int(0),), Load("x", (Int(0),), 4), 4)
    return program((buffer("x", 4), buffer("y", 4)), loop("i", 1, store), sizes=())


def vector_sums() -> Program:
    """The chained program with its workspace stored and read in vectors."""
    first = loop("i", "M", Store("s", (Var("i"), Int(0)), Load("x", (Var("i"), Int(0)), 2), 2))
    second = loop("i", "M", Store("y", (Var("i"), Int(0)), Load("s", (Var("i"), Int(0)), 2), 2))
    return program((buffer("x", "M", 2), buffer("y", "M", 2), buffer("s", "M", 2)), first, second)


def two_in_a_loop() -> Program:
    """for i: (for j: ..., for k: ...)."""
    inner = (loop("j", 2, put("y", "i", "j", value=ZERO)), loop("k", 2, put("y", "i", add("k", 2), value=ZERO)))
    return program((buffer("y", "M", 4),), loop("i", "M", *inner))


def growing_reduction() -> Program:
    """y[i] = sum over r below i of x[r]."""
    update = loop("r", "i", put("acc", value=Arith("+", at("acc"), at("x", "r"))))
    nest = loop("i", 3, accumulate(update, finish=put("y", "i", value=at("acc"))))
    return program((buffer("x", 3), buffer("y", 3)), nest, sizes=())


def guarded_update() -> Program:
    """y[i] = sum over r of x[r] where r < i."""
    update = loop("r", 3, If(Less(Var("r"), Var("i")), (put("acc", value=Arith("+", at("acc"), at("x", "r"))),)))
    nest = loop("i", 3, accumulate(update, finish=put("y", "i", value=at("acc"))))
    return program((buffer("x", 3), buffer("y", 3)), nest, sizes=())


def nested_alloc() -> Program:
    """An accumulator inside the reduction of another."""
    inner = Alloc(Buffer("part", "float32", (), "register"), (put("part", value=ZERO), put("acc", value=at("part"))))
    nest = loop("i", 3, accumulate(loop("r", 2, inner), finish=put("y", "i", value=at("acc"))))
    return program((buffer("y", 3),), nest, sizes=())


def read_back() -> Program:
    """y[i] = acc + y[i + 1]: the nest reads what it stores in other iterations."""
    finish = put("y", "i", value=Arith("+", at("acc"), at("y", add("i", 1))))
    return program((buffer("y", 4),), loop("i", 3, accumulate(finish=finish)), sizes=())


def crossing_sums() -> Program:
    """y[i + j, 0] = y[i + j, 0] + acc: iterations of two loops meet at one place."""
    place = (add("i", "j"), 0)
    finish = put("y", *place, value=Arith("+", at("acc"), at("y", *place)))
    return program((buffer("y", 5, 1),), loop("i", 2, loop("j", 3, accumulate(finish=finish))), sizes=())


def begun_sums() -> Program:
    """y[i] = x[i, 0] + sum over r of x[i, r] * w[r]."""
    update = loop("r", 3, put("acc", value=Fma(at("x", "i", "r"), at("w", "r"), at("acc"))))
    body = (put("acc", value=at("x", "i", 0)), update, put("y", "i", value=at("acc")))
    nest = loop("i", "M", Alloc(Buffer("acc", "float32", (), "register"), body))
    return program((buffer("x", "M", 3), buffer("w", 3), buffer("y", "M")), nest)


def doubled_sums() -> Program:
    """y[i] = 2 * sum over r of x[i, r] * w[r]."""
    update = put("acc", value=Fma(at("x", "i", "r"), at("w", "r"), at("acc")))
    nest = loop("i", "M", accumulate(loop("r", 3, update, update), finish=put("y", "i", value=at("acc"))))
    return program((buffer("x", "M", 3), buffer("w", 3), buffer("y", "M")), nest)


def strided(*, load: int, store: int) -> Program:
    """y[store * l] = x[load * l]."""
    body = loop("l", 4, put("y", mul("l", store), value=at("x", mul("l", load))))
    return program((buffer("x", 16), buffer("y", 16)), body, sizes=())


def guarded_lanes(guard: Less, *more: Less) -> Program:
    """for l in 4: if guard: y[l] = x[l]."""
    body: If | Store = put("y", "l", value=at("x", "l"))
    for condition in (guard, *more):
        body = If(condition, (body,))
    return program((buffer("x", 4), buffer("y", 4)), loop("l", 4, body), sizes=())


def shifting_copy() -> Program:
    """y[l] = 0; y[l + 1] = x[l]: a later iteration stores over an earlier one."""
    body = loop("l", 4, put("y", "l", value=ZERO), put("y", add("l", 1), value=at("x", "l")))
    return program((buffer("x", 4), buffer("y", 5)), body, sizes=())


def two_stores_one_read() -> Program:
    """s[i + 1] = x[i]; s[i] = s[i]: tasks would race, though the last store is where the read is."""
    body = loop("i", 4, put("s", add("i", 1), value=at("x", "i")), put("s", "i", value=at("s", "i")))
    return program((buffer("x", 5), buffer("y", 5), buffer("s", 5)), body, sizes=())


def late_operand() -> Program:
    """The epilogue's second operand is stored after the sums."""
    first = loop("i", 4, put("s", "i", value=at("x", "i")))
    second = loop("k", 4, put("t", "k", value=at("x", "k")))
    last = loop("j", 4, put("y", "j", value=Arith("+", at("s", "j"), at("t", "j"))))
    extra = Buffer("t", "float32", (Int(4),), "workspace")
    return program((buffer("x", 4), buffer("y", 4), buffer("s", 4), extra), first, second, last, sizes=())


def diagonal() -> Program:
    """s[i, j] = x[i, j], then y[i] = s[i, i]."""
    first = loop("i", 2, loop("j", 2, put("s", "i", "j", value=at("x", "i", "j"))))
    second = loop("i", 2, put("y", "i", value=at("s", "i", "i")))
    return program((buffer("x", 2, 2), buffer("y", 2), buffer("s", 2, 2)), first, second, sizes=())


def last_epilogue(first: Stage, last: Stage) -> Program:
    whole = with_epilogue()
    return Program(whole.name, whole.sizes, whole.buffers, (first, last))


def read_twice() -> Program:
    """The sums are read at two places by the epilogue."""
    store = put("y", "j", value=Arith("+", at("s", "j"), at("s", 0)))
    whole = with_epilogue()
    return last_epilogue(whole.stages[0], Stage("stage2", (loop("j", 4, store),)))


def read_elsewhere() -> Program:
    """Another stage reads the sums too."""
    whole = with_epilogue()
    spy = Stage("spy", (loop("k", 4, put("t", "k", value=at("s", "k"))),))
    extra = Buffer("t", "float32", (Int(4),), "workspace")
    return Program("small", (), (*whole.buffers, extra), (whole.stages[0], spy, whole.stages[2]))


def partly_covered() -> Program:
    """The epilogue covers two of four sums."""
    whole = with_epilogue()
    return last_epilogue(whole.stages[0], Stage("stage2", (loop("j", 2, put("y", "j", value=at("s", "j"))),)))


def read_at(*places: int | str | Index) -> Program:
    """s[i] = x[i]; then for k: (y[k] = sum of s at the places that depend on r and k; y[k] is stored under a loop r)."""
    first = loop("i", 4, put("s", "i", value=at("x", "i")))
    body = tuple(put("y", "k", value=at("s", place)) for place in places[:1])
    rest = tuple(loop("r", 2, put("y", "k", value=at("s", place))) for place in places[1:] or places)
    outer = body if len(places) > 1 else ()
    buffers = (buffer("x", 4), buffer("y", 4), buffer("s", 4))
    return program(buffers, first, loop("k", 3, *outer, *rest), sizes=())


def padded_steps() -> Program:
    """y[i] = x[2 * i], continued by its reflection."""
    store = put("y", "i", value=PaddedLoad("x", (mul("i", 2),), "reflect"))
    return program((buffer("x", 4), buffer("y", 4)), loop("i", 4, store), sizes=())


def unread_pack() -> Program:
    return program((buffer("x", 4, 4), buffer("y", 4)), loop("i", 4, put("y", "i", value=ZERO)), sizes=())


def masked_sum(condition: Less, *outside: Index) -> Program:
    """y[i] = sum over k, l of x[k] * w[l] where the condition holds; more terms without a condition if ``outside``."""
    masked = Choose((condition,), at("x", "k"), ZERO)
    update = put("acc", value=Fma(masked, at("w", "l"), at("acc")))
    more = [put("acc", value=Fma(at("x", index), at("w", "l"), at("acc"))) for index in outside]
    nest = loop("i", 4, accumulate(loop("k", 3, loop("l", 3, update, *more)), finish=put("y", "i", value=at("acc"))))
    return program((buffer("x", 3), buffer("w", 3), buffer("y", 4)), nest, sizes=())


def bytes_read(how: str) -> Program:
    """s = x in bytes, then y[i] = sum over k of s[k] * w[k]: as Unsigned wants it, but for one thing."""
    total = at("acc")
    factor = at("s", "k") if how == "squared" else at("w", "k")
    begin = put("acc", value=Const(int(how == "begun"), "int32"))
    update = loop("k", 2 if how == "part" else 3, put("acc", value=Fma(at("s", "k"), factor, total)))
    summed = Alloc(Buffer("acc", "int32", (), "register"), (begin, update, put("y", "i", value=total)))
    read: Stmt = put("y", "i", value=at("s", "i")) if how == "outside" else summed
    after = put("y", "i", value=Const(0, "int32")) if how == "unread" else read
    buffers = tuple(replace(buffer(name, 3), dtype="int8") for name in ("x", "w", "s"))
    first, second = loop("k", 3, put("s", "k", value=at("x", "k"))), loop("i", 3, after)
    return program((*buffers, replace(buffer("y", 3), dtype="int32")), first, second, sizes=())


def blocked_sums() -> Program:
    """y[j] = sum over r, q of x[r] * w[q], in blocks of r."""
    update = loop("r", 4, loop("q", 4, put("acc", value=Fma(at("x", "r"), at("w", "q"), at("acc")))))
    nest = loop("j", 3, accumulate(update, finish=put("y", "j", value=at("acc"))))
    given = program((buffer("x", 4), buffer("w", 4), buffer("y", 3)), nest, sizes=())
    return run_passes(given, [BlockReduction("r", 2, "j", "part")])


def rows_of(terms: int, lanes: int, dtype: str = "bfloat16") -> Program:
    """Two rows of a product in a narrow type, whose weights lie as they come."""
    given = narrow_product((dtype, dtype), "float32", terms, lanes)
    return run_passes(given, [Tile("i", 2, "block", "px", "overlap")])


def turned_bytes() -> Program:
    """s is x with its axes exchanged, in bytes."""
    buffers = tuple(replace(buffer(name, 4, 4), dtype="int8") for name in ("x", "w", "s"))
    turn = Transpose("s", (Int(0), Int(0)), 0, "x", (Int(0), Int(0)), 0, 4)
    return program(buffers, turn, sizes=())


CASES: tuple[tuple[str, Pass, Program, str], ...] = (
    ("SplitBorder", SplitBorder("z"), masked_sum(Less(Var("k"), Int(2))), "there is no loop z"),
    ("SplitBorder", SplitBorder("r"), product(), "nothing in loop r is chosen by conditions on r"),
    ("SplitBorder", SplitBorder("k"), masked_sum(Less(mul("k", "k"), Int(2))), "a condition on k is not linear in it"),
    ("PeelBorder", PeelBorder("z"), masked_sum(Less(Var("k"), Int(2))), "there is no loop z"),
    ("Trim", Trim("z"), masked_sum(Less(Var("k"), Int(2))), "there is no loop z"),
    ("Trim", Trim("r"), product(), "loop r is not a sum under one set of conditions on r"),
    ("Trim", Trim("k"), masked_sum(Less(Var("i"), Int(2))), "loop k is not a sum under one set of conditions on k"),
    ("Trim", Trim("k"), masked_sum(Less(Var("k"), Int(2)), Var("k")), "loop k is not a sum under one set"),
    ("Trim", Trim("k"), masked_sum(Less(Var("k"), Var("l"))), "conditions on k involve loops inside it"),
    ("Trim", Trim("k"), masked_sum(Less(mul("k", "k"), Int(2))), "a condition on k is not linear in it"),
    ("tile factor", Tile("i", 0, "io", "ii"), double(), "factor=0 of loop i"),
    ("tile name taken", Tile("i", 2, "j", "ii"), double(), "loop j shadows"),
    ("tile overlap too long", Tile("j", 7, "jo", "ji", "overlap"), double(), "factor=7 is larger than the extent 6"),
    ("tile overlap in place", Tile("i", 3, "io", "ii", "overlap"), in_place(step=5), "s.* is read and stored"),
    ("reorder unknown", Reorder("main", ("i", "q")), double(), "'q'"),
    ("reorder imperfect", Reorder("main", ("i", "j")), two_in_a_loop(), "'j'.* not perfectly nested"),
    ("reorder nowhere", Reorder("main", ("q",)), two_in_a_loop(), "has not one loop nest of"),
    ("reorder triangle", Reorder("main", ("j", "i")), triangle(), "extent of loop j depends"),
    ("reorder in memory", Reorder("main", ("j", "i")), sums_in_memory(), "y.* is read and stored"),
    ("register_tile extent", RegisterTile(("i", "j")), product(), "not perfectly nested around one alloc"),
    ("register_tile no alloc", RegisterTile(("j",)), double(), "not perfectly nested around one alloc"),
    ("register_tile missing", RegisterTile(("j", "q")), product(), "'q'"),
    ("register_tile order", RegisterTile(("b",)), guarded_block(Less(Var("b"), Int(1))), "loop l stands between"),
    ("register_tile reduction", RegisterTile(("i",)), growing_reduction(), "reduction loop r depends"),
    ("register_tile guard", RegisterTile(("i",)), guarded_update(), "cannot be distributed"),
    ("register_tile alloc", RegisterTile(("i",)), nested_alloc(), "part.* is read and stored"),
    ("register_tile in memory", RegisterTile(("i",)), read_back(), "y.* is read and stored"),
    ("vectorize extent", Vectorize("i"), double(), "extent of loop i is not constant"),
    ("vectorize body", Vectorize("i"), double_vectors(), "body of loop i is not stores"),
    ("vectorize gather", Vectorize("l"), strided(load=2, store=1), "access to x does not run along"),
    ("vectorize spread", Vectorize("l", spreads=True), strided(load=1, store=2), "access to y does not run along"),
    ("vectorize_sum loop", VectorizeSum("q"), product(), "no alloc holds a loop q"),
    ("vectorize_sum gather", VectorizeSum("r"), product(), "access to w does not run along its last axis"),
    ("vectorize_sum start", VectorizeSum("r"), begun_sums(), "acc does not begin with zeros"),
    ("vectorize_sum body", VectorizeSum("r"), doubled_sums(), "loop r holds 2 statements"),
    ("dot_products loop", DotProducts("q"), product(), "there is no loop q"),
    ("dot_products gather", DotProducts("r"), diagonal_product(), "access to w does not run along its last axis"),
    ("dot_products body", DotProducts("r"), doubled_sums(), "loop r is not of constant extent around one statement"),
    ("dot_products masked", DotProducts("k"), masked_sum(Less(Var("k"), Int(2))), "is not a plain read, or one of zeros"),
    ("dot_products sum", DotProducts("j"), double(), "loop j does not hold one multiply-add"),
    ("dot_products type", DotProducts("r"), long_product(), r"dot joins operands of types .'float32\*4'"),
    ("interleave_copy loop", InterleaveCopy("q"), product(), "there is no loop q"),
    ("interleave_copy sum", InterleaveCopy("r"), product(), "loop r is not one copy to all of a last axis"),
    ("interleave_copy sums", InterleaveCopy("j"), double(), "loop j is not one copy to all of a last axis"),
    ("round_up factor", RoundUp("r", 0), product(), "factor=0 of loop r"),
    ("unsigned type", Unsigned("x", "w", "o"), product(), "x and w are not a copy and weights of int8"),
    ("unsigned stored", Unsigned("s", "w", "o"), turned_bytes(), "s is stored by a transpose"),
    ("unsigned outside", Unsigned("s", "w", "o"), bytes_read("outside"), "s is read outside of sums"),
    ("unsigned squares", Unsigned("s", "w", "o"), bytes_read("squared"), "s is not read as the first factor of one sum"),
    ("unsigned part", Unsigned("s", "w", "o"), bytes_read("part"), "does not have every element of w"),
    ("unsigned begun", Unsigned("s", "w", "o"), bytes_read("begun"), "the sum acc does not begin with zero"),
    ("unsigned unread", Unsigned("s", "w", "o"), bytes_read("unread"), "s is read in 0 kinds of sums"),
    ("pieces operand", Pieces("x", "w", 2, ((0, 0),)), product(), "x is not a copy of float32"),
    ("tensorize nest", Tensorize("i", "j", "r", 2, 2, "sums"), double(), "not perfectly nested around one alloc"),
    ("tensorize lanes", Tensorize("px", "j", "r", 2, 4, "sums"), rows_of(4, 8), "2 rows and 8 lanes are not whole tiles of"),
    ("tensorize type", Tensorize("px", "j", "r", 2, 4, "sums"), rows_of(4, 16, "float32"), "is no product of tiles"),
    ("tensorize depth", Tensorize("px", "j", "r", 2, 6, "sums"), rows_of(4, 16), "4 terms of r are not whole tiles of 6"),
    ("tensorize weights", Tensorize("px", "j", "r", 2, 4, "sums"), rows_of(4, 16), "w does not lie in lanes of terms"),
    ("vectorize scatter", Vectorize("l"), strided(load=1, store=2), "access to y does not run along"),
    ("vectorize no lane", Vectorize("l"), strided(load=1, store=0), "store to y does not depend on l"),
    ("vectorize moving sums", Vectorize("i"), in_place(step=1), "s is stored and accessed at different places"),
    ("vectorize moving stores", Vectorize("l"), shifting_copy(), "y is stored and accessed at different places"),
    ("vectorize bound", Vectorize("l"), guarded_lanes(Less(Int(0), Var("l"))), "bound of a guard depends on l"),
    ("vectorize steps", Vectorize("l"), guarded_lanes(Less(mul("l", 2), Int(5))), "not in steps of 1 of l"),
    (
        "vectorize two choices",
        Vectorize("l"),
        chosen_lanes(Less(Var("l"), Int(3)), Less(add("l", 1), Int(4))),
        "a choice depends on l, not between one load and zero",
    ),
    ("register_tile crossing", RegisterTile(("i", "j")), crossing_sums(), "y.* is read and stored"),
    (
        "vectorize two guards",
        Vectorize("l"),
        guarded_lanes(Less(Var("l"), Int(3)), Less(add("l", 1), Int(3))),
        "two guards",
    ),
    ("compute_at stage", ComputeAt("last", "j", (Int(4),)), padded_sums(), "no stage last"),
    ("compute_at nest", ComputeAt("stage1", "j", (Int(4),)), padded_sums(), "stage1 is not a nest around one store"),
    ("compute_at place", ComputeAt("main", "i", (Int(4),)), with_epilogue(), "does not store at its loop variables"),
    ("compute_at shape", ComputeAt("main", "j", WIDE), padded_sums(), "s is not a workspace buffer with 2 axes"),
    ("compute_at loop", ComputeAt("main", "q", (Int(4),)), padded_sums(), "no loop q"),
    ("compute_at outside", ComputeAt("main", "r", (Int(4),)), read_at("k", "k"), "reads s outside loop r"),
    ("compute_at regions", ComputeAt("main", "k", (Int(4),)), read_at("k", add("k", 1)), "s is read in several regions"),
    ("compute_at quotient", ComputeAt("main", "k", (Int(4),)), read_at(floordiv("r", 2)), "not a sum of multiples"),
    ("compute_at vectors", ComputeAt("main", "i", WIDE), vector_sums(), "main does not store|not a nest around one store"),
    ("unpack_at stage", UnpackAt("last", "j", (Int(4),)), chained(), "no stage last"),
    ("unpack_at copy", UnpackAt("stage1", "i", (Int(4),)), padded_sums(), "stage1 is not a nest around one store"),
    ("unpack_at value", UnpackAt("main", "i", WIDE), double(), "main is not a copy"),
    ("unpack_at shape", UnpackAt("stage1", "i", (Int(4),)), chained(), "s is not a workspace buffer with 1 axes"),
    ("split_padding nest", SplitPadding("i", (0,)), product(), "not a perfect nest around one padded copy"),
    ("split_padding plain", SplitPadding("i", (0,)), double(), "not a perfect nest around one padded copy"),
    ("split_padding steps", SplitPadding("i", (0,)), padded_steps(), "x is not read in steps of one loop along axis 0"),
    ("transpose_blocks nest", TransposeBlocks("i", "i", "j", 4), product(), "i is not a perfect nest around one copy"),
    ("transpose_blocks loops", TransposeBlocks("i", "i", "q", 4), chained(), "i and q are not loops of the nest i"),
    ("transpose_blocks same", TransposeBlocks("i", "i", "j", 4), chained(), "does not change which of its axes is last"),
    ("transpose_blocks size", TransposeBlocks("n", "c", "j", 3), turned_copy(), "transpose of 3 rows"),
    ("unroll extent", Unroll("i"), double(), "extent of loop i is not constant"),
    ("pad order", Pad("x", "xp", (1,), (Int(6),), (1,)), shifted(), r"order=\(1,\) is not a permutation"),
    ("pad rank", Pad("x", "xp", (1, 0), (Int(6),), (0,)), shifted(), r"low=\(1, 0\)"),
    ("pad steps", Pad("x", "xp", (1,), (Int(6),), (0,), steps=(2,)), shifted(), "between the elements that a copy in steps"),
    ("pad mode", Pad("x", "xp", (1,), (Int(6),), (0,), "circular"), shifted(), "padding zeros, not circular"),
    ("pad vectors", Pad("x", "xp", (1,), (Int(6),), (0,)), vectors(), "x is read in vectors"),
    ("pad unread", Pad("y", "yp", (1,), (Int(6),), (0,)), shifted(), "y is not read"),
    ("pad name taken", Pad("x", "y", (1,), (Int(6),), (0,)), shifted(), "buffer y is defined twice"),
    ("pack cover", Pack("w", "wp", (PackedAxis(0),)), product(), "does not cover the axes of w"),
    ("pack half", Pack("w", "wp", (PackedAxis(0), PackedAxis(1, "block", 2))), product(), "does not cover"),
    (
        "pack factor",
        Pack("w", "wp", (PackedAxis(0), PackedAxis(1, "block", 0), PackedAxis(1, "place", 0))),
        product(),
        "factor below 1",
    ),
    ("pack padded", Pack("x", "xp", (PackedAxis(0),)), shifted(), "x is not read by plain loads"),
    ("pack vectors", Pack("x", "xp", (PackedAxis(0),)), vectors(), "x is not read by plain loads"),
    ("pack unread", Pack("x", "xp", WHOLE), unread_pack(), "x is not read"),
    ("unpack order", Unpack("y", "yt", (0, 0)), double(), r"order=\(0, 0\)"),
    ("unpack read", Unpack("s", "st", (1, 0)), chained(), "s is read by stage stage1"),
    ("unpack vectors", Unpack("y", "yt", (0,)), vectors(), "y is stored in vectors by stage main"),
    ("relayout order", Relayout("s", (0,)), chained(), "s is not a workspace buffer with the axes"),
    ("relayout operand", Relayout("x", (1, 0)), chained(), "x is not a workspace buffer"),
    ("relayout vectors", Relayout("s", (1, 0)), vector_sums(), "s is (read|stored) in vectors"),
    ("fuse_epilogue stage", FuseEpilogue("last", "s"), with_epilogue(), "no stage last"),
    ("fuse_epilogue nest", FuseEpilogue("main", "s"), two_in_a_loop(), "main is not a nest around one store"),
    ("fuse_epilogue twice", FuseEpilogue("stage2", "s"), read_twice(), "reads s at 2 places"),
    ("fuse_epilogue others", FuseEpilogue("stage2", "s"), read_elsewhere(), "s is read by stage spy too"),
    ("fuse_epilogue cover", FuseEpilogue("stage2", "s"), partly_covered(), "does not cover s once"),
    ("fuse_epilogue diagonal", FuseEpilogue("stage1", "s"), diagonal(), "does not cover s once"),
    ("fuse_epilogue late", FuseEpilogue("stage2", "s"), late_operand(), "t.* is stored by stage stage1, too late"),
    ("block_reduction factor", BlockReduction("r", 0, "j", "part"), product(), "factor=0 of loop r"),
    ("block_reduction each", BlockReduction("q", 2, "i", "part", "r"), double_sum(), "loop r is not around q"),
    ("block_reduction nowhere", BlockReduction("q", 2, "j", "part"), product(), "summed by 0 loops q"),
    ("block_reduction nest", BlockReduction("j", 2, "i", "part"), double(), "not a serial nest around one alloc"),
    ("block_reduction growing", BlockReduction("r", 2, "i", "part"), growing_reduction(), "loop r depends on the nest"),
    ("block_reduction twice", BlockReduction("q", 2, "r_block", "more"), blocked_sums(), "begins with .'part'., which"),
    ("block_reduction stores", BlockReduction("r", 2, "i", "part"), stored_in_sum(), "before the sum acc is complete"),
    ("clear_padding mode", ClearPadding("i", (0, 1)), padded_copy("replicate"), "not a copy padded with zeros"),
    ("clear_padding nest", ClearPadding("i", (0,)), product(), "not a copy padded with zeros"),
    ("clear_padding twice", ClearPadding("i", (0, 0)), padded_copy(), "axis 0 of x is not read at a loop's variable"),
    ("order_sum nowhere", OrderSum(("u", "v")), double_sum(), "no loop u"),
    ("order_sum apart", OrderSum(("i", "q")), double_sum(), "not perfectly nested around one store"),
    ("order_sum triangle", OrderSum(("j", "i")), triangle(), "depends on another loop of the sum"),
    ("copy_in nowhere", CopyIn("w", "wc", "q", (J,)), product(), "no loop q"),
    ("copy_in stages", CopyIn("s", "sc", None, (J,)), read_elsewhere(), "s is read by 2 stages"),
    ("copy_in unread", CopyIn("y", "yc", "i", (J,)), product(), "y is stored in loop i"),
    ("copy_in places", CopyIn("w", "wc", "i", (CopiedAxis("j", Int(6), add("j", 0, 1)),)), product(), "no origin"),
    ("copy_in origin", CopyIn("w", "wc", "i", (J,), (Int(0), Var("j"))), product(), "not read where wc keeps it"),
    ("copy_in left over", CopyIn("w", "wc", "i", (J,)), product(), "r is used in r but not defined"),
    ("copy_in order", CopyIn("w", "wc", "r", (J,), order=("j", "k")), product(), "order=.* is not one of the axes"),
    ("flatten axes", Flatten(("w",), 3), product(), "axes=3 is more than w has"),
    ("flatten padded", Flatten(("x",), 1), shifted(), "x is read in vectors or with padding"),
    ("flatten vectors", Flatten(("y",), 1), vectors(), "y is stored in vectors"),
    ("parallelize inner", Parallelize("main", ("j",)), double(), "loop j of stage main is not outermost"),
    ("parallelize place", Parallelize("main", ("i", "j")), sums_in_memory(), "same place of y"),
    ("parallelize chain", Parallelize("stage1", ("i",)), in_place(step=1), "s is read and stored at different places"),
    ("parallelize two", Parallelize("main", ("i",)), two_stores_one_read(), "s is read and stored at different places"),
)  # fmt: skip


@pytest.mark.parametrize(("step", "given", "message"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_refused(step: Pass, given: Program, message: str) -> None:
    with pytest.raises(PassError, match=rf"^{type(step).__name__}: .*({message})"):
        run_passes(given, [step])


def test_vectorize_refuses_padded_loads() -> None:
    with pytest.raises(PassError, match=r"^Vectorize: a padded load of x cannot be vectorized"):
        run_passes(shifted_by_constant(), [Vectorize("i")])


def shifted_by_constant() -> Program:
    """The shifted program with a constant extent."""
    whole = shifted()
    body = whole.stages[0].body[0]
    assert isinstance(body, For)
    return Program(whole.name, whole.sizes, whole.buffers, (Stage("main", (loop("i", 4, *body.body),)),))


def test_vectorize_refuses_what_is_a_vector_already() -> None:
    store = put("y", "l", value=Fma(Splat(ZERO, 1), ZERO, at("x", "l")))
    given = program((buffer("x", 4), buffer("y", 4)), loop("l", 4, store), sizes=())
    with pytest.raises(PassError, match=r"^Vectorize: Splat is already a vector"):
        run_passes(given, [Vectorize("l")])


def broken() -> Program:
    return program((buffer("y", 4),), loop("i", 4, put("y", "q", value=ZERO)), sizes=())


@pytest.mark.parametrize("step", [Simplify(), ExpandPadding(())], ids=["simplify", "expand_padding"])
def test_program_is_checked_before_the_first_pass(step: Pass) -> None:
    with pytest.raises(PassError, match=r"^before the first pass: stage main: q is used in q but not defined"):
        run_passes(broken(), [step])


def test_program_is_checked_after_every_pass() -> None:
    class Break:
        def __call__(self, program: Program) -> Program:
            return broken()

    with pytest.raises(PassError, match=r"^Break: stage main: q is used in q but not defined"):
        run_passes(double(), [Simplify(), Break(), Simplify()])


def test_observer_sees_every_pass_with_its_result() -> None:
    seen: list[tuple[str, Program]] = []
    result = run_passes(double(), [Unroll("j"), Simplify()], lambda name, program: seen.append((name, program)))
    assert [name for name, _ in seen] == ["Unroll", "Simplify"]
    assert seen[0][1] == run_passes(double(), [Unroll("j")])
    assert seen[1][1] == result
