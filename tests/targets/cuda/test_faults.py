"""Faults planted in the PTX of generated kernels: each ends in a KernelFault, or where it cannot, in a failed gate."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable

import numpy as np
import pytest

import convgen.cuda
from convgen.cuda import kernels
from convgen.cuda.kernels import CudaConv
from convgen.errors import KernelFault
from convgen.gpu import Gpu, gpu_of
from convgen.spec import ConvSpec
from convgen.strategies.cuda.registry import gpu_strategy_named
from convgen.targets.cuda.build import stage_ptx
from convgen.targets.cuda.lower import LoweredStage
from convgen.verify import expect_integers, integer_operands

GPU = gpu_of("8.0")
# 30 pixels of 16 channels: the second block of 16 rows is not full.
SPEC = ConvSpec(
    batch=1, in_channels=32, out_channels=16, spatial_size=(5, 4), kernel_size=2, padding=1, layout="channels_last"
)
KERNELS: dict[str, tuple[str, str, dict[str, int]]] = {
    "threads": ("implicit_gemm", "float32", dict(matrix=0, stages=1, rows=16, cols=16, depth=16)),
    "copies": ("implicit_gemm", "float32", dict(matrix=0, stages=3, rows=16, cols=16, depth=16)),
    "warps": ("implicit_gemm", "bfloat16", dict(matrix=1, stages=3, rows=16, cols=16, depth=32)),
    "elements": ("reference", "float32", {}),
}
# What a kernel with a fault that cannot be seen as such comes to.
WRONG = "wrong numbers"

Change = Callable[[str], str]


@functools.cache
def kernel(name: str) -> CudaConv:
    strategy, dtype, choices = KERNELS[name]
    spec = SPEC.replace(dtype=dtype)
    space = gpu_strategy_named(strategy).space(spec, GPU)
    config = next(config for config in space if choices.items() <= dict(config.values).items())
    return convgen.cuda.compile(spec, strategy, capability="8.0", config=config)


def main_ptx(op: CudaConv) -> str:
    return stage_ptx(op._lowered.stages[-1], GPU)


def found(op: CudaConv, pattern: str) -> list[re.Match[str]]:
    return list(re.finditer(pattern, main_ptx(op)))


def replaced(match: re.Match[str], new: str) -> Change:
    """The text with one match replaced."""
    return lambda text: text[: match.start()] + match.expand(new) + text[match.end() :]


def moved(match: re.Match[str], offset: int) -> Change:
    """The text with the address at the end of a match ``offset`` bytes further on: its last group is its offset, if any."""
    start = match.end() - len(match[match.lastindex or 0] or "") if match.lastindex else match.end()
    begin, own = match.string[match.start() : start], int((match["own"] or "+0")[1:])
    return lambda text: text[: match.start()] + f"{begin}+{own + offset}" + text[match.end() :]


def outcome(name: str, change: Change, seed: int = 0) -> str:
    """The kind of fault that the changed kernel ends in, WRONG where its numbers are, and otherwise nothing."""
    op = kernel(name)
    operands = integer_operands(op.spec, np.random.default_rng(0))
    changed: list[str] = []

    def altered(stage: LoweredStage, gpu: Gpu) -> str:
        text = stage_ptx(stage, gpu)
        if stage is not op._lowered.stages[-1]:
            return text
        changed.append(change(text))
        return changed[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "stage_ptx", altered)
        patch.setattr(op, "_compiled", {})
        seen: KernelFault | None = None
        try:
            result = op.interpret(*operands.main, seed=seed)
        except KernelFault as fault:
            seen = fault
    if seen is None:
        return "" if expect_integers(op.spec, operands).check(result).ok else WRONG
    assert seen.text.split() == changed[0].splitlines()[seen.line - 1].split()
    assert seen.kernel == "conv"
    return seen.kind


ADDRESS = r"\[(?:%rd?\d+)(?P<own>\+\d+)?(?=\])"


@pytest.mark.parametrize("name", KERNELS)
def test_without_a_fault_numbers_are_right(name: str) -> None:
    assert outcome(name, lambda text: text) == ""


@pytest.mark.parametrize("name", ["threads", "copies", "warps"])
def test_every_barrier_is_needed(name: str) -> None:
    barriers = found(kernel(name), r"bar\.sync[^;]*;")
    assert len(barriers) == {"threads": 2, "copies": 1, "warps": 3}[name]
    for barrier in barriers:
        assert {outcome(name, replaced(barrier, ""), seed) for seed in range(2)} == {"race"}


@pytest.mark.parametrize("name", ["copies", "warps"])
def test_every_wait_is_needed_and_long_enough(name: str) -> None:
    (wait,) = found(kernel(name), r"cp\.async\.wait_group 1;")
    for new in ("", "cp.async.wait_group 2;", "cp.async.wait_group 7;"):
        assert outcome(name, replaced(wait, new)) == "in flight"


@pytest.mark.parametrize("name", ["copies", "warps"])
def test_copies_that_are_in_no_group_are_in_flight(name: str) -> None:
    assert outcome(name, lambda text: text.replace("cp.async.commit_group;", "")) == "in flight"


@pytest.mark.parametrize("name", ["copies", "warps"])
def test_copies_to_another_place(name: str) -> None:
    """Whatever lies there is overwritten, and what should have been there is not."""
    targets = found(kernel(name), r"cp\.async\.c[ag]\.shared\.global " + ADDRESS)
    assert len(targets) >= 12
    for target in targets[::5]:
        assert outcome(name, moved(target, 16)) in ("uninitialised", "race", "in flight", "out of bounds")
    assert {outcome(name, moved(target, 1 << 20)) for target in targets[::5]} == {"out of bounds"}
    assert {outcome(name, moved(target, 2)) for target in targets[::5]} == {"misaligned"}


@pytest.mark.parametrize("name", ["copies", "warps"])
def test_copies_of_what_is_padding(name: str) -> None:
    sizes = r"(cp\.async\.c[ag]\.shared\.global \[[^,]*, \[[^,]*, (\d+)), %r\d+;"
    assert outcome(name, lambda text: re.sub(sizes, r"\1, \2;", text)) == WRONG


def test_matrices_from_another_place() -> None:
    loads = found(kernel("warps"), r"ldmatrix[^\[]*" + ADDRESS)
    assert len(loads) >= 3
    for load in loads[::2]:
        assert outcome("warps", moved(load, 2)) == "misaligned"
        assert outcome("warps", moved(load, 16)) != ""
        assert outcome("warps", moved(load, 1 << 16)) == "out of bounds"


def test_matrices_that_are_not_turned() -> None:
    assert outcome("warps", lambda text: text.replace(".trans", "")) == WRONG


@pytest.mark.parametrize("name", ["threads", "copies", "warps"])
def test_reads_of_another_place_of_shared_memory(name: str) -> None:
    loads = found(kernel(name), r"ld\.shared\S*\s[^\[]*" + ADDRESS)
    assert loads
    for load in loads[::3]:
        assert outcome(name, moved(load, 4)) in (WRONG, "misaligned", "uninitialised", "out of bounds")
        assert outcome(name, moved(load, 1)) == "misaligned"
        assert outcome(name, moved(load, 1 << 20)) == "out of bounds"


@pytest.mark.parametrize("name", ["threads", "warps"])
def test_stores_to_another_place_of_shared_memory(name: str) -> None:
    stores = found(kernel(name), r"st\.shared\S*\s+" + ADDRESS)
    assert stores
    for store in stores:
        assert outcome(name, moved(store, 16)) in (WRONG, "misaligned", "uninitialised", "race", "out of bounds")
        assert outcome(name, moved(store, 1 << 20)) == "out of bounds"


@pytest.mark.parametrize("name", KERNELS)
def test_stores_without_their_guards_are_out_of_bounds(name: str) -> None:
    """Threads without a pixel of their own store behind the result's end."""

    def change(text: str) -> str:
        """All that leaps over a store to global memory, forwards, is gone."""
        lines = text.splitlines()
        labels = {line.rstrip(":"): at for at, line in enumerate(lines) if re.fullmatch(r"\$L\w+:", line)}
        for at, line in enumerate(lines):
            branch = re.match(r"\s*@!?%p\d+ bra\S*\s+(\$L\w+);", line)
            if branch and any("st.global" in between for between in lines[at : labels[branch[1]]]):
                lines[at] = ""
        return "\n".join(lines)

    assert outcome(name, change) == "out of bounds"


def test_products_of_other_registers() -> None:
    """The registers of a factor in another order."""
    products = found(kernel("warps"), r"(mma\.sync\S+ \{[^}]*\}, \{)(%r\d+), (%r\d+), (%r\d+), (%r\d+)\}")
    assert products
    for product in products[::2]:
        assert outcome("warps", replaced(product, r"\1\3, \2, \4, \5}")) == WRONG
        assert outcome("warps", replaced(product, r"\1\2, \4, \3, \5}")) == WRONG
