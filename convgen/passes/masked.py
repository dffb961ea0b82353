"""What passes over padded sums look for: an accumulator's multiply-add whose factor is zero outside of the image."""

from __future__ import annotations

from dataclasses import dataclass

from convgen.ir.nodes import Choose, Const, Dot, Fma, Less, Load, Stmt, Store, Value


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
