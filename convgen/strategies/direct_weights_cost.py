"""What the weight gradients of direct cost: the sums, and the copies of what lies in another order."""

from __future__ import annotations

import math

from convgen.machine import Machine
from convgen.spec import ConvSpec
from convgen.strategies.direct_weights import image_bytes, panel_bytes, plain_size, weights_rows, widens
from convgen.strategies.tiles import MAX_VECTORS
from convgen.strategies.widening import widened
from convgen.tuning.cost import (
    CALL_SECONDS,
    FMA_PORTS,
    LOOP_CYCLES,
    moving_seconds,
    peak,
    step_cycles,
    vector_width,
    waste,
)
from convgen.tuning.rates import rates_of
from convgen.tuning.space import Config

# Of the cycles in which a line comes from the second-level cache, those that arithmetic does not hide.
EXPOSED_LINES = 0.25
# The same of those from beyond it.
FAR_LINES = 1.5
# Cycles more for each row of a tile whose vectors are a small part of the channels, where pixels lie far apart.
NARROW = 0.5
# How many times a gradient is moved whose lanes lie far apart.
SCATTERED = 3


def weights_seconds(spec: ConvSpec, config: Config, machine: Machine) -> float:
    """The arithmetic of the tiles, the vectors that come from beyond the first-level cache, the images and the turned result."""
    turned, lanes = bool(config.get("turned", 0)), config["lanes"]
    groups_as_lanes = spec.made_channels == 1 and spec.groups > 1
    images = plain_size(spec)
    extent = spec.reduced_channels if turned else spec.groups if groups_as_lanes else spec.made_channels
    work = spec.macs * waste(extent, lanes) * waste(weights_rows(spec, turned=turned), config["pixels"])
    rates, width = rates_of(machine), vector_width(spec, machine)
    vectors = math.ceil(lanes / width)
    step = step_cycles(widened(spec) if widens(spec) else spec, machine, config["pixels"], vectors, not groups_as_lanes)
    # Neither operand stays in the first-level cache: a line for each vector, and one that elements are broadcast from.
    panel = panel_bytes(spec, lanes)
    if panel > machine.l1d_bytes:
        step += EXPOSED_LINES * (vectors + 1) * rates.line
    if panel > machine.l2_bytes:
        step += NARROW * config["pixels"] * max(0.0, 1 - vectors / MAX_VECTORS)
    if block := config.get("block", 0):
        # Sums are kept and fetched between blocks.
        step += 2 * config["pixels"] * vectors / (block * spec.batch * math.prod(images[1:]))
    else:
        missed = max(0.0, 1 - machine.l2_bytes / max(1, panel))
        rate = rates.last if panel <= machine.l3_bytes else rates.memory
        step += FAR_LINES * missed * (vectors + 1) * machine.vector_bytes * rates.clock / rate
    loop = LOOP_CYCLES / max(1, images[-1])
    per_step = config["pixels"] * lanes / width / FMA_PORTS
    seconds = work * (step + loop) / per_step / peak(spec, machine)
    if groups_as_lanes:
        seconds += work / width * rates.line / rates.clock
    moved = spec.bytes_moved + 2 * _copied_bytes(spec, turned=turned)
    return CALL_SECONDS + seconds + moving_seconds(moved, machine)


def _copied_bytes(spec: ConvSpec, *, turned: bool) -> int:
    """Bytes of images that are not channels last, or are padded where lanes or taps of a row need it, and of the gradient where
    its lanes are not next to each other."""
    source, plain = image_bytes(spec)
    copied = 0
    if spec.layout == "channels_first" or widens(spec):
        copied += source + plain
    elif not spec.padding_is_zero and not turned and spec.reduced_channels < spec.kernel_size[-1]:
        copied += source
    if not turned:
        copied += SCATTERED * spec.weight_bytes
    elif math.prod(spec.kernel_size) > 1:
        copied += spec.weight_bytes
    return copied
