"""What follows from facts: inequalities between index expressions, proved from others that are known to hold.

A proof replaces loop variables by the ends of their ranges and a minimum or maximum by its operands, then takes away multiples
of the facts until a constant is left. It is sound, not complete: what is not proved may hold all the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from convgen.ir.affine import Affine, affine
from convgen.ir.build import sub
from convgen.ir.nodes import Index, IndexOp, Int, Less, Var

# Products of choices grow quickly; expressions that need more are left unproved.
MAX_DEPTH = 16


def proves(facts: Sequence[Less], condition: Less, ranges: Mapping[str, Index]) -> bool | None:
    """Whether the condition holds for all loop variables in ``ranges`` (0..extent-1): True, False (never), or None (unknown)."""
    known = [slack(fact) for fact in facts]
    if _nonnegative(slack(condition), known, ranges, MAX_DEPTH):
        return True
    if _nonnegative(affine(sub(condition.a, condition.b)), known, ranges, MAX_DEPTH):
        return False
    return None


def slack(condition: Less) -> Affine:
    """b - a - 1, which is at least 0 exactly where a < b."""
    return affine(sub(sub(condition.b, condition.a), 1))


def _nonnegative(form: Affine, facts: Sequence[Affine], ranges: Mapping[str, Index], depth: int) -> bool:
    if not form.terms:
        return form.constant >= 0
    if not depth:
        return False
    for atom, factor in form.terms:
        match atom:
            case IndexOp("min" | "max" as op, a, b):
                rest = form.without(atom)
                ends = (rest.plus(_times(affine(side), factor)) for side in (a, b))
                holds = (_nonnegative(end, facts, ranges, depth - 1) for end in ends)
                return all(holds) if (op == "min") == (factor > 0) else any(holds)
            case _:
                pass
    for atom, factor in form.terms:
        match atom:
            case Var(name) if name in ranges:
                end: Index = Int(0) if factor > 0 else sub(ranges[name], 1)
                return _nonnegative(form.without(atom).plus(_times(affine(end), factor)), facts, ranges, depth - 1)
            case _:
                pass
    for i, fact in enumerate(facts):
        for atom, factor in fact.terms:
            quotient, rest_of = divmod(form.coefficient(atom), factor)
            if quotient > 0 and not rest_of:
                others = [*facts[:i], *facts[i + 1 :]]
                if _nonnegative(form.plus(_times(fact, -quotient)), others, ranges, depth - 1):
                    return True
    return False


def _times(form: Affine, factor: int) -> Affine:
    return Affine(tuple((atom, f * factor) for atom, f in form.terms), form.constant * factor)
