"""What one rank of a distributed job does: tunes the same problems as all others at the same time; rank 0 prints all choices.

A program for torchrun.
"""

from __future__ import annotations

import json

from torch import distributed

import convgen

SPECS = [
    convgen.ConvSpec(batch=1, in_channels=channels, out_channels=24, spatial_size=(12, 12), kernel_size=3, padding=1)
    for channels in (3, 8, 16)
]


def main() -> None:
    distributed.init_process_group("gloo")
    # All begin at once, and no collective runs while anybody tunes.
    distributed.barrier()
    found = convgen.tune(SPECS, budget=1.5, threads=1)
    assert isinstance(found, list)
    with convgen.autotune(budget=5.0):
        compiled = [convgen.compile(spec, threads=1).plan for spec in SPECS]
    mine = {
        "tuned": [f"{each.plan.strategy} {each.plan.config}" for each in found],
        "compiled": [f"{plan.strategy} {plan.config}" for plan in compiled],
        "measured": [each.measured for each in found],
    }
    everybody: list[object] = [None] * distributed.get_world_size()
    distributed.all_gather_object(everybody, mine)
    if distributed.get_rank() == 0:
        print(json.dumps(everybody), flush=True)
    distributed.barrier()
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
