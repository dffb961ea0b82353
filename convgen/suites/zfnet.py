"""ZFNet. Source: Zeiler and Fergus, arXiv:1311.2901, figure 3."""

from __future__ import annotations

from convgen.suites.network import Map, Network


def zfnet(net: Network) -> None:
    """Records the 5 convolutions on 224×224 images."""
    x = net.conv("conv1", Map(3, 224), 96, 7, stride=2, padding=1).pooled(3, 2, ceil=True)
    x = net.conv("conv2", x, 256, 5, stride=2, padding=0).pooled(3, 2, ceil=True)
    x = net.conv("conv3", x, 384, 3)
    x = net.conv("conv4", x, 384, 3)
    net.conv("conv5", x, 256, 3)
