"""The canonical form has the value of the expression it was made of, and its bounds hold."""

from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from convgen.ir.affine import Affine, _split_by_grain, affine, bounds, rejoined, simplified
from convgen.ir.build import add, ceildiv, floordiv, maximum, minimum, mod, mul, sub
from convgen.ir.interp import evaluate_index
from convgen.ir.nodes import Index, IndexOp, Int, Var

LOOPS = ("i", "j", "k")
SIZES = {"N": 5, "M": -2}


@st.composite
def expressions(draw: st.DrawFn) -> tuple[Index, dict[str, Index], dict[str, int]]:
    """An expression over loops and sizes, the loops' extents (some unknown), and values within them."""
    counts = {name: draw(st.integers(1, 6)) for name in LOOPS}
    values = {name: draw(st.integers(0, count - 1)) for name, count in counts.items()} | SIZES
    extents: dict[str, Index] = {}
    for name, count in counts.items():
        match draw(st.sampled_from(("known", "known", "size", "none"))):
            case "known":
                extents[name] = Int(count)
            case "size":
                extents[name] = Var(f"E{name}")
    names = st.sampled_from((*LOOPS, *LOOPS, *SIZES)).map(Var)
    leaves = st.integers(-8, 8).map(Int) | names

    def grow(inner: st.SearchStrategy[Index]) -> st.SearchStrategy[Index]:
        divisor = st.sampled_from((1, 2, 3, 4, 6, -2)).map(Int) | st.just(Var("N"))
        plain = st.builds(IndexOp, st.sampled_from(("+", "+", "-", "*", "min", "max")), inner, inner)
        return plain | st.builds(IndexOp, st.sampled_from(("//", "%")), inner, divisor)

    return draw(st.recursive(leaves, grow, max_leaves=10)), extents, values


@settings(max_examples=60)
@given(expressions())
def test_simplified_has_the_value_of_the_original(case: tuple[Index, dict[str, Index], dict[str, int]]) -> None:
    expression, extents, values = case
    assert evaluate_index(simplified(expression, extents), values) == evaluate_index(expression, values)


@settings(max_examples=60)
@given(expressions())
def test_simplified_is_a_fixed_point(case: tuple[Index, dict[str, Index], dict[str, int]]) -> None:
    expression, extents, _ = case
    once = simplified(expression, extents)
    assert simplified(once, extents) == once


@settings(max_examples=60)
@given(expressions())
def test_bounds_hold(case: tuple[Index, dict[str, Index], dict[str, int]]) -> None:
    expression, extents, values = case
    low, high = bounds(affine(expression, extents), extents)
    value = evaluate_index(expression, values)
    assert low is None or low <= value
    assert high is None or value <= high


