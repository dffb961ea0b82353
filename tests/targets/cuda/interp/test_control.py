"""Divergence, barriers, warp operations, calls and what goes wrong with them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from convgen.errors import KernelFault, OperandError, PtxError
from convgen.targets.cuda.interp import Pointer, parse, run
from tests.targets.cuda.interp.snippets import HEADER, kernel

STORE = "\tmad.wide.u32 %rd40, %t, 4, %rd1;\n\tst.global.u32 [%rd40], %r1;"


def words(body: str, threads: int = 64, *, more: str = "", seed: int | None = None, **options: Any) -> np.ndarray:
    """%r1 of each thread of one block, which the body leaves there."""
    made = np.zeros(threads, np.uint32)
    run(
        parse(kernel(body + "\n" + STORE, 1, more=more)),
        grid=(1,),
        block=(threads,),
        arguments=[made],
        seed=seed,
        **options,
    )
    return made


def fault_of(body: str, threads: int = 64, **options: Any) -> KernelFault:
    with pytest.raises(KernelFault) as caught:
        words(body, threads, **options)
    return caught.value


# Control flow.


@pytest.mark.parametrize("seed", [None, 1, 2])
def test_threads_loop_as_often_as_they_like(seed: int | None) -> None:
    body = """
	mov.u32 %r1, 1;
	mov.u32 %r2, %t;
$loop:
	setp.eq.u32 %p1, %r2, 1;
	setp.eq.u32 %p2, %r2, 0;
	or.pred %p1, %p1, %p2;
	@%p1 bra $done;
	and.b32 %r3, %r2, 1;
	add.u32 %r1, %r1, 1;
	setp.ne.u32 %p3, %r3, 0;
	@%p3 bra $odd;
	shr.u32 %r2, %r2, 1;
	bra.uni $loop;
$odd:
	mad.lo.u32 %r2, %r2, 3, 1;
	bra $loop;
$done:
"""

    def collatz(n: int) -> int:
        steps = 1
        while n > 1:
            n, steps = (3 * n + 1 if n & 1 else n // 2), steps + 1
        return steps

    assert words(body, 100, seed=seed).tolist() == [collatz(n) for n in range(100)]


def test_guards_and_negations() -> None:
    body = """
	setp.lt.u32 %p1, %t, 10;
	mov.u32 %r1, 5;
	@%p1 mov.u32 %r1, %t;
	@!%p1 add.u32 %r1, %r1, 1;
	not.pred %p2, %p1;
	@%p2 exit;
"""
    assert words(body, 16).tolist() == [*range(10), *[0] * 6]


def test_branches_by_an_index() -> None:
    body = """
	and.b32 %r2, %t, 3;
	$places: .branchtargets $zero, $one, $two, $one;
	brx.idx %r2, $places;
$zero:
	mov.u32 %r1, 100;
	bra.uni $end;
$one:
	mov.u32 %r1, 101;
	bra.uni $end;
$two:
	mov.u32 %r1, 102;
$end:
"""
    assert words(body, 8).tolist() == [100, 101, 102, 101] * 2


FUNCTION = """
.func (.param .b32 back) twice_or_more(.param .b32 given, .param .align 8 .b8 pair[16])
{
	.reg .pred %p<2>;
	.reg .b32 %r<9>;
	ld.param.u32 %r1, [given];
	ld.param.v2.u32 {%r2, %r3}, [pair+8];
	setp.gt.u32 %p1, %r1, 5;
	@%p1 bra $more;
	add.u32 %r4, %r1, %r1;
	st.param.b32 [back+0], %r4;
	ret;
$more:
	add.u32 %r4, %r2, %r3;
	st.param.b32 [back+0], %r4;
	ret;
}
"""


def test_calls_are_written_out_in_place() -> None:
    call = """
	{
	.param .b32 p0;
	st.param.b32 [p0], %t;
	.param .align 8 .b8 p1[16];
	st.param.v2.b32 [p1+8], {%r7, 1000};
	.param .b32 r0;
	call.uni (r0), twice_or_more, (p0, p1);
	ld.param.b32 %r1, [r0+0];
	}
