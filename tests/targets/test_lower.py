"""The text that stages become, word for word."""

from __future__ import annotations

import pytest

from convgen.errors import IRError
from convgen.ir.build import add, floordiv, minimum, mul
from convgen.ir.nodes import (
    Alloc,
    Arith,
    Buffer,
    Choose,
    Const,
    Fma,
    For,
    If,
    Int,
    Interleave,
    Less,
    Load,
    PaddedLoad,
    Program,
    Splat,
    Stage,
    Stmt,
    Store,
    Var,
)
from convgen.machine import Machine
from convgen.targets.cpu.lower import LoweredStage, lower_stage
from tests.passes.small import ZERO, at, buffer, loop, put

BUFFERS = (buffer("x", "M", 4), buffer("w", 4, "N"), buffer("y", "M", "N"))


def lowered(*body: Stmt, buffers: tuple[Buffer, ...] = BUFFERS) -> LoweredStage:
    stage = Stage("main", body)
    return lower_stage(Program("small", ("M", "N"), buffers, (stage,)), stage, Machine.host())


def text(*body: Stmt, buffers: tuple[Buffer, ...] = BUFFERS) -> str:
    return "\n".join(lowered(*body, buffers=buffers).body)


def lines(*expected: str) -> str:
    return "\n".join(f"    {line}" for line in expected)


def parallel(var: str, extent: int | str, *body: Stmt) -> For:
    return For(var, add(extent), body, "parallel")


def test_one_parallel_loop_takes_the_tasks() -> None:
    stage = lowered(parallel("i", "M", loop("j", 4, put("y", "i", "j", value=at("x", "i", "j")))))
    assert "\n".join(stage.body) == lines(
        "x, y = buffers[0], buffers[2]",
        "M, N = sizes[0], sizes[1]",
        "for i in range(begin, end):",
        "    for j in range(4):",
        "        store_f32(y, i * N + j, load_f32(x, i * 4 + j))",
    )
    assert (stage.sizes, stage.tasks) == (("M", "N"), Var("M"))
    assert [operation.name for operation in stage.operations] == ["load_f32", "store_f32"]


def test_several_parallel_loops_share_the_tasks() -> None:
    stage = lowered(parallel("i", "M", parallel("j", "N", put("y", "i", "j", value=ZERO))))
    assert "\n".join(stage.body) == lines(
        "y = buffers[2]",
        "M, N = sizes[0], sizes[1]",
        "for task in range(begin, end):",
        "    i, j = task // N, task % N",
        "    store_f32(y, i * N + j, np.float32(0.0))",
    )


def test_a_stage_without_parallel_loops_is_one_task() -> None:
    stage = lowered(loop("i", "M", put("y", "i", 0, value=ZERO)))
    assert stage.tasks == Int(1)
    assert "    for task in range(begin, end):" in stage.body


def test_registers_are_local_variables() -> None:
    tile = Buffer("acc", "float32", (Int(2), Int(4)), "register")
    product = Fma(
        Splat(at("x", "i", "k"), 4),
        Load("w", (Var("k"), Int(0)), 4),
        Load("acc", (Int(1), Int(0)), 4),
    )
    body = (
        Store("acc", (Int(0), Int(0)), Const(0.0, "float32", 4), 4),
        Store("acc", (Int(1), Int(0)), Const(0.0, "float32", 4), 4),
        For("k", Int(4), (Store("acc", (Int(1), Int(0)), product, 4),)),
        Store("y", (Var("i"), Int(0)), Load("acc", (Int(1), Int(0)), 4), 4),
    )
    assert text(parallel("i", "M", Alloc(tile, body))) == lines(
        "x, w, y = buffers[0], buffers[1], buffers[2]",
        "M, N = sizes[0], sizes[1]",
        "for i in range(begin, end):",
        "    acc0 = acc1 = splat_f32x4(0.0)",
        "    for k in range(4):",
        "        acc1 = fma_f32x4(splat_f32x4(load_f32(x, i * 4 + k)), load_f32x4(w, k * N), acc1)",
        "    store_f32x4(y, i * N, acc1)",
    )


def test_what_stores_share_is_named_once() -> None:
    shared = at("x", "i", 0)
    body = tuple(put("y", "i", add(mul("j", 3), place), value=Arith("+", shared, shared)) for place in range(2))
    assert text(parallel("i", "M", loop("j", 2, *body))) == lines(
        "x, y = buffers[0], buffers[2]",
        "M, N = sizes[0], sizes[1]",
        "for i in range(begin, end):",
        "    for j in range(2):",
        "        y_at = i * N + j * 3",
        "        x_here = load_f32(x, i * 4)",
        "        store_f32(y, y_at, add_f32(x_here, x_here))",
        "        store_f32(y, y_at + 1, add_f32(x_here, x_here))",
    )


