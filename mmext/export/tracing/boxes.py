# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Decodes boxes as mmdet's coders do, without branches on values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.task_modules.coders import DeltaXYWHBBoxCoder
from torch import Tensor

_LARGEST = abs(math.log(16 / 1000))  # mmdet's wh_ratio_clip


def decode(
    coder: Any, priors: Tensor, values: Tensor, size: Sequence[int]
) -> Tensor:
    """Returns boxes (..., 4) for anchors or points and a head's output.

    Args:
        coder: mmdet's ``DeltaXYWHBBoxCoder`` or ``DistancePointBBoxCoder``.
        priors: (..., 4) anchors, or (..., 2 or more) points.
        values: (..., 4).
        size: Height and width of the image, which boxes are clipped to.
    """
    if isinstance(coder, DeltaXYWHBBoxCoder):
        x1, y1, x2, y2 = _from_deltas(coder, priors, values)
    else:
        x, y = priors[..., 0], priors[..., 1]
        left, top, right, bottom = values.unbind(-1)
        x1, y1, x2, y2 = x - left, y - top, x + right, y + bottom
    if coder.clip_border:
        height, width = size
        x1, x2 = x1.clamp(0, width), x2.clamp(0, width)
        y1, y2 = y1.clamp(0, height), y2.clamp(0, height)
    return torch.stack([x1, y1, x2, y2], -1)


def _from_deltas(
    coder: DeltaXYWHBBoxCoder, priors: Tensor, values: Tensor
) -> tuple[Tensor, ...]:
    """Computes what mmdet's ``delta2bbox`` computes, in the same order."""
    dx, dy, dw, dh = (
        value * std + mean
        for value, std, mean in zip(
            values.unbind(-1), coder.stds, coder.means, strict=True
        )
    )
    x1, y1, x2, y2 = priors.unbind(-1)
    width, height = x2 - x1, y2 - y1
    x = (x1 + x2) * 0.5 + width * dx
    y = (y1 + y2) * 0.5 + height * dy
    width = width * dw.clamp(-_LARGEST, _LARGEST).exp()
    height = height * dh.clamp(-_LARGEST, _LARGEST).exp()
    return (
        x - width * 0.5,
        y - height * 0.5,
        x + width * 0.5,
        y + height * 0.5,
    )
