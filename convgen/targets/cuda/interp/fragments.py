"""Matrices that were put together from registers, kept for when the same registers come again."""

from __future__ import annotations

from convgen.targets.cuda.interp.types import Array

# A left operand meets several right ones, and a sum comes again at the next step.
_KEPT = 64


class Fragments:
    """Matrices by the registers that they came from. Registers are never changed in place, so that their identity says it."""

    def __init__(self) -> None:
        self._kept: dict[tuple[object, ...], tuple[tuple[object, ...], Array]] = {}

    def find(self, key: tuple[object, ...]) -> Array | None:
        found = self._kept.get(key)
        return None if found is None else found[1]

    def keep(self, key: tuple[object, ...], registers: tuple[object, ...], matrix: Array) -> None:
        while len(self._kept) >= _KEPT:
            del self._kept[next(iter(self._kept))]
        # The registers are kept as well, so that no other array can get their identity.
        self._kept[key] = (registers, matrix)
