# Licensed under the Apache License, Version 2.0. See LICENSE.
"""DemoNet: one resolution, one block, to compare star with sum.

Paper: Rewrite the Stars, CVPR 2024 (arXiv 2403.19967), section 3.4, tables 2
to 4. Official code: github.com/ma-xu/Rewrite-the-Stars (imagenet/demonet.py),
with whose key names ours agree; no weights were released. What differs: maps
are returned instead of class scores, images need not be square.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmcv.cnn.bricks import DropPath
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmext.models.backbones.base_backbone import drop_path_rates
from mmext.models.backbones.isotropic_backbone import IsotropicBackbone
from mmext.models.layers.star_operation import StarOperation

GELU = {'type': 'GELU'}
LAYER_SCALE = 1e-6


class DemoBlock(nn.Module):
    """Norm, depth-wise 7x7, star or sum in a wider space, layer scale.

    On tokens (B, H, W, C), beside a shortcut.
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
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.dwconv(self.norm(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        y = self.g(self.star(*self.f(y).chunk(2, dim=-1)))
        return x + self.drop_path(self.gamma * y)


@MODELS.register_module()
class DemoNet(IsotropicBackbone):
    """DemoNet.

    Images (B, in_channels, H, W) become one map (B, embed_dims,
    ceil(H / 16), ceil(W / 16)) for each of ``out_indices``.

    Args:
        depth: Number of blocks.
        embed_dims: Channels.
        in_channels: Channels of the image.
        operation: ``'star'`` or ``'sum'``.
        act_cfg: The activation of one branch; None for none at all, which
            leaves layer norm and, with ``'star'``, the product as the only
            non-linearities (the paper's table 4).
        mlp_ratio: Channels of each branch over ``embed_dims``.
        patch_size: Side of a patch, in pixels; the stride.
        final_norm: Norm the last block's output, where it is returned.
        gap_before_final_norm: Pool the last output over space before that
            norm, as the official classifier does; it is then (B,
            embed_dims).
        drop_path_rate: Of the last block; rises linearly from 0.
        out_indices: Blocks whose output is returned (-1 is the last).
        frozen_stages: -1 freezes nothing, 0 the stem, n the stem and the
            first n blocks.
        norm_eval: For the host's sake; there is no batch norm to keep in
            evaluation mode.
        with_cp: Recompute blocks in the backward pass to save memory.
        init_cfg: Weights to start from, see :class:`BaseBackbone`.

    Raises:
        UserError: An operation or index that does not exist; an image with
            the wrong number of channels or smaller than a patch.

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
        has_norm = self.set_outputs(
            out_indices, depth, embed_dims, patch_size, final_norm
        )
        rates = drop_path_rates(drop_path_rate, depth)
        self.stem = nn.Conv2d(in_channels, embed_dims, patch_size, patch_size)
        self.blocks = nn.ModuleList(
            DemoBlock(
                embed_dims, mlp_ratio, StarOperation(operation, act_cfg), rate
            )
            for rate in rates[: self.out_indices[-1] + 1]
        )
        self.norm = nn.LayerNorm(embed_dims) if has_norm else None
        self.train()

    def init_weights(self) -> None:
        """As the official code: truncated normal .02, biases zero."""
        if not self.is_init:
            for module in self.modules():
                if isinstance(module, nn.Conv2d | nn.Linear):
                    nn.init.trunc_normal_(module.weight, std=0.02)
                    nn.init.zeros_(module.bias)
        super().init_weights()

    def final(self, x: Tensor) -> Tensor:
        """The last tokens (B, H, W, C), normed; pooled first if asked."""
        if self.gap_before_final_norm:
            return self.norm(x.mean((1, 2)))
        return super().final(x)