"""
    body = f"\tmov.u32 %r7, 2000;\n{call}\n\tmov.u32 %r8, %r1;\n{call}\n\tadd.u32 %r1, %r1, %r8;"
    assert words(body, 10, more=FUNCTION).tolist() == [0, 4, 8, 12, 16, 20, *[6000] * 4]


def test_recursion_and_missing_functions_are_refused() -> None:
    call = "\tcall {0};"
    with pytest.raises(PtxError, match="has no body"):
        words(call.format("absent"))
    with pytest.raises(PtxError, match="recursion"):
        words(call.format("again"), more=".func again()\n{\n\tcall again;\n\tret;\n}")


def test_endless_loops_end() -> None:
    fault = fault_of("$again:\n\tadd.u32 %r1, %t, 1;\n\tbra $again;", step_limit=100)
    assert (fault.kind, fault.text) == ("endless", "add.u32 %r1, %t, 1;")


def test_traps() -> None:
    fault = fault_of("\tmov.u32 %r1, 0;\n\tsetp.eq.u32 %p1, %t, 37;\n\t@%p1 trap;")
    assert (fault.kind, fault.thread) == ("trap", (37, 0, 0))


def test_special_registers() -> None:
    made = np.zeros((2, 3, 2, 8, 4, 4), np.uint32)
    text = kernel(
        """
	mov.u32 %r1, %tid.x;
	mov.u32 %r2, %tid.y;
	mov.u32 %r3, %ntid.x;
	mad.lo.u32 %r4, %r2, %r3, %r1;
	mov.u32 %r5, %ctaid.x;
	mov.u32 %r6, %ctaid.y;
	mov.u32 %r7, %nctaid.x;
	mov.u32 %r8, %ctaid.z;
	mov.u32 %r9, %nctaid.y;
	mad.lo.u32 %r10, %r8, %r9, %r6;
	mad.lo.u32 %r10, %r10, %r7, %r5;
	mad.lo.u32 %r11, %r10, 32, %r4;
	mad.wide.u32 %rd10, %r11, 16, %rd1;
	mov.u32 %r12, %laneid;
	mov.u32 %r13, %warpid;
	mov.u32 %r14, %nctaid.z;
	st.global.v4.u32 [%rd10], {%r11, %r12, %r13, %r14};
""",
        1,
    )
    run(parse(text), grid=(2, 3, 2), block=(8, 4), arguments=[made])
    flat = made.reshape(-1, 4)
    assert (flat[:, 0] == np.arange(12 * 32)).all()
    assert (flat[:, 1] == np.arange(12 * 32) % 32).all()
    assert (flat[:, 2:] == [0, 2]).all()


# Barriers.


def test_a_barrier_that_some_threads_never_reach_hangs() -> None:
    fault = fault_of("\tmov.u32 %r1, 0;\n\tsetp.gt.u32 %p1, %t, 40;\n\t@%p1 exit;\n\tbar.sync 0;")
    assert fault.kind == "barrier"
    assert "23 threads have ended" in fault.reason
    assert fault.text == "bar.sync 0;"


@pytest.mark.parametrize("seed", [None, 3])
def test_threads_at_different_barriers_hang(seed: int | None) -> None:
    body = """
	mov.u32 %r1, 0;
	setp.gt.u32 %p1, %t, 31;
	@%p1 bra $other;
	bar.sync 0;
	bra.uni $end;
$other:
	bar.sync 0;
$end:
"""
    fault = fault_of(body, seed=seed)
    assert fault.kind == "barrier"
    assert "32 threads of 64 wait, others wait at the barrier of PTX line" in fault.reason.replace(" and ", " ")


def test_a_guarded_barrier_hangs() -> None:
    assert fault_of("\tmov.u32 %r1, 0;\n\tsetp.gt.u32 %p1, %t, 31;\n\t@%p1 bar.sync 0;").kind == "barrier"
    assert words("\tmov.u32 %r1, 7;\n\tsetp.lt.u32 %p1, %t, 99;\n\t@%p1 bar.sync 0;").tolist() == [7] * 64


def test_barriers_of_part_of_a_block_are_refused() -> None:
    assert words("\tmov.u32 %r1, 7;\n\tbarrier.sync 1, 64;").tolist() == [7] * 64
    with pytest.raises(PtxError, match="all 64 threads of the block alone"):
        words("\tmov.u32 %r1, 7;\n\tbar.sync 1, 32;")


def test_blocks_pass_barriers_on_their_own() -> None:
    """Each block goes round as often as its number says, with a barrier each time."""
    body = """
	add.u32 %r2, %block, 1;
	mov.u32 %r1, tile;
	shl.b32 %r3, %t, 2;
	add.u32 %r3, %r1, %r3;
	xor.b32 %r4, %t, 63;
	shl.b32 %r4, %r4, 2;
	add.u32 %r4, %r1, %r4;
	mov.u32 %r5, %t;
