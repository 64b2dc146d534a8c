# Licensed under the Apache License, Version 2.0. See LICENSE.
"""DemoNet: a network of one resolution to compare star with sum.

Paper: Rewrite the Stars, CVPR 2024 (arXiv 2403.19967), section 3.4, tables 2
to 4. Official code: github.com/ma-xu/Rewrite-the-Stars (imagenet/demonet.py),
with the same key names; no weights were released. Differences: it returns
maps instead of class scores, and images need not be square.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmcv.cnn.bricks import DropPath
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmext.models.backbones.base_backbone import (
    IsotropicBackbone,
    drop_path_rates,
)
from mmext.models.layers.star_operation import StarOperation

GELU = {'type': 'GELU'}
LAYER_SCALE = 1e-6


class DemoBlock(nn.Module):
    """Norm, depth-wise 7x7, star or sum in a wider space, layer scale.

    Takes and returns tokens (B, H, W, C); has a shortcut.
    """

    def __init__(
        self,
        channels: int,
        mlp_ratio: int,
        star: StarOperation,
        drop_path: float,
    ) -> None:
        super().__init__()
        hidden = mlp_ratio * channels
        self.norm = nn.LayerNorm(channels)
        self.dwconv = nn.Conv2d(
            channels, channels, 7, padding=3, groups=channels
        )
        self.f = nn.Linear(channels, 2 * hidden)
        self.star = star
        self.g = nn.Linear(hidden, channels)
        self.gamma = nn.Parameter(torch.full((channels,), LAYER_SCALE))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        y = self.dwconv(self.norm(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        y = self.g(self.star(*self.f(y).chunk(2, dim=-1)))
        return x + self.drop_path(self.gamma * y)


@MODELS.register_module()
class DemoNet(IsotropicBackbone):
    """DemoNet.

    Images (B, in_channels, H, W) become one map (B, embed_dims,
    ceil(H / 16), ceil(W / 16)) for each of ``out_indices``.
    ``frozen_stages``, ``with_cp`` and ``init_cfg`` are those of
    :class:`BaseBackbone`; stages are blocks. ``norm_eval`` has no effect.

    Args:
        depth: Number of blocks. Default: 12.
        embed_dims: Channels. Default: 192.
        in_channels: Channels of the image. Default: 3.
        operation: ``'star'`` or ``'sum'``. Default: ``'star'``.
        act_cfg: The activation of one branch. With None, layer norm and, for
            ``'star'``, the product are the only non-linearities (the paper's
            table 4). Default: GELU.
        mlp_ratio: Channels of each branch over ``embed_dims``. Default: 3.
        patch_size: Side of a patch in pixels, the stride. Default: 16.
        final_norm: Whether to normalise the output of the last block, if it
            is returned. Default: True.
        gap_before_final_norm: Whether to pool the last output over space
            before that norm, as the official classifier does; it is then (B,
            embed_dims). Default: False.
        drop_path_rate: Rate of the last block; rises linearly from 0.
            Default: 0.
        out_indices: Blocks whose output is returned. Default: -1, the last.

    Raises:
        UserError: If an operation or index does not exist; if an image is
            smaller than a patch or has other channels.

    Example:
        >>> import torch
        >>> model = DemoNet(depth=2, embed_dims=32, act_cfg=None).eval()
        >>> [tuple(x.shape) for x in model(torch.rand(1, 3, 100, 96))]
        [(1, 32, 7, 6)]
    """

    def __init__(
        self,
        depth: int = 12,
        embed_dims: int = 192,
        in_channels: int = 3,
        operation: str = 'star',
        act_cfg: dict | None = GELU,
        mlp_ratio: int = 3,
        patch_size: int = 16,
        final_norm: bool = True,
        gap_before_final_norm: bool = False,
        drop_path_rate: float = 0.0,
        out_indices: int | Sequence[int] = -1,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(
            in_channels, frozen_stages, norm_eval, with_cp, init_cfg
        )
        self.gap_before_final_norm = gap_before_final_norm
        num_built, has_norm = self.set_blocks(
            out_indices, depth, embed_dims, patch_size, final_norm
        )
        rates = drop_path_rates(drop_path_rate, depth)
        self.stem = nn.Conv2d(in_channels, embed_dims, patch_size, patch_size)
        self.blocks = nn.ModuleList(
            DemoBlock(
                embed_dims, mlp_ratio, StarOperation(operation, act_cfg), rate
            )
            for rate in rates[:num_built]
        )
        self.norm = nn.LayerNorm(embed_dims) if has_norm else None
        self.train()

    def init_weights(self) -> None:
        """Initialises as the official code: truncated normal of 0.02."""
        if not self.is_init:
            for module in self.modules():
                if isinstance(module, nn.Conv2d | nn.Linear):
                    nn.init.trunc_normal_(module.weight, std=0.02)
                    nn.init.zeros_(module.bias)
        super().init_weights()

    def final(self, x: Tensor) -> Tensor:
        """Returns the last output, pooled if ``gap_before_final_norm``."""
        if self.gap_before_final_norm:
            return self.norm(x.mean((1, 2)))
        return super().final(x)
