"""im2col_gemm: each task writes the windows of its pixels next to each other, and the rest is a product of matrices.

The matrix of windows (Chellapilla, Puri and Simard, "High performance convolutional neural networks for document processing",
2006) exists for one task at a time, in local memory: [pixel][tap, reduced channel] in channels_last and [tap, reduced
channel][pixel] in channels_first, with the padding in place. The reduction is then one long loop, however few channels there are.
With ``whole=1`` it is made at once for all tasks, in the call's workspace: no window is written twice where tasks share pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial, reduce

from convgen.dtypes import DTYPES
from convgen.ir.build import add, mul
from convgen.ir.nodes import Index, Int, Var
from convgen.ir.rewrite import loops, reads, substitute
from convgen.machine import Machine
from convgen.nests.build import unfolded_problem
from convgen.nests.classes import gather_classes, is_one_class
from convgen.nests.nest import Nest, axis_letters, spatial_axes
from convgen.passes.collapse import Collapse
from convgen.passes.copy_in import CopiedAxis, CopyIn
from convgen.passes.expand_padding import ExpandPadding
from convgen.passes.parallelize import Parallelize
from convgen.passes.pipeline import Pass
from convgen.passes.tile import Tile
from convgen.passes.vectorize import Vectorize
from convgen.spec import ConvSpec
from convgen.strategies.base import Schedule
from convgen.strategies.gemm import (
    Blocking,
    Reading,
    fewest_pixels,
    gemm_schedule,
    part_of,
    pixel_extents,
    pixel_position,
)
from convgen.strategies.gemm_cost import gemm_refusal, gemm_seconds, is_matrix
from convgen.strategies.gemm_tiles import blockings
from convgen.strategies.reference import sum_error_bound
from convgen.strategies.widening import wide_dtype
from convgen.tuning.cost import moving_seconds, pixels_made, vector_width
from convgen.tuning.space import Config

# From so many channels on, windows are written in vectors.
MIN_LANES = 4
# What writing an element, or a vector, of the matrix of windows costs.
ELEMENT_CYCLES = 3.5


@dataclass(frozen=True)
class Im2colGemm:
    """Register tiles of ``made`` channels times ``pixels``; see gemm.Blocking."""

    name: str = "im2col_gemm"

    def refusal(self, spec: ConvSpec, machine: Machine) -> str | None:
        if is_matrix(spec):
            return "windows of one pixel are the image itself"
        if spec.layout == "channels_first" and not is_one_class(unfolded_problem(spec)):
            return f"stride={spec.stride} puts neighbouring pixels of a channels_first result into different classes"
        return gemm_refusal(spec)

    def default(self, spec: ConvSpec, machine: Machine) -> Config:
        return self.space(spec, machine)[0]

    def space(self, spec: ConvSpec, machine: Machine) -> tuple[Config, ...]:
        problem = unfolded_problem(spec)
        tiled = blockings(problem, machine, _terms(spec), fewest_pixels(problem), copied=True)
        found = (config.and_also(whole=whole) for whole in ((0,) if _many(spec) else (0, 1)) for config in tiled)
        return tuple(sorted(found, key=lambda config: self.predicted_seconds(spec, config, machine)))

    def error_bound(self, spec: ConvSpec) -> float:
        return sum_error_bound(spec)

    def predicted_seconds(self, spec: ConvSpec, config: Config, machine: Machine) -> float:
        taps = spec.macs // max(1, spec.groups * spec.reduced_channels * spec.made_channels * pixels_made(spec))
        copied = pixels_made(spec) * max(1, taps) * spec.groups
        if spec.layout == "channels_last" and spec.reduced_channels >= MIN_LANES:
            copied *= math.ceil(spec.reduced_channels / vector_width(spec, machine))
        else:
            copied *= spec.reduced_channels
        shares = math.ceil(spec.made_channels / (config["made"] * config["panels"]))
        seconds = gemm_seconds(
            spec,
            config,
            machine,
            copied=copied * (1 if config["whole"] else shares),
            copy_cycles=ELEMENT_CYCLES,
            loops=1.0,
        )
        if config["whole"]:
            matrix = pixels_made(spec) * spec.groups * max(1, taps) * spec.reduced_channels
            seconds += moving_seconds(matrix * (1 + shares) * DTYPES[spec.dtype].itemsize, machine)
        return seconds

    def schedule(self, spec: ConvSpec, config: Config, machine: Machine) -> Schedule:
        values = dict(config.values)
        whole = bool(values.pop("whole"))
        return gemm_schedule(spec, Blocking(**values), partial(_reading, whole=whole), machine)


def _many(spec: ConvSpec) -> bool:
    """Whether the result falls into residue classes."""
    return len(gather_classes(unfolded_problem(spec))) > 1


def _terms(spec: ConvSpec) -> int:
    """How many terms the loop that is blocked has."""
    return spec.reduced_channels * (1 if _many(spec) else math.prod(spec.kernel_size))


def _reading(spec: ConvSpec, nest: Nest, blocking: Blocking, *, whole: bool) -> Reading:
    letters = axis_letters(spec.ndim)
    problem = unfolded_problem(spec)
    source = next(read for stage in nest.program.stages for read in reads(stage.body) if read.buffer == nest.source)
    part = part_of(problem, blocking)
    taps = [max(axes[axis].taps for axes in gather_classes(problem)) for axis in range(spec.ndim)]
    window = [
        CopiedAxis(f"k{letter}", Int(count), Var(f"k{letter}")) for letter, count in zip(letters, taps, strict=True)
    ]
    if nest.channels.has_reduced:
        window.append(CopiedAxis("ic", Int(nest.channels.reduced), Var("ic")))
    images = _images(nest) if whole else ()
    if whole:
        pixels = CopiedAxis("px", reduce(mul, pixel_extents(problem)), add(part.first, part.place))
        position = pixel_position(problem, Var("px"))
    else:
        pixels = CopiedAxis("px", Int(blocking.strips * blocking.pixels), part.place, part.count)
        position = pixel_position(problem, add(part.first, "px"))
    pixel: dict[str, Index] = {f"o{letter}": place for letter, place in zip(letters, position, strict=True)}
    axes = (*images, pixels, *window) if spec.layout == "channels_last" else (*images, *window, pixels)
    origin = tuple(substitute(index, pixel) for index in source.index)
    order = tuple(axis.label for axis in (*images, pixels, *window))
    summed = tuple(axis.label for axis in window)
    spatial = spatial_axes(spec, len(nest.program.buffer(nest.source).shape))
    merge = len(summed) > 1 and not _many(spec)
    passes: tuple[Pass, ...] = (
        CopyIn(nest.source, "windows", None if whole else "share", axes, origin, order, wide_dtype(spec)),
        *(
            (Parallelize("copy_windows", tuple(f"windows_{axis.label}" for axis in (*images, pixels))),)
            if whole
            else ()
        ),
        ExpandPadding(((nest.source, spatial),)),
        *_copy_vectors(spec, nest),
        *((Collapse(summed, "k"),) if merge else ()),
    )
    return Reading(passes, "k" if merge else summed[-1])


def _images(nest: Nest) -> tuple[CopiedAxis, ...]:
    """The axes of the images of all groups."""
    found = {loop.var: loop.extent for stage in nest.program.stages for loop in loops(stage.body)}
    names = ("g", "n") if nest.channels.has_groups else ("n",)
    return tuple(CopiedAxis(name, found[name], Var(name)) for name in names)


def _copy_vectors(spec: ConvSpec, nest: Nest) -> tuple[Pass, ...]:
    """Channels that are neighbours in both places are copied in vectors."""
    channels = nest.channels.reduced
    if spec.layout != "channels_last" or channels < MIN_LANES:
        return ()
    lanes = min(64, 1 << (channels.bit_length() - 1))
    return (Tile("windows_ic", lanes, "windows_at", "windows_lane"), Vectorize("windows_lane"))
