"""Fast Fourier transforms of real data as straight-line programs.

Lengths divisible by four take the conjugate-pair split radix (Kamar and Elcherif, "Conjugate pair fast Fourier transform",
1989; Sorensen et al., "Real-valued fast Fourier transform algorithms", 1987, for real data), the others radices 2 and 3.
Inputs that are zero cost nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from convgen.transforms.builder import Builder, Term, scaled
from convgen.transforms.linear import Factor

Complex = tuple[Term | None, Term | None]


def real_transform(builder: Builder, size: int) -> list[Complex]:
    """Frequencies 0 .. size/2 of the builder's inputs x, continued with zeros: X_k = sum_t x_t exp(-2πikt/size).

    ``size`` is even, has no prime factors but 2 and 3, the latter once, and is not below the number of inputs.
    """
    return _transform(builder, [Term(t) if t < builder.inputs else None for t in range(size)])


def _transform(builder: Builder, x: Sequence[Term | None]) -> list[Complex]:
    match len(x):
        case 1:
            return [(x[0], None)]
        case 2:
            return [(builder.add(x[0], x[1]), None), (builder.sub(x[0], x[1]), None)]
        case 3:
            return _three(builder, x)
        case 6:
            return _six(builder, x)
        case _:
            return _split_radix(builder, x)


def _three(builder: Builder, x: Sequence[Term | None]) -> list[Complex]:
    both = builder.add(x[1], x[2])
    real = builder.add(x[0], scaled(both, Fraction(-1, 2)))
    imaginary = scaled(builder.sub(x[2], x[1]), math.sqrt(0.75))
    return [(builder.add(x[0], both), None), (real, imaginary)]


def _six(builder: Builder, x: Sequence[Term | None]) -> list[Complex]:
    """Two transforms of three, of the sums and differences three apart; 3 and 2 have no common factor, so nothing twists."""
    sums = _three(builder, [builder.add(x[t], x[(t + 3) % 6]) for t in (0, 4, 2)])
    differences = _three(builder, [builder.sub(x[t], x[(t + 3) % 6]) for t in (0, 4, 2)])
    return [sums[0], _conjugate(differences[1]), sums[1], differences[0]]


def _split_radix(builder: Builder, x: Sequence[Term | None]) -> list[Complex]:
    """X from transforms of the even samples and of those one after and one before each fourth."""
    size = len(x)
    quarter = size // 4
    even = _transform(builder, x[::2])
    after = _transform(builder, x[1::4])
    before = _transform(builder, [x[4 * t - 1] for t in range(quarter)])
    found: dict[int, Complex] = {}
    for k in range(size // 8 + 1):
        a = _times(builder, after[k], *_direction(k, size))
        b = _times(builder, before[k], *_direction(-k, size))
        total, difference = _add(builder, a, b), _sub(builder, a, b)
        turned = (difference[1], scaled(difference[0], -1))  # times -i
        opposite = even[quarter - k]
        found.setdefault(k, _add(builder, even[k], total))
        found.setdefault(size // 2 - k, _conjugate(_sub(builder, even[k], total)))
        found.setdefault(quarter + k, _add(builder, _conjugate(opposite), turned))
        found.setdefault(quarter - k, _sub(builder, opposite, _conjugate(turned)))
    return [found[k] for k in range(size // 2 + 1)]


def _times(builder: Builder, z: Complex, cosine: Factor, sine: Factor) -> Complex:
    """z * (cosine + i sine)."""
    real, imaginary = z
    return (
        builder.sub(scaled(real, cosine), scaled(imaginary, sine)),
        builder.add(scaled(real, sine), scaled(imaginary, cosine)),
    )


def _add(builder: Builder, a: Complex, b: Complex) -> Complex:
    return builder.add(a[0], b[0]), builder.add(a[1], b[1])


def _sub(builder: Builder, a: Complex, b: Complex) -> Complex:
    return builder.sub(a[0], b[0]), builder.sub(a[1], b[1])


def _conjugate(z: Complex) -> Complex:
    return z[0], scaled(z[1], -1)


def _direction(k: int, size: int) -> tuple[Factor, Factor]:
    """Cosine and sine of -2πk/size, for at most an eighth of a turn."""
    if k == 0:
        return Fraction(1), Fraction(0)
    if 8 * abs(k) == size:
        return math.sqrt(0.5), math.copysign(math.sqrt(0.5), -k)
    return math.cos(2 * math.pi * k / size), -math.sin(2 * math.pi * k / size)
