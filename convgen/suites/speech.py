"""Convolutions of speech networks, along time alone: one second of sound at 16 kHz, ten where there are frames."""

from __future__ import annotations

from convgen.suites.network import Map, Network

_SAMPLES = 16_000
# ten milliseconds apart, as log-mel features are
_FRAMES = 1_000
# Width and kernel of QuartzNet's five groups of blocks.
_QUARTZNET = [(256, 33), (256, 39), (512, 51), (512, 63), (512, 75)]


def speech_1d(net: Network) -> None:
    """Records wav2vec 2.0's strided encoder, a WaveNet stack and QuartzNet's separable convolutions."""
    _wav2vec2(net)
    _wavenet(net)
    _quartznet(net)


def _wav2vec2(net: Network) -> None:
    """Baevski et al., arXiv:2006.11477, section 4.2, BASE: the feature encoder and the positional convolution."""
    x = Map(1, _SAMPLES, axes=1)
    for index, (kernel, stride) in enumerate([(10, 5), *[(3, 2)] * 4, *[(2, 2)] * 2]):
        x = net.conv(f"wav2vec2.encoder{index}", x, 512, kernel, stride=stride, padding=0)
    net.conv("wav2vec2.position", Map(768, x.side, axes=1), 768, 128, groups=16)


def _wavenet(net: Network) -> None:
    """Van den Oord et al., arXiv:1609.03499, section 2: ten layers of two taps that reach 1024 samples back.

    A layer reads the samples before its own as well, so that nothing is padded; filter and gate are one convolution.
    """
    for dilation in (2**exponent for exponent in range(10)):
        x = Map(64, _SAMPLES + dilation, axes=1)
        x = net.conv(f"wavenet.dilated{dilation}", x, 128, 2, dilation=dilation, padding=0)
        gated = Map(64, x.side, axes=1)
        net.conv("wavenet.residual", gated, 64, 1)
        net.conv("wavenet.skip", gated, 256, 1)


def _quartznet(net: Network) -> None:
    """Kriman et al., arXiv:1910.10261, table 1, one block of each group behind the strided stem."""
    x = net.conv("quartznet.stem", Map(64, _FRAMES, axes=1), 64, 33, stride=2, groups=64)
    x = net.conv("quartznet.stem.mix", x, 256, 1)
    for index, (channels, kernel) in enumerate(_QUARTZNET, start=1):
        x = net.conv(f"quartznet.block{index}.depthwise", x, x.channels, kernel, groups=x.channels)
        x = net.conv(f"quartznet.block{index}.mix", x, channels, 1)
