"""A constant matrix as the shortest linear program that a greedy search finds.

While two values occur together in several rows, in the same ratio up to a factor, the pair that saves most becomes a value
of its own (Paar, "Optimized arithmetic for Reed-Solomon encoders", 1997, with coefficients other than 0 and 1). For
interpolation points a and -a this finds the sums of the even and of the odd powers, whose sum and difference are the two
rows.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations

from convgen.errors import SpecError
from convgen.transforms.builder import Builder, Term
from convgen.transforms.linear import Add, LinearProgram, MulAdd, Step, Sub

# How many orders among equally good pairs are tried.
ATTEMPTS = 100

# Values i < j and their coefficients, reduced, the first of them positive.
Pair = tuple[int, int, int, int]


def from_matrix(matrix: Sequence[Sequence[Fraction | int]]) -> LinearProgram:
    """Returns a program that computes ``matrix`` times a vector, in few steps; the same one for the same matrix.

    Additions, multiplications and fused multiply-adds count alike, and factors of 1 nothing. Raises SpecError for a matrix
    that is empty or ragged, or has a row of zeros.
    """
    if not matrix or not matrix[0] or any(len(row) != len(matrix[0]) for row in matrix):
        raise SpecError("matrix is empty or its rows differ in length; allowed: rows of equal length above 0")
    for i, row in enumerate(matrix):
        if not any(row):
            raise SpecError(f"matrix[{i}] is a row of zeros; allowed: rows with an entry other than 0")
    rows = [_Row.of(row) for row in matrix]
    builder = Builder(len(matrix[0]))
    while (pair := _best_pair(rows)) is not None:
        _share(rows, pair, builder)
    return builder.program([_finish(row, builder) for row in rows])


@dataclass
class _Row:
    """What is left of a row: the sum of ``terms[value]`` times each value, over ``unit``."""

    terms: dict[int, int]
    unit: int

    @staticmethod
    def of(entries: Sequence[Fraction | int]) -> _Row:
        unit = math.lcm(*(Fraction(entry).denominator for entry in entries))
        return _Row({i: int(entry * unit) for i, entry in enumerate(entries) if entry}, unit)

    def pairs(self) -> Iterator[Pair]:
        for i, j in combinations(sorted(self.terms), 2):
            yield _pair(i, j, self.terms)


def _pair(i: int, j: int, terms: dict[int, int]) -> Pair:
    divisor = math.gcd(terms[i], terms[j]) * (1 if terms[i] > 0 else -1)
    return i, j, terms[i] // divisor, terms[j] // divisor


def _best_pair(rows: Sequence[_Row]) -> Pair | None:
    """The pair in most rows, and of several the plainest; None if no pair is in two."""
    counts = Counter(pair for row in rows for pair in row.pairs())
    most = max(counts.values(), default=0)
    return min((pair for pair, count in counts.items() if count == most), key=_plainness) if most > 1 else None


def _plainness(pair: Pair) -> tuple[int, int, int]:
    i, j, of_i, of_j = pair
    return of_i + abs(of_j), i, j


def _share(rows: Sequence[_Row], pair: Pair, builder: Builder) -> None:
    """Makes a value of a pair and puts it into every row that holds the pair."""
    i, j, of_i, of_j = pair
    users = [row for row in rows if i in row.terms and j in row.terms and _pair(i, j, row.terms) == pair]
    # A coefficient of 1 costs nothing where the row is summed.
    if sum(row.terms[j] == row.unit for row in users) > sum(row.terms[i] == row.unit for row in users):
        i, j, of_i, of_j = j, i, of_j, of_i
    value = builder.take(_sum(i, Fraction(of_j, of_i), j))
    for row in users:
        row.terms[value] = row.terms.pop(i)
        del row.terms[j]


def _finish(row: _Row, builder: Builder) -> Term:
    """Adds up what is left of a row."""
    terms = sorted(row.terms.items(), key=lambda term: (abs(term[1]) != row.unit, term[0]))
    base, divisor = next((term for term in terms if term[1] == row.unit), terms[0])
    total = base
    for value, factor in terms:
        if value != base:
            total = builder.take(_sum(total, Fraction(factor, divisor), value))
    return Term(total, Fraction(divisor, row.unit))


def _sum(a: int, factor: Fraction, b: int) -> Step:
    """a + factor * b."""
    if factor == 1:
        return Add(a, b)
    if factor == -1:
        return Sub(a, b)
    return MulAdd(b, factor, a)
