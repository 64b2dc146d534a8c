# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Non-maximum suppression whose result has a fixed size.

An exporter cannot follow how many boxes are kept. The operator here returns
which boxes are kept, as a mask. ONNX has it as NonMaxSuppression, whose list
of boxes is scattered into the mask.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torchvision
from torch import Tensor

#: The score of a row that holds no detection.
NONE = -1.0


@torch.library.custom_op('mmext::nms_keep', mutates_args=())
def nms_keep(
    boxes: torch.Tensor, scores: torch.Tensor, threshold: float
) -> torch.Tensor:
    """Returns which boxes (B, N, 4) NMS keeps, (B, N); none below score 0."""
    keep = torch.zeros_like(scores, dtype=torch.bool)
    for i in range(len(boxes)):
        (at,) = (scores[i] >= 0).nonzero(as_tuple=True)
        best = torchvision.ops.nms(boxes[i, at], scores[i, at], threshold)
        keep[i, at[best]] = True
    return keep


@nms_keep.register_fake
def _(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    return torch.empty_like(scores, dtype=torch.bool)


def nms_keep_in_onnx(boxes: Any, scores: Any, threshold: float) -> Any:
    """Writes :func:`nms_keep` with operators of ONNX."""
    from onnxscript import opset18 as op

    chosen = op.NonMaxSuppression(
        boxes,
        op.Unsqueeze(scores, op.Constant(value_ints=[1])),
        op.Constant(value_ints=[2**31 - 1]),
        op.Constant(value_floats=[threshold]),
        op.Constant(value_floats=[NONE / 2]),
    )
    # Rows of chosen are image, class (always 0) and box.
    places = op.Gather(chosen, op.Constant(value_ints=[0, 2]), axis=1)
    ones = op.Expand(
        op.Constant(value_float=1.0), op.Shape(places, start=0, end=1)
    )
    nothing = op.Expand(op.Constant(value_float=0.0), op.Shape(scores))
    kept = op.ScatterND(nothing, places, ones)
    return op.Greater(kept, op.Constant(value_float=0.5))


def pick(values: Tensor, places: Tensor) -> Tensor:
    """Returns rows of ``values`` (B, N, C) at ``places`` (B, K)."""
    return values.gather(1, places[..., None].expand(-1, -1, values.shape[-1]))


def best_boxes(
    boxes: Tensor,
    scores: Tensor,
    groups: Tensor,
    cfg: Mapping[str, Any],
    limit: int,
) -> tuple[Tensor, Tensor]:
    """Suppresses boxes of equal groups as ``mmcv.ops.batched_nms`` does.

    Args:
        boxes: (B, N, 4).
        scores: (B, N); below 0 there is no box.
        groups: (B, N), such as labels.
        cfg: ``iou_threshold`` and ``class_agnostic``.
        limit: The number of boxes to return, K.

    Returns:
        The scores, best first, (B, K), and their places, (B, K). Rows without
        a box have the score :data:`NONE`.
    """
    valid = scores >= 0
    apart = boxes
    if not cfg.get('class_agnostic', False):
        # Boxes of different groups are moved apart, by as much as in mmcv.
        far = torch.where(valid[..., None], boxes, -torch.inf).amax((1, 2))
        far = torch.where(far.isinf(), 0.0, far)
        apart = boxes + (groups.to(boxes) * (far + 1)[:, None])[..., None]
    # mmcv compares in float32.
    threshold = float(np.float32(cfg['iou_threshold']))
    keep = nms_keep(apart, torch.where(valid, scores, NONE), threshold)
    kept = torch.where(keep, scores, NONE)
    return kept.topk(min(limit, kept.shape[1]), dim=1)
