"""The kernels that stages become, word for word; and what cannot be lowered."""

from __future__ import annotations

import ast
from dataclasses import replace

import pytest

from convgen.errors import IRError
from convgen.gpu import gpu_of
from convgen.ir.nodes import (
    Alloc,
    Barrier,
    Buffer,
    Choose,
    Const,
    CopyAsync,
    CopyWait,
    Fma,
    For,
    If,
    Index,
    Int,
    Less,
    Load,
    LoopKind,
    PaddedLoad,
    Prefetch,
    Program,
    Stage,
    Stmt,
    Store,
    TileDot,
    TileLoad,
    TileStore,
    Transform,
    Var,
)
from convgen.ir.printer import format_index
from convgen.passes.launch_grid import LaunchGrid
from convgen.passes.pipeline import Pass, run_passes
from convgen.passes.pipeline_copies import PipelineCopies
from convgen.passes.simplify import Simplify
from convgen.passes.synchronize import Synchronize
from convgen.targets.cuda.build import unit_source
from convgen.targets.cuda.lower import LoweredStage, lower_stage
from convgen.targets.cuda.program import lower_program
from convgen.transforms.linear import Add, LinearProgram
from tests.ir.golden import assert_golden
from tests.passes import small
from tests.passes.small import ZERO, at, buffer, loop, put
from tests.passes.test_golden import DEALT, HALVES, WARPS, sized

COPIED = (PipelineCopies("rb", ("xs", "ws"), 2), Simplify(), Synchronize(("xs", "ws")))
KERNELS: dict[str, tuple[Program, tuple[Pass, ...]]] = {
    "elements": (small.double(), (LaunchGrid("main", 64), Simplify())),
    "shared": (small.product(), (*DEALT, Simplify(), Synchronize())),
    "copies": (small.product(), (*DEALT, *COPIED)),
    "warps": (small.narrow_product(HALVES, "float32", 32, lanes=16), (*WARPS, Simplify(), Synchronize())),
    "tf32": (
        small.narrow_product(("float32", "float32"), "float32", 32, lanes=16),
        tuple(
            replace(step, shape=(16, 8, 8)) if hasattr(step, "sums") else step  # type: ignore[type-var]
            for step in (*WARPS, Simplify(), Synchronize())
        ),
    ),
}


def only_stage(program: Program) -> LoweredStage:
    (stage,) = program.stages
    return lower_stage(program, stage)


@pytest.mark.parametrize("name", KERNELS)
def test_text_of_a_kernel(name: str) -> None:
    program, passes = KERNELS[name]
    stage = only_stage(run_passes(sized(program), passes))
    facts = f"{format_index(stage.blocks)} blocks of {stage.threads} threads share {stage.shared_bytes} bytes"
    operations = ", ".join(operation.name for operation in stage.operations)
    text = "\n".join((f"def {stage.name}({stage.parameters}):  # {facts}", *stage.body, "", f"# {operations}", ""))
    assert_golden(f"cuda_{name}", text)
    ast.parse(unit_source(stage))


# ---- single statements

M = Var("M")
BUFFERS = (
    buffer("x", "M", 8),
    buffer("y", "M", 8),
    replace(buffer("l", 4, 8), space="local"),
    replace(buffer("h", "M", 8), dtype="float16"),
    Buffer("o", "float16", (M, Int(8)), "result"),
)


def task(*body: Stmt, buffers: tuple[Buffer, ...] = BUFFERS, around: tuple[str, ...] = ("i",)) -> Program:
    for var in reversed(around):
        body = (For(var, M if var == "i" else Int(3), body, "parallel"),)
    return Program("small", ("M",), buffers, (Stage("main", body),))


def threads(*body: Stmt, kind: LoopKind = "thread", var: str = "thread") -> For:
    return For(var, Int(32 if kind == "thread" else 1), body, kind)


def lines(*body: Stmt, around: tuple[str, ...] = ("i",)) -> list[str]:
    """What stands behind the numbers of the thread and the block."""
    found = only_stage(task(*body, around=around)).body
    begin = next(i for i, line in enumerate(found) if "blockIdx" in line)
    return [line.removeprefix("    ") for line in found[begin + 1 :]]


COPY_ROW = put("y", "i", "thread", value=at("x", "i", "thread"))


def test_several_parallel_loops_are_one_grid() -> None:
    stage = only_stage(task(threads(put("y", "i", "j", value=at("x", "i", "k"))), around=("i", "j", "k")))
    assert format_index(stage.blocks) == "9 * M"
    assert list(stage.body[1:-1]) == [
        "    task = cuda.blockIdx.x",
        "    i = quotient(quotient(task, 3), 3)",
        "    j = rest(quotient(task, 3), 3)",
        "    k = rest(task, 3)",
    ]


def test_a_stage_without_parallel_loops_is_one_block() -> None:
    stage = only_stage(task(threads(put("y", 0, "thread", value=ZERO)), around=()))
    assert (stage.blocks, stage.sizes, stage.buffers) == (Int(1), (), ("y",))


