"""Convolution layers: PyTorch's own, computed by convgen's kernels."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import nn

from convgen.errors import FusedWarning
from convgen.torch.functional import convolve, geometry_of
from convgen.torch.geometry import Geometry
from convgen.torch.packing import PackedCache


class _Convolution(nn.modules.conv._ConvNd):
    """What all layers share; ``accuracy`` is ConvSpec's, an attribute that may be set at any time."""

    accuracy: str | float = "fast"
    is_folded: bool = False

    def _conv_forward(self, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        return _batched(input, weight, bias, self._geometry(), self._packing())

    def _geometry(self) -> Geometry:
        how = (self.stride, self.padding, self.dilation, self.groups, False, 0, self.padding_mode, self.accuracy)
        return geometry_of(self.kernel_size, how)

    def _packing(self) -> PackedCache | None:
        """What keeps the packed weights of this layer; it is made when first asked for."""
        if torch.compiler.is_compiling():
            return None
        kept: PackedCache | None = self.__dict__.get("_packed_weights")
        if kept is None:
            kept = self.__dict__["_packed_weights"] = PackedCache()
        return kept

    def train(self, mode: bool = True) -> Any:
        """Sets the mode, and drops what is kept of packed weights; warns where a batch norm is gone that would be trained."""
        if mode and self.is_folded:
            text = "a batch norm is part of this layer's weights, and is not trained: convert the model with fuse=False"
            warnings.warn(text, FusedWarning, stacklevel=2)
        self.__dict__.pop("_packed_weights", None)
        return super().train(mode)


class Conv1d(_Convolution, nn.Conv1d):
    """torch.nn.Conv1d by convgen's kernels: the same arguments, parameters and state."""


class Conv2d(_Convolution, nn.Conv2d):
    """torch.nn.Conv2d by convgen's kernels: the same arguments, parameters and state."""


class Conv3d(_Convolution, nn.Conv3d):
    """torch.nn.Conv3d by convgen's kernels: the same arguments, parameters and state."""


class _Transposed(_Convolution, nn.modules.conv._ConvTransposeNd):
    def forward(self, input: torch.Tensor, output_size: list[int] | None = None) -> torch.Tensor:
        """As torch.nn.ConvTranspose*d: ``output_size`` picks one of the sizes that a stride leaves open."""
        ndim = len(self.kernel_size)
        padding = self._output_padding(
            input, output_size, self.stride, self.padding, self.kernel_size, ndim, self.dilation
        )
        how = (self.stride, self.padding, self.dilation, self.groups, True, tuple(padding), "zeros", self.accuracy)
        geometry = geometry_of(self.kernel_size, how)
        return _batched(input, self.weight, self.bias, geometry, self._packing())


class ConvTranspose1d(_Transposed, nn.ConvTranspose1d):
    """torch.nn.ConvTranspose1d by convgen's kernels: the same arguments, parameters and state."""


class ConvTranspose2d(_Transposed, nn.ConvTranspose2d):
    """torch.nn.ConvTranspose2d by convgen's kernels: the same arguments, parameters and state."""


class ConvTranspose3d(_Transposed, nn.ConvTranspose3d):
    """torch.nn.ConvTranspose3d by convgen's kernels: the same arguments, parameters and state."""


def _batched(
    image: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    geometry: Geometry,
    packing: PackedCache | None,
) -> torch.Tensor:
    if image.dim() == weight.dim() - 1:
        return convolve(image.unsqueeze(0), weight, bias, geometry, packing).squeeze(0)
    return convolve(image, weight, bias, geometry, packing)