$again:
	st.shared.u32 [%r3], %r5;
	bar.sync 0;
	ld.shared.u32 %r5, [%r4];
	add.u32 %r5, %r5, 1;
	bar.sync 0;
	sub.u32 %r2, %r2, 1;
	setp.ne.u32 %p1, %r2, 0;
	@%p1 bra $again;
	mad.lo.u32 %r6, %block, 64, %t;
	mad.wide.u32 %rd10, %r6, 4, %rd1;
	st.global.u32 [%rd10], %r5;
"""
    made = np.zeros((5, 64), np.uint32)
    text = parse(kernel(body, 1, more=".shared .align 4 .b8 tile[256];"))
    for seed in (None, 0):
        run(text, grid=(5,), block=(64,), arguments=[made], seed=seed)
        values = np.arange(64)
        for row in made:
            values = values[::-1] + 1
            assert (row == values).all()


# Warps.


def shuffled(mode: str, b: str, c: str) -> list[int]:
    return words(f"\tshfl.sync.{mode}.b32 %r1|%p1, %t, {b}, {c}, -1;\n\t@!%p1 add.u32 %r1, %r1, 1000;").tolist()


def test_shuffles() -> None:
    assert shuffled("down", "3", "31") == [t + 3 if t % 32 < 29 else t + 1000 for t in range(64)]
    assert shuffled("up", "3", "0") == [t - 3 if t % 32 >= 3 else t + 1000 for t in range(64)]
    assert shuffled("bfly", "5", "31") == [t ^ 5 for t in range(64)]
    assert shuffled("idx", "7", "31") == [t // 32 * 32 + 7 for t in range(64)]
    # Segments of eight lanes: the upper bits of c are 11000.
    assert shuffled("idx", "2", "0x181f") == [t // 8 * 8 + 2 for t in range(64)]
    assert shuffled("down", "2", "0x181f") == [t + 2 if t % 8 < 6 else t + 1000 for t in range(64)]
    assert shuffled("bfly", "%lane", "31") == [t // 32 * 32 for t in range(64)]


def test_votes_and_reductions() -> None:
    even = "\tand.b32 %r2, %t, 1;\n\tsetp.eq.u32 %p1, %r2, 0;\n"
    assert words(even + "\tvote.sync.ballot.b32 %r1, %p1, -1;").tolist() == [0x55555555] * 64
    for mode, expected in (("any", 1), ("all", 0), ("uni", 0)):
        assert (
            words(even + f"\tvote.sync.{mode}.pred %p2, %p1, -1;\n\tselp.u32 %r1, 1, 0, %p2;").tolist()
            == [expected] * 64
        )
    assert words("\tredux.sync.add.u32 %r1, %t, -1;").tolist() == [496] * 32 + [496 + 1024] * 32
    assert words("\tredux.sync.max.s32 %r1, %t, -1;").tolist() == [31] * 32 + [63] * 32
    assert words("\tactivemask.b32 %r1;", 40).tolist() == [0xFFFFFFFF] * 32 + [0xFF] * 8


def test_lanes_wait_for_each_other_before_a_shuffle() -> None:
    """The lanes take different ways to the shuffle, which stands before what some of them skip."""
    body = """
	mov.u32 %r2, %t;
	setp.lt.u32 %p1, %lane, 5;
	@%p1 bra $few;
$meet:
	shfl.sync.idx.b32 %r1, %r2, 0, 31, -1;
	bra.uni $end;
$few:
	add.u32 %r2, %r2, 100;
	bra.uni $meet;
$end:
"""
    assert words(body).tolist() == [100] * 32 + [132] * 32


def test_a_shuffle_with_lanes_missing() -> None:
    body = """
	setp.eq.u32 %p1, %lane, 9;
	mov.u32 %r1, 0;
	@%p1 bra $end;
	shfl.sync.bfly.b32 %r1, %t, 1, 31, -1;
$end:
	bar.sync 0;
