"""The corpus of geometries: covering arrays over the factors of a problem, and the judgement of compiled operators.

A covering array of strength two is a set of rows in which each pair of values of any two factors occurs (Cohen et al., "The
AETG system", 1997): faults that one value or an interplay of two provokes are found with tens of problems, not thousands.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import convgen
from convgen.driver import algorithms_of_plan
from convgen.operator import CompiledConv
from convgen.spec import DIRECTIONS, ConvSpec
from convgen.verify import Comparison, gate_a, gate_b, gate_c

Row = Mapping[str, Any]
Factors = Mapping[str, Sequence[Any]]

# Per-axis values are written for three axes; a problem of fewer takes the last ones.
COMMON: Factors = {
    "ndim": (1, 2, 3),
    "stride": ((1, 1, 1), (2, 2, 2), (2, 1, 3)),
    "dilation": ((1, 1, 1), (1, 3, 2)),
    # "fitting" kernels are as large as the input, "wide" ones larger than any vector.
    "kernel": ("point", "small", "wide", "fitting"),
    # (in_channels, out_channels, groups)
    "channels": ((1, 1, 1), (3, 17, 1), (65, 24, 1), (8, 8, 8), (3, 9, 3), (24, 8, 4), (17, 3, 1), (0, 5, 1)),
    "extents": ((5, 7, 13), (4, 6, 8), (3, 9, 21)),
    "layout": ("channels_first", "channels_last"),
    "dtype": ("float32", "float64"),
    "strategy": ("direct", "reference"),
}
PLAIN: Factors = {
    **COMMON,
    "padding": ((0, 0), (1, 1), (2, 0), (-1, 2)),
    "padding_mode": ("zeros", "reflect", "replicate", "circular"),
}
TRANSPOSED: Factors = {
    **COMMON,
    "padding": ((0, 0), (1, 1), (0, 2), (-2, 1)),
    "output_padding": ("none", "largest"),
    "channels": ((1, 1, 1), (3, 17, 1), (65, 24, 1), (8, 8, 8), (3, 9, 3), (24, 8, 4)),
}
KERNELS = {"point": (1, 1, 1), "small": (3, 2, 3), "wide": (2, 1, 17), "fitting": (2, 3, 5)}


@dataclass(frozen=True)
class Problem:
    """A forward problem of the corpus and the strategy that computes it in all directions."""

    name: str
    spec: ConvSpec
    strategy: str


def covering_array(factors: Factors, seed: int = 0, candidates: int = 40) -> list[Row]:
    """Rows in which every pair of values of any two factors occurs; the first rows cover the most new pairs."""
    draw = random.Random(seed)
    names = list(factors)
    missing = set(_pairs_of_factors(factors))
    rows: list[Row] = []
    while missing:
        # Sorted, so that the choice does not depend on the order of a set.
        wanted = sorted(missing, key=repr)
        best: Row = {}
        best_gain: set[Any] = set()
        for _ in range(candidates):
            row = {name: draw.choice(factors[name]) for name in names} | dict(draw.choice(wanted))
            gain = missing & pairs(row)
            if len(gain) > len(best_gain):
                best, best_gain = row, gain
        rows.append(best)
        missing -= best_gain
    return rows


def pairs(row: Row) -> set[Any]:
    """All pairs of (factor, value) of a row."""
    return set(itertools.combinations(sorted(row.items()), 2))


def _pairs_of_factors(factors: Factors) -> Iterator[Any]:
    for first, second in itertools.combinations(sorted(factors), 2):
        for a, b in itertools.product(factors[first], factors[second]):
            yield (first, a), (second, b)


def make_problem(row: Row, *, transposed: bool) -> Problem:
    """The problem of a row, which exists whatever the row's values are: the input is made large enough."""
    ndim: int = row["ndim"]
    stride, dilation, extents = (row[name][-ndim:] for name in ("stride", "dilation", "extents"))
    kernel = KERNELS[row["kernel"]][-ndim:]
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    if row["kernel"] == "fitting":
        spatial = reach
    elif transposed:
        spatial = extents
    else:
        spatial = [max(n, r + n % 4) for n, r in zip(extents, reach, strict=True)]
    in_channels, out_channels, groups = row["channels"]
    spec = ConvSpec(
        batch=3,
        in_channels=in_channels,
        out_channels=out_channels,
        groups=groups,
        spatial_size=tuple(spatial),
        kernel_size=kernel,
        stride=stride,
        dilation=dilation,
        padding=(row["padding"],) * ndim,
        padding_mode=row.get("padding_mode", "zeros"),
        output_padding=tuple(max(pair) - 1 for pair in zip(stride, dilation, strict=True))
        if row.get("output_padding") == "largest"
        else (0,) * ndim,
        transposed=transposed,
        layout=row["layout"],
        dtype=row["dtype"],
    )
    name = f"{spec} {spec.layout} {spec.dtype} {row['strategy']}"
    # Without input channels there is nothing for any strategy but the reference to do.
    return Problem(name.replace(" ", "-"), spec, row["strategy"] if in_channels else "auto")


def problems(*, transposed: bool) -> list[Problem]:
    """The corpus of convolutions, or of transposed ones."""
    rows = covering_array(TRANSPOSED if transposed else PLAIN)
    return [make_problem(row, transposed=transposed) for row in rows]


def compile_directions(spec: ConvSpec, strategy: str, threads: int = 1) -> list[CompiledConv]:
    """The operators of a forward problem in all three directions."""
    return [convgen.compile(spec.replace(direction=name), strategy, threads) for name in DIRECTIONS]


def judge(spec: ConvSpec, strategy: str, threads: int, seed: int = 0) -> Iterator[tuple[str, Comparison]]:
    """Runs gates A and B on every direction of a forward problem and gate C on all together."""
    rng = np.random.default_rng(seed)
    ops = forward, backward_data, backward_weights = compile_directions(spec, strategy, threads)
    for op in ops:
        yield f"gate A {op.spec.direction}", gate_a(op.spec, op, rng)
        yield f"gate B {op.spec.direction}", gate_b(op.spec, op, rng)
    yield "gate C", gate_c(spec, forward, backward_data, backward_weights, rng)


def complaints(spec: ConvSpec, strategy: str, threads: int = 1, seed: int = 0) -> list[str]:
    """What the gates find wrong, one sentence each; empty where all pass."""
    return [f"{gate}: {found.reason}" for gate, found in judge(spec, strategy, threads, seed) if not found.ok]


def passes(op: CompiledConv, seed: int = 0) -> list[str]:
    """The same for gates A and B of one operator."""
    rng, algorithms = np.random.default_rng(seed), algorithms_of_plan(op.plan)
    found = {"gate A": gate_a(op.spec, op, rng, algorithms), "gate B": gate_b(op.spec, op, rng, algorithms)}
    return [f"{gate}: {comparison.reason}" for gate, comparison in found.items() if not comparison.ok]
