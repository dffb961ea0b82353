"""convgen generates convolution kernels: a problem goes in, a readable, verified, fast Numba kernel comes out."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from convgen.functional import conv, conv_backward_data, conv_backward_weights, conv_transpose
    from convgen.operator import CompiledConv
    from convgen.planning import autotune
    from convgen.planning import compile_spec as compile
    from convgen.planning import emit_source as emit
    from convgen.spec import ConvSpec, Epilogue
    from convgen.tuner.session import tune

# Where each public name lives; loaded when first used, so that importing convgen costs next to nothing.
_HOMES = {
    "CompiledConv": ("convgen.operator", "CompiledConv"),
    "ConvSpec": ("convgen.spec", "ConvSpec"),
    "Epilogue": ("convgen.spec", "Epilogue"),
    "autotune": ("convgen.planning", "autotune"),
    "compile": ("convgen.planning", "compile_spec"),
    "conv": ("convgen.functional", "conv"),
    "conv_backward_data": ("convgen.functional", "conv_backward_data"),
    "conv_backward_weights": ("convgen.functional", "conv_backward_weights"),
    "conv_transpose": ("convgen.functional", "conv_transpose"),
    "emit": ("convgen.planning", "emit_source"),
    "tune": ("convgen.tuner.session", "tune"),
}

__all__ = [
    "CompiledConv",
    "ConvSpec",
    "Epilogue",
    "autotune",
    "compile",
    "conv",
    "conv_backward_data",
    "conv_backward_weights",
    "conv_transpose",
    "emit",
    "tune",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'convgen' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    value = getattr(import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
