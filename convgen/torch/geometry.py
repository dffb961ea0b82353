"""What a convolution is besides its tensors, normalised from PyTorch's forms."""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Sequence
from typing import Any, NamedTuple, SupportsIndex

from convgen.errors import SpecError

# The forms that PyTorch's convolutions take for one number per axis.
PerAxis = SupportsIndex | Sequence[SupportsIndex]


class Geometry(NamedTuple):
    """Strides, paddings and so on, one per axis; ``padding`` is (lo, hi) after (lo, hi)."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    transposed: bool
    output_padding: tuple[int, ...]
    groups: int
    padding_mode: str
    accuracy: str

    @staticmethod
    def of(
        kernel_size: tuple[int, ...],
        stride: PerAxis,
        padding: PerAxis | str,
        dilation: PerAxis,
        groups: int,
        transposed: bool = False,
        output_padding: PerAxis = 0,
        padding_mode: str = "zeros",
        accuracy: str | float = "fast",
    ) -> Geometry:
        """Raises SpecError for what has not one number per axis of ``kernel_size``, and for padding="same" with a stride."""
        ndim = len(kernel_size)
        steps, spread = _per_axis("stride", stride, ndim), _per_axis("dilation", dilation, ndim)
        return Geometry(
            steps,
            _pairs(padding, kernel_size, steps, spread),
            spread,
            transposed,
            _per_axis("output_padding", output_padding, ndim),
            groups,
            padding_mode,
            accuracy if isinstance(accuracy, str) else repr(accuracy),
        )

    def fields(self) -> dict[str, Any]:
        """The fields of a ConvSpec."""
        pairs = tuple(zip(self.padding[::2], self.padding[1::2], strict=True))
        named = self._asdict() | {"padding": pairs}
        with contextlib.suppress(ValueError):  # what is no number is for ConvSpec to judge
            named["accuracy"] = float(self.accuracy)
        return named

    def output_size(self, spatial: Sequence[int], kernel: Sequence[int]) -> list[int]:
        """The spatial size of the output for an input's, as PyTorch has it."""
        sizes = []
        for axis, (size, taps) in enumerate(zip(spatial, kernel, strict=True)):
            reach = self.dilation[axis] * (taps - 1)
            padded = self.padding[2 * axis] + self.padding[2 * axis + 1]
            if self.transposed:
                sizes.append((size - 1) * self.stride[axis] - padded + reach + self.output_padding[axis] + 1)
            else:
                sizes.append((size + padded - reach - 1) // self.stride[axis] + 1)
        return sizes


def _per_axis(name: str, value: PerAxis, ndim: int) -> tuple[int, ...]:
    try:
        if not isinstance(value, Sequence):
            return (operator.index(value),) * ndim
        numbers = tuple(operator.index(number) for number in value)
    except TypeError as error:
        raise SpecError(f"{name}={value!r} is not valid; allowed: an integer, or {ndim} of them") from error
    if len(numbers) == 1:
        return numbers * ndim
    if len(numbers) != ndim:
        raise SpecError(f"{name}={value!r} has {len(numbers)} numbers; allowed: 1 or {ndim}")
    return numbers


def _pairs(
    padding: PerAxis | str, kernel_size: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]
) -> tuple[int, ...]:
    ndim = len(kernel_size)
    if not isinstance(padding, str):
        sides = _per_axis("padding", padding, ndim)
        if min(sides) < 0:
            raise SpecError(f"padding={padding!r} is negative; allowed: 0 and more")
        return tuple(both for one in sides for both in (one, one))
    if padding == "valid":
        return (0,) * (2 * ndim)
    if padding != "same":
        raise SpecError(f"padding={padding!r} is not valid; allowed: integers, 'same', 'valid'")
    if any(step != 1 for step in stride):
        raise SpecError(f"padding='same' needs stride=1; stride={stride}")
    total = [spread * (taps - 1) for spread, taps in zip(dilation, kernel_size, strict=True)]
    return tuple(side for extent in total for side in (extent // 2, extent - extent // 2))