def test_threads_of_another_name_and_barriers() -> None:
    other = threads(put("y", "i", "t", value=at("l", 0, "t")), var="t")
    assert lines(threads(put("l", 0, "thread", value=ZERO)), Barrier(), other) == [
        "shared_store_f32(l, thread, np.float32(0.0))",
        "cuda.syncthreads()",
        "t = thread",
        "store_f32(y, i * 8 + t, shared_load_f32(l, t))",
    ]


def test_copies_are_told_whether_to_read() -> None:
    place = (Int(1), Var("thread"))
    conditions = (Less(Var("i"), M), Less(Int(-1), Var("i")), Less(Var("i"), M))
    guarded = CopyAsync("l", place, "x", (Var("i"), Var("thread")), 4, conditions)
    free = CopyAsync("l", place, "x", (Var("i"), Var("thread")), 2)
    assert lines(threads(guarded, free, COPY_ROW), CopyWait(3)) == [
        "copy_async_16(l, thread + 8, x, i * 8 + thread, i < M and 0 <= i)",
        "copy_async_8(l, thread + 8, x, i * 8 + thread, True)",
        "store_f32(y, i * 8 + thread, load_f32(x, i * 8 + thread))",
        "copy_wait_3()",
    ]


def test_elements_of_16_bits_are_moved_as_they_are() -> None:
    place = (Var("i"), Int(0))
    wide = Store("o", place, Load("h", place, 8), 8)
    one = Store("o", place, Choose((Less(Var("i"), Int(5)),), Load("h", place), ZERO))
    assert lines(threads(wide, one)) == [
        "raw_store_i32x4(o, i * 8, raw_load_i32x4(h, i * 8))",
        "if i < 5:",
        "    chosen = raw_load_u16(h, i * 8)",
        "else:",
        "    chosen = np.uint16(0)",
        "raw_store_u16(o, i * 8, chosen)",
    ]


def test_what_is_computed_with_is_converted() -> None:
    doubled = Fma(at("h", "i", 0), at("h", "i", 1), ZERO)
    assert lines(threads(put("o", "i", 0, value=doubled))) == [
        "h_at = i * 8",
        "store_f16_f32(o, i * 8, fma_f32(load_f16_f32(h, h_at), load_f16_f32(h, h_at + 1), np.float32(0.0)))",
    ]


def test_a_matrix_is_applied_to_registers() -> None:
    moved = (put("v", 0, value=at("x", "i", 0)), put("v", 1, value=at("x", "i", 1)))
    change = Transform("v", LinearProgram(2, (Add(0, 1),), (2, 0)), "sums")
    body = Alloc(Buffer("v", "float32", (Int(2),), "register"), (*moved, change, put("y", "i", 0, value=at("v", 1))))
    found = lines(threads(body))
    assert found[-1] == "store_f32(y, i * 8, v1)"
    assert "# sums" in found
    assert any("add_f32(" in line for line in found)


def test_memory_that_is_not_needed_at_the_same_time_lies_in_the_same_place() -> None:
    """a is read before c is stored to; b lives as long as both."""
    locals_ = tuple(
        Buffer(name, dtype, (Int(4), Int(count)), "local")
        for name, dtype, count in (("a", "float32", 9), ("b", "float16", 5), ("c", "float64", 3), ("d", "float32", 1))
    )
    body = (
        threads(put("a", 0, 0, value=ZERO), put("b", 0, 0, value=ZERO)),
        threads(put("y", "i", 0, value=at("a", 0, 0))),
        threads(put("c", 0, 0, value=Const(0.0, "float64"))),
        threads(put("d", 0, 0, value=at("b", 0, 0))),
        threads(put("y", "i", 1, value=at("d", 0, 0))),
    )
    stage = only_stage(task(*body, buffers=(*BUFFERS, *locals_)))
    begins = [line.strip().split("  #")[0] for line in stage.body if "shared memory" in line]
    lives = {"a": (0, 1), "b": (0, 3), "c": (2, 2), "d": (3, 4)}
    sizes = {"a": 144, "b": 40, "c": 96, "d": 16}
    places = {name: int(place) for name, place in (text.split(" = ") for text in begins)}
    assert places.keys() == lives.keys()
    assert stage.shared_bytes < 144 + 48 + 96 + 16
    for one in lives:
        assert places[one] % 16 == 0
        assert places[one] + sizes[one] <= stage.shared_bytes
        for other in lives:
            apart = lives[one][1] < lives[other][0] or lives[other][1] < lives[one][0]
            beside = places[one] + sizes[one] <= places[other] or places[other] + sizes[other] <= places[one]
            assert one == other or apart or beside, (one, other)


def test_shared_memory_of_a_loop_lives_as_long_as_the_loop() -> None:
    locals_ = tuple(Buffer(name, "float32", (Int(4), Int(4)), "local") for name in ("a", "b"))
    around = loop("k", 3, threads(put("a", 0, 0, value=ZERO)), threads(put("b", 0, 0, value=at("a", 0, 0))))
    stage = only_stage(task(around, buffers=(*BUFFERS, *locals_)))
    assert stage.shared_bytes == 128


