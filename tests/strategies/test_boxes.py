"""Boxes: they cover the result, hold what they read, and fit the cache where the image does not."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from convgen.spec import ConvSpec
from convgen.strategies.boxes import Box, box_extent, box_source_bytes, choose_box
from tests.samples import MACHINE


def make_spec(**fields: Any) -> ConvSpec:
    base: dict[str, Any] = dict(
        batch=1, in_channels=64, out_channels=64, spatial_size=(56, 56), kernel_size=3, padding=1
    )
    return ConvSpec(**{**base, **fields})


def box_of(spec: ConvSpec, cores: int = 1) -> Box:
    return choose_box(spec, min(6, box_extent(spec)), 64, replace(MACHINE, cores=cores))


@pytest.mark.parametrize(
    "fields",
    [
        dict(),
        dict(spatial_size=(224, 224), stride=2),
        dict(spatial_size=(1000,), dilation=4, padding=4),
        dict(spatial_size=(32, 32, 32)),
        dict(spatial_size=(1, 3)),
        dict(spatial_size=(2000, 3000)),
    ],
    ids=["square", "stride", "one axis", "three axes", "tiny", "large"],
)
def test_a_box_holds_what_it_reads_and_boxes_cover_the_result(fields: dict[str, Any]) -> None:
    spec = make_spec(**fields)
    box = box_of(spec)
    reach = zip(box.result, spec.stride, spec.kernel_size, spec.dilation, strict=True)
    assert box.source == tuple((r - 1) * s + (k - 1) * d + 1 for r, s, k, d in reach)
    assert all(part <= whole for part, whole in zip(box.result, spec.output_size, strict=True))
    assert box.count == math.prod(-(-n // r) for n, r in zip(spec.output_size, box.result, strict=True))
    assert box.is_wide == (spec.ndim > 1 and box.result[-1] == spec.output_size[-1])


def test_a_box_of_a_large_image_fits_the_second_level_cache() -> None:
    for spec in (
        make_spec(spatial_size=(224, 224)),
        make_spec(spatial_size=(64, 4000)),
        make_spec(spatial_size=(90000,)),
    ):
        assert box_source_bytes(spec, box_of(spec), 64) < MACHINE.l2_bytes


def test_residue_classes_of_different_size_share_a_box() -> None:
    spec = make_spec(direction="backward_data", spatial_size=(57, 57), stride=2)
    box = box_of(spec)
    assert box.result[0] <= 28
    assert box.is_wide
    assert box.result[1] == 29


def test_a_register_tile_fits_the_smallest_residue_class() -> None:
    spec = make_spec(direction="backward_data", spatial_size=(4, 3), kernel_size=(3, 4), stride=2)
    box = box_of(spec)
    assert box.result[1] == 2
    assert box.run == box.result[0]


def test_there_are_boxes_for_all_cores() -> None:
    assert box_of(make_spec(), cores=8).count >= 8
