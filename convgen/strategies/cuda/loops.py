"""The loops of a convolution as those of a matrix product: rows, columns and the terms of a sum."""

from __future__ import annotations

from convgen.nests.nest import Nest, axis_letters
from convgen.passes.collapse import Collapse
from convgen.passes.pipeline import Pass
from convgen.passes.reorder import Reorder
from convgen.spec import ConvSpec
from convgen.strategies.cuda.base import element_passes, packed_weights
from convgen.strategies.cuda.gemm import MatrixShape, Product, Tiling, product_passes


def pixel_loops(spec: ConvSpec) -> tuple[str, ...]:
    """Those over the pixels of all images."""
    return ("n", *(f"o{letter}" for letter in axis_letters(spec.ndim)))


def gather_passes(
    spec: ConvSpec, nest: Nest, product: Product, terms: tuple[str, ...], tiling: Tiling, shape: MatrixShape | None
) -> tuple[Pass, ...]:
    """Of a forward problem or a data gradient: rows are pixels, columns made channels, packed weights the second factor."""
    return (
        packed_weights(spec, nest),
        *_product_passes(product, (pixel_loops(spec), ("oc",), terms), tiling, shape),
        *element_passes(nest, "pack_"),
    )


def weights_passes(
    spec: ConvSpec, product: Product, columns: tuple[str, ...], tiling: Tiling, shape: MatrixShape | None
) -> tuple[Pass, ...]:
    """Of a weight gradient: rows are made channels, terms pixels."""
    return _product_passes(product, (("oc",), columns, pixel_loops(spec)), tiling, shape)


def _product_passes(
    product: Product, loops: tuple[tuple[str, ...], ...], tiling: Tiling, shape: MatrixShape | None
) -> tuple[Pass, ...]:
    rows, columns, terms = loops
    return (
        Reorder("conv", (*product.outer, *rows, *columns)),
        Collapse(rows, "row"),
        Collapse(columns, "col"),
        Collapse(terms, "k"),
        *product_passes(product, tiling, shape),
    )
