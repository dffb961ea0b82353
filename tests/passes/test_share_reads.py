"""share_reads: random runs of updates keep their results to the bit, and windows read each element once."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from convgen.ir.interp import interpret
from convgen.ir.nodes import Alloc, Buffer, Const, Fma, Int, Load, Program, Stage, Store
from convgen.ir.rewrite import reads, stores
from convgen.passes.pipeline import run_passes
from convgen.passes.share_reads import ShareReads
from tests.passes.small import buffer

ACCUMULATORS, ELEMENTS = 3, 5
Updates = list[tuple[int, int]]


def summed(updates: Updates) -> Program:
    """acc[a] = x[e] * w[i] + acc[a] for the i-th pair (a, e), from zeros, and then y = acc."""
    run = [
        Store("acc", (Int(a),), Fma(Load("x", (Int(e),)), Load("w", (Int(i),)), Load("acc", (Int(a),))))
        for i, (a, e) in enumerate(updates)
    ]
    zeros = [Store("acc", (Int(a),), Const(0.0, "float32")) for a in range(ACCUMULATORS)]
    last = [Store("y", (Int(a),), Load("acc", (Int(a),))) for a in range(ACCUMULATORS)]
    alloc = Alloc(Buffer("acc", "float32", (Int(ACCUMULATORS),), "register"), (*zeros, *run, *last))
    buffers = (buffer("x", ELEMENTS), buffer("w", max(1, len(updates))), buffer("y", ACCUMULATORS))
    return Program("sums", (), buffers, (Stage("main", (alloc,)),))


def elements(program: Program) -> list[int]:
    """The elements of x in the order in which they are read."""
    places = [read.index[0] for read in reads(program.stages[0].body) if read.buffer == "x"]
    return [place.value for place in places if isinstance(place, Int)]


@settings(max_examples=60, deadline=None, database=None)
@given(
    st.lists(st.tuples(st.integers(0, ACCUMULATORS - 1), st.integers(0, ELEMENTS - 1)), max_size=14),
    st.integers(0, 99),
)
def test_each_register_sees_the_same_operations_in_the_same_order(updates: Updates, seed: int) -> None:
    program = summed(updates)
    shared = run_passes(program, [ShareReads("x")])
    draw = np.random.default_rng(seed)
    operands = {
        "x": draw.standard_normal(ELEMENTS).astype(np.float32),
        "w": draw.standard_normal(max(1, len(updates))).astype(np.float32),
    }
    expected, found = (interpret(p, {}, operands)["y"] for p in (program, shared))
    np.testing.assert_array_equal(found, expected)
    assert sorted(map(repr, stores(shared.stages[0].body))) == sorted(map(repr, stores(program.stages[0].body)))


def test_a_window_reads_each_element_once() -> None:
    """Also where taps run backwards, as in a data gradient."""
    for step in (1, -1):
        window = [(a, a + (k if step > 0 else 2 - k)) for k in range(3) for a in range(ACCUMULATORS)]
        found = elements(run_passes(summed(window), [ShareReads("x")]))
        assert [element for element, _ in itertools.groupby(found)] == sorted(set(found), reverse=step < 0)


def test_updates_that_read_other_registers_stay() -> None:
    other = Store("acc", (Int(0),), Fma(Load("x", (Int(0),)), Load("acc", (Int(1),)), Load("acc", (Int(0),))))
    program = summed([(0, 0), (1, 1), (1, 0)])
    (stage,) = program.stages
    (alloc,) = stage.body
    assert isinstance(alloc, Alloc)
    body = (*alloc.body[:4], other, *alloc.body[4:])
    mixed = Program("mixed", (), program.buffers, (Stage("main", (Alloc(alloc.buffer, body),)),))
    assert run_passes(mixed, [ShareReads("x")]) == mixed
