"""What takes part in a comparison: a job, those who do it, and the form in which all get the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from convgen.errors import NotApplicable
from convgen.runtime.workspace import aligned_empty
from convgen.spec import ConvSpec

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Job:
    """A problem, its two operands, and how many threads may be used.

    The problem has no epilogue; but forward ones of int8 are requantized by ``multipliers``, so that all get bytes and make
    bytes, as quantized networks do. The images among the operands are channels_first, whatever the problem's layout;
    ``layouts`` are those that a contender may read and write instead of the problem's.
    """

    spec: ConvSpec
    first: Array
    second: Array
    threads: int
    layouts: tuple[str, ...]
    multipliers: Array | None = None


@dataclass(frozen=True)
class Contender:
    """One way to do a job: the library's name, how it is used, the call that is timed, and what it computes.

    ``result`` calls once and returns the result, images channels_first.
    """

    peer: str
    variant: str
    call: Callable[[], object]
    result: Callable[[], Array]


class Peer(Protocol):
    """A library to compare with."""

    @property
    def name(self) -> str:
        """The name that the user gives."""

    def version(self) -> str:
        """The library's version."""

    def contenders(self, job: Job) -> list[Contender]:
        """Every way in which the library may do the job best, at least one; raises NotApplicable."""


def to_layout(image: Array, layout: str) -> Array:
    """An aligned contiguous copy of a channels_first image in ``layout``."""
    moved = np.moveaxis(image, 1, -1) if layout == "channels_last" else image
    copy = aligned_empty(moved.shape, moved.dtype)
    np.copyto(copy, moved)
    return copy


def from_layout(image: Array, layout: str) -> Array:
    """A channels_first view of an image in ``layout``."""
    return np.moveaxis(image, -1, 1) if layout == "channels_last" else image


def forward_form(spec: ConvSpec) -> ConvSpec:
    """The forward problem with the same operands and result: a data gradient is the convolution transposed.

    Raises NotApplicable for weight gradients.
    """
    match spec.direction:
        case "forward":
            return spec
        case "backward_weights":
            raise NotApplicable("it has no weight gradient")
    reach = [dilation * (kernel - 1) + 1 for kernel, dilation in zip(spec.kernel_size, spec.dilation, strict=True)]
    rest = [
        size - ((count - 1) * stride - sum(padding) + extent)
        for size, count, stride, padding, extent in zip(
            spec.spatial_size, spec.output_size, spec.stride, spec.padding, reach, strict=True
        )
    ]
    return spec.replace(
        direction="forward",
        transposed=not spec.transposed,
        in_channels=spec.out_channels,
        out_channels=spec.in_channels,
        spatial_size=spec.output_size,
        output_padding=0 if spec.transposed else rest,
    )


def channels_first_output(spec: ConvSpec) -> tuple[int, ...]:
    """The shape of the forward output in channels_first."""
    return (spec.batch, spec.out_channels, *spec.output_size)


def begins(spec: ConvSpec) -> list[int]:
    """The padding before each axis."""
    return [lo for lo, _ in spec.padding]


def ends(spec: ConvSpec) -> list[int]:
    """The padding behind each axis."""
    return [hi for _, hi in spec.padding]


def refuse(spec: ConvSpec, dtypes: tuple[str, ...], *, asymmetric: bool) -> None:
    """Raises NotApplicable for another dtype or padding mode than zeros, cropping, or padding that differs at both ends of an
    axis unless ``asymmetric``."""
    if spec.dtype not in dtypes:
        raise NotApplicable(f"{spec.dtype} is not compared")
    if spec.padding_mode != "zeros":
        raise NotApplicable(f"padding mode {spec.padding_mode} is not compared")
    if min(min(pair) for pair in spec.padding) < 0:
        raise NotApplicable("cropping is not compared")
    if not asymmetric and begins(spec) != ends(spec):
        raise NotApplicable("padding that differs at both ends of an axis is not compared")
