"""convgen's convolutions in PyTorch: functions, layers, and ``convert_`` for whole models.

import convgen.torch as ct

y = ct.conv2d(x, weight, bias, padding=1)    # as torch.nn.functional.conv2d, with autograd, autocast, torch.compile
ct.convert_(model)                           # swaps the convolutions of a model, in place
"""

from __future__ import annotations

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise ImportError("convgen.torch needs PyTorch; install it with: pip install 'convgen[torch]'") from error

from convgen.torch.convert import convert_
from convgen.torch.functional import (
    conv1d,
    conv2d,
    conv3d,
    conv_transpose1d,
    conv_transpose2d,
    conv_transpose3d,
)
from convgen.torch.modules import Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d

__all__ = [
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "convert_",
]
