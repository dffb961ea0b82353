"""Loads and stores in every space, asynchronous copies, atomic operations, and accesses that must not be."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from convgen.errors import KernelFault
from convgen.targets.cuda.interp import parse, run
from tests.targets.cuda.interp.snippets import kernel

TILE = ".shared .align 16 .b8 tile[1024];\n.shared .align 16 .b8 other[64];"
# %r1 is the address of this thread's word of the tile, %r2 that of the thread 32 further on, round the block of 64.
PLACES = """
	mov.u32 %r9, tile;
	mad.lo.u32 %r1, %t, 4, %r9;
	xor.b32 %r8, %t, 32;
	mad.lo.u32 %r2, %r8, 4, %r9;
	mad.wide.u32 %rd9, %t, 4, %rd1;
"""


def shared(body: str, threads: int = 64, *, seed: int | None = None, blocks: int = 1, count: int = 64) -> np.ndarray:
    """Runs a kernel on one array of words, numbered from 0; %rd9 is the address of the thread's word."""
    data = np.arange(count, dtype=np.uint32)
    run(parse(kernel(PLACES + body, 1, more=TILE)), grid=(blocks,), block=(threads,), arguments=[data], seed=seed)
    return data


def fault_of(body: str, threads: int = 64, *, seed: int | None = None, blocks: int = 1, count: int = 64) -> KernelFault:
    with pytest.raises(KernelFault) as caught:
        shared(body, threads, seed=seed, blocks=blocks, count=count)
    return caught.value


