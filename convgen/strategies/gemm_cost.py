"""What the matrix products cost, and what none of them computes."""

from __future__ import annotations

import math

from convgen.dtypes import DTYPES
from convgen.machine import Machine
from convgen.nests.build import unfolded_problem
from convgen.nests.classes import gather_classes
from convgen.spec import ConvSpec
from convgen.strategies.base import windows_refusal
from convgen.strategies.dots import dot_of
from convgen.strategies.gemm_tiles import WEIGHTS_SHARE
from convgen.strategies.matrix import is_matrix_config, matrix_efficiency
from convgen.strategies.widening import widened
from convgen.tuning.cost import (
    CALL_SECONDS,
    moving_seconds,
    peak,
    pixels_made,
    streaming_seconds,
    streaming_waste,
    tile_efficiency,
    vector_width,
    waste,
)
from convgen.tuning.rates import rates_of
from convgen.tuning.space import Config

# What copying one element costs: in vectors, and where each is fetched on its own.
VECTOR_COPY_CYCLES = 4.0
SCALAR_COPY_CYCLES = 3.0
# What a load of the image for each multiply-add takes from the throughput: one element, broadcast, or a vector, which comes from
# the second-level cache. The best tiles have so few of them that it does not show.
BROADCAST_SHARE, FEWEST_BROADCASTS = 0.15, 1 / 4
VECTOR_SHARE, FEWEST_VECTORS = 0.8, 1 / 14
# How much of the time that cores without work would have saved counts: how many threads there will be is not known yet.
IDLE_SHARE = 0.5


def gemm_refusal(spec: ConvSpec) -> str | None:
    """Why a problem is no product of matrices, or None."""
    if spec.direction == "backward_weights":
        return "direction='backward_weights' sums over pixels, not over channels"
    if spec.in_channels == 0:
        return "in_channels=0 leaves nothing to sum"
    if spec.made_channels == 1 and spec.groups > 1 and spec.layout == "channels_last":
        return f"groups={spec.groups} of one made channel leave nothing to run lanes along"
    if spec.batch == 0:
        return "batch=0 leaves nothing to compute"
    return windows_refusal(spec)


def is_matrix(spec: ConvSpec) -> bool:
    """Whether the windows are pixels of the image as they are: one tap, no padding, every pixel of the result reached."""
    one_tap = all(k == 1 for k in spec.kernel_size) and spec.padding_is_zero
    return one_tap and not (spec.writes_with_stride and (any(s != 1 for s in spec.stride) or any(spec.output_padding)))


def gemm_seconds(
    spec: ConvSpec,
    config: Config,
    machine: Machine,
    *,
    copied: float = 0.0,
    copy_cycles: float = 0.0,
    loops: float,
    streams: bool = True,
) -> float:
    """The arithmetic of the register tiles, the copies of ``copied`` elements at so many cycles each, and the traffic.

    ``loops`` is how many innermost loops make a sum; ``streams`` says that vectors of pixels do not come from the first-level
    cache.
    """
    rates = rates_of(machine)
    terms = spec.macs / max(1, math.prod(spec.result_shape))
    last = spec.layout == "channels_last"
    rows, lanes = (config["pixels"], config["made"]) if last else (config["made"], config["pixels"])
    blocks = -(-terms // config["block"]) if config["block"] else 1
    if is_matrix_config(config):
        efficiency = matrix_efficiency(config, rows, lanes, terms, vector_width(spec, machine))
    else:
        efficiency = tile_efficiency(
            widened(spec), machine, pixels=rows, lanes=lanes, steps=terms, loops=loops * blocks, dot=dot_of(config)
        )
    work = spec.macs * waste(spec.made_channels, config["made"]) * pixel_waste(spec, config["pixels"])
    vectors = max(1, lanes // vector_width(spec, machine))
    if last or not streams:
        crowding = BROADCAST_SHARE * max(0.0, 1 / vectors - FEWEST_BROADCASTS)
    else:
        crowding = VECTOR_SHARE * max(0.0, 1 / rows - FEWEST_VECTORS)
    compute = work / (peak(spec, machine) * efficiency) * (1 + crowding)
    if last:
        compute *= streaming_waste(spec, machine, lanes)
    compute += streaming_seconds(spec, machine)
    parts = 1.0
    if spec.weight_bytes > machine.l2_bytes * WEIGHTS_SHARE:
        parts = max(1.0, pixels_made(spec) / (config["pixels"] * config["strips"]))
    compute += spec.weight_bytes * (parts - 1) / rates.cache
    if last:
        compute *= 1 + IDLE_SHARE * (_imbalance(spec, config, machine) - 1)
    return CALL_SECONDS + compute + copied * copy_cycles / rates.clock + moving_seconds(spec.bytes_moved, machine)


def _imbalance(spec: ConvSpec, config: Config, machine: Machine) -> float:
    """The time of all cores over that of those with work, where strips of pixels times panels are the tasks."""
    pixels = pixels_made(spec) // max(1, spec.batch)
    parts = -(-pixels // (config["pixels"] * config["strips"]))
    shares = -(-spec.made_channels // (config["made"] * config["panels"]))
    return waste(max(1, spec.batch * spec.groups * parts * shares), machine.cores)


def pixel_waste(spec: ConvSpec, pixels: int) -> float:
    """Pixels in tiles over pixels, for each residue class an image of its own."""
    counts = [math.prod(axis.count for axis in axes) for axes in gather_classes(unfolded_problem(spec))]
    return sum(count * waste(count, pixels) for count in counts) / max(1, sum(counts))


def vector_copy_cycles(spec: ConvSpec, machine: Machine) -> float:
    """Cycles for each element that is copied in vectors."""
    return VECTOR_COPY_CYCLES / vector_width(spec, machine) * DTYPES[spec.dtype].itemsize / 4
