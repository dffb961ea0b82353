"""Trains on two processes with DistributedDataParallel and convgen's convolutions; all end with the same weights.

torchrun --nproc-per-node 2 examples/distributed.py [--steps 10]
"""

from __future__ import annotations

import argparse

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

import convgen.torch as ct


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10)
    steps = parser.parse_args(arguments).steps
    distributed.init_process_group("gloo")
    rank = distributed.get_rank()
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 4, 3), nn.Flatten(), nn.LazyLinear(2)
    )
    network(torch.zeros(1, 3, 12, 12))
    model = DistributedDataParallel(ct.convert_(network))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    generator = torch.Generator().manual_seed(rank)
    for _ in range(steps):
        images = torch.randn(8, 3, 12, 12, generator=generator)
        loss = nn.functional.cross_entropy(model(images), (images.mean((1, 2, 3)) > 0).long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    total = torch.stack([parameter.detach().double().sum() for parameter in model.parameters()]).sum()
    totals = [torch.zeros_like(total) for _ in range(distributed.get_world_size())]
    distributed.all_gather(totals, total)
    if rank == 0:
        assert all(torch.equal(other, total) for other in totals)
        print(
            f"last loss {loss.item():.4f}; the sums of all weights, rank by rank: {[float(t) for t in totals]}",
            flush=True,
        )
    # Nobody leaves while another still talks to the group.
    distributed.barrier()
    del model
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
