"""Writing networks down: feature maps flow through a Network, which records the convolutions they meet."""

from __future__ import annotations

from dataclasses import dataclass, field

from convgen.spec import ConvSpec


@dataclass(frozen=True)
class Layer:
    """A convolution problem of a network: the name of its first occurrence and how often it occurs."""

    name: str
    count: int
    spec: ConvSpec


@dataclass(frozen=True)
class Map:
    """A feature map of as many channels whose ``axes`` (2: a square) are all ``side`` long."""

    channels: int
    side: int
    axes: int = 2

    def pooled(self, kernel: int, stride: int, padding: int = 0, *, ceil: bool = False) -> Map:
        """Returns the map behind a pooling layer; ``ceil`` rounds its size up."""
        room = self.side + 2 * padding - kernel
        return Map(self.channels, (-(-room // stride) if ceil else room // stride) + 1, self.axes)


@dataclass
class Network:
    """Collects the convolutions of one network for one batch size, layout and dtype."""

    batch: int
    layout: str
    dtype: str
    _recorded: dict[ConvSpec, tuple[str, int]] = field(default_factory=dict)

    def conv(
        self,
        name: str,
        x: Map,
        out_channels: int,
        kernel: int,
        *,
        stride: int = 1,
        padding: int | None = None,
        dilation: int = 1,
        groups: int = 1,
        transposed: bool = False,
    ) -> Map:
        """Records a convolution of ``x``, by default padded by half the kernel, and returns its output."""
        spec = ConvSpec(
            batch=self.batch,
            in_channels=x.channels,
            out_channels=out_channels,
            spatial_size=(x.side,) * x.axes,
            kernel_size=kernel,
            stride=stride,
            padding=kernel // 2 if padding is None else padding,
            dilation=dilation,
            groups=groups,
            transposed=transposed,
            layout=self.layout,
            dtype=self.dtype,
        )
        first, count = self._recorded.get(spec, (name, 0))
        self._recorded[spec] = (first, count + 1)
        return Map(out_channels, spec.output_size[0], x.axes)

    def layers(self) -> tuple[Layer, ...]:
        """Returns the distinct problems in the order in which they first occurred."""
        return tuple(Layer(name, count, spec) for spec, (name, count) in self._recorded.items())
