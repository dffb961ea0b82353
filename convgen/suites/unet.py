"""U-Net. Source: Ronneberger et al., arXiv:1505.04597, figure 1: no padding, 572×572 in, 388×388 out."""

from __future__ import annotations

from convgen.suites.network import Map, Network


def unet(net: Network) -> None:
    """Records the 23 convolutions, four of them transposed, on a 572×572 image of one channel."""
    x = Map(1, 572)
    for channels in (64, 128, 256, 512):
        x = _double(net, f"down{channels}", x, channels).pooled(2, 2)
    x = _double(net, "bottom", x, 1024)
    for channels in (512, 256, 128, 64):
        up = net.conv(f"up{channels}.transposed", x, channels, 2, stride=2, padding=0, transposed=True)
        # The cropped map of the way down joins as many channels again.
        x = _double(net, f"up{channels}", Map(2 * channels, up.side), channels)
    net.conv("head", x, 2, 1)


def _double(net: Network, name: str, x: Map, channels: int) -> Map:
    x = net.conv(f"{name}.conv1", x, channels, 3, padding=0)
    return net.conv(f"{name}.conv2", x, channels, 3, padding=0)
