"""What a benchmark has found, as data."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """One contender: seconds a call (the median and the quartiles) and its relative L2 error against float64."""

    peer: str
    variant: str
    seconds: float
    low: float
    high: float
    error: float


@dataclass(frozen=True)
class Refusal:
    """Why a peer, or a variant of one, was not timed."""

    peer: str
    reason: str


@dataclass(frozen=True)
class LayerResult:
    """One distinct problem: how often it occurs, what convgen chose, and what everybody took.

    ``flop_seconds`` and ``byte_seconds`` are the times of the direct algorithm's arithmetic and of the bytes that must move at
    the measured rates; ``packing_seconds`` is convgen's time to pack the weights.
    """

    layer: str
    count: int
    problem: str
    strategy: str
    config: str
    origin: str
    flops: int
    bytes_moved: int
    flop_seconds: float
    byte_seconds: float
    packing_seconds: float | None
    own: Timing
    peers: tuple[Timing, ...]
    refusals: tuple[Refusal, ...] = ()

    @property
    def best(self) -> Timing | None:
        """The fastest of all peers and variants; None if all refused."""
        return min(self.peers, key=lambda timing: timing.seconds, default=None)

    @property
    def ratio(self) -> float | None:
        """The best peer's time over convgen's: above 1 convgen is faster."""
        return self.best.seconds / self.own.seconds if self.best else None

    @property
    def is_bound_by_memory(self) -> bool:
        """Whether moving the bytes takes longer than the arithmetic at the measured rates."""
        return self.byte_seconds > self.flop_seconds

    @property
    def roofline_fraction(self) -> float:
        """The least time that the roofline allows the direct algorithm over convgen's; of the copy bandwidth, if bound by memory.

        Algorithms with fewer multiplications may exceed 1.
        """
        return max(self.flop_seconds, self.byte_seconds) / self.own.seconds

    def of_peer(self, name: str) -> Timing | None:
        """A peer's fastest variant."""
        return min((t for t in self.peers if t.peer == name), key=lambda timing: timing.seconds, default=None)

    def gflops(self, timing: Timing) -> float:
        """10^9 floating-point operations of the direct algorithm a second."""
        return self.flops / timing.seconds / 1e9


@dataclass(frozen=True)
class Summary:
    """All layers with at least one peer: distinct problems count once, ``network_ratio`` compares the sums with repetition."""

    geometric_mean: float
    worst: float
    worst_layer: str
    losses: int
    compared: int
    network_ratio: float


@dataclass(frozen=True)
class Setting:
    """What was measured where: one (name, value) for each line of the header."""

    suite: str
    threads: int
    peers: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    peak: float
    copies: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Report:
    """A benchmark's setting, the peers that are missing, and its layers."""

    setting: Setting
    missing: tuple[Refusal, ...]
    layers: tuple[LayerResult, ...]

    def summary(self) -> Summary | None:
        """The ratios in one; None if nothing was compared."""
        return summarise(self.layers)


def summarise(layers: Sequence[LayerResult]) -> Summary | None:
    """The summary of some layers; None if none has a peer."""
    compared = [(layer.ratio, layer) for layer in layers if layer.ratio is not None]
    if not compared:
        return None
    worst, layer = min(compared, key=lambda pair: pair[0])
    own = sum(each.count * each.own.seconds for _, each in compared)
    return Summary(
        geometric_mean=math.exp(statistics.fmean(math.log(ratio) for ratio, _ in compared)),
        worst=worst,
        worst_layer=layer.layer,
        losses=sum(ratio < 1 for ratio, _ in compared),
        compared=len(compared),
        network_ratio=sum(each.count * ratio * each.own.seconds for ratio, each in compared) / own,
    )