@given(st.integers(-20, 20), st.integers(-20, 20), st.sampled_from((-3, -1, 1, 2, 7)))
def test_builders_compute_what_their_operators_do(x: int, y: int, divisor: int) -> None:
    """Folded or not, an expression has the same value."""
    values = {"x": x, "y": y, "d": divisor}
    for a, b, d in ((x, y, divisor), ("x", y, divisor), (x, "y", "d"), ("x", "y", "d")):
        assert evaluate_index(add(a, b, 1), values) == x + y + 1
        assert evaluate_index(sub(a, b), values) == x - y
        assert evaluate_index(mul(a, b, 2), values) == x * y * 2
        assert evaluate_index(floordiv(a, d), values) == x // divisor
        assert evaluate_index(mod(a, d), values) == x % divisor
        assert evaluate_index(minimum(a, b), values) == min(x, y)
        assert evaluate_index(maximum(a, b), values) == max(x, y)
        if divisor > 0:
            assert evaluate_index(ceildiv(a, d), values) == -(-x // divisor)


def test_division_by_a_tile_size_is_resolved() -> None:
    inner = {"b": Int(9), "i": Int(4)}
    position = add(mul("b", 4), "i")
    assert simplified(floordiv(position, 4), inner) == Var("b")
    assert simplified(mod(position, 4), inner) == Var("i")
    assert simplified(floordiv(add(position, 4), 4), inner) == add("b", 1)
    assert simplified(floordiv(position, 4), {"i": Int(5)}) == IndexOp("//", position, Int(4))


@st.composite
def positions(draw: st.DrawFn) -> tuple[Index, int, dict[str, Index], dict[str, int]]:
    """A sum of multiples of loops, a divisor that shares factors with them, the loops' extents and values within them."""
    step = draw(st.sampled_from((2, 3, 4, 6, 8, 12, 32)))
    grains = [n for n in range(1, 2 * step) if step % n == 0 or n % step == 0]
    counts = {name: draw(st.integers(1, 9)) for name in LOOPS}
    terms = [mul(name, draw(st.sampled_from((*grains, 5, -2)))) for name in draw(st.permutations(LOOPS))]
    form = add(*terms, mul("N", draw(st.sampled_from((0, 0, step, 1)))), draw(st.integers(-step, 2 * step)))
    known = draw(st.sets(st.sampled_from(LOOPS), min_size=1))
    values = {name: draw(st.integers(0, count - 1)) for name, count in counts.items()} | SIZES
    return form, step, {name: Int(counts[name]) for name in sorted(known)}, values


@settings(max_examples=300)
@given(positions())
def test_quotients_and_remainders_of_positions_keep_their_value(
    case: tuple[Index, int, dict[str, Index], dict[str, int]],
) -> None:
    form, step, extents, values = case
    value = evaluate_index(form, values)
    assert evaluate_index(simplified(floordiv(form, step), extents), values) == value // step
    assert evaluate_index(simplified(mod(form, step), extents), values) == value % step


@settings(max_examples=300)
@given(positions())
def test_a_form_is_split_at_a_grain(case: tuple[Index, int, dict[str, Index], dict[str, int]]) -> None:
    """Both parts make the form; the fine one is smaller than a divisor of the step that divides the coarse one."""
    form, step, extents, values = case
    coarse, fine = _split_by_grain(affine(form), step, extents)
    low, rest = (evaluate_index(part.index(), values) for part in (fine, coarse))
    assert low + rest == evaluate_index(form, values)
    grain = math.gcd(step, coarse.constant, *(factor for _, factor in coarse.terms))
    assert not fine.terms or 0 <= low < grain


def test_what_is_less_than_a_grain_leaves_a_quotient() -> None:
    """A thread of 32, of which four make a row, in a block of rows."""
    extents = {"lane": Int(4)}
    place = add(mul("t", 8), mul("lane", 2), 1)
    assert simplified(floordiv(place, 32), extents) == floordiv(mul("t", 8), 32)
    assert simplified(mod(place, 32), extents) == add(mod(mul("t", 8), 32), mul("lane", 2), 1)
    far = {"lane": Int(5)}
    assert simplified(floordiv(place, 32), far) == IndexOp("//", simplified(place), Int(32))


def test_terms_are_collected_and_cancel() -> None:
    assert simplified(sub(add("a", "b", 3), add("b", 1))) == add("a", 2)
    assert simplified(sub("a", "a")) == Int(0)
    assert affine(add(mul("a", 2), "b", "a")) == Affine(((Var("a"), 3), (Var("b"), 1)), 0)


def test_coefficients_and_what_remains_without_them() -> None:
    form = affine(add(mul("a", 3), "b", 7))
    assert form.coefficient(Var("a")) == 3
    assert form.coefficient(Var("c")) == 0
    assert form.without(Var("a")).index() == add("b", 7)


def test_bounds_are_exact_where_all_extents_are_known() -> None:
    form = affine(add(mul("i", 3), sub(2, "j")))
    assert bounds(form, {"i": Int(4), "j": Int(6)}) == (-3, 11)
    assert bounds(form, {"i": Int(4)}) == (None, None)
    assert bounds(affine(mod("n", 8)), {}) == (0, 7)


@given(expressions(), st.sampled_from((2, 3, 5)), st.integers(-2, 2).filter(bool))
@settings(max_examples=60, deadline=None)
def test_quotient_and_remainder_are_joined_again(
    drawn: tuple[Index, dict[str, Index], dict[str, int]], step: int, factor: int
) -> None:
    expression, _, values = drawn
    split = add(mul(floordiv(expression, step), step * factor), mul(mod(expression, step), factor))
    form = rejoined(affine(split))
    assert evaluate_index(form.index(), values) == factor * evaluate_index(expression, values)


def test_what_does_not_belong_together_stays_apart() -> None:
    i = Var("i")
    for split in (add(mul(floordiv(i, 2), 3), mod(i, 2)), add(mul(floordiv(i, 2), 2), mod(i, 3))):
        assert rejoined(affine(split)) == affine(split)
    assert rejoined(affine(add(mul(floordiv(i, 2), 2), mod(i, 2)))) == Affine(((i, 1),), 0)
