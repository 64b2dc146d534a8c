# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Non-maximum suppression."""

import numpy as np
import torch
import torchvision
from torch import Tensor


def nms(
    boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int
) -> Tensor:
    """Indices of the kept boxes, by falling score, by torchvision's kernel.

    Args:
        boxes: (N, 4), x1, y1, x2, y2.
        scores: (N,).
        iou_threshold: A box is dropped above this IoU with a kept one.
        offset: 0, or 1 for widths counted as ``x2 - x1 + 1``.

    Returns:
        (K,) int64. The order among equal scores is undefined.
    """
    if boxes.dtype != torch.float64:  # there is no half kernel on CPU
        boxes, scores = boxes.float(), scores.float()
    if offset:
        boxes = boxes + boxes.new_tensor([0, 0, offset, offset])
    # mmcv compares in float32; torchvision would keep the double.
    threshold = float(np.float32(iou_threshold))
    return torchvision.ops.nms(boxes, scores.to(boxes.dtype), threshold)
