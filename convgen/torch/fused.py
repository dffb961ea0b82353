"""Layers that compute what follows a convolution with it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from convgen.errors import OperandError
from convgen.spec import Epilogue
from convgen.torch import kernels, modules
from convgen.torch.functional import is_watched, needs_grad
from convgen.torch.geometry import Geometry

_FUNCTIONS: dict[str, Any] = {
    "relu": torch.relu,
    "relu6": F.relu6,
    "silu": F.silu,
    "gelu": F.gelu,
    "hardswish": F.hardswish,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
}


class Fused(modules._Convolution):
    """A convolution and its ``epilogue``; where a call is watched, by autograd for one, step by step."""

    epilogue: Epilogue

    def forward(self, input: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        """``residual``, of the output's shape or one that broadcasts to it, is added where the epilogue says so."""
        if (residual is None) == ("residual" in self.epilogue.steps):
            given = "missing" if residual is None else "given"
            raise OperandError(f"residual is {given}; the layer's epilogue is {self.epilogue.steps}")
        tensors = (input, self.weight, self.bias, residual)
        if not (is_watched(*tensors) or needs_grad(*tensors)) and input.dim() == self.weight.dim():
            geometry = self._geometry()
            if residual is None or self._fits(input, residual, geometry):
                return kernels.convolution(
                    input,
                    self.weight,
                    self.bias,
                    geometry,
                    epilogue=self.epilogue,
                    residual=residual,
                    packing=self._packing(),
                )
        result: torch.Tensor = super().forward(input)
        for step in self.epilogue.steps:
            if step == "residual":
                result = result + residual
            elif step == "leaky_relu":
                result = F.leaky_relu(result, self.epilogue.negative_slope)
            elif step != "bias":
                result = _FUNCTIONS[step](result)
        return result

    def _fits(self, image: torch.Tensor, residual: torch.Tensor, geometry: Geometry) -> bool:
        spatial = geometry.output_size(image.shape[2:], self.kernel_size)
        return residual.dtype == image.dtype and residual.shape == (image.shape[0], self.out_channels, *spatial)


class FusedConv1d(Fused, modules.Conv1d):
    """Conv1d with an epilogue."""


class FusedConv2d(Fused, modules.Conv2d):
    """Conv2d with an epilogue."""


class FusedConv3d(Fused, modules.Conv3d):
    """Conv3d with an epilogue."""


FUSED: dict[type[nn.Module], type[nn.Module]] = {
    modules.Conv1d: FusedConv1d,
    modules.Conv2d: FusedConv2d,
    modules.Conv3d: FusedConv3d,
}
