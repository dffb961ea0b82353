"""Trains a small network on scikit-learn's handwritten digits, with PyTorch's convolutions and with convgen's.

    python examples/digits.py [--epochs 12]

The same seed gives the same losses within rounding; the one line that differs is ``ct.convert_(model)``.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

import convgen.torch as ct

TEST_SHARE = 4


def network() -> nn.Module:
    """Three convolutions for images of 8 x 8 pixels."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(64, 64, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


def data() -> tuple[torch.Tensor, torch.Tensor]:
    """All 1797 images, from 0 to 1, in an order of chance, and their digits."""
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    images = torch.from_numpy(digits.images[order].astype(np.float32) / 16).unsqueeze(1)
    return images, torch.from_numpy(digits.target[order].astype(np.int64))


def train(*, converts: bool, epochs: int) -> tuple[list[float], float, float]:
    """Returns the losses of all steps, the accuracy on the quarter kept for that, and the seconds of the last epoch: kernels
    are compiled in the first."""
    torch.manual_seed(0)
    model = network()
    if converts:
        ct.convert_(model)
    images, labels = data()
    kept = len(labels) // TEST_SHARE
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses: list[float] = []
    seconds = 0.0
    for _ in range(epochs):
        start = time.perf_counter()
        for batch in torch.randperm(len(labels) - kept).split(64):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(images[kept:][batch]), labels[kept:][batch])
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        seconds = time.perf_counter() - start
    model.eval()
    with torch.no_grad():
        right = model(images[:kept]).argmax(1) == labels[:kept]
    return losses, float(right.float().mean()), seconds


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=12)
    epochs = parser.parse_args(arguments).epochs
    curves = []
    for name, converts in (("PyTorch", False), ("convgen", True)):
        losses, accuracy, seconds = train(converts=converts, epochs=epochs)
        curves.append(losses)
        print(
            f"{name}: first loss {losses[0]:.6f}, last {losses[-1]:.6f}, accuracy {accuracy:.1%}, {seconds:.2f} s an epoch"
        )
    apart = max(abs(a - b) for a, b in zip(*curves, strict=True))
    print(f"largest difference between the losses of a step: {apart:.1e}")


if __name__ == "__main__":
    main()
