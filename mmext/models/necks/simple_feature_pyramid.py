# Licensed under the Apache License, Version 2.0. See LICENSE.
"""A feature pyramid from one map, for backbones of one resolution.

Paper: Exploring Plain Vision Transformer Backbones for Object Detection
(ViTDet), ECCV 2022 (arXiv 2203.16527), section 3 and appendix A.1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from mmcv.cnn import build_norm_layer
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool2d, pad

from mmext.errors import UserError

LN2D = {'type': 'LayerNorm2d', 'eps': 1e-6}


@MODELS.register_module()
class SimpleFeaturePyramid(BaseModule):
    """Deconvolves, keeps and pools the last map to several levels.

    A map (B, in_channels, H, W) of stride 16 becomes ``num_outs`` maps of
    ``out_channels``: (4 H, 4 W) of stride 4, (2 H, 2 W), (H, W), (H / 2,
    W / 2) rounded up, and further ones by dropping every second cell, each
    after a 1x1 and a 3x3 convolution with norms. The levels have the strides
    4, 8, 16, 32, ... for every ``stride`` of the map: one of 8 or 32 needs
    one deconvolution less or more, and one that is no power of 2 (14) is
    first interpolated (bilinear) to the nearest (16).

    Args:
        in_channels: Channels of the map, a multiple of 4 (of 2 for stride 8,
            of 8 for 32); may be a list of one number, as for FPN.
        stride: Stride of the map, 6 to 45. Default: 16.
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
        stride: int = 16,
        norm_cfg: dict = LN2D,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        given = in_channels
        if not isinstance(in_channels, int):
            in_channels = in_channels[0] if len(in_channels) == 1 else 0
        halvings = round(math.log2(stride)) if stride > 0 else 0
        if not 3 <= halvings <= 5:
            raise UserError(
                f'SimpleFeaturePyramid got a map of stride={stride}.',
                'It makes levels of strides 4 to 32 from one of 6 to 45: use '
                'a model with another patch size, such as 16.',
            )
        divisor = 2 ** (halvings - 2)
        if in_channels < divisor or in_channels % divisor:
            raise UserError(
                f'SimpleFeaturePyramid got in_channels={given}.',
                f'It takes the channels of one map, a multiple of {divisor}.',
            )
        if num_outs < 4:
            raise UserError(
                f'SimpleFeaturePyramid got num_outs={num_outs}.',
                'It makes 4 levels of its own, and more by subsampling.',
            )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.num_outs = num_outs
        self.stride, self.scale = stride, stride / 2**halvings
        self.levels = nn.ModuleList()
        for level in (2, 3, 4, 5):  # of stride 2**level
            width = in_channels
            layers: list[nn.Module] = []
            for _ in range(level, halvings):
                if layers:
                    norm = build_norm_layer(norm_cfg, width)[1]
                    layers += [norm, nn.GELU()]
                layers.append(nn.ConvTranspose2d(width, width // 2, 2, 2))
                width //= 2
            if level > halvings:
                side = 2 ** (level - halvings)
                layers.append(nn.MaxPool2d(side, ceil_mode=True))
            conv = nn.Conv2d(
                out_channels, out_channels, 3, padding=1, bias=False
            )
            layers += [
                nn.Conv2d(width, out_channels, 1, bias=False),
                build_norm_layer(norm_cfg, out_channels)[1],
                conv,
                build_norm_layer(norm_cfg, out_channels)[1],
            ]
            self.levels.append(nn.Sequential(*layers))

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Returns ``num_outs`` levels of one map (B, in_channels, H, W)."""
        if len(inputs) != 1 or inputs[0].size(1) != self.in_channels:
            raise UserError(
                'SimpleFeaturePyramid got maps of '
                f'{[x.size(1) for x in inputs]} channels.',
                f'It takes one map of {self.in_channels}: give the backbone '
                'out_indices=-1 and the neck its out_channels.',
            )
        x = inputs[0]
        if self.scale != 1:
            # One more cell, as the size is rounded down.
            x = pad(x, (0, 1, 0, 1), 'replicate')
            x = interpolate(x, scale_factor=self.scale, mode='bilinear')
        outs = [level(x) for level in self.levels]
        while len(outs) < self.num_outs:
            outs.append(max_pool2d(outs[-1], 1, stride=2))
        return tuple(outs)
