"""What each pass makes of a small program, as text to be read."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, cast

import numpy as np
import pytest

from convgen.ir.build import add, ceildiv, mul, sub
from convgen.ir.interp import interpret
from convgen.ir.nodes import If, Int, Less, Program, Var
from convgen.ir.printer import format_program
from convgen.passes.assume import Assume
from convgen.passes.block_reduction import BlockReduction
from convgen.passes.clear_padding import ClearPadding
from convgen.passes.collapse import Collapse
from convgen.passes.compute_at import ComputeAt
from convgen.passes.copy_in import CopiedAxis, CopyIn
from convgen.passes.distribute import Distribute, ThreadAxis
from convgen.passes.dot_products import DotProducts
from convgen.passes.expand_padding import ExpandPadding
from convgen.passes.flatten import Flatten
from convgen.passes.fuse_epilogue import FuseEpilogue
from convgen.passes.interleave_copy import InterleaveCopy
from convgen.passes.launch_grid import LaunchGrid
from convgen.passes.order_sum import OrderSum
from convgen.passes.pack import Pack, PackedAxis
from convgen.passes.pad import Pad
from convgen.passes.parallelize import Parallelize
from convgen.passes.peel_border import PeelBorder
from convgen.passes.pieces import Pieces
from convgen.passes.pipeline import Pass, run_passes
from convgen.passes.pipeline_copies import PipelineCopies
from convgen.passes.predicate import Predicate
from convgen.passes.prefetch import PrefetchReads, PrefetchWrites
from convgen.passes.prefetch_tile import PrefetchTile
from convgen.passes.register_tile import RegisterTile
from convgen.passes.relayout import Relayout
from convgen.passes.reorder import Reorder
from convgen.passes.round_up import RoundUp
from convgen.passes.share_loops import ShareLoops
from convgen.passes.share_reads import ShareReads
from convgen.passes.simplify import Simplify
from convgen.passes.skip import Skip
from convgen.passes.split_border import SplitBorder
from convgen.passes.split_padding import SplitPadding
from convgen.passes.split_sum import SplitSum
from convgen.passes.stage_shared import StageShared
from convgen.passes.synchronize import Synchronize
from convgen.passes.tensorize import Tensorize
from convgen.passes.tensorize_warps import TensorizeWarps
from convgen.passes.tile import Tile
from convgen.passes.transpose_blocks import TransposeBlocks
from convgen.passes.trim import Trim
from convgen.passes.unpack import Unpack
from convgen.passes.unpack_at import UnpackAt
from convgen.passes.unroll import Unroll
from convgen.passes.unsigned import Unsigned
from convgen.passes.vectorize import Vectorize
from convgen.passes.vectorize_sum import VectorizeSum
from convgen.passes.whole_vectors import WholeVectors
from convgen.passes.widen_reads import WidenReads
from tests.ir.golden import assert_golden
from tests.passes import small
from tests.programs import random_operands

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

GUARDED = (Int(4), Var("M"))
BLOCKS = (PackedAxis(1, "block", 4), PackedAxis(0), PackedAxis(1, "place", 4))

# A register tile of two pixels of a window, all of it unrolled; there are at least two.
WINDOW = (Tile("i", 2, "tile", "px", "overlap"), RegisterTile(("px",)), Unroll("px"), Unroll("k"), Simplify())
LONG = (Less(Int(1), Var("M")),)


def dots(terms: int) -> tuple[Pass, ...]:
    """A row of four results in registers, so many terms at once."""
    return (
        Pack("w", "wp", (PackedAxis(0, "block", terms), PackedAxis(1), PackedAxis(0, "place", terms))),
        RegisterTile(("j",)),
        Tile("r", terms, "rb", "t"),
        Simplify(),
        DotProducts("t"),
        Vectorize("j"),
    )


# The image and the weights copied, in blocks of three terms: the copy of the image has as many as two blocks have.
PANELS = Pack("w", "wp", (PackedAxis(0, "block", 3), PackedAxis(1), PackedAxis(0, "place", 3)))
ROUNDED = (Pad("x", "xp", (0, 0), (Var("M"), Int(6)), (0, 1)), PANELS, RoundUp("r", 3))
EVEN = mul(ceildiv("M", 2), 2)
COPIED = (CopyIn("x", "xc", "i", (CopiedAxis("r", Int(4), Var("r")),)), Pack("w", "wp", (PackedAxis(1), PackedAxis(0))))
# Three products of pieces of copies.
SPLIT = (
    CopyIn("x", "xc", "i", (CopiedAxis("r", Int(3), Var("r")),)),
    Pack("w", "wp", (PackedAxis(1), PackedAxis(0))),
    Pieces("xc", "wp", 2, ((1, 0), (0, 1), (0, 0))),
)
# Weights as tiles have them.
PAIRS = Pack(
    "w",
    "wp",
    (PackedAxis(1, "block", 16), PackedAxis(0, "block", 2), PackedAxis(1, "place", 16), PackedAxis(0, "place", 2)),
)
QUADS = Pack("w", "wp", (PackedAxis(0, "block", 4), PackedAxis(1), PackedAxis(0, "place", 4)))

# A block of sums a task, of four rows and columns, in steps of two terms; then one factor in memory that the task's threads
# share; then both, and the sums dealt out to four threads.
BLOCKED: tuple[Pass, ...] = (
    Tile("i", 4, "ib", "i"),
    Tile("j", 4, "jb", "j"),
    Tile("r", 2, "rb", "r"),
    Predicate(),
    Reorder("main", ("ib", "jb", "i", "j")),
    RegisterTile(("i", "j")),
    Parallelize("main", ("ib", "jb")),
)
SHARED: tuple[Pass, ...] = (*BLOCKED, StageShared("rb", "x", "xs", ("r", "i"), 1))
KEPT = Simplify(keep_unit_loops=True)
DEALT: tuple[Pass, ...] = (
    *SHARED,
    ShareLoops(("xs_r", "xs_i"), "xs", 4),
    StageShared("rb", "w", "ws", ("r", "j")),
    ShareLoops(("ws_r", "ws_j"), "ws", 4),
    KEPT,
    Unroll("xs_lane"),
    Unroll("ws_lane"),
    Distribute("main", (ThreadAxis("i", 2, 2, 1), ThreadAxis("j", 1, 2, 2)), ("rb",)),
    *map(Unroll, ("i_outer", "i_inner", "j_outer", "j_inner")),
)
# The same where a warp makes 16 times 16 sums in tiles of 16 times 8, of factors that lie along the sum and along their side.
WARPS: tuple[Pass, ...] = (
    Tile("i", 16, "ib", "i"),
    Tile("j", 16, "jb", "j"),
    Tile("r", 16, "rb", "r"),
    Predicate(),
    Reorder("main", ("ib", "jb", "i", "j")),
    RegisterTile(("i", "j")),
    Parallelize("main", ("ib", "jb")),
    StageShared("rb", "x", "xs", ("i", "r")),
    ShareLoops(("xs_i", "xs_r"), "xs", 32, 8),
    StageShared("rb", "w", "ws", ("r", "j"), 8),
    ShareLoops(("ws_r", "ws_j"), "ws", 32, 8),
    KEPT,
    WholeVectors("xs_lane"),
    Vectorize("xs_lane"),
    WholeVectors("ws_lane"),
    Vectorize("ws_lane"),
    TensorizeWarps("main", ("i", "j"), "r", (1, 1), (16, 8, 16), "sums", 4),
    Distribute("main", (ThreadAxis("i", 8, 2, 1), ThreadAxis("j", 1, 16, 1)), ("rb",)),
)
HALVES = ("bfloat16", "bfloat16")


CASES: dict[str, tuple[Program, tuple[Pass, ...]]] = {
    "tile_guard": (small.double(), (Tile("i", 4, "block", "inner"),)),
    "tile_clamp": (small.double(), (Tile("i", 4, "block", "inner", "clamp"),)),
    "tile_overlap": (small.double(), (Tile("j", 4, "block", "inner", "overlap"),)),
    "tile_divides": (small.double(), (Tile("j", 3, "block", "inner", "overlap"),)),
    "reorder": (small.product(), (Reorder("main", ("j", "i")),)),
    "register_tile": (small.product(), (Tile("i", 2, "block", "px"), RegisterTile(("px", "j")))),
    "vectorize": (small.product(), (RegisterTile(("j",)), Vectorize("j"))),
    "vectorize_guard": (small.double(), (Tile("j", 4, "block", "lane"), Vectorize("lane"))),
    "vectorize_choice": (
        small.chosen_lanes(Less(Var("i"), Int(1)), Less(Var("l"), Int(3))),
        (Vectorize("l"),),
    ),
    "register_tile_added": (small.added_product(), (RegisterTile(("i", "j")), Vectorize("j"))),
    "tile_by_a_size": (small.double(), (Tile("i", Var("K"), "block", "inner", "clamp"),)),
    "compute_at": (small.padded_sums(), (Tile("j", 2, "t", "u", "overlap"), ComputeAt("main", "t", (Int(4),)))),
    "unpack_at": (
        small.double(),
        (Unpack("y", "yt", (1, 0)), Tile("i", 2, "t", "u", "overlap"), UnpackAt("unpack_y", "t", (Int(6), Int(2)))),
    ),
    "unpack_at_guard": (
        small.double(),
        (
            Unpack("y", "yt", (1, 0)),
            Tile("j", 4, "t", "u"),
            Reorder("main", ("t", "i")),
            UnpackAt("unpack_y", "t", GUARDED),
        ),
    ),
    "split_zeros": (small.padded_plane(), (SplitPadding("i", (0, 1)),)),
    "split_zeros_of_rows": (small.padded_plane(), (SplitPadding("j", (0, 1)),)),
    "split_replicate": (small.padded_plane("replicate"), (SplitPadding("j", (0, 1)),)),
    "split_reflect": (small.padded_plane("reflect"), (SplitPadding("i", (0, 1)),)),
    "split_circular_inside": (small.padded_plane("circular"), (SplitPadding("j", (0, 1)), Simplify())),
    "split_zeros_in_steps": (small.copied_in_steps(), (SplitPadding("i", (0,)),)),
    "transpose_blocks": (small.turned_copy(), (TransposeBlocks("n", "c", "j", 4), Simplify())),
    "unroll": (small.double(), (Unroll("j"),)),
    "pad": (small.shifted("replicate"), (Pad("x", "xp", (1,), (add("M", 2),), (0,), "replicate"),)),
    "pack": (small.product(), (Pack("w", "wp", BLOCKS),)),
    "unpack": (small.double(), (Unpack("y", "yt", (1, 0)),)),
    "relayout": (small.chained(), (Relayout("s", (1, 0)),)),
    "fuse_epilogue": (small.with_epilogue(), (FuseEpilogue("stage2", "s"),)),
    "parallelize": (small.double(), (Parallelize("main", ("i", "j")),)),
    "expand_zeros": (small.shifted("zeros"), (ExpandPadding(()),)),
    "expand_replicate": (small.shifted("replicate"), (ExpandPadding(()),)),
    "expand_circular": (small.shifted("circular"), (ExpandPadding(()),)),
    "expand_reflect": (small.shifted("reflect"), (ExpandPadding(()),)),
    "expand_kept": (small.padded_window(), (ExpandPadding((), keep=True),)),
    "trim": (small.padded_window(), (ExpandPadding(()), Trim("k"), Simplify())),
    "pad_steps": (small.every_other(), (Pad("x", "xp", (1, 0), (Int(3), Int(3)), (1, 0), steps=(2, 1)),)),
    "split_border": (small.padded_window(), (ExpandPadding(()), SplitBorder("k"), Simplify())),
    "trim_widened": (
        small.padded_window(),
        (
            ExpandPadding(()),
            Pad("x", "xp", (1,), (add("M", 2),), (0,)),
            Tile("i", 2, "tile", "px", "overlap"),
            Trim("k", (("px", 2),)),
            Simplify(),
        ),
    ),
    "skip": (small.padded_window(), (ExpandPadding(()), Skip())),
    "skip_in_tile": (small.padded_window(), (ExpandPadding(()), *WINDOW, Skip())),
    "peel_border": (small.padded_window(), (ExpandPadding(()), *WINDOW, Skip(), PeelBorder("tile"))),
    "peel_border_loops": (small.padded_window(), (ExpandPadding(()), Unroll("k"), PeelBorder("i"))),
    "assume": (small.padded_window(), (ExpandPadding(()), *WINDOW, Assume("main", LONG))),
    "assume_replicate": (small.padded_window("replicate"), (ExpandPadding(()), *WINDOW, Assume("main", LONG))),
    "assume_circular": (small.padded_window("circular"), (ExpandPadding(()), *WINDOW, Assume("main", LONG))),
    "share_reads": (
        small.padded_window(),
        (ExpandPadding(()), *WINDOW, Assume("main", LONG), ShareReads("x"), Skip()),
    ),
    "simplify": (
        small.product(),
        (Tile("j", 4, "jb", "jl"), Tile("i", 1, "ib", "il"), Pack("w", "wp", BLOCKS), Simplify()),
    ),
    "simplify_kept_loops": (small.double(), (Tile("i", 1, "ib", "il"), Simplify(keep_unit_loops=True))),
    "block_reduction": (small.product(), (BlockReduction("r", 2, "j", "part"), Simplify())),
    "block_reduction_each": (small.double_sum(), (BlockReduction("r", 2, "i", "part", each="q"), Simplify())),
    "block_reduction_tile": (
        small.product(),
        (
            Tile("i", 2, "ib", "px", "overlap"),
            BlockReduction("r", 2, "px", "part"),
            RegisterTile(("px", "j")),
            Vectorize("j"),
        ),
    ),
    "clear_padding": (small.padded_copy(), (ClearPadding("i", (0, 1)), Simplify())),
    "order_sum": (small.double_sum(), (OrderSum(("r", "q")),)),
    "copy_in": (
        small.product(),
        (CopyIn("w", "wc", "i", (CopiedAxis("j", Int(6), Var("j")), CopiedAxis("r", Int(3), Var("r")))),),
    ),
    "copy_in_stage": (
        small.product(),
        (CopyIn("w", "wc", None, (CopiedAxis("j", Int(6), Var("j")), CopiedAxis("r", Int(3), Var("r")))),),
    ),
    "copy_in_origin": (
        small.shifted("replicate"),
        (
            Tile("i", 2, "ib", "il", "clamp"),
            CopyIn("x", "xc", "ib", (CopiedAxis("p", Int(2), Var("il")),), (sub(add(mul("ib", 2), "p"), 1),)),
            ExpandPadding(()),
        ),
    ),
    "flatten": (small.double(), (Collapse(("i", "j"), "v"), Flatten(("x", "y"), 2))),
    "vectorize_transform": (small.transformed_columns(4), (Vectorize("c"), Unroll("i"))),
    "vectorize_spread": (small.repeated(), (Vectorize("l", spreads=True),)),
    "vectorize_sum": (small.long_product(), (RegisterTile(("j",)), VectorizeSum("r"), Unroll("j"))),
    "dot_products": (small.narrow_product(("bfloat16", "bfloat16"), "float32", 4), dots(2)),
    "dot_products_int8": (small.narrow_product(("uint8", "int8"), "int32", 8), dots(4)),
    "dot_products_apart": (
        small.narrow_columns(),
        (
            *(
                Pad(name, f"{name}p", (0,) * rank, (EVEN, Int(4))[:rank], (0, 1)[:rank])
                for name, rank in (("x", 1), ("w", 2))
            ),
            RoundUp("r", 2),
            Tile("r", 2, "r", "t"),
            RegisterTile(("j",)),
            DotProducts("t"),
            Vectorize("j"),
            Simplify(),
        ),
    ),
    "interleave_copy": (
        small.narrow_columns(),
        (
            Pack(
                "w", "wp", (PackedAxis(0, "block", 2), PackedAxis(1), PackedAxis(0, "place", 2)), labels=("q", "j", "t")
            ),
            InterleaveCopy("wp_t"),
            Tile("wp_j", 4, "wp_block", "wp_lane", "overlap"),
            Vectorize("wp_lane"),
        ),
    ),
    "copies_of_another_type": (
        small.narrow_product(("float16", "float16"), "float32", 4),
        (
            Pad("x", "xp", (0, 0), (Var("M"), Int(4)), (0, 1), dtype="float32"),
            CopyIn("xp", "xc", "i", (CopiedAxis("r", Int(4), Var("r")),), dtype="float16"),
            Pack("w", "wp", (PackedAxis(1), PackedAxis(0)), dtype="float32"),
        ),
    ),
    "round_up": (small.narrow_product(("int8", "int8"), "int32", 4), ROUNDED),
    "unsigned": (small.narrow_product(("int8", "int8"), "int32", 4), (*COPIED, Unsigned("xc", "wp", "offsets"))),
    "tensorize": (
        small.narrow_product(("bfloat16", "bfloat16"), "float32", 4, lanes=32),
        (PAIRS, Tile("i", 2, "ib", "px", "overlap"), Simplify(), Tensorize("px", "j", "r", 2, 4, "sums"), Simplify()),
    ),
    "tensorize_int8": (
        small.narrow_product(("int8", "int8"), "int32", 16, lanes=16),
        (QUADS, Tile("i", 2, "ib", "px", "overlap"), Simplify(), Tensorize("px", "j", "r", 1, 8, "sums"), Simplify()),
    ),
    "pieces": (small.product(), (*SPLIT, Simplify())),
    "tensorize_pieces": (
        small.long_rows(),
        (
            CopyIn("x", "xc", "i", (CopiedAxis("p", Int(2), Var("p")), CopiedAxis("r", Int(4), Var("r")))),
            PAIRS,
            Pieces("xc", "wp", 2, ((1, 0), (0, 1), (0, 0))),
            Simplify(),
            Tensorize("p", "j", "r", 2, 4, "sums"),
            Simplify(),
        ),
    ),
    "prefetch_fresh": (small.neighbours(), (PrefetchReads("x", 12, ("i",)),)),
    "prefetch": (small.product(), (RegisterTile(("j",)), Vectorize("j"), PrefetchReads("w", 12))),
    "prefetch_writes": (small.chained(), (Vectorize("j"), PrefetchWrites("y", 12))),
    "prefetch_tile": (small.product(), (RegisterTile(("j",)), Vectorize("j"), PrefetchTile(("y", "x")))),
    "simplify_decided": (small.guarded_block(Less(add("b", "l"), Var("K"))), (Tile("r", 1, "rb", "rl"), Simplify())),
    "predicate": (small.product(), (Tile("i", 2, "ib", "px"), Tile("r", 2, "rb", "t"), Predicate(), Simplify())),
    "predicate_padding": (
        small.padded_window(),
        (ExpandPadding(()), Tile("i", 2, "ib", "px"), Tile("k", 2, "kb", "t"), Predicate(), Simplify()),
    ),
    "launch_grid": (small.double(), (LaunchGrid("main", 4),)),
    "launch_grid_kept": (small.with_epilogue(), (LaunchGrid("stage", 2), LaunchGrid("main", 1))),
    "split_sum": (small.product(), (SplitSum("main", "r", 2, "part_of_y"),)),
    "whole_vectors": (
        small.product(),
        (Tile("j", 4, "jb", "j"), Tile("j", 2, "jt", "lane"), Predicate(), WholeVectors("lane")),
    ),
    "whole_vectors_kept": (small.double(), (Tile("j", 4, "jb", "lane"), WholeVectors("lane"))),
    "widen_reads": (
        small.narrow_product(("float32", "float32"), "float32", 4, lanes=4),
        (RegisterTile(("j",)), Vectorize("j"), Unroll("r"), WidenReads("x", 2), WidenReads("w", 4)),
    ),
    "widen_reads_kept": (
        small.narrow_product(("float32", "float32"), "float32", 4, lanes=4),
        (RegisterTile(("j",)), Vectorize("j"), WidenReads("x", 4)),
    ),
    "stage_shared": (small.product(), SHARED),
    "share_loops": (small.product(), (*SHARED, ShareLoops(("xs_r", "xs_i"), "xs", 3, 2), KEPT)),
    "distribute": (small.product(), (*DEALT, Simplify())),
    "synchronize": (small.product(), (*DEALT, Simplify(), Synchronize())),
    "pipeline_copies": (
        small.product(),
        (*DEALT, PipelineCopies("rb", ("xs", "ws"), 3), Simplify(), Synchronize(("xs", "ws"))),
    ),
    "tensorize_warps": (
        small.narrow_product(HALVES, "float32", 32, lanes=16),
        (*WARPS, Simplify(), Synchronize()),
    ),
    "pipeline_tiles": (
        small.narrow_product(HALVES, "float32", 40, lanes=24),
        (*WARPS, PipelineCopies("rb", ("xs", "ws"), 2), Simplify(), Synchronize(("xs", "ws"))),
    ),
}


def sized(program: Program) -> Program:
    """The program with every size that its guards use declared."""
    return Program(program.name, ("M", "K"), program.buffers, program.stages)


def described(step: Pass) -> str:
    """The pass with the options that are not at their defaults."""
    options = [
        f"{field.name}={value!r}"
        for field in fields(cast("DataclassInstance", step))
        if (value := getattr(step, field.name)) != field.default
    ]
    return f"---- {type(step).__name__}({', '.join(options)})"


@pytest.mark.parametrize("name", CASES)
def test_program_before_and_after(name: str) -> None:
    program, passes = CASES[name]
    program = sized(program)
    after = run_passes(program, passes)
    steps = "\n".join(map(described, passes))
    assert_golden(f"pass_{name}", f"{format_program(program)}\n{steps}\n\n{format_program(after)}")


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("size", [2, 3, 5])
def test_meaning_of_the_golden_programs(name: str, size: int) -> None:
    program, passes = CASES[name]
    program = sized(program)
    sizes = {"M": size, "K": 4}
    operands = random_operands(program, sizes, seed=size)
    want = interpret(program, sizes, operands)["y"]
    got = interpret(run_passes(program, passes), sizes, operands, shuffle=np.random.default_rng(0))["y"]
    np.testing.assert_array_equal(got.reshape(want.shape), want)


def test_padding_is_expanded_only_on_the_axes_that_are_named() -> None:
    kept = run_passes(small.shifted(), [ExpandPadding((("x", ()),))])
    assert "x[i - 1]" in format_program(kept)
    assert "if" not in format_program(kept)


@pytest.mark.parametrize("prefetch", [PrefetchReads("w", 8), PrefetchWrites("y", 8), PrefetchTile(("w", "y"))])
def test_scalars_are_not_prefetched(prefetch: Pass) -> None:
    assert run_passes(small.product(), [prefetch]) == small.product()


def test_places_of_inner_loops_are_not_prefetched_outside_of_them() -> None:
    update = small.put("y", "i", "j", value=small.at("x", "i", "j"))
    guarded = If(Less(Int(1), Var("M")), (small.loop("j", 4, update),))
    nest = small.loop("i", "M", small.loop("k", 2, small.put("y", "i", "k", value=small.ZERO)), guarded)
    program = small.program((small.buffer("x", "M", 4), small.buffer("y", "M", 4)), nest)
    vectors = run_passes(program, [Tile("j", 2, "jb", "j"), Vectorize("j")])
    assert "for jb" in format_program(vectors)
    assert "prefetch y" not in format_program(run_passes(vectors, [PrefetchTile(("y",))]))