def register(index: Index, *shape: int, lanes: int = 1) -> Program:
    value = ZERO if lanes == 1 else Const(0.0, "float32", lanes)
    inside = Store("acc", (index,), value, lanes)
    return task(threads(Alloc(Buffer("acc", "float32", tuple(map(Int, shape)), "register"), (inside, COPY_ROW))))


def tile(statement: Stmt) -> Program:
    sums = Buffer("c", "float32", (Int(1), Int(16), Int(8)), "tile")
    a, b = Buffer("a", "float16", (Int(16), Int(16)), "tile"), Buffer("b", "float16", (Int(8), Int(16)), "tile")
    body: Stmt = threads(statement, kind="warp", var="warp")
    for each in (sums, a, b):
        body = Alloc(each, (body,))
    return task(threads(COPY_ROW), body)


WARP = (Var("warp"),)
REFUSED: dict[str, tuple[Program, str]] = {
    "no threads": (task(put("y", "i", 0, value=ZERO)), "stage main is not made of the threads of a grid"),
    "threads of two kinds": (
        task(threads(COPY_ROW), For("thread", Int(64), (COPY_ROW,), "thread")),
        "stage main is not made of the threads of a grid",
    ),
    "as many threads as a size": (task(For("thread", M, (COPY_ROW,), "thread")), "not made of the threads of a grid"),
    "a store outside": (task(threads(COPY_ROW), put("y", "i", 0, value=ZERO)), "a store to y stands outside of the threads"),
    "a store before": (task(put("l", 0, 0, value=ZERO), threads(COPY_ROW)), "a store to l stands outside of the threads"),
    "a part of a vector": (
        task(threads(Store("y", (Var("i"), Int(0)), Const(0.0, "float32", 4), 4, M))),
        "a part of a vector is stored to y",
    ),
    "a part of a vector is read": (
        task(threads(Store("y", (Var("i"), Int(0)), Load("x", (Var("i"), Int(0)), 4, M), 4))),
        "Load cannot be lowered to CUDA",
    ),
    "shared memory of a size": (
        task(threads(put("z", "i", value=ZERO)), buffers=(*BUFFERS, replace(buffer("z", "M"), space="local"))),
        "z is shared and not of a constant shape",
    ),
    "padding": (task(threads(put("y", "i", 0, value=PaddedLoad("x", (Var("i"), Int(0)), "zeros")))), "PaddedLoad cannot be"),
    "a prefetch": (task(threads(COPY_ROW, Prefetch("x", (Var("i"), Int(0)), 1))), "a prefetch cannot be lowered"),
    "a register by a loop": (register(Var("i"), 4), r"register acc\[i\] x1 is not one variable"),
    "a part of a register": (register(Int(0), 8, lanes=4), r"register acc\[0\] x4 is not one variable"),
    "registers from the middle": (register(Int(4), 8, lanes=4), r"register acc\[4\] x4 is not one variable"),
    "a matrix of rows": (
        task(
            threads(
                Alloc(
                    Buffer("v", "float32", (Int(2), Int(2)), "register"),
                    (Transform("v", LinearProgram(2, (Add(0, 1),), (2, 0)), "sums"), COPY_ROW),
                )
            )
        ),
        "a matrix is applied to v, which has more axes than one",
    ),
    "rows apart": (tile(TileLoad("a", (), "l", (Int(0), Int(0)), 0, 2)), "is no operation of a warp"),
    "a product that is not turned": (tile(TileDot("c", WARP, "a", (), "b", ())), "is no operation of a warp"),
    "rows along another axis": (tile(TileStore("l", (Int(0), Int(0)), 1, "c", WARP)), "is no operation of a warp"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_text_is_an_error(name: str) -> None:
    program, message = REFUSED[name]
    with pytest.raises(IRError, match=message):
        only_stage(program)


def test_a_guard_around_threads_is_a_guard_of_all_of_them() -> None:
    assert lines(If(Less(Var("i"), Int(2)), (threads(COPY_ROW), Barrier()))) == [
        "if i < 2:",
        "    store_f32(y, i * 8 + thread, load_f32(x, i * 8 + thread))",
        "    cuda.syncthreads()",
    ]


def test_scratch_memory_lies_behind_one_another() -> None:
    """At multiples of 256 bytes, packed weights and the workspace each in memory of their own."""
    program = run_passes(small.chained(), (LaunchGrid("", 8),))
    extra = (Buffer("t", "float64", (M,), "workspace"), Buffer("p", "int8", (Int(3),), "packed"))
    whole = lower_program(replace(program, buffers=(*program.buffers, *extra)), {"M": 5}, gpu_of("8.0"))
    assert dict(whole.workspace) == {"s": 0, "t": 256}
    assert (whole.workspace_bytes, dict(whole.packed), whole.packed_bytes) == (512, {"p": 0}, 256)
    assert whole.scratch_bytes == 768
    assert [(launch.stage.name, launch.blocks, launch.sizes) for launch in whole.launches()] == [
        ("main", 2, (5,)),
        ("stage1", 2, (5,)),
    ]
