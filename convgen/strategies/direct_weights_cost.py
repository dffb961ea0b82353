"""What the weight gradients of direct cost: the sums, and the copies of what lies in another order."""

from __future__ import annotations

import math
from dataclasses import dataclass

from convgen.dtypes import DTYPES
from convgen.machine import Machine
from convgen.spec import ConvSpec
from convgen.strategies.direct_weights import image_bytes, panel_bytes, plain_size, weights_rows, widens
from convgen.strategies.direct_weights_dots import residue_waste
from convgen.strategies.dots import dot_of
from convgen.strategies.tiles import MAX_VECTORS
from convgen.strategies.widening import widened
from convgen.tuning.cost import (
    CALL_SECONDS,
    FMA_PORTS,
    LINE_BYTES,
    LOOP_CYCLES,
    moving_seconds,
    peak,
    step_cycles,
    turning_seconds,
    vector_width,
    waste,
)
from convgen.tuning.rates import rates_of
from convgen.tuning.space import Config

# Of the cycles in which a line comes from the second-level cache, those that arithmetic does not hide.
EXPOSED_LINES = 0.25
# The same of those from beyond it: where the processor sees a stream, and where neighbours are a page apart or in memory.
FAR_LINES, FAR_PAGES = 0.5, 3.0
# Cycles more for each row of a tile whose vectors are a small part of the channels, where pixels lie far apart.
NARROW = 0.5
# How many times a gradient is moved whose lanes lie far apart.
SCATTERED = 3
# Vectors that are interleaved in a cycle; and what an element costs that several vectors share: the dot products do not take it
# from memory themselves.
INTERLEAVE_PORTS, BROADCAST_CYCLES = 2, 0.1
# How much longer a few channels take to turn, and to bring into the order of a stride's residues, than those that fill squares.
FEW_TURNS = 3
# The associativity of the second-level cache, and beyond what nothing is fetched ahead.
_WAYS, _PAGE_BYTES = 8, 4096


def weights_seconds(spec: ConvSpec, config: Config, machine: Machine) -> float:
    """The arithmetic of the tiles, the vectors that come from beyond the first-level cache, the images and the turned result."""
    turned, lanes, dot = bool(config.get("turned", 0)), config["lanes"], dot_of(config)
    merged = bool(config.get("merged", 0))
    rows = weights_rows(spec, turned=turned, merged=merged)
    along_groups = spec.made_channels == 1 and spec.groups > 1
    images = plain_size(spec)
    extent = spec.reduced_channels if turned else spec.groups if along_groups else spec.made_channels
    work = spec.macs * waste(extent, lanes) * waste(rows, config["pixels"]) * waste(images[-1], dot)
    rates, width = rates_of(machine), vector_width(spec, machine)
    along, across = _images(spec, turned=turned, wide=widens(spec) and dot == 1)
    cycles = _step_cycles(spec, config, machine, along, across) + LOOP_CYCLES * dot / max(1, images[-1])
    per_step = config["pixels"] * lanes / width / FMA_PORTS * dot
    seconds = work * cycles / per_step / peak(spec, machine)
    tiles = math.ceil(rows / config["pixels"])
    # Blocks of lanes, times tiles of all other taps, or shares of the tiles.
    tasks = math.ceil(extent / lanes) * (1 if along_groups else spec.groups)
    taps = math.prod(spec.kernel_size[:-1] if merged else spec.kernel_size)
    tasks *= math.ceil(tiles / config["share"]) if config.get("block", 0) else tiles * taps
    seconds *= math.ceil(tasks / machine.cores) * machine.cores / max(1, tasks)
    if along_groups:
        seconds += work / width * rates.line / rates.clock
    moved = along.bytes + across.bytes + spec.weight_bytes + 2 * _copied_bytes(spec, turned=turned, dot=dot)
    if dot > 1 and merged:
        seconds += FEW_TURNS * turning_seconds(round(across.bytes * residue_waste(spec)), machine)
    if config.get("packed", 0):
        moved += math.ceil(tiles / config["share"]) * 2 * along.bytes
    if across.bytes > machine.l2_bytes:
        # Each block of lanes passes by the other image.
        moved += (math.ceil(extent / lanes) - 1) * across.bytes
    return CALL_SECONDS + seconds + moving_seconds(moved, machine)


