"""Large kernels: RepLKNet's depthwise ones, and dense ones from 9×9."""

from __future__ import annotations

from convgen.suites.network import Map, Network

# Ding et al., arXiv:2203.06717, RepLKNet-31B on 224×224 images: channels, side, kernel and blocks of each stage
_STAGES = [(128, 56, 31, 2), (256, 28, 29, 2), (512, 14, 27, 18), (1024, 7, 13, 2)]
_DENSE = (9, 11, 13, 15, 31)


def large_kernels(net: Network) -> None:
    """Records RepLKNet-31B's 24 depthwise convolutions and 10 dense ones of as many multiplications as the other size's."""
    for channels, side, kernel, blocks in _STAGES:
        for _ in range(blocks):
            net.conv(f"replknet.{kernel}x{kernel}", Map(channels, side), channels, kernel, groups=channels)
    for kernel in _DENSE:
        for channels, side in ((64, 56), (128, 28)):
            net.conv(f"dense.{kernel}x{kernel}.{channels}", Map(channels, side), channels, kernel)
