"""Trains a small network on scikit-learn's handwritten digits in JAX, with XLA's convolutions and with convgen's.

python examples/digits_jax.py [--epochs 15]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

import convgen.jax as cj

TEST_SHARE, BATCH, RATE = 4, 64, 2e-3
Parameters = dict[str, Any]
Convolution = Callable[[Any, Any, Any], Any]


def xla(x: Any, weight: Any, bias: Any) -> Any:
    """A 3 x 3 convolution with its bias, by XLA."""
    same = [(1, 1), (1, 1)]
    return jax.lax.conv_general_dilated(x, weight, (1, 1), same) + bias[:, None, None]


def convgen(x: Any, weight: Any, bias: Any) -> Any:
    """The same by convgen."""
    return cj.conv(x, weight, bias, padding=1)


def initial() -> Parameters:
    """Weights of three convolutions and of the layer behind them."""
    rng = np.random.default_rng(0)
    found: Parameters = {}
    for name, out, inputs in (("a", 32, 1), ("b", 64, 32), ("c", 64, 64)):
        scale = np.sqrt(2 / (9 * inputs))
        found[name] = jnp.asarray(rng.standard_normal((out, inputs, 3, 3)) * scale, jnp.float32)
        found[f"{name}_bias"] = jnp.zeros(out)
    found["head"] = jnp.asarray(rng.standard_normal((64, 10)) / 8, jnp.float32)
    return found


def logits(parameters: Parameters, images: Any, conv: Convolution) -> Any:
    """Ten numbers for each image of 8 x 8 pixels."""
    y = images
    for name in ("a", "b"):
        y = jax.nn.relu(conv(y, parameters[name], parameters[f"{name}_bias"]))
    y = y.reshape(*y.shape[:2], 4, 2, 4, 2).max((3, 5))
    y = jax.nn.relu(conv(y, parameters["c"], parameters["c_bias"]))
    return y.mean((2, 3)) @ parameters["head"]


def train(conv: Convolution, epochs: int) -> tuple[list[float], float, float]:
    """Returns the losses of all steps, the accuracy on the quarter kept for that, and the seconds of the last epoch."""
    digits = load_digits()
    rng = np.random.default_rng(0)
    order = rng.permutation(len(digits.target))
    images = (digits.images[order].astype(np.float32) / 16)[:, None]
    labels = digits.target[order]
    kept = len(labels) // TEST_SHARE

    def loss(parameters: Parameters, x: Any, y: Any) -> Any:
        return -jnp.take_along_axis(jax.nn.log_softmax(logits(parameters, x, conv)), y[:, None], 1).mean()

    @jax.jit
    def step(state: Any, number: int, x: Any, y: Any) -> tuple[Any, Any]:
        """A step of Adam (Kingma and Ba, 2015); the state is parameters and both moments."""
        value, gradients = jax.value_and_grad(loss)(state[0], x, y)
        first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, state[1], gradients)
        second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, state[2], gradients)
        rate = RATE * jnp.sqrt(1 - 0.999**number) / (1 - 0.9**number)
        moved = jax.tree.map(lambda p, m, v: p - rate * m / (jnp.sqrt(v) + 1e-8), state[0], first, second)
        return value, (moved, first, second)

    parameters = initial()
    zeros = jax.tree.map(jnp.zeros_like, parameters)
    state = (parameters, zeros, zeros)
    losses: list[float] = []
    seconds = 0.0
    for _ in range(epochs):
        start = time.perf_counter()
        mixed = rng.permutation(np.arange(kept, len(labels)))
        for first in range(0, len(mixed) - BATCH + 1, BATCH):
            batch = mixed[first : first + BATCH]
            value, state = step(state, len(losses) + 1, images[batch], labels[batch])
            losses.append(float(value))
        seconds = time.perf_counter() - start
    right = logits(state[0], jnp.asarray(images[:kept]), conv).argmax(1) == labels[:kept]
    return losses, float(right.mean()), seconds


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=15)
    epochs = parser.parse_args(arguments).epochs
    curves = []
    for name, conv in (("XLA", xla), ("convgen", convgen)):
        losses, accuracy, seconds = train(conv, epochs)
        curves.append(losses)
        print(
            f"{name}: first loss {losses[0]:.6f}, last {losses[-1]:.6f}, accuracy {accuracy:.1%}, {seconds:.2f} s an epoch"
        )
    apart = max(abs(a - b) for a, b in zip(*curves, strict=True))
    print(f"largest difference between the losses of a step: {apart:.1e}")


if __name__ == "__main__":
    main()
