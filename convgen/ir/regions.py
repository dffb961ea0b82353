"""Which part of a buffer a piece of a program touches: for each axis, where it begins and how long it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from convgen.errors import IRError
from convgen.ir.affine import Affine, affine
from convgen.ir.build import add, minimum, mul, sub
from convgen.ir.nodes import Alloc, For, If, Index, Less, Stmt, Store, Var
from convgen.ir.printer import format_index
from convgen.ir.rewrite import variables


@dataclass(frozen=True)
class Around:
    """A store and the loops and guards between it and the piece of the program that is looked at."""

    store: Store
    loops: Mapping[str, Index]
    guards: tuple[Less, ...]


def stores_with_loops(
    body: tuple[Stmt, ...], loops: Mapping[str, Index] | None = None, guards: tuple[Less, ...] = ()
) -> Iterator[Around]:
    """Every store of a block with what is around it."""
    around = loops or {}
    for statement in body:
        match statement:
            case Store():
                yield Around(statement, around, guards)
            case For(var, extent, inner):
                yield from stores_with_loops(inner, {**around, var: extent}, guards)
            case If(condition, inner):
                yield from stores_with_loops(inner, around, (*guards, condition))
            case Alloc(_, inner):
                yield from stores_with_loops(inner, around, guards)
            case _:
                pass


def region(index: Index, around: Around) -> tuple[Index, Index]:
    """(first, count) of the positions that ``index`` takes while the loops around a store run.

    ``first`` depends on nothing inside; a guard ``index < bound`` ends the region there. Raises IRError where the loops'
    variables do not appear as a sum of multiples.
    """
    form = affine(index)
    fixed = tuple((atom, factor) for atom, factor in form.terms if not variables(atom) & set(around.loops))
    first: Index = Affine(fixed, form.constant).index()
    count: Index = add(1)
    for atom, factor in form.terms:
        if (atom, factor) in fixed:
            continue
        if not isinstance(atom, Var):
            raise IRError(f"{format_index(index)} is not a sum of multiples of loop variables")
        last = sub(around.loops[atom.name], 1)
        count = add(count, mul(last, abs(factor)))
        if factor < 0:
            first = sub(first, mul(last, -factor))
    first, count = affine(first).index(), affine(count).index()
    for guard in around.guards:
        if affine(guard.a) == form:
            count = minimum(count, sub(guard.b, first))
    return first, count
