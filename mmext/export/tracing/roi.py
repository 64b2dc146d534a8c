# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Detections of mmdet's RoI heads, with a fixed number of rows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torchvision
from torch import Tensor, nn

from mmext.export.tracing.boxes import decode
from mmext.export.tracing.nms import NONE, best_boxes, pick


def roi_detections(
    head: nn.Module,
    feats: Sequence[Tensor],
    proposals: Tensor,
    scores: Tensor,
    size: Sequence[int],
) -> tuple[Tensor, ...]:
    """Returns what the ``predict`` of an RoI head returns, for a batch.

    Args:
        head: A ``StandardRoIHead`` or ``CascadeRoIHead``.
        feats: The maps of the neck.
        proposals: (B, K, 4).
        scores: (B, K); below 0 there is no proposal.
        size: Height and width of the image.

    Returns:
        Boxes (B, N, 4), scores (B, N), labels (B, N), and from a head with
        masks their values inside of the boxes (B, N, h, w), from 0 to 1.
    """
    b = proposals.shape[0]
    rois = _rois(proposals)
    box_heads = stages(head.bbox_head)
    extractors = stages(head.bbox_roi_extractor)
    all_logits = []
    for stage, extractor in zip(box_heads, extractors, strict=True):
        pooled = _pool(head, extractor, feats, rois)
        logits, deltas = stage(pooled)
        all_logits.append(logits)
        if stage is not box_heads[-1]:
            best = logits[:, :-1].argmax(1)
            rois = _refine(stage, rois, best, deltas, size)
    logits = sum(all_logits) / len(all_logits)
    last, cfg = box_heads[-1], head.test_cfg
    found = logits.softmax(-1)[:, : last.num_classes]
    is_there = (scores >= 0).flatten()[:, None]
    found = torch.where((found > cfg.score_thr) & is_there, found, NONE)
    deltas = deltas.unflatten(1, (-1, 4))
    boxes = decode(last.bbox_coder, rois[:, None, 1:], deltas, size)
    boxes = boxes.expand(-1, last.num_classes, -1).reshape(b, -1, 4)
    labels = torch.arange(last.num_classes, device=boxes.device)
    labels = labels.expand(found.shape).reshape(b, -1)
    scores, at = best_boxes(
        boxes, found.reshape(b, -1), labels, cfg.nms, cfg.max_per_img
    )
    boxes, labels = pick(boxes, at), labels.gather(1, at)
    if not head.with_mask:
        return boxes, scores, labels
    return boxes, scores, labels, _masks(head, feats, boxes, labels)


def stages(part: nn.Module) -> list[nn.Module]:
    """Returns the stages of a cascade; of another head, the only one."""
    return list(part) if isinstance(part, nn.ModuleList) else [part]


def _rois(boxes: Tensor) -> Tensor:
    """Returns boxes (B, K, 4) as rows of image, x1, y1, x2, y2."""
    b, k, _ = boxes.shape
    image = torch.arange(b, device=boxes.device, dtype=boxes.dtype)
    image = image[:, None, None].expand(b, k, 1)
    return torch.cat([image, boxes], 2).flatten(0, 1)


def _refine(
    stage: nn.Module,
    rois: Tensor,
    labels: Tensor,
    deltas: Tensor,
    size: Sequence[int],
) -> Tensor:
    """Returns the boxes that a stage of a cascade hands on."""
    if not stage.reg_class_agnostic:
        deltas = pick(deltas.unflatten(1, (-1, 4)), labels[:, None])[:, 0]
    boxes = decode(stage.bbox_coder, rois[:, 1:], deltas, size)
    return torch.cat([rois[:, :1], boxes], 1)


def _pool(
    head: nn.Module,
    extractor: nn.Module,
    feats: Sequence[Tensor],
    rois: Tensor,
) -> Tensor:
    """Pools every box from its level.

    Each level pools all boxes. Those of the other levels are empty there, so
    that they cost little, and count nothing.
    """
    feats = feats[: extractor.num_inputs]
    level = extractor.map_roi_levels(rois, len(feats))
    pooled = 0
    for i, (feat, layer) in enumerate(
        zip(feats, extractor.roi_layers, strict=True)
    ):
        own = (level == i)[:, None]
        mine = torch.where(own, rois[:, 1:], 0.0)
        values = torchvision.ops.roi_align(
            feat,
            torch.cat([rois[:, :1], mine], 1),
            layer.output_size,
            layer.spatial_scale,
            layer.sampling_ratio,
            layer.aligned,
        )
        pooled = pooled + torch.where(own[..., None, None], values, 0.0)
    return head.shared_head(pooled) if head.with_shared_head else pooled


def _masks(
    head: nn.Module, feats: Sequence[Tensor], boxes: Tensor, labels: Tensor
) -> Tensor:
    """Returns the values of the masks (B, N, h, w), averaged over stages."""
    b, n = labels.shape
    rois = _rois(boxes)
    values = []
    for mask_head, extractor in zip(
        stages(head.mask_head),
        stages(head.mask_roi_extractor),
        strict=True,
    ):
        logits = mask_head(_pool(head, extractor, feats, rois))
        values.append(logits.sigmoid())
    masks = sum(values) / len(values)
    if mask_head.class_agnostic:
        own = masks
    else:
        own = masks.flatten(2)
        own = pick(own, labels.reshape(-1, 1))
        own = own.unflatten(2, masks.shape[2:])
    return own.reshape(b, n, *masks.shape[2:])
