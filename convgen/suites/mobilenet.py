"""MobileNetV2. Source: Sandler et al., arXiv:1801.04381, table 2."""

from __future__ import annotations

from convgen.suites.network import Map, Network

# expansion, output channels, repetitions, stride of the first
_STAGES = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]


def mobilenet_v2(net: Network) -> None:
    """Records the 52 convolutions on 224×224 images."""
    x = net.conv("stem", Map(3, 224), 32, 3, stride=2)
    for stage, (expansion, channels, repetitions, first_stride) in enumerate(_STAGES, start=1):
        for block in range(repetitions):
            stride = first_stride if block == 0 else 1
            x = _inverted_residual(net, f"stage{stage}.{block}", x, channels, expansion=expansion, stride=stride)
    net.conv("head", x, 1280, 1)


def _inverted_residual(net: Network, name: str, x: Map, channels: int, *, expansion: int, stride: int) -> Map:
    if expansion > 1:
        x = net.conv(f"{name}.expand", x, expansion * x.channels, 1)
    x = net.conv(f"{name}.depthwise", x, x.channels, 3, stride=stride, groups=x.channels)
    return net.conv(f"{name}.project", x, channels, 1)
