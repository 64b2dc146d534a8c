# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Layer norm over the channels of feature maps."""

from __future__ import annotations

from mmengine.registry import MODELS
from torch import Tensor, nn


@MODELS.register_module()
class LayerNorm2d(nn.LayerNorm):
    """Normalises (B, C, H, W) over C at every position, as ViTDet does.

    In configs: ``norm_cfg=dict(type='LayerNorm2d', eps=1e-6)``.
    """

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
