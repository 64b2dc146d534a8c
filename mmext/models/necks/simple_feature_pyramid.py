# Licensed under the Apache License, Version 2.0. See LICENSE.
"""A feature pyramid from one map, for backbones of one resolution.

Paper: Exploring Plain Vision Transformer Backbones for Object Detection
(ViTDet), ECCV 2022 (arXiv 2203.16527), section 3 and appendix A.1.
"""

from __future__ import annotations

from collections.abc import Sequence

from mmcv.cnn import build_norm_layer
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from mmext.errors import UserError

LN2D = {'type': 'LayerNorm2d', 'eps': 1e-6}


@MODELS.register_module()
class SimpleFeaturePyramid(BaseModule):
    """Deconvolves, keeps and pools the last map to several levels.

    A map (B, in_channels, H, W) of stride 16 becomes ``num_outs`` maps of
    ``out_channels``: (4 H, 4 W) of stride 4, (2 H, 2 W), (H, W), (H / 2,
    W / 2) rounded up, and further ones by dropping every second cell, each
    after a 1x1 and a 3x3 convolution with norms.

    Args:
        in_channels: Channels of the map, a multiple of 4; may be a list of
            one number, as for FPN.
        out_channels: Channels of every level. Default: 256.
        num_outs: Number of levels, at least 4. Default: 5.
        norm_cfg: Norm after each convolution. Default: LayerNorm2d.
        init_cfg: See :class:`mmengine.model.BaseModule`.

    Raises:
        UserError: If ``in_channels``, ``num_outs`` or an input does not fit.

    Example:
        >>> import torch
        >>> neck = SimpleFeaturePyramid(in_channels=64)
        >>> [tuple(x.shape[2:]) for x in neck((torch.rand(1, 64, 7, 10),))]
        [(28, 40), (14, 20), (7, 10), (4, 5), (2, 3)]
    """

    def __init__(
        self,
        in_channels: int | Sequence[int],
        out_channels: int = 256,
        num_outs: int = 5,
        norm_cfg: dict = LN2D,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        given = in_channels
        if not isinstance(in_channels, int):
            in_channels = in_channels[0] if len(in_channels) == 1 else 0
        if in_channels < 4 or in_channels % 4:
            raise UserError(
                f'SimpleFeaturePyramid got in_channels={given}.',
                'It takes the channels of one map, a multiple of 4.',
            )
        if num_outs < 4:
            raise UserError(
                f'SimpleFeaturePyramid got num_outs={num_outs}.',
                'It makes 4 levels of its own, and more by subsampling.',
            )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.num_outs = num_outs
        half, quarter = in_channels // 2, in_channels // 4
        resize = [
            [
                nn.ConvTranspose2d(in_channels, half, 2, 2),
                build_norm_layer(norm_cfg, half)[1],
                nn.GELU(),
                nn.ConvTranspose2d(half, quarter, 2, 2),
            ],
            [nn.ConvTranspose2d(in_channels, half, 2, 2)],
            [],
            [nn.MaxPool2d(2, ceil_mode=True)],
        ]
        widths = [quarter, half, in_channels, in_channels]
        self.levels = nn.ModuleList(
            nn.Sequential(
                *layers,
                nn.Conv2d(width, out_channels, 1, bias=False),
                build_norm_layer(norm_cfg, out_channels)[1],
                nn.Conv2d(
                    out_channels, out_channels, 3, padding=1, bias=False
                ),
                build_norm_layer(norm_cfg, out_channels)[1],
            )
            for layers, width in zip(resize, widths, strict=True)
        )

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Returns ``num_outs`` levels of one map (B, in_channels, H, W)."""
        if len(inputs) != 1 or inputs[0].size(1) != self.in_channels:
            raise UserError(
                'SimpleFeaturePyramid got maps of '
                f'{[x.size(1) for x in inputs]} channels.',
                f'It takes one map of {self.in_channels}: give the backbone '
                'out_indices=-1 and the neck its out_channels.',
            )
        outs = [level(inputs[0]) for level in self.levels]
        while len(outs) < self.num_outs:
            outs.append(max_pool2d(outs[-1], 1, stride=2))
        return tuple(outs)
