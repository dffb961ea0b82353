"""JAX: a compiled ``lax.conv_general_dilated`` in both layouts.

XLA's threads are as many as the processors that the process may use when JAX is loaded, which the benchmark sets before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import lax

from convgen.bench.contender import Array, Contender, Job, begins, ends, forward_form, from_layout, refuse, to_layout
from convgen.spec import ConvSpec

_DTYPES = ("float32", "float16", "bfloat16")
_LETTERS = {1: "W", 2: "HW", 3: "DHW"}


class _Jax:
    name = "jax"

    def version(self) -> str:
        return str(jax.__version__)

    def contenders(self, job: Job) -> list[Contender]:
        refuse(job.spec, _DTYPES, asymmetric=True)
        if job.spec.direction == "backward_weights":
            return [_weight_gradient(job, layout) for layout in job.layouts]
        spec = forward_form(job.spec)
        return [_forward(spec, job, layout) for layout in job.layouts]


PEER = _Jax()


def _forward(spec: ConvSpec, job: Job, layout: str) -> Contender:
    image = jax.device_put(to_layout(job.first, layout))
    weight = jax.device_put(_kernel(_as_convolution(spec, job.second), layout))
    compiled = jax.jit(_convolution(spec, layout)).lower(image, weight).compile()
    return Contender(
        "jax",
        layout,
        lambda: compiled(image, weight).block_until_ready(),
        lambda: from_layout(np.asarray(compiled(image, weight)), layout),
    )


def _weight_gradient(job: Job, layout: str) -> Contender:
    """The transpose of the convolution as a function of its weights, which is linear: the convolution itself never runs."""
    spec = job.spec.replace(direction="forward")
    convolution = _convolution(spec, layout)
    images = [jax.device_put(to_layout(array, layout)) for array in (job.first, job.second)]
    x, grad = (images[0], images[1])
    start = jax.device_put(_kernel(_as_convolution(spec, np.zeros(spec.weight_shape, job.first.dtype)), layout))

    def gradient(x: Any, grad: Any) -> Any:
        return jax.vjp(lambda weight: convolution(x, weight), start)[1](grad)[0]

    compiled = jax.jit(gradient).lower(x, grad).compile()

    def computed() -> Array:
        kernel = np.asarray(compiled(x, grad))
        return _as_weight(spec, np.moveaxis(kernel, (-1, -2), (0, 1)) if layout == "channels_last" else kernel)

    return Contender("jax", layout, lambda: compiled(x, grad).block_until_ready(), computed)


def _convolution(spec: ConvSpec, layout: str) -> Callable[[Any, Any], Any]:
    """The problem as XLA knows it: a transposed convolution is one of the image spread out by the stride."""
    letters = _LETTERS[spec.ndim]
    image, kernel = (f"N{letters}C", f"{letters}IO") if layout == "channels_last" else (f"NC{letters}", f"OI{letters}")
    strides, spread = spec.stride, (1,) * spec.ndim
    padding = list(zip(begins(spec), ends(spec), strict=True))
    if spec.transposed:
        strides, spread = spread, strides
        reach = [d * (k - 1) for d, k in zip(spec.dilation, spec.kernel_size, strict=True)]
        padding = [
            (far - lo, far - hi + more)
            for far, (lo, hi), more in zip(reach, spec.padding, spec.output_padding, strict=True)
        ]
    return lambda x, weight: lax.conv_general_dilated(
        x,
        weight,
        strides,
        padding,
        lhs_dilation=spread,
        rhs_dilation=spec.dilation,
        dimension_numbers=(image, kernel, image),
        feature_group_count=spec.groups,
    )


def _as_convolution(spec: ConvSpec, weight: Array) -> Array:
    """The weights as (out, in/groups, *kernel); those of a transposed convolution change places and direction."""
    if not spec.transposed:
        return weight
    return np.flip(_swapped(weight, spec.groups), tuple(range(2, weight.ndim)))


def _as_weight(spec: ConvSpec, kernel: Array) -> Array:
    """The inverse of ``_as_convolution``, which is its own."""
    return _as_convolution(spec, kernel)


def _swapped(weight: Array, groups: int) -> Array:
    """(groups·a, b, *kernel) to (groups·b, a, *kernel)."""
    blocks = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:]).swapaxes(1, 2)
    return blocks.reshape(-1, *blocks.shape[2:])


def _kernel(weight: Array, layout: str) -> Array:
    """The weights contiguous as (out, in, *kernel), or (*kernel, in, out)."""
    return np.ascontiguousarray(np.moveaxis(weight, (0, 1), (-1, -2)) if layout == "channels_last" else weight)