"""
    fault = fault_of(body)
    assert fault.kind == "warp"
    assert "0x00000200" in fault.reason
    named = (
        body.replace("31, -1;", "31, 0xfffffcff;")
        .replace("%p1, %lane, 9", "%p1, %lane, 99")
        .replace("eq.u32", "ge.u32")
    )
    assert fault_of(named).reason == "a lane takes part that its member mask does not name"


def test_a_shuffle_from_a_lane_that_has_ended() -> None:
    body = "\tsetp.eq.u32 %p1, %lane, 1;\n\t@%p1 exit;\n\tshfl.sync.{0}.b32 %r1, %t, {1}, 31, -1;"
    assert words(body.format("idx", "0"))[:4].tolist() == [0, 0, 0, 0]
    assert "reads from lane 1" in fault_of(body.format("bfly", "1")).reason


def test_a_vote_in_part_of_a_warp_counts_those_it_names() -> None:
    body = """
	mov.u32 %r1, 0;
	setp.lt.u32 %p1, %lane, 4;
	setp.lt.u32 %p2, %lane, 2;
	@%p1 vote.sync.ballot.b32 %r1, %p2, 15;
"""
    assert words(body, 32).tolist() == [3] * 4 + [0] * 28


# What is refused.


def test_unknown_instructions_are_named_with_their_line() -> None:
    text = kernel("\tmov.u32 %r1, 0;\n\tmad.funny.s32 %r1, %r1, %r1, %r1;", 1)
    line = text.splitlines().index("\tmad.funny.s32 %r1, %r1, %r1, %r1;") + 1
    with pytest.raises(PtxError, match=rf"PTX line {line} `mad.funny.s32 %r1, %r1, %r1, %r1;`"):
        run(parse(text), grid=(1,), block=(1,), arguments=[0])


@pytest.mark.parametrize(
    "line",
    [
        "add.f32 %f1, %rd1, %f2;",
        "mov.u64 %rd3, %r1;",
        "mbarrier.init.shared.b64 [%r1], 1;",
        "cp.async.bulk.commit_group;",
        "wgmma.fence.sync.aligned;",
        "bar.arrive 0, 64;",
        "ld.shared::cluster.u32 %r1, [%r2];",
        "cvt.rn.satfinite.e4m3x2.f32 %h1, %f1, %f2;",
        "fma.rz.f64 %fd1, %fd2, %fd3, %fd4;",
        "tex.1d.v4.f32.f32 {%f1, %f2, %f3, %f4}, [%rd1, {%f5}];",
        "mov.u32 %r1, %nowhere;",
    ],
)
def test_what_is_not_known_is_an_error(line: str) -> None:
    zeros = "\n".join(f"\tmov.b32 %r{i}, 0;\n\tmov.f32 %f{i}, 0f00000000;" for i in range(1, 6))
    with pytest.raises(PtxError, match="PTX line"):
        run(parse(kernel(f"{zeros}\n\t{line}", 1)), grid=(1,), block=(32,), arguments=[0])


def test_registers_that_nobody_wrote() -> None:
    body = "\tsetp.lt.u32 %p1, %t, 5;\n\t@%p1 mov.u32 %r2, 1;\n\tmov.u32 %r3, %r2;\n\tmov.u32 %r1, 0;\n\t@%p1 mov.u32 %r1, %r3;"
    assert words(body, 8).tolist() == [1] * 5 + [0] * 3
    fault = fault_of(body.replace("@%p1 mov.u32 %r1, %r3", "add.u32 %r1, %r3, 1"), 8)
    assert (fault.kind, fault.thread, fault.text) == ("uninitialised", (5, 0, 0), "add.u32 %r1, %r3, 1;")


def test_arguments_that_do_not_fit() -> None:
    module = parse(kernel("", 2))
    array = np.zeros(8, np.float32)
    options: dict[str, Any] = {"grid": (1,), "block": (1,)}
    with pytest.raises(OperandError, match="2 arguments, not 1"):
        run(module, arguments=[array], **options)
    with pytest.raises(OperandError, match="overlap"):
        run(module, arguments=[array[:6], array[2:]], **options)
    with pytest.raises(OperandError, match="C-contiguous"):
        run(module, arguments=[array[::2], array], **options)
    with pytest.raises(OperandError, match="grid"):
        run(module, arguments=[0, 0], grid=(0,), block=(1,))
    with pytest.raises(OperandError, match="1024 threads"):
        run(module, arguments=[0, 0], grid=(1,), block=(2000,))
    with pytest.raises(PtxError, match="no kernel 'other'"):
        run(module, "other", arguments=[0, 0], **options)
    run(module, "kernel", arguments=[array, Pointer(array, 4)], **options)
    assert parse(HEADER).kernels == ()
