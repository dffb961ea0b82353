"""The tasks of the matrix products: even where they are few."""

from __future__ import annotations

import dataclasses

import pytest

from convgen.spec import ConvSpec
from convgen.strategies.pointwise import Pointwise
from tests.samples import MACHINE

POINTWISE = Pointwise()


def tasks(channels: tuple[int, int], pixels: int, cores: int) -> list[int]:
    """The tiles of pixels of each task of the default configuration."""
    machine = dataclasses.replace(MACHINE, cores=cores, l2_bytes=1 << 20)
    spec = ConvSpec(
        batch=1,
        in_channels=channels[0],
        out_channels=channels[1],
        spatial_size=pixels,
        kernel_size=1,
        layout="channels_last",
    )
    config = POINTWISE.default(spec, machine)
    tiles, strips = -(-pixels // config["pixels"]), config["strips"]
    shares = -(-channels[1] // (config["made"] * config["panels"]))
    return [min(strips, tiles - first) for first in range(0, tiles, strips)] * shares


@pytest.mark.parametrize("cores", [2, 3, 8])
@pytest.mark.parametrize("pixels", [49, 196, 500])
@pytest.mark.parametrize("channels", [(512, 32), (832, 192), (512, 512)])
def test_cores_finish_together(channels: tuple[int, int], pixels: int, cores: int) -> None:
    found = tasks(channels, pixels, cores)
    rounds = -(-len(found) // cores)
    assert rounds * max(found) <= 1.5 * sum(found) / cores + 1


def test_one_core_shares_kernels_among_images() -> None:
    assert {max(tasks((64, 64), pixels, 1)) for pixels in (3136, 12544)} == {16}
