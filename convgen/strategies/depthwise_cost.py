"""What depthwise's configurations cost."""

from __future__ import annotations

import math

from convgen.dtypes import DTYPES
from convgen.machine import Machine
from convgen.spec import ConvSpec
from convgen.strategies.boxes import inside_share
from convgen.strategies.depthwise_last import GROUPS_FIRST, GROUPS_IN_ROWS, GROUPS_LAST
from convgen.tuning.cost import (
    CALL_SECONDS,
    FMA_PORTS,
    LINE_BYTES,
    LOAD_PORTS,
    moving_seconds,
    vector_width,
    waste,
)
from convgen.tuning.rates import rates_of
from convgen.tuning.space import Config

# One turn of the loop over a window's rows.
ROW_CYCLES = 2
# Spreading what a group reads over its lanes.
SPREAD_CYCLES = 0.7
# What a tile costs besides: its place, its tests of the border, its loops; where these are shared by all groups; and its stores.
TILE_CYCLES, SHARED_TILE_CYCLES, STORE_CYCLES = 17, 3, 0.8
# The part of the shorter of two times that run side by side that shows: of arithmetic and what comes from the second-level cache,
# and of both and what comes from beyond it.
EXPOSED_LINES, EXPOSED_TRAFFIC = 0.45, 0.6
# Registers for other things than sums and weights, and what each vector that does not fit costs in a row of the window.
OTHER_REGISTERS, SPILL_CYCLES = 6, 0.5
# What groups of so many channels cost that what they read, spread, does not stay in registers either.
UNKEPT = 1.9


def last_seconds(spec: ConvSpec, config: Config, machine: Machine) -> float:
    """Tiles of rows x pixels x lanes: their multiply-adds or loads, what does not fit the registers, and the image's way through
    the caches."""
    rates = rates_of(machine)
    result = spec.spatial_size if spec.direction == "backward_data" else spec.output_size
    steps = (1,) * spec.ndim if spec.writes_with_stride else spec.stride
    taps = [-(-k // s) if spec.writes_with_stride else k for k, s in zip(spec.kernel_size, spec.stride, strict=True)]
    rows, pixels, lanes = config["rows"], config["pixels"], config["lanes"]
    vectors = -(-lanes // vector_width(spec, machine))
    made, reduced = spec.groups * spec.made_channels, spec.reduced_channels
    tiles = math.prod(result) * spec.batch * made / (rows * pixels * lanes)
    tiles *= waste(result[-1], pixels) * waste(made, lanes) * (waste(result[-2], rows) if spec.ndim > 1 else 1.0)
    columns = min(pixels * taps[-1], (pixels - 1) * steps[-1] + (taps[-1] - 1) * spec.dilation[-1] + 1)
    window_rows = math.prod(taps[:-1])
    read_rows = window_rows if rows == 1 else window_rows / taps[-2] * ((rows - 1) * steps[-2] + taps[-2])
    accumulators = rows * pixels * vectors
    fma = accumulators * math.prod(taps) * reduced / FMA_PORTS
    loads = (columns * read_rows + math.prod(taps) * reduced) * vectors / LOAD_PORTS
    spreads = columns * read_rows * reduced * vectors if spec.made_channels > 1 or reduced > 1 else 0.0
    room = machine.vector_registers - OTHER_REGISTERS
    # A weight is used by all pixels of a row, one after the other, as the source passes by.
    kept = vectors * (min(taps[-1], pixels) * reduced + 1)
    spilled = SPILL_CYCLES * max(0, accumulators + kept - room) * read_rows
    traffic = moving_seconds(spec.bytes_moved, machine)
    order, size = config["order"], DTYPES[spec.dtype].itemsize
    lines = columns * read_rows * lanes * size / machine.vector_bytes
    # Groups that are a part of a line fetch it one after the other, if it has left the first-level cache meanwhile.
    part = max(1.0, LINE_BYTES / (lanes * size))
    image_row = read_rows * result[-1] * steps[-1]
    near = machine.l1d_bytes // 2
    own_stays = image_row * max(lanes * size, LINE_BYTES) <= near
    if order == GROUPS_FIRST:
        lines *= part
        traffic *= rates.scattered * (part if spec.bytes_moved > machine.l2_bytes else 1.0)
    elif order == GROUPS_IN_ROWS and not own_stays:
        lines *= part
    if own_stays if order == GROUPS_FIRST else image_row * spec.groups * reduced * size <= near:
        # The rows that two rows of results share are still in the first-level cache.
        lines /= max(1.0, read_rows / max(1, rows * math.prod(steps[:-1])))
    # The weights that are used between two uses of the same ones stay in the first-level cache, or come from the second.
    weights = math.prod(taps) * reduced * size
    if weights * (made if order == GROUPS_LAST else lanes) > near:
        lines += weights * lanes / machine.vector_bytes
    # Rows of taps outside of the image are left out; leaving out columns costs about what it saves.
    inside = inside_share(spec, pixels) if spec.ndim > 1 else 1.0
    arithmetic, fetching = max(fma, loads) * inside, lines * rates.line * inside
    if reduced > 1 and vectors * taps[-1] * reduced > room:
        arithmetic *= UNKEPT
    cycles = (
        _together(arithmetic, fetching, EXPOSED_LINES)
        + spreads * SPREAD_CYCLES
        + spilled
        + accumulators * STORE_CYCLES
        + ROW_CYCLES * (read_rows if rows == 1 else window_rows / taps[-2])
        + (SHARED_TILE_CYCLES if order == GROUPS_LAST else TILE_CYCLES)
    )
    return CALL_SECONDS + _together(tiles * cycles / rates.clock, traffic, EXPOSED_TRAFFIC)


def _together(a: float, b: float, exposed: float) -> float:
    """The time of two things that are done at the same time, but for a part of the shorter one."""
    return max(a, b) + exposed * min(a, b)