@pytest.mark.parametrize("kind", ["u8", "s8", "u16", "s16", "u32", "s32", "u64", "f32", "f64", "b16"])
def test_widths(kind: str) -> None:
    """Narrow loads fill wider registers, with the sign if they have one; stores cut off."""
    rng = np.random.default_rng(11)
    bits = int(kind[1:])
    data = rng.integers(0, 256, (32, 8), dtype=np.uint8)
    made = np.zeros((32, 8), np.uint8)
    register = {"f32": "%f1", "f64": "%fd1", "u64": "%rd5", "b16": "%h1"}.get(kind, "%r3")
    body = f"""
	mad.wide.u32 %rd3, %t, 8, %rd1;
	mad.wide.u32 %rd4, %t, 8, %rd2;
	ld.global.{kind} {register}, [%rd4];
	st.global.{kind} [%rd3], {register};
"""
    run(parse(kernel(body, 2)), grid=(1,), block=(32,), arguments=[made, data])
    assert (made[:, : bits // 8] == data[:, : bits // 8]).all()
    assert not made[:, bits // 8 :].any()
    if bits < 32 and kind[0] != "b":
        body = body.replace(f"st.global.{kind}", "st.global.u32")
        run(parse(kernel(body, 2)), grid=(1,), block=(32,), arguments=[made, data])
        expected = data[:, : bits // 8].copy().view(f"{'i' if kind[0] == 's' else 'u'}{bits // 8}")[:, 0]
        assert (made[:, :4].copy().view(np.int32)[:, 0] == expected.astype(np.int32)).all()


def test_vectors_and_spaces() -> None:
    data = np.arange(64, dtype=np.float32)
    made = np.zeros(64, np.float32)
    body = """
	.local .align 16 .b8 depot[32];
	.reg .b64 %own;
	mov.u64 %own, depot;
	mad.wide.u32 %rd3, %t, 16, %rd1;
	mad.wide.u32 %rd4, %t, 16, %rd2;
	ld.global.nc.L1::no_allocate.L2::128B.v4.f32 {%f1, %f2, %f3, %f4}, [%rd4];
	mov.u32 %r1, tile;
	mad.lo.u32 %r1, %t, 16, %r1;
	st.shared.v2.f32 [%r1], {%f1, %f2};
	st.local.v2.f32 [%own+16], {%f3, %f4};
	cvta.local.u64 %rd5, %own;
	ld.v2.f32 {%f5, %f6}, [%rd5+16];
	cvt.u64.u32 %rd6, %r1;
	cvta.shared.u64 %rd6, %rd6;
	ld.v2.f32 {%f7, %f8}, [%rd6];
	mov.b64 %rd7, table;
	ld.const.f32 %f9, [%rd7+4];
	ld.global.f32 %f10, [numbers+8];
	add.f32 %f5, %f5, %f9;
	add.f32 %f6, %f6, %f10;
	st.v4.f32 [%rd3], {%f7, %f8, %f5, %f6};
"""
    tables = ".const .align 4 .f32 table[2] = {0f3F800000, 0f40000000};"
    tables += ".global .align 4 .b8 numbers[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 64};"
    run(parse(kernel(body, 2, more=TILE + tables)), grid=(1,), block=(16,), arguments=[made, data])
    expected = data.reshape(-1, 4) + np.array([0, 0, 2, 3], np.float32)
    assert (made.reshape(-1, 4) == expected).all()


def test_generic_addresses_of_different_spaces_at_once() -> None:
    body = """
	st.shared.u32 [%r1], 500;
	cvt.u64.u32 %rd10, %r1;
	cvta.shared.u64 %rd10, %rd10;
	setp.lt.u32 %p1, %t, 20;
	selp.b64 %rd11, %rd10, %rd9, %p1;
	ld.u32 %r5, [%rd11];
	add.u32 %r5, %r5, 1;
	st.u32 [%rd11], %r5;
	@%p1 ld.shared.u32 %r6, [%r1];
	@%p1 st.global.u32 [%rd9], %r6;
"""
    assert shared(body).tolist() == [501] * 20 + list(range(21, 65))


def test_a_table_of_addresses() -> None:
    more = ".global .align 4 .u32 one = 41;\n.global .align 8 .u64 places[2] = {generic(one), one+0};"
    data = np.zeros(1, np.uint32)
    body = (
        "\tmov.u64 %rd2, places;\n\tld.global.u64 %rd3, [%rd2+8];\n\tld.u32 %r1, [%rd3];\n\tst.global.u32 [%rd1], %r1;"
    )
    run(parse(kernel(body, 1, more=more)), grid=(1,), block=(1,), arguments=[data])
    assert data[0] == 41


# Shared memory.


def test_a_read_before_any_write() -> None:
    fault = fault_of("\tld.shared.u32 %r3, [%r1];")
    assert (fault.kind, fault.text) == ("uninitialised", "ld.shared.u32 %r3, [%r1];")


def test_running_over_the_end_of_a_shared_array() -> None:
    assert fault_of("\tst.shared.u32 [%r1+1020], 0;").thread == (1, 0, 0)
    fault = fault_of("\tst.shared.u32 [%r1+100000], 0;")
    assert (fault.kind, fault.thread) == ("out of bounds", (0, 0, 0))
    assert fault_of("\tst.shared.u32 [%r1-1024], 0;").kind == "out of bounds"
    assert fault_of("\tst.shared.v2.u32 [%r1], {0, 0};").kind == "misaligned"


RACES = {
    "read after write": "\tst.shared.u32 [%r1], %t;\n\tld.shared.u32 %r3, [%r2];",
    "write after read": "\tst.shared.u32 [%r1], %t;\n\tbar.sync 0;\n\tld.shared.u32 %r3, [%r2];\n\tst.shared.u32 [%r1], %r3;",
    "write after write": "\tst.shared.u32 [%r1], %t;\n\tst.shared.u32 [%r2], %t;",
    "the same place": "\tst.shared.u32 [%r9], %t;",
    "lanes of a warp": "\tst.shared.u32 [%r1], %t;\n\txor.b32 %r2, %r1, 4;\n\tld.shared.u32 %r3, [%r2];",
    "parts of a word": "\tst.shared.u32 [%r1], %t;\n\tst.shared.u8 [%r2+3], %t;",
}


@pytest.mark.parametrize("name", RACES)
@pytest.mark.parametrize("seed", [None, 7])
def test_races_in_shared_memory(name: str, seed: int | None) -> None:
    fault = fault_of(RACES[name], seed=seed)
    assert fault.kind in ("race", "uninitialised") if seed is not None else fault.kind == "race"
    assert "shared.u" in fault.text


def test_barriers_order() -> None:
    for name in ("read after write", "write after write"):
        assert shared(RACES[name].replace("%t;\n", "%t;\n\tbar.sync 0;\n", 1)).any()
    ordered = RACES["write after read"].replace(
        "\tst.shared.u32 [%r1], %r3", "\tbar.sync 0;\n\tst.shared.u32 [%r1], %r3"
    )
    for seed in (None, 1):
        assert shared(ordered + "\n\tst.global.u32 [%rd9], %r3;", seed=seed).tolist() == [t ^ 32 for t in range(64)]
    # Within a warp, its own barrier is enough; for another warp it is not.
    assert shared(RACES["lanes of a warp"].replace("%t;\n", "%t;\n\tbar.warp.sync -1;\n", 1)).any()
    assert fault_of(RACES["read after write"].replace("%t;\n", "%t;\n\tbar.warp.sync -1;\n", 1)).kind == "race"
    again = "\tbar.warp.sync -1;\n\tst.shared.u32 [%r1], %t;\n\tbar.sync 0;"
    assert shared(RACES["lanes of a warp"].replace("%t;\n", "%t;\n\tbar.warp.sync -1;\n", 1) + "\n" + again).any()


def test_many_reads_before_a_write() -> None:
    """More reads than the log holds, the first of them of a place that another warp writes later."""
    body = """
	st.shared.u32 [%r1], %t;
	bar.sync 0;
	mov.u32 %r4, 0;
$again:
	setp.lt.u32 %p1, %r4, 5;
	selp.u32 %r5, {0}, %r1, %p1;
	ld.shared.u32 %r3, [%r5];
	add.u32 %r4, %r4, 1;
	setp.lt.u32 %p1, %r4, 150;
	@%p1 bra $again;
	st.shared.u32 [%r1], %t;
	bar.sync 0;
"""
    assert shared(body.format("%r1")).any()
    fault = fault_of(body.format("%r2"))
    assert fault.kind == "race"
    assert "other warps read it before" in fault.reason
    # All threads read the last one's place together; it writes there.
    body = body.replace("mov.u32 %r4, 0;", "mov.u32 %r4, 0;\n\tadd.u32 %r7, %r9, 252;").format("%r7")
    last = "setp.eq.u32 %p2, %t, 63;\n\t@%p2 st.shared.u32 [%r7], %t;"
    fault = fault_of(last.join(body.rsplit("st.shared.u32 [%r1], %t;", 1)))
    assert (fault.kind, fault.text) == ("race", "@%p2 st.shared.u32 [%r7], %t;")


# Asynchronous copies.

COPY = """
	mov.u32 %r9, tile;
	mad.lo.u32 %r1, %t, 16, %r9;
	mad.wide.u32 %rd9, %t, 16, %rd1;
	{0}
	cp.async.cg.shared.global [%r1], [%rd9], 16{1};
	cp.async.commit_group;
	{2}
	ld.shared.u32 %r3, [%r1+4];
	st.global.u32 [%rd9], %r3;
"""


def copied(first: str = "", size: str = "", wait: str = "cp.async.wait_group 0;") -> list[int]:
    return shared(COPY.format(first, size, wait), 16)[::4].tolist()


def test_copies_arrive_at_the_wait() -> None:
    assert copied() == list(range(1, 64, 4))
    assert copied(wait="cp.async.wait_all;") == list(range(1, 64, 4))
    for wait in ("", "cp.async.wait_group 1;"):
        with pytest.raises(KernelFault, match="without having waited") as caught:
            copied(wait=wait)
        assert caught.value.kind == "in flight"
    # The second group may be under way while the first is read, not the other way round.
    more = "cp.async.cg.shared.global [%r1+512], [%rd9], 16;\n\tcp.async.commit_group;\n\tcp.async.wait_group 1;"
    assert copied(wait=more) == list(range(1, 64, 4))
    with pytest.raises(KernelFault, match="without having waited"):
        copied(wait=more.replace("%r1+512", "%r1+512") + "\n\tld.shared.u32 %r3, [%r1+512];")


def test_zero_fill() -> None:
    assert copied(size=", 8") == list(range(1, 64, 4))
    assert copied(size=", 4") == [0] * 16
    # Nothing is read where no byte is asked for: the address may be anything.
    assert copied("mov.u64 %rd10, %rd9;\n\tmov.u32 %r5, 0;", ", %r5") == [0] * 16
    outside = "setp.gt.u32 %p1, %t, 3;\n\tselp.u32 %r5, 0, 16, %p1;\n\tmov.u64 %rd8, %rd9;\n\t@%p1 mov.u64 %rd8, 0;"
    body = COPY.format(outside, ", %r5", "cp.async.wait_all;").replace("[%rd9], 16", "[%rd8], 16")
    assert shared(body, 16)[::4].tolist() == [1, 5, 9, 13] + [0] * 12
    with pytest.raises(KernelFault) as caught:
        copied(size=", 32")
    assert caught.value.kind == "out of bounds"


def test_copies_are_seen_by_others_after_a_barrier() -> None:
    body = COPY.format("", "", "cp.async.wait_all;\n\t{0}\n\txor.b32 %r2, %r1, 16;").replace("[%r1+4]", "[%r2+4]")
    made = shared(body.format("bar.sync 0;"), 16)[::4]
    assert made.tolist() == [4 * (t ^ 1) + 1 for t in range(16)]
    assert fault_of(body.format(""), 16).kind == "race"


def test_a_copy_over_what_others_read_is_a_race() -> None:
    body = """
	st.shared.u32 [%r1], %t;
	bar.sync 0;
	ld.shared.u32 %r3, [%r2];
	{0}
	cp.async.ca.shared.global [%r1], [%rd9], 4;
	cp.async.wait_all;
	bar.sync 0;
"""
    assert shared(body.format("bar.sync 0;")).any()
    fault = fault_of(body.format(""))
    assert (fault.kind, fault.text) == ("race", "ld.shared.u32 %r3, [%r2];")


def test_writing_where_a_copy_is_under_way() -> None:
    assert fault_of("\tcp.async.ca.shared.global [%r1], [%rd9], 4;\n\tst.shared.u32 [%r1], 0;").kind == "in flight"


def test_copies_by_some_threads_alone() -> None:
    body = """
	setp.lt.u32 %p1, %t, 10;
	st.shared.u32 [%r1], 7;
	@%p1 cp.async.ca.shared.global [%r1], [%rd9], 4;
	@%p1 cp.async.commit_group;
	@%p1 cp.async.wait_group 0;
	ld.shared.u32 %r3, [%r1];
	st.global.u32 [%rd9], %r3;
"""
    assert shared(body).tolist() == [*range(10), *[7] * 54]
    assert fault_of(body.replace("@%p1 cp.async.wait", "@!%p1 cp.async.wait")).thread == (0, 0, 0)


# Global memory.


def test_global_addresses_outside_of_arrays() -> None:
    assert shared("\tst.global.u32 [%rd9], 3;").tolist() == [3] * 64
    fault = fault_of("\tst.global.u32 [%rd9+4], 3;")
    assert (fault.kind, fault.thread) == ("out of bounds", (63, 0, 0))
    assert "4 bytes beyond the end of argument 0 (256 bytes)" in fault.reason
    assert "4 bytes before argument 0" in fault_of("\tld.global.u32 %r3, [%rd9-4];").reason
    assert fault_of("\tld.global.u32 %r3, [%rd9+2];").kind == "misaligned"
    assert fault_of("\tmov.u64 %rd9, 0;\n\tld.global.u32 %r3, [%rd9];").kind == "out of bounds"
    assert fault_of("\tmov.u64 %rd9, 0;\n\tld.u32 %r3, [%rd9];").kind == "out of bounds"


def test_races_in_global_memory() -> None:
    swapped = "\tmad.wide.u32 %rd10, %r8, 4, %rd1;\n"
    assert fault_of(swapped + "\tst.global.u32 [%rd9], %t;\n\tld.global.u32 %r3, [%rd10];").kind == "race"
    assert shared(swapped + "\tst.global.u32 [%rd9], %t;\n\tbar.sync 0;\n\tld.global.u32 %r3, [%rd10];").any()
    assert fault_of("\tst.global.u32 [%rd1], %t;").kind == "race"
    # Between blocks, no barrier helps.
    both = "\tld.global.u32 %r3, [%rd9];\n\tbar.sync 0;\n\tsetp.eq.u32 %p1, %block, 1;\n\t@%p1 st.global.u32 [%rd9], 5;"
    assert fault_of(both, blocks=2).kind == "race"
    assert shared(both.replace("@%p1 ", "").replace("st.global.u32 [%rd9], 5;", ""), blocks=2).any()


@pytest.mark.parametrize("lanes", [16384, 1])
def test_blocks_that_follow_each_other_race_all_the_same(lanes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convgen.targets.cuda.interp.launch._LANES", lanes)
    turns = "\tsetp.eq.u32 %p1, %block, 0;\n\t@%p1 st.global.u32 [%rd9], %t;\n\tbar.sync 0;\n\t@!%p1 {0};"
    assert fault_of(turns.format("ld.global.u32 %r3, [%rd9]"), blocks=2).kind == "race"
    assert fault_of(turns.format("st.global.u32 [%rd9], %t"), blocks=2).kind == "race"
    assert fault_of(turns.format("red.global.add.u32 [%rd9], 1"), blocks=2).kind == "race"
    assert shared(turns.format("st.shared.u32 [%r1], %t"), blocks=2).tolist() == list(range(64))


def test_a_barrier_of_one_block_is_none_for_another() -> None:
    body = """
	st.shared.u32 [%r1], %t;
	setp.ne.u32 %p1, %block, {0};
	@%p1 bra $on;
	bar.sync 0;
$on:
	ld.shared.u32 %r3, [%r2];
"""
    for number in (0, 1):
        fault = fault_of(body.format(number), blocks=2)
        assert (fault.kind, fault.block) == ("race", (1 - number, 0, 0))


def test_constant_reads_of_what_is_written() -> None:
    """Even a thread's own write is not seen through the read-only cache."""
    assert fault_of("\tst.global.u32 [%rd9], %t;\n\tld.global.nc.u32 %r3, [%rd9];").kind == "race"
    assert shared("\tst.global.u32 [%rd9], %t;\n\tld.global.u32 %r3, [%rd9];").any()


def test_faults_travel_between_processes() -> None:
    fault = fault_of("\tst.global.u32 [%rd9+4], 3;")
    again = pickle.loads(pickle.dumps(fault))
    assert isinstance(again, KernelFault)
    assert (str(again), vars(again)) == (str(fault), vars(fault))


def test_atomic_operations() -> None:
    add = "\tatom.global.add.u32 %r3, [%rd1], 1;"
    assert shared(add, blocks=3)[0] == 192
    data = np.zeros(2, np.float32)
    body = "\tmov.f32 %f1, 0f3F800000;\n\tred.global.add.f32 [%rd1+4], %f1;"
    run(parse(kernel(body, 1)), grid=(4,), block=(64,), arguments=[data])
    assert data.tolist() == [0, 256]
    assert shared("\tred.global.max.s32 [%rd1], %t;")[0] == 63
    assert shared("\tatom.global.exch.b32 %r3, [%rd9], 9;\n\tst.global.u32 [%rd9], %r3;").tolist() == list(range(64))
    assert shared("\tatom.global.cas.b32 %r3, [%rd1], 0, 77;")[0] == 77
    assert shared("\tatom.global.inc.u32 %r3, [%rd1], 4;")[0] == 64 % 5
    # Each sees another value.
    seen = shared(
        "\tatom.global.add.u32 %r3, [%rd1], 1;\n\tadd.u32 %r3, %r3, 100;\n\tst.global.u32 [%rd9+256], %r3;", count=128
    )
    assert sorted(seen[64:].tolist()) == list(range(100, 164))
    assert fault_of(add + "\n\tld.global.u32 %r3, [%rd1];").kind == "race"
    assert fault_of("\tld.global.u32 %r3, [%rd1];\n" + add, blocks=2).kind == "race"
    tile = """
	st.shared.u32 [%r1], 0;
	bar.sync 0;
	atom.shared.add.u32 %r3, [%r9], 2;
	bar.sync 0;
	ld.shared.u32 %r3, [%r9];
	st.global.u32 [%rd9], %r3;
"""
    assert shared(tile).tolist() == [128] * 64


def test_dynamic_shared_memory() -> None:
    more = ".extern .shared .align 16 .b8 buffer[];\n.shared .align 4 .b8 fixed[4];"
    body = """
	mov.u32 %r1, buffer;
	mad.lo.u32 %r1, %t, 4, %r1;
	st.shared.u32 [%r1], %t;
	mov.u32 %r2, %dynamic_smem_size;
	setp.eq.u32 %p1, %t, 0;
	@%p1 st.global.u32 [%rd1], %r2;
"""
    data = np.zeros(1, np.uint32)
    module = parse(kernel(body, 1, more=more))
    run(module, grid=(1,), block=(64,), arguments=[data], dynamic_shared=256)
    assert data[0] == 256
    with pytest.raises(KernelFault) as caught:
        run(module, grid=(1,), block=(65,), arguments=[data], dynamic_shared=256)
    assert (caught.value.kind, caught.value.thread) == ("out of bounds", (64, 0, 0))
