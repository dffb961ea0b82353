from __future__ import annotations

import itertools
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
        # The paper of the 3D U-Net counts 19,069,955 parameters.
        ("unet3d", 18, 18, 19_069_955 - 2_339, 30.588),
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


# What has no published count: sums of out·in/groups·kernel and of that times the pixels, from the papers' figures.
@pytest.mark.parametrize(
    ("name", "convolutions", "distinct", "weights", "gmacs"),
    [
        ("zfnet", 5, 5, 14_112 + 614_400 + 884_736 + 1_327_104 + 884_736, 1.109),
        ("speech_1d", 50, 30, 10_193_728, 9.038),
        ("deconv", 9, 9, 2_785_280 + 12_654_592, 6.042),
        ("large_kernels", 34, 14, 7_741_184 + 31_887_360, 42.442),
    ],
)
def test_collections_keep_their_size(name: str, convolutions: int, distinct: int, weights: int, gmacs: float) -> None:
    test_networks_have_their_published_size(name, convolutions, distinct, weights, gmacs)


def test_every_suite_is_covered_above() -> None:
    tests = (test_networks_have_their_published_size, test_collections_keep_their_size)
    assert {case[0] for test in tests for case in test.pytestmark[0].args[1]} == set(suite_names())  # type: ignore[attr-defined]


def test_the_speech_encoder_is_wav2vec2s() -> None:
    encoder = [layer.spec for layer in suite("speech_1d") if layer.name.startswith("wav2vec2.encoder")]
    assert sum(math.prod(spec.weight_shape) for spec in encoder) == 4_200_448 - 1_024  # torchaudio's, without its norm
    assert encoder[-1].output_size == (49,)  # frames in a second
    assert all(a.output_size == b.spatial_size for a, b in itertools.pairwise(encoder))


def test_suites_cover_the_axes_and_kinds() -> None:
    assert {layer.spec.ndim for layer in suite("speech_1d")} == {1}
    assert {layer.spec.ndim for layer in suite("unet3d")} == {3}
    assert all(layer.spec.transposed for layer in suite("deconv"))
    assert suite("deconv")[-1].spec.output_shape == (1, 64, 64, 3)
    assert {layer.spec.kernel_size[0] for layer in suite("large_kernels")} == {9, 11, 13, 15, 27, 29, 31}
    assert max(layer.spec.dilation[0] for layer in suite("speech_1d")) == 512


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
