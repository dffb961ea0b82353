"""convert_: the convolutions of a model become convgen's, in place."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from torch import nn

from convgen.errors import OperandError
from convgen.torch import modules
from convgen.torch.fusion import fuse_
from convgen.torch.tensors import DTYPES

Model = TypeVar("Model", bound=nn.Module)

_LAYERS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv1d: modules.Conv1d,
    nn.Conv2d: modules.Conv2d,
    nn.Conv3d: modules.Conv3d,
    nn.ConvTranspose1d: modules.ConvTranspose1d,
    nn.ConvTranspose2d: modules.ConvTranspose2d,
    nn.ConvTranspose3d: modules.ConvTranspose3d,
}


def convert_(model: Model, filter_fn: Callable[[nn.Module, str], bool] | None = None, *, fuse: bool = True) -> Model:
    """Swaps every eligible convolution of ``model`` for convgen's, in place, and returns the model.

    Eligible are PyTorch's own layers (no subclasses) of a supported dtype on the CPU or a CUDA device, for which
    ``filter_fn(layer, name)`` holds. Parameters, buffers, hooks and state_dict stay as they are, but that weights become
    contiguous. In eval mode, with ``fuse``, what torch.fx can trace is also rewritten: batch norms are folded into the
    convolutions before them, activations and residual sums computed with them. The model then is a GraphModule, for inference
    alone: layers that are gone, and what the graph does not read, are missing from its state_dict, folded weights are new
    parameters, and methods of its class are lost. What cannot be traced, or takes optional arguments, is not fused.
    Raises OperandError where ``model`` is not a module.
    """
    if not isinstance(model, nn.Module):
        raise OperandError(f"model is a {type(model).__name__}; allowed: torch.nn.Module")
    found = [(name, layer) for name, layer in model.named_modules() if _is_eligible(layer)]
    chosen = [layer for name, layer in found if filter_fn is None or filter_fn(layer, name)]
    for layer in chosen:
        layer.__class__ = _LAYERS[type(layer)]
        # Kernels read weights as (out, in, *kernel); in another format each step would copy them.
        layer.weight.data = layer.weight.data.contiguous()
    if fuse and not model.training:
        fuse_(model)
    return model


def _is_eligible(layer: nn.Module) -> bool:
    if type(layer) not in _LAYERS:
        return False
    weight = layer.weight
    lazy = isinstance(weight, nn.parameter.UninitializedParameter)
    return not lazy and weight.device.type in ("cpu", "cuda") and weight.dtype in DTYPES
