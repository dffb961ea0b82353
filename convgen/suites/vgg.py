"""VGG. Source: Simonyan and Zisserman, arXiv:1409.1556, configuration D."""

from __future__ import annotations

from convgen.suites.network import Map, Network


def vgg16(net: Network) -> None:
    """Records the 13 convolutions on 224×224 images."""
    x = Map(3, 224)
    for block, (channels, depth) in enumerate([(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)], start=1):
        for index in range(1, depth + 1):
            x = net.conv(f"conv{block}_{index}", x, channels, 3)
        x = x.pooled(2, 2)
