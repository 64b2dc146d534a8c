# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Non-maximum suppression: plain, soft, and grouped."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
import torchvision
from torch import Tensor

# A CPU takes boxes that cannot overlap in up to so many parts.
PARTS = 16


def nms(
    boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int
) -> Tensor:
    """Returns the indices of the kept boxes, highest score first.

    A box is removed above ``iou_threshold`` with a kept one. ``offset`` 1
    counts widths as ``x2 - x1 + 1``. The order of equal scores is undefined.
    """
    if boxes.dtype != torch.float64:  # the CPU has no half kernel
        boxes = boxes.float()
    if offset:
        boxes = boxes + boxes.new_tensor([0, 0, offset, offset])
    # mmcv compares in float32; torchvision would keep the double.
    threshold = float(np.float32(iou_threshold))
    scores = scores.to(boxes.dtype)
    parts = []
    if boxes.device.type == 'cpu' and threshold >= 0:
        parts = _separate(boxes)
    if len(parts) < 2:
        return torchvision.ops.nms(boxes, scores, threshold)

    def kept(part: Tensor) -> Tensor:
        found = torchvision.ops.nms(boxes[part], scores[part], threshold)
        return part[found]

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        inds = torch.cat([*pool.map(kept, parts)]).sort().values
    # torchvision's order: of equal scores, the first box.
    return inds[scores[inds].sort(descending=True, stable=True).indices]


def _separate(boxes: Tensor) -> list[Tensor]:
    """Returns the indices of boxes that do not overlap those of other parts.

    A detector's NMS moves the boxes of each level or class apart, so that
    they are separate along x. There is one part if a box is not finite.
    """
    n = len(boxes)
    if n < 2 * PARTS or not boxes.sum().isfinite():
        return []
    left, order = boxes[:, 0].sort()
    reach = boxes[order, 2].cummax(0).values
    gap = (left[1:] >= reach[:-1]).nonzero()[:, 0] + 1  # they may touch
    # Gaps at about equal distances.
    gap = gap[(gap * PARTS // n).diff(prepend=gap.new_zeros(1)) > 0]
    return [part.sort().values for part in order.tensor_split(gap)]


def _iou(box: np.ndarray, boxes: np.ndarray, offset: int) -> np.ndarray:
    """Returns the IoU of a box, (4,), with others, (N, 4)."""
    zero, offset = boxes.dtype.type(0), boxes.dtype.type(offset)
    width = np.minimum(box[2], boxes[:, 2]) - np.maximum(box[0], boxes[:, 0])
    height = np.minimum(box[3], boxes[:, 3]) - np.maximum(box[1], boxes[:, 1])
    inter = np.maximum(zero, width + offset) * np.maximum(
        zero, height + offset
    )
    area = (box[2] - box[0] + offset) * (box[3] - box[1] + offset)
    areas = (boxes[:, 2] - boxes[:, 0] + offset) * (
        boxes[:, 3] - boxes[:, 1] + offset
    )
    with np.errstate(divide='ignore', invalid='ignore'):
        return inter / (area + areas - inter)


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Soft-NMS (Bodla et al., 2017): overlap lowers scores. On the CPU.

    ``method`` 0, naive, lowers to zero, and 1, linear, by the IoU, both from
    ``iou_threshold`` on; 2 is Gaussian with the width ``sigma``. A box with a
    score below ``min_score`` is removed. Returns the K boxes in the order in
    which they were picked; the first K rows of ``dets`` (N, 5) take them with
    their lowered scores.
    """
    # Columns: x1, y1, x2, y2, score. Picked rows are in front. mmcv swaps
    # rows and takes the first of equal scores, so the swaps are part of the
    # result.
    rows = torch.cat([boxes, scores[:, None]], 1).float().numpy()
    inds = np.arange(len(rows))
    threshold, sigma = np.float32(iou_threshold), np.float32(sigma)
    picked, end = 0, len(rows)
    while picked < end:
        best = picked + int(rows[picked:end, 4].argmax())
        rows[[picked, best]] = rows[[best, picked]]
        inds[[picked, best]] = inds[[best, picked]]
        rest = rows[picked + 1 : end]
        iou = _iou(rows[picked, :4], rest[:, :4], offset)
        if method == 2:
            # Two boxes without area have the IoU 0 / 0.
            iou = np.nan_to_num(iou)
            rest[:, 4] *= np.exp(-(iou * iou) / sigma)
        else:
            lowered = (1 - iou) if method == 1 else np.float32(0)
            rest[:, 4] *= np.where(iou >= threshold, lowered, np.float32(1))
        # The last row that stays replaces a removed row.
        drop = rest[:, 4] < np.float32(min_score)
        picked, end = picked + 1, end - int(drop.sum())
        kept = end - picked
        holes = np.flatnonzero(drop[:kept])
        fill = kept + np.flatnonzero(~drop[kept:])[::-1]
        rest[holes] = rest[fill]
        inds[picked + holes] = inds[picked + fill]
    dets[:end] = torch.from_numpy(rows[:end])
    return torch.from_numpy(inds[:end])


def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """Returns each box that NMS keeps, followed by those that it suppresses.

    ``dets`` (N, 5) are x1, y1, x2, y2, score on the CPU. From
    ``iou_threshold`` on a box is suppressed. The highest scores are first.
    """
    order = dets[:, 4].sort(descending=True, stable=True).indices.numpy()
    boxes = dets[:, :4].float().numpy()
    threshold = np.float32(iou_threshold)
    groups = []
    while len(order):
        first, order = order[0], order[1:]
        joins = _iou(boxes[first], boxes[order], 0) >= threshold
        groups.append([int(first), *order[joins].tolist()])
        order = order[~joins]
    return groups
