"""Sums in dot products: where the machine adds several products of narrow types at once, and the passes that make use of it."""

from __future__ import annotations

from collections.abc import Iterable

from convgen.machine import Machine
from convgen.passes.dot_products import DotProducts
from convgen.passes.pipeline import Pass
from convgen.passes.simplify import Simplify
from convgen.passes.tile import Tile
from convgen.spec import ConvSpec
from convgen.tuning.space import Config

# LLVM's features with an instruction for each type, and how many terms it adds.
_FEATURES = {"bfloat16": ("avx512bf16", 2), "int8": ("avx512vnni", 4)}
# The narrowest instructions have so many lanes.
FEWEST_LANES = 4


def adds_terms(machine: Machine, dtype: str) -> bool:
    """Whether the machine has an instruction for dot products of a type, as wide as its vectors."""
    feature, _ = _FEATURES.get(dtype, ("", 0))
    by_avx = dtype == "int8" and machine.has("avxvnni") and machine.vector_bytes <= 32
    return machine.has(feature) or by_avx


def admits_dots(spec: ConvSpec, machine: Machine) -> bool:
    """Whether the machine has an instruction for a problem's type that is accurate enough: that for bfloat16 takes denormals for
    zeros, which "strict" does not admit."""
    return adds_terms(machine, spec.dtype) and not (spec.dtype == "bfloat16" and spec.accuracy == "strict")


def dot_terms(spec: ConvSpec, machine: Machine) -> int:
    """How many terms one instruction adds for each lane; 0 where there is none for the problem, where lanes do not run along
    made channels, or where there is a single term a tap."""
    if not admits_dots(spec, machine) or spec.direction == "backward_weights" or spec.reduced_channels <= 1:
        return 0
    grouped_lanes = spec.made_channels == 1 and spec.groups > 1
    return 0 if grouped_lanes else _FEATURES[spec.dtype][1]


def is_even(spec: ConvSpec, terms: int) -> bool:
    """Whether the reduced channels are a multiple of so many terms, so that none has to be added."""
    return spec.reduced_channels % max(1, terms) == 0


def dot_of(config: Config) -> int:
    """How many terms a configuration adds at once."""
    return config.get("dot", 1)


def adds_bytes(spec: ConvSpec, config: Config) -> bool:
    """Whether products of bytes are added, of which the instruction takes those of the image as unsigned."""
    return dot_of(config) > 1 and spec.dtype == "int8" and not config.get("matrix", 0)


def with_dots(
    configs: Iterable[Config], spec: ConvSpec, machine: Machine, lanes: str, *, rounds_up: bool = False
) -> list[Config]:
    """The configurations that have enough ``lanes``, in dot products; none where there are no instructions for them, or where
    channels are missing unless copies are made that ``rounds_up``."""
    terms = dot_terms(spec, machine)
    if not terms or not (rounds_up or is_even(spec, terms)):
        return []
    return [config.and_also(dot=terms) for config in configs if config[lanes] >= FEWEST_LANES]


def dot_passes(reduction: str, terms: int, reduced: int) -> tuple[Pass, ...]:
    """Makes so many neighbouring iterations of the loop ``reduction``, over ``reduced`` channels, one dot product."""
    if terms == 1:
        return ()
    if reduced <= terms:
        return (DotProducts(reduction),)
    block, place = f"{reduction}_terms", f"{reduction}_term"
    return (
        Tile(reduction, terms, block, place),
        Simplify(keep_unit_loops=True),
        DotProducts(place),
    )
