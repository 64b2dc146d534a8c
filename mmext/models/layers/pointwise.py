# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Layers that act on every position of a map by itself."""

from __future__ import annotations

from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional


@MODELS.register_module()
class LayerNorm2d(nn.LayerNorm):
    """Normalises (B, C, H, W) over C at every position, as ViTDet does.

    In configs: ``norm_cfg=dict(type='LayerNorm2d', eps=1e-6)``.
    """

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class PointwiseConv(nn.Conv2d):
    """``nn.Conv2d`` with a 1x1 kernel, for features in channels-last order.

    (B, C_in, H, W) to (B, C_out, H, W). In this order the positions are the
    rows of a matrix, whereas PyTorch's CPU convolution may reorder input and
    output. Parameters, their names and initial values are those of
    ``nn.Conv2d``.
    """

    def __init__(
        self, in_channels: int, out_channels: int, bias: bool = True
    ) -> None:
        super().__init__(in_channels, out_channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        x = functional.linear(x, self.weight.flatten(1), self.bias)
        return x.permute(0, 3, 1, 2)