def _step_cycles(spec: ConvSpec, config: Config, machine: Machine, along: _Image, across: _Image) -> float:
    """Cycles in which a register tile passes by a pixel, or by those of a dot product, beyond those of its loop."""
    lanes, rows, block, dot = config["lanes"], config["pixels"], config.get("block", 0), dot_of(config)
    rates, images = rates_of(machine), plain_size(spec)
    vectors = math.ceil(lanes / vector_width(spec, machine))
    read = widened(spec) if widens(spec) and dot == 1 else spec
    cycles = step_cycles(read, machine, rows, vectors, not (spec.made_channels == 1 and spec.groups > 1), dot)
    if dot > 1:
        cycles += vectors / INTERLEAVE_PORTS + (BROADCAST_CYCLES * rows if vectors > 1 else 0.0)
    # Neither operand stays in the first-level cache: a line for each vector, and one that elements are broadcast from.
    panel = panel_bytes(spec, config)
    if panel > machine.l1d_bytes:
        cycles += EXPOSED_LINES * (vectors + 1) * rates.line
    if panel > machine.l2_bytes and not config.get("packed", 0):
        cycles += NARROW * rows * max(0.0, 1 - vectors / MAX_VECTORS)
    pixels = spec.batch * math.prod(images)
    if block:
        # Sums are kept and fetched between blocks.
        in_block = spec.batch * block * (dot if spec.ndim == 1 else 1) * math.prod(images[1:])
        cycles += 2 * dot * rows * vectors / max(1, in_block)
        pixels = min(pixels, in_block)
    rate = rates.last if panel <= machine.l3_bytes else rates.memory
    if not config.get("packed", 0):
        cycles += along.waits(lanes, pixels, machine) * vectors * machine.vector_bytes * rates.clock / rate
    if dot == 1:
        cycles += across.waits(rows, pixels, machine) * LINE_BYTES * rates.clock / rate
    return cycles


@dataclass(frozen=True)
class _Image:
    """Of an image as it is read, channels last: the bytes of all, of a pixel and of an element."""

    bytes: int
    pixel_bytes: int
    itemsize: int

    def waits(self, channels: int, pixels: int, machine: Machine) -> float:
        """How often so many channels of so many pixels are fetched anew, and waited for, where they have left the second-level
        cache before they are read again: lines a multiple of a power of two apart share few of its sets."""
        run = math.ceil(channels * self.itemsize / LINE_BYTES) * LINE_BYTES
        way = machine.l2_bytes // _WAYS
        sets = way // math.gcd(self.pixel_bytes, way)
        kept = min(_WAYS * sets, machine.l2_bytes // run)
        streams = self.pixel_bytes < _PAGE_BYTES and self.bytes <= machine.l3_bytes // 2
        return max(0.0, 1 - kept / max(1, pixels)) * (FAR_LINES if streams else FAR_PAGES)


def _images(spec: ConvSpec, *, turned: bool, wide: bool) -> tuple[_Image, _Image]:
    """The image along the lanes, and the one that elements are broadcast from, in the type of sums or their own."""
    itemsize = DTYPES[DTYPES[spec.dtype].accumulator if wide else spec.dtype].itemsize
    # A stride beyond the window leaves pixels out.
    read = spec.batch * math.prod(plain_size(spec)) * math.prod(spec.kernel_size)
    source, plain = image_bytes(spec)
    made, reduced = (
        _Image(min(size, read * channels * spec.groups * itemsize), channels * spec.groups * itemsize, itemsize)
        for size, channels in ((plain, spec.made_channels), (source, spec.reduced_channels))
    )
    return (reduced, made) if turned else (made, reduced)


def _copied_bytes(spec: ConvSpec, *, turned: bool, dot: int) -> int:
    """Bytes of images that are not channels last, or are padded where lanes or taps of a row need it, or whose pixels are brought
    next to each other, and of the gradient where its lanes are not."""
    source, plain = image_bytes(spec)
    copied = 0
    if dot > 1 and turned and spec.layout == "channels_last" and spec.padding_is_zero:
        copied += plain
    elif spec.layout == "channels_first" or widens(spec):
        copied += source + plain
    elif not spec.padding_is_zero and not turned and spec.reduced_channels < spec.kernel_size[-1]:
        copied += source
    if not turned:
        copied += SCATTERED * spec.weight_bytes
    elif math.prod(spec.kernel_size) > 1:
        copied += spec.weight_bytes
    return copied
