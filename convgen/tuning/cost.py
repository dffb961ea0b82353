"""What every strategy's estimate of its time is made of, so that configurations can be ordered before anything is compiled.

Time is that of the arithmetic, at the part of the peak that a register tile can reach (see ``step_cycles``), plus that
of moving the data. Both are the terms of the roofline (Williams, Waterman and Patterson, "Roofline", 2009), but their
sum, not the larger, orders configurations that are bound by memory, and predicts better how much slower 7×7 images are.
The core has two ports for multiply-adds and two for loads; how fast it is otherwise says ``tuning/rates.py``.
"""

from __future__ import annotations

import math

from convgen.dtypes import DTYPES
from convgen.machine import Machine
from convgen.spec import ConvSpec
from convgen.tuning.rates import rates_of

FMA_PORTS = 2
LOAD_PORTS = 2
# Four cycles, and one that is lost where nothing else is in flight.
FMA_LATENCY = 5
# The part of the time to fetch lines of weights, or to use them in dot products, that the other does not hide.
EXPOSED_LINES = 0.05
# What starting and leaving an innermost loop costs.
LOOP_CYCLES = 4
# Stores of so many accumulators pass while the next tile begins; those of each other take so many cycles.
HIDDEN_STORES = 12
STORE_CYCLES = 3
# What turning a vector takes: its part of a square in registers, and lines far apart.
TURN_CYCLES = 12
# What calling the stages of a kernel costs, however small the problem.
CALL_SECONDS = 0.3e-6
# The part of the second-level cache that a block of weights may fill.
L2_SHARE = 0.75
# Vectors of a long row of weights.
LONGEST_ROW = 4
# What the caches move at once.
LINE_BYTES = 64


def vector_width(spec: ConvSpec, machine: Machine) -> int:
    """Accumulators in a vector."""
    return machine.vector_bytes // DTYPES[DTYPES[spec.dtype].accumulator].itemsize


def peak(spec: ConvSpec, machine: Machine) -> float:
    """Multiply-adds a second that one core cannot exceed."""
    return rates_of(machine).clock * FMA_PORTS * vector_width(spec, machine)


def moving_seconds(size: int, machine: Machine) -> float:
    """The time to move that many bytes, read plus written, once."""
    rates = rates_of(machine)
    if size <= machine.l2_bytes:
        return size / rates.cache
    return size / (rates.last if size <= machine.l3_bytes else rates.memory)


def turning_seconds(size: int, machine: Machine) -> float:
    """The time to bring that many bytes from channels last to channels first, or back."""
    return size / machine.vector_bytes * TURN_CYCLES / rates_of(machine).clock


def turned_seconds(spec: ConvSpec, machine: Machine, *, source: bool) -> float:
    """The time to bring a problem's source from channels first to channels last, or its result back, in squares of channels and
    of neighbours in a row; a single channel lies the same way in both."""
    of_input = source != (spec.direction == "backward_data")
    size, row = (spec.input_bytes, spec.spatial_size[-1]) if of_input else (spec.output_bytes, spec.output_size[-1])
    square = machine.vector_bytes // DTYPES[spec.dtype].itemsize
    channels = spec.reduced_channels if source else spec.made_channels
    channels = spec.groups if channels == 1 else channels
    if channels == 1:
        return 0.0
    return turning_seconds(size, machine) * waste(row, square) * waste(channels, square)


def waste(extent: int, block: int) -> float:
    """Work in whole blocks over work needed, at least 1."""
    return -(-extent // block) * block / extent if extent else 1.0


def pixels_made(spec: ConvSpec) -> int:
    """The pixels of the whole batch's result."""
    return math.prod(spec.result_shape) // max(1, spec.made_channels * spec.groups)


def streaming_seconds(spec: ConvSpec, machine: Machine) -> float:
    """What weights that do not fit the second-level cache cost beside their traffic: few loads are in flight at a time."""
    return spec.weight_bytes / rates_of(machine).stream if spec.weight_bytes > machine.l2_bytes else 0.0


def streaming_waste(spec: ConvSpec, machine: Machine, lanes: int) -> float:
    """Time over that of the longest rows of weights, at least 1: what comes from beyond the second-level cache comes quicker in
    rows of four vectors than in shorter ones."""
    if spec.weight_bytes <= machine.l2_bytes:
        return 1.0
    vectors = max(1, lanes // vector_width(spec, machine))
    return 1 + rates_of(machine).short_rows * max(0.0, 1 / vectors - 1 / LONGEST_ROW)


def tile_efficiency(
    spec: ConvSpec,
    machine: Machine,
    *,
    pixels: int,
    lanes: int,
    steps: float,
    loops: float,
    shares_source: bool = True,
    fetches_weights: bool = False,
    dot: int = 1,
) -> float:
    """The part of the peak that whole register tiles of ``pixels`` times ``lanes`` reach.

    A tile does ``steps`` multiply-adds for each of its accumulators, in ``loops`` innermost loops, each of which costs
    ``LOOP_CYCLES`` more; ``shares_source`` says that an element of the source serves all lanes, ``fetches_weights`` that those of
    each step come from the second-level cache. ``dot`` terms are added at once, so that it can be as many times the peak.
    """
    if not steps:
        return 1.0
    steps /= dot
    width = vector_width(spec, machine)
    vectors = -(-lanes // width)
    # A tile narrower than a vector occupies all of it.
    useful = pixels * lanes / width / FMA_PORTS * dot
    step = step_cycles(spec, machine, pixels, vectors, shares_source, dot)
    if fetches_weights:
        lines = vectors * rates_of(machine).line
        # Dot products leave less time to fetch in.
        step = max(step, lines) + (EXPOSED_LINES * min(step, lines) if dot > 1 else 0.0)
    stores = STORE_CYCLES * max(0, pixels * vectors - HIDDEN_STORES)
    return steps * useful / (steps * step + loops * LOOP_CYCLES + stores)


def step_cycles(
    spec: ConvSpec, machine: Machine, pixels: int, vectors: int, shares_source: bool = True, dot: int = 1
) -> float:
    """Cycles for one multiply-add of every accumulator of a tile: the most that one of three resources needs.

    The multiply-add ports; the load ports, for each vector of weights and each element or vector of the source; and
    latency, since an accumulator's next multiply-add waits for its last (eight in flight keep two ports busy). What
    does not fit the registers is stored and loaded again. Narrow types are converted, but for dot products.
    """
    accumulators = pixels * vectors
    loads = vectors + (pixels if shares_source else accumulators)
    converts = loads if dot == 1 and DTYPES[spec.dtype].accumulator != spec.dtype else 0
    spilled = max(0, accumulators + vectors + (vectors > 1) - machine.vector_registers)
    fma = (accumulators + converts) / FMA_PORTS
    load = (loads + spilled) / LOAD_PORTS + spilled
    return max(fma, load, float(FMA_LATENCY)) + spilled
