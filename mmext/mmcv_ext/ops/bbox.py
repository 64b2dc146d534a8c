# Licensed under the Apache License, Version 2.0. See LICENSE.
"""IoU of axis-aligned boxes."""

import torch
from torch import Tensor

from .precision import writes


@writes('ious')
def bbox_overlaps(
    bboxes1: Tensor,
    bboxes2: Tensor,
    ious: Tensor,
    mode: int,
    aligned: bool,
    offset: int,
) -> Tensor:
    """Computes the IoU of all pairs (M, N), or of aligned pairs (M,).

    Boxes are x1, y1, x2, y2. The denominator is the union for ``mode`` 0, the
    first box for 1. ``offset`` 1 counts widths as ``x2 - x1 + 1``.
    """
    size1 = (bboxes1[:, 2:] - bboxes1[:, :2] + offset).prod(1)
    size2 = (bboxes2[:, 2:] - bboxes2[:, :2] + offset).prod(1)
    if not aligned:
        bboxes1, size1 = bboxes1[:, None], size1[:, None]
    low = torch.maximum(bboxes1[..., :2], bboxes2[..., :2])
    high = torch.minimum(bboxes1[..., 2:], bboxes2[..., 2:])
    inter = (high - low + offset).clamp(min=0).prod(-1)
    return inter / (size1 + size2 - inter if mode == 0 else size1)
