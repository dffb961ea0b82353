"""GoogLeNet without its auxiliary heads. Source: Szegedy et al., arXiv:1409.4842, table 1."""

from __future__ import annotations

from convgen.suites.network import Map, Network

# channels of: 1×1; 3×3 reduced, 3×3; 5×5 reduced, 5×5; behind the pooling
_STAGES: dict[str, list[tuple[int, int, int, int, int, int]]] = {
    "3": [(64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)],
    "4": [
        (192, 96, 208, 16, 48, 64),
        (160, 112, 224, 24, 64, 64),
        (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64),
        (256, 160, 320, 32, 128, 128),
    ],
    "5": [(256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)],
}


def googlenet(net: Network) -> None:
    """Records the 57 convolutions on 224×224 images."""
    x = net.conv("conv1", Map(3, 224), 64, 7, stride=2).pooled(3, 2, ceil=True)
    x = net.conv("conv2.reduce", x, 64, 1)
    x = net.conv("conv2", x, 192, 3)
    for stage, blocks in _STAGES.items():
        x = x.pooled(3, 2, ceil=True)
        for letter, channels in zip("abcde", blocks, strict=False):
            x = _inception(net, f"inception{stage}{letter}", x, channels)


def _inception(net: Network, name: str, x: Map, channels: tuple[int, int, int, int, int, int]) -> Map:
    single, reduced3, triple, reduced5, quintuple, pooled = channels
    net.conv(f"{name}.1x1", x, single, 1)
    net.conv(f"{name}.3x3", net.conv(f"{name}.3x3.reduce", x, reduced3, 1), triple, 3)
    net.conv(f"{name}.5x5", net.conv(f"{name}.5x5.reduce", x, reduced5, 1), quintuple, 5)
    net.conv(f"{name}.pool", x, pooled, 1)
    return Map(single + triple + quintuple + pooled, x.side)
