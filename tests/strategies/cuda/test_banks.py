"""Matrix units read their factors from shared memory without two threads in one bank: 32 banks of 4 bytes, by the addresses of
the threads that are served at once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from convgen.cuda.plans import build_cuda_program
from convgen.driver import Plan
from convgen.dtypes import DTYPES
from convgen.gpu import gpu_of
from convgen.ir.interp import buffer_shape
from convgen.ir.nodes import Stmt, TileLoad
from convgen.ir.rewrite import map_body
from convgen.spec import DIRECTIONS, LAYOUTS, ConvSpec
from convgen.strategies.cuda.registry import gpu_strategy_named

GPU = gpu_of("9.0")
BANK_BYTES, BANKS = 4, 32
SPEC = ConvSpec(batch=8, in_channels=64, out_channels=128, spatial_size=(16, 16), kernel_size=1, accuracy=1e-2)


def _tile_loads(body: tuple[Stmt, ...]) -> Iterator[TileLoad]:
    found: list[TileLoad] = []

    def visit(statements: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
        for statement in statements:
            if isinstance(statement, TileLoad):
                found.append(statement)
            map_body(statement, visit)
        return statements

    visit(body)
    yield from found


def _banks(row_bytes: int, size: int, *, turned: bool) -> list[int]:
    """The banks that are asked for at once: by ldmatrix 8 rows of 16 bytes, else an element by each of 32 threads."""
    if size == 2:
        starts = (row * row_bytes for row in range(8))
        return [start // BANK_BYTES % BANKS + word for start in starts for word in range(4)]
    places = ((lane % 4, lane // 4) if turned else (lane // 4, lane % 4) for lane in range(32))
    return [(row * row_bytes // BANK_BYTES + column) % BANKS for row, column in places]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("name", ["pointwise", "implicit_gemm"])
def test_tiles_are_read_without_conflicts(name: str, direction: str, layout: str, dtype: str) -> None:
    spec = SPEC.replace(direction=direction, layout=layout, dtype=dtype)
    strategy = gpu_strategy_named(name)
    for depth in (32, 64):
        config = next(each for each in strategy.space(spec, GPU) if each["matrix"] and each["depth"] == depth)
        program, sizes = build_cuda_program(Plan(spec, name, config, "given"), GPU)
        loads = {(load.source, load.turned) for stage in program.stages for load in _tile_loads(stage.body)}
        assert len(loads) == 2
        for buffer, turned in loads:
            size = DTYPES[dtype].itemsize
            row = buffer_shape(program.buffer(buffer), sizes)[-1] * size
            banks = _banks(row, size, turned=turned)
            assert row % 16 == 0
            assert len(set(banks)) == len(banks) == BANKS, (buffer, turned, row)
