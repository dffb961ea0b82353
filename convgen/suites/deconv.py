"""Transposed convolutions: U-Net's way up (arXiv:1505.04597, figure 1) and DCGAN's generator (arXiv:1511.06434, figure 1)."""

from __future__ import annotations

from convgen.suites.network import Map, Network


def deconv(net: Network) -> None:
    """Records 4 up-samplings of 2×2 with stride 2 and the generator's 5 convolutions of 4×4."""
    for channels, side in ((1024, 28), (512, 52), (256, 100), (128, 196)):
        net.conv(f"unet.up{side}", Map(channels, side), channels // 2, 2, stride=2, padding=0, transposed=True)
    x = net.conv("dcgan.project", Map(100, 1), 1024, 4, padding=0, transposed=True)
    for channels in (512, 256, 128, 3):
        x = net.conv(f"dcgan.up{2 * x.side}", x, channels, 4, stride=2, padding=1, transposed=True)
