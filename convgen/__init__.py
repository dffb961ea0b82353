"""convgen generates convolution kernels: a problem goes in, a readable, verified, fast Numba kernel comes out."""

from __future__ import annotations

__version__ = "0.1.0"
