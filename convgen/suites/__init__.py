"""The convolutions of well-known networks at the image size they were published with, and collections of their kinds."""

from __future__ import annotations

from collections.abc import Callable

from convgen.errors import SpecError
from convgen.suites.alexnet import alexnet
from convgen.suites.convnext import convnext_t
from convgen.suites.deconv import deconv
from convgen.suites.densenet import densenet121
from convgen.suites.googlenet import googlenet
from convgen.suites.large_kernels import large_kernels
from convgen.suites.mobilenet import mobilenet_v2
from convgen.suites.network import Layer, Network
from convgen.suites.resnet import resnet50
from convgen.suites.speech import speech_1d
from convgen.suites.unet import unet
from convgen.suites.unet3d import unet3d
from convgen.suites.vgg import vgg16
from convgen.suites.zfnet import zfnet

_SUITES: dict[str, Callable[[Network], None]] = {
    "resnet50": resnet50,
    "vgg16": vgg16,
    "mobilenet_v2": mobilenet_v2,
    "convnext_t": convnext_t,
    "unet": unet,
    "alexnet": alexnet,
    "zfnet": zfnet,
    "googlenet": googlenet,
    "densenet121": densenet121,
    "speech_1d": speech_1d,
    "unet3d": unet3d,
    "deconv": deconv,
    "large_kernels": large_kernels,
}

__all__ = ["Layer", "suite", "suite_names"]


def suite_names() -> tuple[str, ...]:
    """Returns the names that ``suite`` knows."""
    return tuple(_SUITES)


def suite(name: str, *, batch: int = 1, layout: str = "channels_last", dtype: str = "float32") -> tuple[Layer, ...]:
    """Returns the distinct forward problems of a network or collection, without epilogues, the first met first.

    Raises SpecError for an unknown name and whatever ConvSpec raises for the other arguments.
    """
    if name not in _SUITES:
        raise SpecError(f"suite={name!r} is unknown; allowed: {', '.join(_SUITES)}")
    network = Network(batch, layout, dtype)
    _SUITES[name](network)
    return network.layers()
