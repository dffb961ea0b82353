"""AlexNet in the single-column form. Source: Krizhevsky, "One weird trick", arXiv:1404.5997, as in torchvision."""

from __future__ import annotations

from convgen.suites.network import Map, Network


def alexnet(net: Network) -> None:
    """Records the 5 convolutions on 224×224 images."""
    x = net.conv("conv1", Map(3, 224), 64, 11, stride=4, padding=2).pooled(3, 2)
    x = net.conv("conv2", x, 192, 5).pooled(3, 2)
    x = net.conv("conv3", x, 384, 3)
    x = net.conv("conv4", x, 256, 3)
    net.conv("conv5", x, 256, 3)
