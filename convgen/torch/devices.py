"""Where a tensor is."""

from __future__ import annotations

import torch

from convgen.errors import OperandError


def gpu_of(tensor: torch.Tensor) -> int | None:
    """The number of the CUDA device that a tensor is on; None for any other place."""
    return tensor.device.index if tensor.is_cuda else None


def check_together(**tensors: torch.Tensor | None) -> None:
    """Raises OperandError for a tensor that is on another device than the first."""
    places = {name: tensor.device for name, tensor in tensors.items() if tensor is not None}
    first, where = next(iter(places.items()))
    for name, device in places.items():
        if device != where:
            raise OperandError(f"{name} is on {device}; allowed: {where}, as {first} is")