def test_many_elements_at_constant_distances_share_an_address() -> None:
    many = tuple(put("y", "i", j, value=at("x", "i", add("k", j))) for j in range(8))
    buffers = (buffer("x", "M", "N"), buffer("y", "M", 8))
    body = lowered(parallel("i", "M", loop("k", 4, *many)), buffers=buffers).body
    assert body[4:7] == (
        "            x_row = place_f32(x, i * N + k)",
        "            y_at = i * 8",
        "            store_f32(y, y_at, load_f32(x_row, 0))",
    )
    few = lowered(parallel("i", "M", loop("k", 4, *many[:7])), buffers=buffers)
    assert not any(operation.kind == "place" for operation in few.operations)


def test_names_of_places_differ_between_levels() -> None:
    """What an outer loop hoists is not overwritten by what an inner one does."""
    buffers = (buffer("x", "M", "N"), buffer("y", "M", 8))
    reads = tuple(put("y", "i", j, value=at("x", minimum("i", 4 * j), "k")) for j in range(2))
    deeper = tuple(put("y", "i", j, value=at("x", minimum("k", 4 * j), "q")) for j in range(2, 4))
    body = lowered(parallel("i", "M", loop("k", 4, *reads, loop("q", 4, *deeper))), buffers=buffers).body
    assigned = [
        name.strip()
        for line in body
        if "x_at" in line and "load" not in line
        for name in line.split(" = ")[0].split(",")
    ]
    assert len(assigned) == len(set(assigned)) == 4


def test_masks_guards_and_choices() -> None:
    inside = Less(Var("i"), Int(3))
    masked = Store("y", (Var("i"), Int(0)), Load("x", (Var("i"), Int(0)), 4, Var("N")), 4, Var("N"))
    chosen = put("y", "i", 0, value=Choose((inside,), at("x", "i", 0), ZERO))
    assert text(parallel("i", "M", If(inside, (masked,)), chosen)).splitlines()[2:] == [
        "    for i in range(begin, end):",
        "        if i < 3:",
        "            store_some_f32x4(y, i * N, load_some_f32x4(x, i * 4, N), N)",
        "        if i < 3:",
        "            chosen = load_f32(x, i * 4)",
        "        else:",
        "            chosen = np.float32(0.0)",
        "        store_f32(y, i * N, chosen)",
    ]


def test_vectors_outside_of_an_image_are_read_elsewhere() -> None:
    """Even masked lanes: memory that is not there is slow to pass over."""
    inside, zeros = Less(Var("i"), Int(3)), Const(0.0, "float32", 4)
    for count, read in ((None, "load_if_f32x4(x, i * 4, "), (Var("N"), "load_some_if_f32x4(x, i * 4, N, ")):
        value = Choose((inside,), Load("x", (Var("i"), Int(0)), 4, count), zeros)
        stored = Store("y", (Var("i"), Int(0)), value, 4)
        assert text(parallel("i", "M", stored)).splitlines()[-1].strip() == f"store_f32x4(y, i * N, {read}(i < 3)))"


def test_16_bit_types_have_their_own_loads_and_stores() -> None:
    narrow = (
        Buffer("x", "float16", (Var("M"),), "operand"),
        Buffer("y", "bfloat16", (Var("M"),), "result"),
    )
    found = lowered(parallel("i", "M", put("y", "i", value=at("x", "i"))), buffers=narrow)
    assert found.body[-1].strip() == "store_bf16_f32(y, i, load_f16_f32(x, i))"


def test_what_has_no_text_is_an_error() -> None:
    with pytest.raises(IRError, match="PaddedLoad cannot be lowered"):
        lowered(parallel("i", "M", put("y", "i", 0, value=PaddedLoad("x", (Var("i"), Int(0)), "zeros"))))
    rows = Interleave((Load("x", (Var("i"), Int(0)), 2), Load("x", (Int(0), Var("i")), 2)))
    with pytest.raises(IRError, match=r"float32\*2 x 2 cannot be interleaved; allowed: vectors of bfloat16\*2 or"):
        lowered(parallel("i", "M", Store("y", (Var("i"), Int(0)), rows, 2)))
    tile = Buffer("acc", "float32", (Int(2),), "register")
    with pytest.raises(IRError, match=r"register acc\[i\] x1 is not one variable"):
        lowered(parallel("i", "M", Alloc(tile, (Store("acc", (Var("i"),), ZERO),))))


def test_parts_of_addresses_do_not_take_a_loop_s_name() -> None:
    read = at("x", floordiv(mul("row", 3), 2), "j")
    nest = parallel("row", "M", loop("j", 4, put("y", "row", "j", value=read)))
    assert text(nest) == lines(
        "x, y = buffers[0], buffers[2]",
        "M, N = sizes[0], sizes[1]",
        "for row in range(begin, end):",
        "    row_part = row * 3 // 2",
        "    for j in range(4):",
        "        store_f32(y, row * N + j, load_f32(x, row_part * 4 + j))",
    )
