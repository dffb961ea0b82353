"""3D U-Net. Source: Çiçek et al., arXiv:1606.06650, figure 2, padded as later implementations do, on a patch of 32³."""

from __future__ import annotations

from convgen.suites.network import Map, Network


def unet3d(net: Network) -> None:
    """Records the 18 convolutions, three of them transposed, on a 32×32×32 volume of three channels."""
    x = Map(3, 32, axes=3)
    skipped = []
    for channels in (32, 64, 128):
        x = _double(net, f"down{channels}", x, channels, 2 * channels)
        skipped.append(x)
        x = x.pooled(2, 2)
    x = _double(net, "bottom", x, 256, 512)
    for skip in reversed(skipped):
        up = net.conv(f"up{skip.channels}.transposed", x, x.channels, 2, stride=2, padding=0, transposed=True)
        joined = Map(skip.channels + up.channels, up.side, axes=3)
        x = _double(net, f"up{skip.channels}", joined, skip.channels, skip.channels)
    net.conv("head", x, 3, 1)


def _double(net: Network, name: str, x: Map, first: int, second: int) -> Map:
    return net.conv(f"{name}.conv2", net.conv(f"{name}.conv1", x, first, 3), second, 3)
