"""convgen's convolutions in JAX, through XLA's foreign function interface.

import convgen.jax as cj

y = cj.conv(x, weight, bias, padding=1)    # under jit, grad and vmap, on CPUs
"""

from __future__ import annotations

try:
    import jax as _jax  # noqa: F401
except ImportError as error:
    raise ImportError("convgen.jax needs JAX; install it with: pip install 'convgen[jax]'") from error

from convgen.jax.convolution import conv, conv_transpose

__all__ = ["conv", "conv_transpose"]
