"""What passes over padded sums look for: an accumulator's multiply-add whose factor is zero outside of the image."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from convgen.errors import IRError
from convgen.ir.affine import Affine
from convgen.ir.build import add, ceildiv, floordiv, maximum, minimum
from convgen.ir.facts import slack
from convgen.ir.nodes import Choose, Const, Dot, Fma, For, Index, Int, Less, Load, Stmt, Store, Value, Var
from convgen.ir.rewrite import ValueMap, variables


@dataclass(frozen=True)
class MaskedUpdate:
    """acc[i] = fma(x if conditions else 0, w, acc[i]), or a dot product"""

    store: Store
    conditions: tuple[Less, ...]
    factor: Value
    weight: Value

    def under(self, conditions: tuple[Less, ...]) -> Store:
        """The same update with other conditions."""
        store, chosen = self.store, self.factor
        assert isinstance(store.value, Fma | Dot)
        assert isinstance(store.value.a, Choose)
        if conditions:
            chosen = Choose(conditions, self.factor, store.value.a.b)
        value = type(store.value)(chosen, self.weight, store.value.c)
        return Store(store.buffer, store.index, value, store.lanes, store.count)


def masked_update(statement: Stmt) -> MaskedUpdate | None:
    """The parts of such a statement, or None for any other."""
    match statement:
        case Store(
            buffer,
            index,
            Fma(Choose(conditions, x, Const(0)), w, Load(read, place))
            | Dot(Choose(conditions, x, Const(0)), w, Load(read, place)),
        ) if (buffer, index) == (read, place):
            return MaskedUpdate(statement, conditions, x, w)
        case _:
            return None


def choosing_without(conditions: Collection[Less]) -> ValueMap:
    """What takes ``conditions``, which hold, out of a choice; for ``map_statement``."""

    def visit(value: Value) -> Value:
        match value:
            case Choose(tests, a, b):
                left = tuple(test for test in tests if test not in conditions)
                return Choose(left, a, b) if left else a
            case _:
                return value

    return visit


def inside(
    conditions: Iterable[Less], loop: For, widest: Callable[[Affine], Affine] = lambda rest: rest
) -> tuple[Index, Index]:
    """The first iteration of a loop that meets all conditions and the one after the last; ``widest`` says how much room is left
    beside the loop's variable. Raises IRError for a condition that is not linear in it."""
    first: Index = Int(0)
    last = loop.extent
    for condition in conditions:
        form = slack(condition)
        factor, rest = form.coefficient(Var(loop.var)), widest(form.without(Var(loop.var)))
        if any(loop.var in variables(atom) for atom, _ in rest.terms) or not factor:
            raise IRError(f"a condition on {loop.var} is not linear in it")
        if factor > 0:
            first = maximum(first, ceildiv(_negated(rest), factor))
        else:
            last = minimum(last, add(floordiv(rest.index(), -factor), 1))
    return first, last


def _negated(form: Affine) -> Index:
    return Affine(tuple((atom, -factor) for atom, factor in form.terms), -form.constant).index()
