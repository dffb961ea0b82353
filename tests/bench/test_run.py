"""A comparison with stub peers: who takes part, who is caught, and what is refused."""

from __future__ import annotations

import dataclasses
import os
import time

import numpy as np
import pytest

from convgen.bench import run
from convgen.bench.contender import Contender, Job, Peer
from convgen.bench.own import Choice
from convgen.bench.peers import load_peer
from convgen.bench.results import LayerResult
from convgen.bench.roofline import Roofline
from convgen.bench.run import BenchOptions, Layer, run_benchmark
from convgen.errors import MissingDependencyError, OptionError
from convgen.spec import ConvSpec
from tests.bench.samples import OraclePeer

SPEC = ConvSpec(
    batch=1, in_channels=2, out_channels=3, spatial_size=(5, 4), kernel_size=3, padding=1, layout="channels_last"
)
LAYERS = [Layer("only", 2, SPEC)]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "measure_roofline", lambda *_: Roofline(1e11, ((1 << 10, 1e10), (1 << 20, 1e10))))
    monkeypatch.setattr(run, "_SETTLE_SECONDS", 0.0)


def _against(monkeypatch: pytest.MonkeyPatch, *peers: OraclePeer) -> BenchOptions:
    known = {peer.name: peer for peer in peers}

    def load(name: str) -> Peer:
        return known[name] if name in known else load_missing(name)

    def load_missing(name: str) -> Peer:
        raise MissingDependencyError(f"{name} cannot be imported: no module")

    monkeypatch.setattr(run, "load_peer", load)
    return BenchOptions(("torch", "jax"), 1, Choice("reference"), 0.0)


def test_every_variant_is_measured_and_held_against_the_oracle(monkeypatch: pytest.MonkeyPatch) -> None:
    options = _against(monkeypatch, OraclePeer("torch"), OraclePeer("jax"))
    seen: list[LayerResult] = []
    report = run_benchmark("tiny", LAYERS, options, seen.append)
    (layer,) = report.layers
    assert [each.layer for each in seen] == ["only"]
    assert (layer.count, layer.strategy, layer.problem.startswith("mb1_ic2oc3")) == (2, "reference", True)
    assert [(t.peer, t.variant) for t in layer.peers] == [
        (peer, layout) for peer in ("torch", "jax") for layout in ("channels_first", "channels_last")
    ]
    assert all(t.seconds > 0 and t.error < 1e-6 for t in (layer.own, *layer.peers))
    assert (layer.flop_seconds, layer.byte_seconds) == (SPEC.flops / 1e11, SPEC.bytes_moved / 1e10)


def test_a_contender_that_computes_something_else_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    def one_wrong(array: np.ndarray) -> np.ndarray:
        changed = array.copy()
        changed[0, 0, 0, 0] += 1.0
        return changed

    wrong = OraclePeer("torch", change=one_wrong)
    misshapen = OraclePeer("jax", change=lambda array: array[:, :, :-1])
    report = run_benchmark("tiny", LAYERS, _against(monkeypatch, wrong, misshapen))
    assert report.layers[0].peers == ()
    reasons = [(refusal.peer, refusal.reason) for refusal in report.layers[0].refusals]
    assert [peer for peer, _ in reasons] == ["torch", "torch", "jax", "jax"]
    assert "wrong result, relative L2 error" in reasons[0][1]
    assert "shape (1, 3, 4, 4) instead of (1, 3, 5, 4)" in reasons[2][1]


def test_nan_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    report = run_benchmark("tiny", LAYERS, _against(monkeypatch, OraclePeer("torch", change=lambda a: a * np.nan)))
    assert "relative L2 error nan" in report.layers[0].refusals[0].reason


def test_missing_and_refusing_peers_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    report = run_benchmark("tiny", LAYERS, _against(monkeypatch, OraclePeer("jax", refusal="not today")))
    assert [(refusal.peer, refusal.reason) for refusal in report.missing] == [
        ("torch", "torch cannot be imported: no module")
    ]
    assert [(refusal.peer, refusal.reason) for refusal in report.layers[0].refusals] == [("jax", "not today")]
    assert report.setting.peers == ("jax",)


def test_same_layout_holds_peers_to_the_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    _against(monkeypatch, OraclePeer("torch"))
    report = run_benchmark("tiny", LAYERS, BenchOptions(("torch",), 1, Choice("reference"), 0.0, same_layout=True))
    assert [t.variant for t in report.layers[0].peers] == ["channels_last"]


def test_unknown_peers_and_bad_options() -> None:
    with pytest.raises(
        OptionError, match="against='tensorflow' is unknown; allowed: torch, onnxruntime, openvino, jax"
    ):
        run_benchmark("tiny", LAYERS, BenchOptions(("tensorflow",), 1))
    with pytest.raises(OptionError, match="'torch' twice"):
        run_benchmark("tiny", LAYERS, BenchOptions(("torch", "torch"), 1))
    with pytest.raises(OptionError, match="none is selected"):
        run_benchmark("tiny", [], BenchOptions((), 1))
    with pytest.raises(OptionError, match="strategy='direct' cannot be tuned"):
        run_benchmark("tiny", LAYERS, BenchOptions((), 1, Choice("direct", 1.0)))
    with pytest.raises(OptionError, match="clock='sun' is unknown"):
        run_benchmark("tiny", LAYERS, BenchOptions((), 1, clock="sun"))
    with pytest.raises(OptionError, match=r"clock='cpu'.*threads=2"):
        run_benchmark("tiny", LAYERS, BenchOptions((), 2, clock="cpu"))
    with pytest.raises(OptionError, match="threads=99999"):
        run_benchmark("tiny", LAYERS, BenchOptions((), 99999))
    with pytest.raises(OptionError, match="'nobody' is unknown"):
        load_peer("nobody")


def test_the_processors_clock_does_not_count_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    class Waiting(OraclePeer):
        def contenders(self, job: Job) -> list[Contender]:
            (one, *_) = super().contenders(job)
            return [dataclasses.replace(one, call=lambda: time.sleep(0.02))]

    _against(monkeypatch, Waiting("torch"))
    options = BenchOptions(("torch",), 1, Choice("reference"), 0.0)
    seconds = {}
    for clock in ("wall", "cpu"):
        report = run_benchmark("tiny", LAYERS, dataclasses.replace(options, clock=clock))
        seconds[clock] = report.layers[0].peers[0].seconds
    assert seconds["cpu"] < 0.01 < 0.02 <= seconds["wall"]


def test_processors_are_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.sched_getaffinity(0)
    during: list[set[int]] = []
    options = _against(monkeypatch, OraclePeer("torch"))
    run_benchmark("tiny", LAYERS, options, lambda _: during.append(os.sched_getaffinity(0)))
    assert [len(processors) for processors in during] == [1]
    assert os.sched_getaffinity(0) == before
