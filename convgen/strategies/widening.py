"""Copies of 16-bit numbers as float32: an element is converted once where it is copied, not each time it is used."""

from __future__ import annotations

from convgen.dtypes import DTYPES
from convgen.spec import ConvSpec


def wide_dtype(spec: ConvSpec, dot: int = 1) -> str:
    """The type of copies for the vector units: the accumulator's for 16-bit numbers that no dot product takes."""
    dtype = DTYPES[spec.dtype]
    return dtype.accumulator if dtype.itemsize == 2 and dot == 1 else spec.dtype


def widened(spec: ConvSpec) -> ConvSpec:
    """The problem that the register tiles compute once copies are made: for the pieces of the cost model."""
    return spec.replace(dtype=wide_dtype(spec))
