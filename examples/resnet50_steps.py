"""Times ResNet-50 in PyTorch with its own convolutions and with convgen's: inference, and training on random images.

    python examples/resnet50_steps.py [--threads 2] [--rounds 9] [--dtype float32|bfloat16]

Both take turns in one process; medians are printed. The first calls, which compile kernels, are not counted.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable

import torch
from resnet import ResNet  # type: ignore[import-not-found]
from torch import nn

import convgen.torch as ct


def race(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each call, taken in turns."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(taken) for name, taken in times.items()}


def inference(model: nn.Module, size: int, dtype: torch.dtype) -> dict[str, Callable[[], object]]:
    """One image through the model in eval mode."""
    model = copy.deepcopy(model).eval().to(dtype)
    images = torch.randn(1, 3, size, size).to(dtype).contiguous(memory_format=torch.channels_last)

    def runner(network: nn.Module) -> Callable[[], object]:
        def run() -> object:
            with torch.inference_mode():
                return network(images)

        return run

    return {"PyTorch": runner(model), "convgen": runner(ct.convert_(copy.deepcopy(model)))}


def training(model: nn.Module, size: int, batch: int, dtype: torch.dtype) -> dict[str, Callable[[], object]]:
    """A step on a batch: forward, backward and the optimizer; under autocast for other types than float32."""
    images = torch.randn(batch, 3, size, size).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 1000, (batch,))

    def stepper(network: nn.Module) -> Callable[[], object]:
        optimizer = torch.optim.SGD(network.parameters(), lr=0.01)

        def step() -> object:
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype != torch.float32):
                loss = nn.functional.cross_entropy(network(images), labels)
            loss.backward()
            optimizer.step()
            return loss.item()

        return step

    return {"PyTorch": stepper(copy.deepcopy(model)), "convgen": stepper(ct.convert_(copy.deepcopy(model)))}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--size", type=int, default=224, help="pixels of an image's side; training takes 4/7 of it")
    parser.add_argument("--batch", type=int, default=8)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    torch.manual_seed(0)
    dtype = getattr(torch, chosen.dtype)
    model = ResNet().to(memory_format=torch.channels_last)
    jobs = {
        f"inference, 1 x {chosen.size}^2": inference(model, chosen.size, dtype),
        f"training step, {chosen.batch} x {chosen.size * 4 // 7}^2": training(
            model, chosen.size * 4 // 7, chosen.batch, dtype
        ),
    }
    print(f"ResNet-50, {chosen.dtype}, channels_last, {chosen.threads} threads, PyTorch {torch.__version__}")
    print(f"{'':30}{'PyTorch':>12}{'convgen':>12}{'ratio':>8}")
    for name, calls in jobs.items():
        taken = race(calls, chosen.rounds)
        theirs, ours = taken["PyTorch"], taken["convgen"]
        print(f"{name:30}{theirs * 1e3:9.1f} ms{ours * 1e3:9.1f} ms{theirs / ours:8.2f}")


if __name__ == "__main__":
    main()
