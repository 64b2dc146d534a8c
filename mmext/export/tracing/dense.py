# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Detections of mmdet's dense heads, with a fixed number of rows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmdet.models.dense_heads import RPNHead, RTMDetInsHead
from torch import Tensor, nn
from torch.nn import functional

from mmext.export.tracing.boxes import decode
from mmext.export.tracing.nms import NONE, best_boxes, pick
from mmext.export.tracing.priors import grid_priors

CONTIGUOUS = torch.contiguous_format


def dense_detections(
    head: nn.Module, feats: Sequence[Tensor], size: Sequence[int]
) -> tuple[Tensor, ...]:
    """Returns what ``BaseDenseHead.predict`` returns, for a batch at once.

    Args:
        head: An RPN, a dense head, or ``RTMDetInsHead``.
        feats: The maps of the neck.
        size: Height and width of the image.

    Returns:
        Boxes (B, K, 4), scores (B, K) and labels (B, K), and logits of masks
        (B, K, h, w) from ``RTMDetInsHead``. Labels of an RPN are levels.
    """
    cls, reg, *more = head(feats)
    masked = isinstance(head, RTMDetInsHead)
    kernels = more[0] if masked else [None] * len(cls)
    factors = more[0] if more and not masked else [None] * len(cls)
    generator = head.prior_generator
    priors = [grid_priors(generator, i, level) for i, level in enumerate(cls)]
    levels = zip(cls, reg, priors, factors, kernels, strict=True)
    best = [_best(head, i, *level) for i, level in enumerate(levels)]
    scores, labels, values, priors, *kernels = (
        torch.cat(parts, 1) for parts in zip(*best, strict=True)
    )
    cfg = head.test_cfg
    boxes = decode(head.bbox_coder, priors, values, size)
    if (least := cfg.get('min_bbox_size', -1)) >= 0:
        large = (boxes[..., 2:] - boxes[..., :2] > least).all(-1)
        scores = torch.where(large, scores, NONE)
    scores, at = best_boxes(boxes, scores, labels, cfg.nms, cfg.max_per_img)
    found = pick(boxes, at), scores, labels.gather(1, at)
    if not masked:
        return found
    kernels, priors = pick(kernels[0], at), pick(priors, at)
    masks = _dynamic_masks(head, more[1], kernels, priors)
    return (*found, masks)


def _rows(level: Tensor, width: int) -> Tensor:
    """Returns (B, anchors * width, H, W) as (B, H * W * anchors, width)."""
    # Of a copy: a view exists only for some sizes, which would be asked for.
    copy = level.permute(0, 2, 3, 1).clone(memory_format=CONTIGUOUS)
    return copy.reshape(level.shape[0], -1, width)


def _best(
    head: nn.Module,
    number: int,
    cls: Tensor,
    reg: Tensor,
    priors: Tensor,
    factor: Tensor | None,
    kernel: Tensor | None,
) -> tuple[Tensor, ...]:
    """Returns the ``nms_pre`` best rows of a level.

    These are scores, labels, values of the boxes, priors and, if there are
    any, kernels. A score is :data:`NONE` where there are fewer rows.
    """
    cfg, classes = head.test_cfg, head.cls_out_channels
    values = _rows(cls, classes)
    if not head.use_sigmoid_cls:
        values = values.softmax(-1)[..., :-1]
    classes = values.shape[-1]
    values = values.flatten(1)
    rows = values.shape[1]
    wanted = cfg.get('nms_pre', -1)
    if isinstance(rows, int):
        wanted = min(wanted, rows) if wanted > 0 else rows
    else:  # as many rows for every size of images
        values = functional.pad(values, (0, wanted), value=-torch.inf)
    # There may be millions: the sigmoid, which keeps their order, is of few.
    values, at = values.topk(wanted, dim=1)
    scores = values.sigmoid() if head.use_sigmoid_cls else values
    is_rpn = isinstance(head, RPNHead)
    least = -torch.inf if is_rpn else cfg.get('score_thr', 0)
    there = (scores > least) & (values > -torch.inf)
    scores = torch.where(there, scores, NONE)
    labels = torch.full_like(at, number) if is_rpn else at % classes
    at = (at // classes).clamp(max=priors.shape[0] - 1)
    if factor is not None:
        factors = pick(_rows(factor, 1), at)[..., 0].sigmoid()
        scores = torch.where(scores >= 0, scores * factors, NONE)
    found = scores, labels, pick(_rows(reg, 4), at), priors[at]
    if kernel is None:
        return found
    return (*found, pick(_rows(kernel, head.num_gen_params), at))


def _dynamic_masks(
    head: RTMDetInsHead, feats: Tensor, kernels: Tensor, priors: Tensor
) -> Tensor:
    """Applies the layers in ``kernels`` (B, K, P) to maps (B, C, h, w).

    Returns logits (B, K, h, w). As ``_mask_predict_by_feat_single``, which
    makes the layers of all rows groups of one convolution.
    """
    b, k, _ = kernels.shape
    height, width = feats.shape[-2:]
    grid = grid_priors(head.prior_generator, 0, feats)[:, :2]
    # (B, K, h * w, 2), in units of 8 strides
    offsets = (priors[:, :, None, :2] - grid) / (priors[:, :, None, 2:3] * 8)
    maps = feats.flatten(2)[:, None].expand(-1, k, -1, -1)
    x = torch.cat([offsets.transpose(2, 3), maps], 2)
    layers = kernels.split([*head.weight_nums, *head.bias_nums], 2)
    count = len(head.weight_nums)
    for i in range(count):
        outputs = head.bias_nums[i]
        weight = layers[i].reshape(b, k, outputs, -1)
        x = weight @ x + layers[count + i].reshape(b, k, outputs, 1)
        if i < count - 1:
            x = x.relu()
    return x.reshape(b, k, height, width)
