"""Correlation by the fast Fourier transform, as a real bilinear algorithm of one axis.

The correlation is the transpose of a product of polynomials, and that product, of fewer than ``size`` coefficients, is one
product for each frequency of the discrete Fourier transform. Real data has size/2 + 1 frequencies, two of them real;
each complex product takes three real ones (Gauss). So there are 2 + 3(size/2 - 1) points, all of them real, and along several
axes the algorithms nest as any bilinear ones do (Nussbaumer, "Fast Fourier Transform and Convolution Algorithms", 1982,
chapter 3; Agarwal and Cooley, "New algorithms for digital convolution", 1977).

With X = a + bi, W = c + di and Z = e + fi for the transforms of image, weights and (transposed) outputs at one frequency,

    Re(conj(X) W Z) = (a + b) c (e + f) + b (d - c) e - a (c + d) f.
"""

from __future__ import annotations

from fractions import Fraction
from functools import cache

from convgen.errors import SpecError
from convgen.transforms.bilinear import AxisAlgorithm, check_positive
from convgen.transforms.builder import Builder, Term, scaled, transposed
from convgen.transforms.codelets import real_transform

SIZES: tuple[int, ...] = (8, 12, 16, 24, 32, 48, 64)

Points = list[Term | None]


@cache
def fourier(outputs: int, taps: int, size: int) -> AxisAlgorithm:
    """Returns the algorithm by transforms of length ``size``, named FFT(size,taps).

    The tile reads ``outputs + taps - 1`` values, the rest of the transform's input is zero. What the maps multiply whole
    points by, normalisation included, goes into ``weight``. Raises SpecError unless both numbers are positive, ``size`` is
    one of SIZES, and the tile is not longer.
    """
    check_positive(outputs=outputs, taps=taps)
    tile = outputs + taps - 1
    if size not in SIZES or size < tile:
        allowed = ", ".join(str(each) for each in SIZES if each >= tile) or f"none with a tile of {tile}"
        raise SpecError(f"size={size!r} is not valid for outputs={outputs} and taps={taps}; allowed: {allowed}")
    image, weight, result = Builder(tile), Builder(taps), Builder(outputs)
    rows = zip(_image_points(image, size), _weight_points(weight, size), _result_points(result, size), strict=True)
    # With a single tap or output some of the products are of zeros.
    points = [(x, w, y) for x, w, y in rows if x is not None and w is not None and y is not None]
    return AxisAlgorithm(
        name=f"FFT({size},{taps})",
        outputs=outputs,
        taps=taps,
        input=image.program([Term(x.value) for x, _, _ in points]),
        weight=weight.program([Term(w.value, w.factor * x.factor * y.factor) for x, w, y in points]),
        output=transposed(result.program([Term(y.value) for _, _, y in points])),
    )


def _image_points(builder: Builder, size: int) -> Points:
    (first, _), *others, (last, _) = real_transform(builder, size)
    return [first, last, *(point for a, b in others for point in (builder.add(a, b), b, a))]


def _weight_points(builder: Builder, size: int) -> Points:
    (first, _), *others, (last, _) = real_transform(builder, size)
    # A frequency between the two real ones stands for its conjugate too.
    triples = ((scaled(c, 2), scaled(builder.sub(d, c), 2), scaled(builder.add(c, d), -2)) for c, d in others)
    return [scaled(point, Fraction(1, size)) for point in (first, last, *(p for triple in triples for p in triple))]


def _result_points(builder: Builder, size: int) -> Points:
    (first, _), *others, (last, _) = real_transform(builder, size)
    return [first, last, *(point for e, f in others for point in (builder.add(e, f), e, f))]
