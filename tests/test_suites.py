from __future__ import annotations

import math

import pytest

from convgen.errors import SpecError
from convgen.suites import suite, suite_names


# Weights are the published parameter counts without biases, norms and linear layers; MACs those of the convolutions.
@pytest.mark.parametrize(
    ("name", "convolutions", "distinct", "weights", "gmacs"),
    [
        ("resnet50", 53, 23, 25_557_032 - 2_049_000 - 53_120, 4.087),
        ("vgg16", 13, 9, 14_714_688 - 4_224, 15.347),
        ("mobilenet_v2", 52, 30, 3_504_872 - 1_281_000 - 34_112, 0.299),
        ("convnext_t", 58, 16, 28_589_128 - 769_000 - 41_184 - 22_944, 4.455),
        ("unet", 23, 23, 31_030_658 - 6_850, 150.428),
        ("alexnet", 5, 5, 2_469_696 - 1_152, 0.656),
        ("googlenet", 57, 49, 6_998_552 - 1_025_000 - 7_280, 1.582),
        ("densenet121", 120, 66, 7_978_856 - 1_025_000 - 83_648, 2.833),
    ],
)
def test_networks_have_their_published_size(
    name: str, convolutions: int, distinct: int, weights: int, gmacs: float
) -> None:
    layers = suite(name)
    assert sum(layer.count for layer in layers) == convolutions
    assert len({layer.spec for layer in layers}) == len(layers) == distinct
    assert len({layer.name for layer in layers}) == len(layers)
    assert sum(layer.count * math.prod(layer.spec.weight_shape) for layer in layers) == weights
    assert sum(layer.count * layer.spec.macs for layer in layers) / 1e9 == pytest.approx(gmacs, abs=1e-3)


def test_every_suite_is_covered_above() -> None:
    parameters = test_networks_have_their_published_size.pytestmark[0].args[1]  # type: ignore[attr-defined]
    assert {case[0] for case in parameters} == set(suite_names())


def test_unet_ends_as_in_the_paper() -> None:
    head = suite("unet")[-1].spec
    assert (head.in_channels, head.output_size) == (64, (388, 388))
    assert sum(layer.count for layer in suite("unet") if layer.spec.transposed) == 4


def test_resnet_strides_in_the_middle_of_a_block() -> None:
    strided = [layer.spec.kernel_size for layer in suite("resnet50") if layer.spec.stride == (2, 2)]
    assert strided.count((3, 3)) == 3
    assert strided.count((1, 1)) == 3  # the shortcuts


def test_batch_layout_and_dtype_reach_every_layer() -> None:
    for layer in suite("mobilenet_v2", batch=3, layout="channels_first", dtype="bfloat16"):
        assert (layer.spec.batch, layer.spec.layout, layer.spec.dtype) == (3, "channels_first", "bfloat16")
    assert {layer.spec.layout for layer in suite("mobilenet_v2")} == {"channels_last"}


def test_bad_arguments() -> None:
    with pytest.raises(SpecError, match=r"'resnet51'.*resnet50.*densenet121"):
        suite("resnet51")
    with pytest.raises(SpecError, match="batch=-1"):
        suite("vgg16", batch=-1)
