"""ConvNeXt. Source: Liu et al., arXiv:2201.03545, with the 1×1 convolutions that are often written as linear layers."""

from __future__ import annotations

from convgen.suites.network import Map, Network


def convnext_t(net: Network) -> None:
    """Records the 58 convolutions on 224×224 images."""
    x = Map(3, 224)
    for stage, (channels, depth) in enumerate([(96, 3), (192, 3), (384, 9), (768, 3)], start=1):
        patch = 4 if stage == 1 else 2
        x = net.conv(f"stage{stage}.downsample", x, channels, patch, stride=patch, padding=0)
        for block in range(depth):
            y = net.conv(f"stage{stage}.{block}.depthwise", x, channels, 7, groups=channels)
            y = net.conv(f"stage{stage}.{block}.expand", y, 4 * channels, 1)
            x = net.conv(f"stage{stage}.{block}.project", y, channels, 1)
