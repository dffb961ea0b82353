"""facts: what is proved is true of all small sizes that the facts admit, and what kernels need is proved."""

from __future__ import annotations

import itertools
import random

import pytest

from convgen.ir.build import add, maximum, minimum, mul, sub
from convgen.ir.facts import proves
from convgen.ir.interp import evaluate_index
from convgen.ir.nodes import Index, Int, Less, Var

TILE = minimum(mul("t", 4), sub("M", 4))
FACTS = (Less(Int(3), Var("M")), Less(add(mul("M", 2), -3), Var("N")))
RANGES: dict[str, Index] = {"t": minimum("M", 5), "k": Int(3)}


def less(a: int | str | Index, b: int | str | Index) -> Less:
    return Less(add(a), add(b))


@pytest.mark.parametrize(
    ("condition", "answer"),
    [
        (less(-1, TILE), True),
        (less(TILE, "M"), True),
        (less(add(TILE, 3), "M"), True),
        (less(add(TILE, 4), "M"), None),
        (less("M", TILE), False),
        (less(-1, sub(TILE, 1)), None),
        (less(add(mul(TILE, 2), "k"), "N"), True),
        (less("k", 3), True),
        (less("k", 2), None),
        (less(2, "k"), False),
        (less(maximum("k", 2), "M"), True),
        (less("unknown", "unknown"), False),
        (less("unknown", add("unknown", 1)), True),
    ],
)
def test_what_a_tile_needs_is_decided(condition: Less, answer: bool | None) -> None:
    assert proves(FACTS, condition, RANGES) is answer


def test_what_is_decided_is_true() -> None:
    draw = random.Random(0)
    decided = 0
    sizes = [dict(M=m, N=n) for m in range(4, 8) for n in range(2 * m - 2, 2 * m + 3)]
    for _ in range(300):
        condition = less(expression(draw, 3), expression(draw, 3))
        answer = proves(FACTS, condition, RANGES)
        if answer is None:
            continue
        decided += 1
        for size in sizes:
            for t, k in itertools.product(range(min(size["M"], 5)), range(3)):
                names = {**size, "t": t, "k": k}
                assert (evaluate_index(condition.a, names) < evaluate_index(condition.b, names)) is answer, condition
    assert decided > 60


def expression(draw: random.Random, depth: int) -> Index:
    if not depth or draw.random() < 0.2:
        leaves: tuple[Index, ...] = (Int(draw.randint(-4, 4)), *map(Var, "MNtk"))
        return draw.choice(leaves)
    a, b = expression(draw, depth - 1), expression(draw, depth - 1)
    match draw.randrange(5):
        case 0:
            return add(a, b)
        case 1:
            return sub(a, b)
        case 2:
            return mul(a, draw.randint(-2, 3))
        case 3:
            return minimum(a, b)
        case _:
            return maximum(a, b)
