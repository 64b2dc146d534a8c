# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Anchors and points of maps whose size is not known.

mmdet's generators compare the sizes of maps, which an exporter would take as
a promise about all images.
"""

from __future__ import annotations

import torch
from mmdet.models.task_modules.prior_generators import (
    AnchorGenerator,
    MlvlPointGenerator,
)
from torch import Tensor


def grid_priors(
    generator: AnchorGenerator | MlvlPointGenerator, level: int, like: Tensor
) -> Tensor:
    """Returns the priors of a level's map ``like`` (B, C, H, W).

    Anchors (H * W * A, 4), or points (H * W, 4): x, y and their strides.
    """
    height, width = like.shape[-2:]
    stride_x, stride_y = generator.strides[level]
    offset = getattr(generator, 'offset', 0)  # of points
    row = (_count(width, like) + offset) * stride_x
    column = ((_count(height, like) + offset) * stride_y)[:, None]
    # Sums, as views of one row or column would ask whether there are more.
    x = (torch.zeros_like(column) + row).reshape(-1)
    y = (column + torch.zeros_like(row)).reshape(-1)
    if isinstance(generator, AnchorGenerator):
        anchors = generator.base_anchors[level].to(like)
        shifts = torch.stack([x, y, x, y], 1)
        return (shifts[:, None] + anchors).reshape(-1, 4)
    strides = torch.full_like(x, stride_x), torch.full_like(x, stride_y)
    return torch.stack([x, y, *strides], 1)


def _count(number: int, like: Tensor) -> Tensor:
    return torch.arange(number, device=like.device).to(like)
