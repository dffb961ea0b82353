"""Tensors as kernels see them: data types, and the layouts that PyTorch's memory formats are."""

from __future__ import annotations

import torch

from convgen.errors import DTypeError

DTYPES = {
    torch.float32: "float32",
    torch.float64: "float64",
    torch.float16: "float16",
    torch.bfloat16: "bfloat16",
}
_FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}


def dtype_name(tensor: torch.Tensor) -> str:
    """convgen's name of the tensor's dtype; raises DTypeError."""
    name = DTYPES.get(tensor.dtype)
    if name is None:
        raise DTypeError(f"dtype={tensor.dtype} is not supported; allowed: {', '.join(map(str, DTYPES))}")
    return name


def layout_of(image: torch.Tensor) -> str:
    """The layout in which an image (N, C, *spatial) lies in memory, "" where it is neither.

    One that is in both (a single channel, say) is channels_first.
    """
    if image.is_contiguous():
        return "channels_first"
    return "channels_last" if _is_channels_last(image) else ""


def _is_channels_last(image: torch.Tensor) -> bool:
    if image.dim() == 3:
        return image.transpose(1, 2).is_contiguous()
    memory_format = _FORMATS.get(image.dim())
    return memory_format is not None and image.is_contiguous(memory_format=memory_format)


def in_layout(image: torch.Tensor, layout: str) -> torch.Tensor:
    """The image, copied only if it does not lie in the layout."""
    if layout == "channels_first":
        return image.contiguous()
    if image.dim() == 3:
        return image.transpose(1, 2).contiguous().transpose(1, 2)
    return image.contiguous(memory_format=_FORMATS[image.dim()])


def empty_image(like: torch.Tensor, shape: tuple[int, ...], layout: str) -> torch.Tensor:
    """An image of undefined contents, of the dtype and device of ``like``."""
    if layout == "channels_first":
        return torch.empty(shape, dtype=like.dtype, device=like.device)
    if len(shape) == 3:
        swapped = (shape[0], shape[2], shape[1])
        return torch.empty(swapped, dtype=like.dtype, device=like.device).transpose(1, 2)
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=_FORMATS[len(shape)])


def as_it_lies(image: torch.Tensor) -> tuple[torch.Tensor, str]:
    """The image and its layout; what lies in none is copied to channels_first."""
    layout = layout_of(image)
    return (image, layout) if layout else (image.contiguous(), "channels_first")


def from_order(shape: tuple[int, ...], layout: str) -> tuple[int, ...]:
    """A shape in the order of the layout as (N, C, *spatial)."""
    return shape if layout == "channels_first" else (shape[0], shape[-1], *shape[1:-1])


def in_order(shape: tuple[int, ...], layout: str) -> tuple[int, ...]:
    """A shape (N, C, *spatial) in the order of the layout."""
    return tuple(shape) if layout == "channels_first" else (shape[0], *shape[2:], shape[1])
