# Licensed under the Apache License, Version 2.0. See LICENSE.
"""A detector whose convolutions are computed in bfloat16."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.models.roi_heads.bbox_heads import BBoxHead
from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from torch import nn
from torch.utils._pytree import tree_map_only


def in_bf16(model: nn.Module) -> nn.Module:
    """Returns a copy that computes convolutions and products in bfloat16.

    Outputs of the backbone, neck and heads are float32 again: mmdet's
    anchors would have their type, and be wrong by pixels.
    """
    model = copy.deepcopy(model)
    device = next(model.parameters()).device.type
    parts = [model.backbone, *([model.neck] if model.with_neck else [])]
    heads = BaseDenseHead, BBoxHead, FCNMaskHead
    parts += [part for part in model.modules() if isinstance(part, heads)]
    for part in parts:
        part.forward = _autocast(part.forward, device)
    return model


def _autocast(forward: Callable, device: str) -> Callable:
    @wraps(forward)
    def compute(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast(device, torch.bfloat16):
            outs = forward(*args, **kwargs)
        return tree_map_only(torch.Tensor, torch.Tensor.float, outs)

    return compute
