"""Problems whose pixels have no neighbours, as problems of fewer axes over the same memory."""

from __future__ import annotations

import math

from convgen.spec import ConvSpec


def merged_pixels(spec: ConvSpec) -> ConvSpec:
    """A pointwise problem's spatial axes are one, in channels_last the batch too; images of one pixel are channels_last."""
    if not spec.is_pointwise:
        return spec
    pixels = math.prod(spec.spatial_size)
    layout = "channels_last" if pixels == 1 and (spec.groups == 1 or spec.made_channels > 1) else spec.layout
    merge_batch = layout == "channels_last" and spec.batch > 0
    return spec.replace(
        batch=1 if merge_batch else spec.batch,
        spatial_size=(pixels * (spec.batch if merge_batch else 1),),
        kernel_size=(1,),
        stride=(1,),
        padding=(0,),
        dilation=(1,),
        output_padding=(0,),
        layout=layout,
    )
