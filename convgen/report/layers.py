"""The facts of a report: every layer's explanation, its place under the roofline, what other libraries take, and its source."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from convgen.bench.roofline import Position, Roofline
from convgen.descriptor import format_descriptor
from convgen.driver import lower, source_of
from convgen.errors import OptionError
from convgen.explanation import Explanation, explain
from convgen.machine import Machine
from convgen.spec import ConvSpec


@dataclass(frozen=True)
class Peer:
    """What another library took, seconds a call of its fastest variant."""

    name: str
    variant: str
    seconds: float


@dataclass(frozen=True)
class Comparison:
    """A problem's benchmark: convgen's seconds and the peers', the fastest first."""

    seconds: float
    peers: tuple[Peer, ...]

    @property
    def ratio(self) -> float:
        """The best peer's time over convgen's."""
        return self.peers[0].seconds / self.seconds


@dataclass(frozen=True)
class ReportedLayer:
    """One distinct problem: its first name, how often it occurs, and all that is told of it."""

    name: str
    count: int
    problem: str
    explanation: Explanation
    position: Position | None
    comparison: Comparison | None
    source: str


@dataclass(frozen=True)
class Totals:
    """All layers, repeated ones included: seconds of those that are measured, and the geometric mean of the ratios to the best
    peers over distinct problems, if there are any."""

    layers: int
    problems: int
    measured: int
    seconds: float
    ratio: float | None


def report_layer(
    name: str,
    count: int,
    spec: ConvSpec,
    machine: Machine,
    threads: int,
    roofline: Roofline,
    comparisons: Mapping[str, Comparison],
) -> ReportedLayer:
    """All there is to tell of a problem; raises what choosing and lowering raise."""
    found = explain(spec, machine, threads)
    seconds = found.seconds
    return ReportedLayer(
        name or format_descriptor(spec),
        count,
        format_descriptor(spec),
        found,
        roofline.position(spec, seconds) if seconds else None,
        comparisons.get(format_descriptor(spec.replace(epilogue=()))),
        source_of(found.plan, lower(found.plan, machine)),
    )


def totals(layers: Sequence[ReportedLayer]) -> Totals:
    """The sums."""
    ratios = [layer.comparison.ratio for layer in layers if layer.comparison is not None]
    measured = [layer for layer in layers if layer.position is not None]
    return Totals(
        sum(layer.count for layer in layers),
        len(layers),
        len(measured),
        sum(layer.count * layer.position.seconds for layer in measured if layer.position is not None),
        math.exp(statistics.fmean(map(math.log, ratios))) if ratios else None,
    )


def read_comparisons(path: Path) -> dict[str, Comparison]:
    """The comparisons in a file that ``convgen bench -o`` wrote, by the problem's descriptor; raises OptionError."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise OptionError(f"bench={str(path)!r} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise OptionError(f"bench={str(path)!r} is not JSON: {error}") from error
    match content:
        case {"layers": [*layers]}:
            found = [_comparison(layer, path) for layer in layers]
            return {problem: comparison for problem, comparison in found if comparison.peers}
        case _:
            raise OptionError(f"bench={str(path)!r} has no layers; allowed: the JSON that `convgen bench -o` writes")


def _comparison(layer: object, path: Path) -> tuple[str, Comparison]:
    match layer:
        case {"problem": str(problem), "own": {"seconds": float(seconds)}, "peers": [*peers]} if seconds > 0:
            fastest: dict[str, Peer] = {}
            for peer in sorted((_peer(peer, path) for peer in peers), key=lambda peer: peer.seconds):
                fastest.setdefault(peer.name, peer)
            return problem, Comparison(seconds, tuple(fastest.values()))
        case _:
            raise OptionError(f"bench={str(path)!r} has a layer that is not valid: {str(layer)[:80]}")


def _peer(peer: object, path: Path) -> Peer:
    match peer:
        case {"peer": str(name), "variant": str(variant), "seconds": float(seconds)}:
            return Peer(name, variant, seconds)
        case _:
            raise OptionError(f"bench={str(path)!r} has a peer that is not valid: {str(peer)[:80]}")
