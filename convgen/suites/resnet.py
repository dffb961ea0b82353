"""ResNet. Source: He et al., arXiv:1512.03385; v1.5, which strides in the 3×3 convolution, as in torchvision."""

from __future__ import annotations

from convgen.suites.network import Map, Network


def resnet50(net: Network) -> None:
    """Records the 53 convolutions on 224×224 images."""
    x = net.conv("conv1", Map(3, 224), 64, 7, stride=2).pooled(3, 2, 1)
    for stage, (width, depth) in enumerate([(64, 3), (128, 4), (256, 6), (512, 3)], start=1):
        for block in range(depth):
            x = _bottleneck(net, f"layer{stage}.{block}", x, width, stride=2 if stage > 1 and block == 0 else 1)


def _bottleneck(net: Network, name: str, x: Map, width: int, *, stride: int) -> Map:
    y = net.conv(f"{name}.conv1", x, width, 1)
    y = net.conv(f"{name}.conv2", y, width, 3, stride=stride)
    y = net.conv(f"{name}.conv3", y, 4 * width, 1)
    if x != y:
        net.conv(f"{name}.downsample", x, 4 * width, 1, stride=stride)
    return y
