"""The passes for stages that only move data: along the last axis in vectors where both sides run that way."""

from __future__ import annotations

from convgen.ir.nodes import Index, Int
from convgen.passes.parallelize import Parallelize
from convgen.passes.pipeline import Pass
from convgen.passes.tile import Tile
from convgen.passes.vectorize import Vectorize

MAX_LANES = 64
MIN_LANES = 4


def copy_passes(stage: str, prefix: str, labels: tuple[str, ...], last: Index | None) -> tuple[Pass, ...]:
    """Parallel over the first two of the loops ``prefix_label``; the last in vectors where its extent ``last`` is constant.

    ``last`` is None where the copy changes which axis is last.
    """
    names = [f"{prefix}_{label}" for label in labels]
    parallel = Parallelize(stage, tuple(names[: max(1, min(2, len(names) - 1))]))
    match last:
        case Int(extent) if extent >= MIN_LANES:
            lanes = next(n for n in (MAX_LANES, 32, 16, 8, 4) if n <= extent)
            block, lane = f"{names[-1]}_block", f"{names[-1]}_lane"
            return (parallel, Tile(names[-1], lanes, block, lane), Vectorize(lane))
        case _:
            return (parallel,)
