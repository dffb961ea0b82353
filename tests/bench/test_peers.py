"""Every peer computes what the oracle does, in every direction and layout that it takes."""

from __future__ import annotations

import numpy as np
import pytest

from convgen.bench.contender import Job, forward_form
from convgen.bench.own import Choice, compiled, own_contender, packing_seconds
from convgen.bench.peers import PEER_NAMES, load_peer
from convgen.errors import MissingDependencyError, NotApplicable
from convgen.oracle import reference
from convgen.spec import LAYOUTS, ConvSpec
from convgen.verify import computes_the_same, integer_operands, relative_l2
from tests.bench.samples import expected

PROBLEMS = {
    "plain": ConvSpec(batch=2, in_channels=3, out_channels=4, spatial_size=(7, 5), kernel_size=3, padding=1),
    "strided": ConvSpec(batch=1, in_channels=4, out_channels=6, spatial_size=(8, 7), kernel_size=(3, 2), stride=(2, 3)),
    "dilated": ConvSpec(batch=1, in_channels=2, out_channels=2, spatial_size=(9, 9), kernel_size=3, dilation=2),
    "depthwise": ConvSpec(batch=1, in_channels=4, out_channels=8, spatial_size=(6, 6), kernel_size=3, padding=1, groups=4),
    "line": ConvSpec(batch=2, in_channels=3, out_channels=4, spatial_size=(12,), kernel_size=4, stride=2, padding=1),
    "volume": ConvSpec(batch=1, in_channels=2, out_channels=3, spatial_size=(4, 5, 6), kernel_size=2, padding=1),
    "transposed": ConvSpec(
        batch=1, in_channels=4, out_channels=6, spatial_size=(4, 5), kernel_size=3, stride=2, padding=1,
        output_padding=1, groups=2, transposed=True,
    ),
}  # fmt: skip


def job_of(spec: ConvSpec) -> Job:
    first, second = integer_operands(spec.replace(layout="channels_first"), np.random.default_rng(0)).main
    return Job(spec, first, second, 1, LAYOUTS)


@pytest.mark.parametrize("direction", ["forward", "backward_data", "backward_weights"])
@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("name", PEER_NAMES)
def test_peers_agree_with_the_oracle(name: str, problem: str, direction: str) -> None:
    try:
        peer = load_peer(name)
    except MissingDependencyError as error:
        pytest.skip(str(error))
    assert (peer.name, bool(peer.version())) == (name, True)
    job = job_of(PROBLEMS[problem].replace(direction=direction, layout="channels_last"))
    if direction == "backward_weights" and name in ("onnxruntime", "openvino"):
        with pytest.raises(NotApplicable, match="no weight gradient"):
            peer.contenders(job)
        return
    contenders = peer.contenders(job)
    want = expected(job)
    for contender in contenders:
        result = contender.result()
        assert result.shape == want.shape
        assert computes_the_same(relative_l2(result, want), job.spec), contender.variant
        contender.call()
    assert len({contender.variant for contender in contenders}) == len(contenders)


def test_torch_packs_weights_beforehand() -> None:
    peer = load_peer("torch")
    variants = [contender.variant for contender in peer.contenders(job_of(PROBLEMS["plain"]))]
    assert {"channels_last", "channels_first"} <= set(variants)


@pytest.mark.parametrize("direction", ["forward", "backward_data", "backward_weights"])
def test_convgen_as_a_contender(direction: str) -> None:
    for layout in LAYOUTS:
        job = job_of(PROBLEMS["strided"].replace(direction=direction, layout=layout))
        op = compiled(job, Choice("reference"))
        np.testing.assert_array_equal(own_contender(op, job).result(), expected(job))
        assert (packing_seconds(op, job) is None) == (direction == "backward_weights")


@pytest.mark.parametrize("problem", PROBLEMS)
def test_a_data_gradient_is_a_forward_problem(problem: str) -> None:
    spec = PROBLEMS[problem].replace(direction="backward_data")
    operands = integer_operands(spec, np.random.default_rng(0)).main
    np.testing.assert_array_equal(reference(forward_form(spec), *operands), reference(spec, *operands))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"padding_mode": "reflect"}, "padding mode reflect"),
        ({"padding": ((-1, 0), (0, 0))}, "cropping"),
        ({"padding": ((1, 0), (0, 0))}, "both ends"),
        ({"dtype": "int8"}, "int8"),
    ],
)
def test_what_torch_is_not_compared_on(change: dict, reason: str) -> None:
    with pytest.raises(NotApplicable, match=reason):
        load_peer("torch").contenders(job_of(PROBLEMS["plain"].replace(**change)))
