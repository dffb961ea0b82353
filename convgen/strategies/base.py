"""The questions that every strategy answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from convgen.machine import Machine
from convgen.nests.build import unfolded_problem
from convgen.nests.classes import reads_nothing
from convgen.nests.nest import Nest
from convgen.passes.pipeline import Pass
from convgen.spec import ConvSpec
from convgen.transforms.split import Algorithms
from convgen.tuning.space import Config


@dataclass(frozen=True)
class Schedule:
    """A naive nest and the passes that turn it into the strategy's program."""

    nest: Nest
    passes: tuple[Pass, ...]


class Strategy(Protocol):
    """One way to compute a convolution.

    ``refusal`` gives the reason why a problem cannot be computed this way, or None. ``default`` is found in constant time and
    is always valid; ``space`` holds it and all others worth measuring, the most promising first. ``error_bound`` is the largest
    relative L2 error on normal data. ``predicted_seconds`` estimates a call on one thread with packed weights; only ratios,
    also to other strategies', mean anything. ``schedule`` builds the program.
    """

    @property
    def name(self) -> str: ...

    def refusal(self, spec: ConvSpec, machine: Machine) -> str | None: ...

    def default(self, spec: ConvSpec, machine: Machine) -> Config: ...

    def space(self, spec: ConvSpec, machine: Machine) -> tuple[Config, ...]: ...

    def error_bound(self, spec: ConvSpec) -> float: ...

    def predicted_seconds(self, spec: ConvSpec, config: Config, machine: Machine) -> float: ...

    def schedule(self, spec: ConvSpec, config: Config, machine: Machine) -> Schedule: ...


@runtime_checkable
class Inexact(Protocol):
    """What a strategy answers besides that does not always sum the products themselves: which fast algorithms it takes, one for
    each spatial axis, or into what pieces it splits the factors; nothing for plain sums.

    Its numbers are held to what these make of integers and of rounding errors.
    """

    def algorithms(self, spec: ConvSpec, config: Config) -> Algorithms: ...


def algorithms_of(strategy: Strategy, spec: ConvSpec, config: Config) -> Algorithms:
    """The fast algorithms that a configuration takes; none where it sums the products themselves."""
    return strategy.algorithms(spec, config) if isinstance(strategy, Inexact) else ()


def windows_refusal(spec: ConvSpec) -> str | None:
    """Why there is nothing to compute where no result has a tap: each lies between those that the strides reach."""
    if spec.direction != "backward_weights" and reads_nothing(unfolded_problem(spec)):
        return f"stride={spec.stride} leaves no window a pixel"
    return None
