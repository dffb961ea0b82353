"""Two matrix products compiled for a device: right as they are, and caught when a line of their PTX is spoilt."""

from __future__ import annotations

import re

import ml_dtypes
import numpy as np
import pytest

from convgen.errors import KernelFault
from convgen.targets.cuda.interp import Pointer, compile_kernel, parse, run
from tests.targets.cuda.interp.kernels import staged_product_ptx, tiled_product_ptx

BFLOAT16 = ml_dtypes.bfloat16


def tiled(text: str, n: int = 48, seed: int | None = None, *, races: bool = True) -> np.ndarray:
    """a @ b by the tiled kernel, minus what it should be."""
    rng = np.random.default_rng(9)
    a, b = (rng.integers(-9, 9, (n, n)).astype(np.float32) for _ in range(2))
    c = np.full((n, n), np.nan, np.float32)
    run(parse(text), grid=(n // 16, n // 16), block=(16, 16), arguments=[a, b, c, n], seed=seed, races=races)
    return c - a @ b


def staged(
    text: str, sizes: tuple[int, int, int] = (64, 64, 128), seed: int | None = None, *, races: bool = True
) -> np.ndarray:
    """a @ b by the staged kernel, minus what it should be. The operands are read-only."""
    rows, columns, terms = sizes
    rng = np.random.default_rng(10)
    a = rng.integers(-4, 5, (rows, terms)).astype(BFLOAT16)
    b = rng.integers(-4, 5, (terms, columns)).astype(BFLOAT16)
    a.flags.writeable = b.flags.writeable = False
    c = np.full((rows, columns), np.nan, np.float32)
    grid = (-(-columns // 64), -(-rows // 64))
    run(parse(text), grid=grid, block=(128,), arguments=[a, b, c, rows, columns, terms], seed=seed, races=races)
    return c - a.astype(np.float32) @ b.astype(np.float32)


def line_of(text: str, pattern: str, number: int = 0) -> int:
    """The number of a line, counted from 1."""
    return [at for at, line in enumerate(text.splitlines(), 1) if re.search(pattern, line)][number]


def without(text: str, pattern: str, number: int = 0) -> str:
    """The text with one matching line made empty."""
    lines = text.splitlines()
    lines[line_of(text, pattern, number) - 1] = ""
    return "\n".join(lines)


def replaced(text: str, pattern: str, by: str, number: int = 0) -> str:
    lines = text.splitlines()
    at = line_of(text, pattern, number) - 1
    lines[at] = re.sub(pattern, by, lines[at])
    assert lines[at] != text.splitlines()[at]
    return "\n".join(lines)


@pytest.mark.parametrize("seed", [None, 0, 1])
def test_the_kernels_are_right(seed: int | None) -> None:
    assert not tiled(tiled_product_ptx(), seed=seed).any()
    assert not staged(staged_product_ptx(), seed=seed).any()


@pytest.mark.parametrize("cc", [(9, 0, "a"), (10, 0)])
def test_other_capabilities(cc: tuple[int, ...]) -> None:
    assert not staged(staged_product_ptx(cc)).any()


@pytest.mark.parametrize("sizes", [(8, 8, 8), (72, 88, 104), (16, 72, 40)])
def test_zero_fill(sizes: tuple[int, int, int]) -> None:
    assert not staged(staged_product_ptx(), sizes).any()


def test_one_block_at_a_time_or_many_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convgen.targets.cuda.interp.launch._LANES", 1)
    assert not staged(staged_product_ptx(), (130 // 2 * 2 - 2, 128, 64)).any()
    assert not tiled(tiled_product_ptx()).any()


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("seed", [None, 5])
def test_a_dropped_barrier_is_a_race(number: int, seed: int | None) -> None:
    with pytest.raises(KernelFault) as caught:
        tiled(without(tiled_product_ptx(), r"bar\.sync", number), seed=seed)
    fault = caught.value
    # With warps in random order, a warp may also read what another has yet to write for the first time.
    assert fault.kind == "race" or (seed is not None and fault.kind == "uninitialised")
    assert fault.text == " ".join(tiled_product_ptx().splitlines()[fault.line - 1].split())
    assert ".shared." in fault.text


def test_a_dropped_barrier_gives_wrong_numbers_in_some_order() -> None:
    text = without(tiled_product_ptx(), r"bar\.sync", 1)
    assert any(tiled(text, seed=seed, races=False).any() for seed in range(4))


def test_a_dropped_barrier_between_stages_is_a_race() -> None:
    text = without(staged_product_ptx(), r"bar\.sync")
    with pytest.raises(KernelFault) as caught:
        staged(text)
    assert caught.value.kind == "race"
    assert caught.value.text.startswith("ldmatrix")


def test_a_dropped_wait_is_a_read_in_flight() -> None:
    with pytest.raises(KernelFault) as caught:
        staged(without(staged_product_ptx(), r"cp\.async\.wait_group"))
    assert caught.value.kind == "in flight"
    assert caught.value.text.startswith("ldmatrix")


def test_a_wrong_count_of_groups_is_a_read_in_flight() -> None:
    with pytest.raises(KernelFault) as caught:
        staged(replaced(staged_product_ptx(), r"wait_group 1", "wait_group 2"))
    assert caught.value.kind == "in flight"


def test_a_copy_to_another_place_than_meant() -> None:
    """One of the loop's copies lands 16 bytes further on, so that what it should have filled is read as it was."""
    text = staged_product_ptx()
    inside = sum("cp.async.cg" in line for line in text.splitlines()[: line_of(text, r"bar\.sync")])
    with pytest.raises(KernelFault) as caught:
        staged(replaced(text, r"(cp\.async\.cg.*?)\[(%r\d+)\]", r"\1[\2+16]", inside))
    assert (caught.value.kind, caught.value.text[:8]) == ("uninitialised", "ldmatrix")


def test_a_broken_fragment_address_is_misaligned() -> None:
    text = staged_product_ptx()
    memory = re.search(r"\[(%r\d+)\]", text.splitlines()[line_of(text, "ldmatrix") - 1])
    assert memory is not None
    with pytest.raises(KernelFault) as caught:
        staged(replaced(text, r"(ldmatrix.*)\[(%r\d+)\]", r"\1[\2+8]"))
    assert caught.value.kind == "misaligned"
    assert caught.value.line == line_of(text, "ldmatrix")


def test_a_shifted_fragment_gives_wrong_numbers() -> None:
    assert staged(replaced(staged_product_ptx(), r"(ldmatrix.*)\[(%r\d+)\]", r"\1[\2+16]", 1)).any()


def test_a_read_beyond_an_operand_is_out_of_bounds() -> None:
    text = tiled_product_ptx()
    n = 32
    a, b, c = (np.zeros((n, n), np.float32) for _ in range(3))
    for short in (0, 1, 2):
        arrays = [a, b, c]
        arrays[short] = arrays[short].reshape(-1)[: n * n - 1].copy()
        with pytest.raises(KernelFault, match=f"beyond the end of argument {short}") as caught:
            run(parse(text), grid=(2, 2), block=(16, 16), arguments=[*arrays, n])
        assert caught.value.kind == "out of bounds"
        assert (caught.value.block, caught.value.thread) == (
            (1, 0, 0) if short == 1 else (1, 1, 0) if short == 2 else (0, 1, 0),
            (15, 15, 0),
        )


def test_a_misaligned_operand() -> None:
    n = 32
    a, b, c = (np.zeros(n * n + 1, np.float32) for _ in range(3))
    with pytest.raises(KernelFault, match="not a multiple of the 4 bytes") as caught:
        run(parse(tiled_product_ptx()), grid=(2, 2), block=(16, 16), arguments=[a, Pointer(b, 2), c, n])
    assert caught.value.kind == "misaligned"


def test_a_result_in_read_only_memory() -> None:
    n = 16
    a, b, c = (np.zeros((n, n), np.float32) for _ in range(3))
    c.flags.writeable = False
    with pytest.raises(KernelFault) as caught:
        run(parse(tiled_product_ptx()), grid=(1, 1), block=(16, 16), arguments=[a, b, c, n])
    assert caught.value.kind == "read-only"
    assert caught.value.text.startswith("st.global")


def test_blocks_that_write_the_same_bytes_race() -> None:
    compiled = compile_kernel(parse(tiled_product_ptx()))
    a, b, c = (np.zeros((16, 16), np.float32) for _ in range(3))
    with pytest.raises(KernelFault, match="thread 0 of block") as caught:
        run(compiled, grid=(1, 1, 2), block=(16, 16), arguments=[a, b, c, 16])
    assert caught.value.kind == "race"


@pytest.mark.parametrize("lanes", [16384, 1])
def test_a_block_that_reads_what_another_writes_races(lanes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = compile_kernel(parse(tiled_product_ptx()))
    a, b = (np.zeros((32, 32), np.float32) for _ in range(2))
    monkeypatch.setattr("convgen.targets.cuda.interp.launch._LANES", lanes)
    with pytest.raises(KernelFault) as caught:
        run(compiled, grid=(2, 2), block=(16, 16), arguments=[a, b, a, 32])
    assert caught.value.kind == "race"
