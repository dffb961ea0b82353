"""Sums in dot products: where the machine adds several products of narrow types at once, and the passes that make use of it."""

from __future__ import annotations

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


def dot_terms(spec: ConvSpec, machine: Machine) -> int:
    """How many terms one instruction adds for each lane; 0 where the machine has none for the type, where the reduced channels
    are not a multiple of them, or where lanes do not run along made channels.

    Those for bfloat16 take denormals for zeros, which "strict" does not admit.
    """
    feature, terms = _FEATURES.get(spec.dtype, ("", 0))
    if not terms or not machine.has(feature) or spec.direction == "backward_weights":
        return 0
    if spec.dtype == "bfloat16" and spec.accuracy == "strict":
        return 0
    grouped_lanes = spec.made_channels == 1 and spec.groups > 1
    return 0 if grouped_lanes or not spec.reduced_channels or spec.reduced_channels % terms else terms


def dot_of(config: Config) -> int:
    """How many terms a configuration adds at once."""
    return config.get("dot", 1)


def adds_bytes(spec: ConvSpec, config: Config) -> bool:
    """Whether products of bytes are added, of which the instruction takes those of the image as unsigned."""
    return dot_of(config) > 1 and spec.dtype == "int8"


def with_dots(configs: list[Config], spec: ConvSpec, machine: Machine, lanes: str) -> list[Config]:
    """The configurations that have enough ``lanes``, in dot products; none where there are no instructions for them."""
    terms = dot_terms(spec, machine)
    return [config.and_also(dot=terms) for config in configs if terms and config[lanes] >= FEWEST_LANES]


def dot_passes(reduction: str, terms: int) -> tuple[Pass, ...]:
    """Makes so many neighbouring iterations of the loop ``reduction`` one dot product."""
    if terms == 1:
        return ()
    block, place = f"{reduction}_terms", f"{reduction}_term"
    return (Tile(reduction, terms, block, place), Simplify(keep_unit_loops=True), DotProducts(place))
