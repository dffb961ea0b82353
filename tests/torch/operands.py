"""Small integers as tensors, whose sums are exact, and problems of every kind with PyTorch's function for each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn import functional as F  # noqa: N812

import convgen.torch as ct

FORMATS = {
    "channels_first": torch.contiguous_format,
    "channels_last": torch.channels_last,
}


@dataclass(frozen=True)
class Problem:
    """A function's name and what it is given."""

    function: str
    image: tuple[int, ...]
    weight: tuple[int, ...]
    out_channels: int
    options: dict[str, Any] = field(default_factory=dict)

    def ours(self, *tensors: Any, **more: Any) -> torch.Tensor:
        return getattr(ct, self.function)(*tensors, **self.options, **more)

    def theirs(self, *tensors: Any) -> torch.Tensor:
        return getattr(F, self.function)(*tensors, **self.options)


PROBLEMS: dict[str, Problem] = {
    "1d": Problem("conv1d", (2, 3, 11), (4, 3, 3), 4, dict(stride=2, padding=1)),
    "2d": Problem("conv2d", (2, 4, 7, 6), (6, 4, 3, 3), 6, dict(padding=1)),
    "2d pointwise": Problem("conv2d", (2, 8, 5, 5), (16, 8, 1, 1), 16),
    "2d strided groups": Problem(
        "conv2d", (1, 4, 9, 8), (6, 2, 3, 2), 6, dict(stride=(2, 1), padding=(1, 0), groups=2)
    ),
    "2d depthwise": Problem("conv2d", (2, 8, 6, 6), (8, 1, 3, 3), 8, dict(padding=1, groups=8)),
    "2d same dilated": Problem("conv2d", (1, 3, 8, 8), (4, 3, 2, 3), 4, dict(padding="same", dilation=2)),
    "3d": Problem("conv3d", (1, 2, 4, 5, 4), (3, 2, 2, 3, 2), 3, dict(padding=(0, 1, 1))),
    "transposed 1d": Problem("conv_transpose1d", (2, 3, 5), (3, 4, 3), 4, dict(stride=2, padding=1, output_padding=1)),
    "transposed 2d": Problem("conv_transpose2d", (1, 4, 4, 5), (4, 3, 3, 3), 6, dict(stride=2, groups=2, padding=1)),
    "transposed 3d": Problem("conv_transpose3d", (1, 2, 3, 2, 3), (2, 3, 2, 2, 2), 3, dict(stride=2)),
}


def integers(shape: tuple[int, ...], dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-3, 4, shape, generator=generator).to(dtype)


def operands(problem: Problem, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    shapes = (problem.image, problem.weight, (problem.out_channels,))
    first, second, third = (integers(shape, dtype, seed) for seed, shape in enumerate(shapes))
    return first, second, third
