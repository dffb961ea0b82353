"""Results with fixed numbers, and peers that compute with the oracle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from convgen.bench.contender import Array, Contender, Job, from_layout, to_layout
from convgen.bench.results import LayerResult, Refusal, Report, Setting, Timing
from convgen.errors import NotApplicable
from convgen.oracle import reference


def operands(job: Job) -> tuple[Array, Array]:
    """The job's operands in the problem's own layout."""
    images = job.spec.direction == "backward_weights"
    return to_layout(job.first, job.spec.layout), to_layout(job.second, job.spec.layout) if images else job.second


def expected(job: Job) -> Array:
    """What every contender must return."""
    result = reference(job.spec, *operands(job))
    return result if job.spec.direction == "backward_weights" else from_layout(result, job.spec.layout)


def unchanged(array: Array) -> Array:
    return array


@dataclass(frozen=True)
class OraclePeer:
    """A library that returns the oracle's result, changed, or refuses."""

    name: str
    change: Callable[[Array], Array] = unchanged
    refusal: str = ""

    def version(self) -> str:
        return "1.0"

    def contenders(self, job: Job) -> list[Contender]:
        if self.refusal:
            raise NotApplicable(self.refusal)
        result = self.change(expected(job).astype(np.float32))
        return [Contender(self.name, layout, lambda: result, lambda: result) for layout in job.layouts]


def timing(peer: str, seconds: float, variant: str = "channels_last") -> Timing:
    return Timing(peer, variant, seconds, seconds, seconds, 2e-7)


def layer(name: str, own: float, *peers: Timing, count: int = 1, byte_seconds: float = 0.5e-3) -> LayerResult:
    """A layer of 10^8 operations, which take 1 ms at the peak, and 10^6 bytes."""
    return LayerResult(
        layer=name,
        count=count,
        problem="mb1_ic4oc8_ih5oh5kh3ph1",
        strategy="direct",
        config="pixels=6",
        origin="heuristic",
        flops=10**8,
        bytes_moved=10**6,
        flop_seconds=1e-3,
        byte_seconds=byte_seconds,
        packing_seconds=1e-5,
        own=timing("convgen", own),
        peers=peers,
        refusals=() if peers else (Refusal("torch", "it has no such thing"),),
    )


def report() -> Report:
    """Two layers, one won by 2 (twice in the network) and one lost by half, and one that nobody else does."""
    setting = Setting(
        "tiny",
        1,
        ("torch", "jax"),
        (("date", "2000-01-01"), ("threads", "1")),
        1e11,
        ((1 << 15, 6e10), (1 << 26, 1e10)),
    )
    layers = (
        layer(
            "won", 2e-3, timing("torch", 5e-3), timing("torch", 4e-3, "channels_first"), timing("jax", 8e-3), count=2
        ),
        layer("lost", 4e-3, timing("torch", 4e-3), timing("jax", 2e-3), byte_seconds=2e-3),
        layer("alone", 1e-3),
    )
    return Report(setting, (Refusal("openvino", "openvino cannot be imported"),), layers)
