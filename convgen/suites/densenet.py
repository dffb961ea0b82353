"""DenseNet. Source: Huang et al., arXiv:1608.06993, table 1 (DenseNet-BC, growth 32)."""

from __future__ import annotations

from convgen.suites.network import Map, Network

_GROWTH = 32


def densenet121(net: Network) -> None:
    """Records the 120 convolutions on 224×224 images."""
    x = net.conv("conv0", Map(3, 224), 2 * _GROWTH, 7, stride=2).pooled(3, 2, 1)
    for stage, depth in enumerate((6, 12, 24, 16), start=1):
        if stage > 1:
            x = net.conv(f"transition{stage - 1}", x, x.channels // 2, 1).pooled(2, 2)
        for block in range(1, depth + 1):
            y = net.conv(f"block{stage}.{block}.conv1", x, 4 * _GROWTH, 1)
            y = net.conv(f"block{stage}.{block}.conv2", y, _GROWTH, 3)
            x = Map(x.channels + y.channels, x.side)
