# Licensed under the Apache License, Version 2.0. See LICENSE.
"""IoU and non-maximum suppression of rotated boxes.

A box is centre x, centre y, width, height and angle in radians, positive
from the x axis towards the y axis. Two boxes overlap in a convex polygon. Its
corners are the corners of one box inside of the other and the crossings of
edges; sorted by angle around their mean, they give the area. This is computed
in float64, because nearly parallel edges make the crossings inaccurate.
"""

import numpy as np
import torch
from torch import Tensor

from .precision import writes

# Pairs at a time. Each takes about 4 kB.
_PAIRS = 1 << 16

# Candidates of NMS at a time, because a GPU waits for each such group.
_HEAD = 64


def _corners(boxes: Tensor) -> Tensor:
    """Returns the corners of boxes (N, 5) as (N, 4, 2), in order."""
    cos, sin = boxes[:, 4].cos(), boxes[:, 4].sin()
    along = torch.stack([cos, sin], 1) * boxes[:, 2:3] / 2
    across = torch.stack([-sin, cos], 1) * boxes[:, 3:4] / 2
    signs = boxes.new_tensor([[-1, 1], [-1, -1], [1, -1], [1, 1]])
    return boxes[:, None, :2] + (
        signs[:, :1] * along[:, None] + signs[:, 1:] * across[:, None]
    )


def _cross(a: Tensor, b: Tensor) -> Tensor:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def _inside(points: Tensor, corners: Tensor) -> Tensor:
    """Whether each of the points (P, 4, 2) is in its rectangle, (P, 4)."""
    origin = corners[:, None, 1]
    found = True
    for end in (corners[:, None, 0], corners[:, None, 2]):
        side = end - origin
        along = ((points - origin) * side).sum(-1)
        found = (along >= 0) & (along <= side.square().sum(-1)) & found
    return found


def _intersection(first: Tensor, second: Tensor) -> Tensor:
    """Returns the common area of pairs of boxes, both (P, 5), as (P,)."""
    # Floats are most accurate around 0, so the origin moves between them.
    middle = (first[:, :2] + second[:, :2]) / 2
    a = _corners(first) - middle[:, None]
    b = _corners(second) - middle[:, None]
    edge_a = (a.roll(-1, 1) - a)[:, :, None]
    edge_b = (b.roll(-1, 1) - b)[:, None]
    gap = b[:, None] - a[:, :, None]
    det = _cross(edge_b, edge_a)
    parallel = det.abs() <= 1e-14
    det = det.masked_fill(parallel, 1)
    t = _cross(edge_b, gap) / det
    u = _cross(edge_a, gap) / det
    crosses = (t >= 0) & (t <= 1) & (u >= 0) & (u <= 1) & ~parallel
    crossing = a[:, :, None] + edge_a * t[..., None]
    points = torch.cat([crossing.flatten(1, 2), a, b], 1)  # (P, 24, 2)
    valid = torch.cat([crosses.flatten(1), _inside(a, b), _inside(b, a)], 1)[
        ..., None
    ]
    count = valid.sum(1, keepdim=True).clamp(min=1)
    points = points - (points * valid).sum(1, keepdim=True) / count
    # Invalid points move to the first valid one, where they add no area.
    one = valid.long().argmax(1, keepdim=True).expand(-1, -1, 2)
    points = torch.where(valid, points, points.gather(1, one))
    order = torch.atan2(points[..., 1], points[..., 0]).argsort(1)
    points = points.gather(1, order[..., None].expand_as(points))
    area = _cross(points, points.roll(-1, 1)).sum(1).abs() / 2
    return area * (count[:, 0, 0] > 2)


def _pairs(first: Tensor, second: Tensor, mode: int) -> Tensor:
    first, second = first.double(), second.double()
    size1, size2 = first[:, 2:4].prod(1), second[:, 2:4].prod(1)
    chunks = zip(first.split(_PAIRS), second.split(_PAIRS), strict=True)
    shared = torch.cat([_intersection(a, b) for a, b in chunks])
    base = size1 + size2 - shared if mode == 0 else size1
    flat = (size1 < 1e-14) | (size2 < 1e-14)
    return torch.where(flat, 0, shared / base)


@writes('ious')
def box_iou_rotated(
    boxes1: Tensor,
    boxes2: Tensor,
    ious: Tensor,
    mode_flag: int,
    aligned: bool,
) -> Tensor:
    """Computes the IoU of all pairs (M * N,), or of aligned pairs (M,).

    The denominator is the union for ``mode_flag`` 0, the first box for 1.
    """
    if not ious.numel():
        return ious
    if not aligned:
        m, n = len(boxes1), len(boxes2)
        boxes1 = boxes1.repeat_interleave(n, 0)
        boxes2 = boxes2.repeat(m, 1)
    return _pairs(boxes1, boxes2, mode_flag)


def nms_rotated(
    dets: Tensor,
    scores: Tensor,
    order: Tensor,
    dets_sorted: Tensor,
    labels: Tensor,
    iou_threshold: float,
    multi_label: bool,
) -> Tensor:
    """Returns the kept boxes, highest score first.

    ``dets`` are (N, 5), and ``dets_sorted`` the same in ``order``, highest
    score first. A box is removed from ``iou_threshold`` with a kept one on.
    As in mmcv's compiled ops, labels (with ``multi_label`` a sixth column)
    are not read; ``batched_nms`` moves the classes apart instead.
    """
    threshold = float(np.float32(iou_threshold))
    boxes = dets_sorted[:, :5]
    left = torch.arange(len(order), device=order.device)
    keep = []
    while len(left):
        head = left[:_HEAD]
        iou = _pairs(
            boxes[head].repeat_interleave(len(left), 0),
            boxes[left].repeat(len(head), 1),
            0,
        ).view(len(head), -1)
        removes = iou.to(dets.dtype) >= threshold  # NaN removes none
        among = removes[:, : len(head)].cpu().numpy()
        kept: list[int] = []
        for i in range(len(head)):
            if not among[kept, i].any():
                kept.append(i)
        rows = torch.tensor(kept, device=order.device)
        keep.append(head[rows])
        left = left[len(head) :][~removes[rows, len(head) :].any(0)]
    return order[torch.cat(keep)] if keep else order
