# Licensed under the Apache License, Version 2.0. See LICENSE.
"""gMLP: multi-layer perceptrons whose only spatial mixing is a gate.

Paper: Pay Attention to MLPs, NeurIPS 2021 (arXiv 2105.08050). The authors'
weights are not public; key names and numbers are those of timm's gMLP, whose
checkpoints load. Differences: it returns maps, and the spatial projection runs
in windows of 14x14 tokens that shift from block to block, so that any image
size works at a cost linear in its area. At 224x224 there is one window, and
the network is exactly gMLP.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import ClassVar

from mmcv.cnn import build_activation_layer, build_norm_layer
from mmcv.cnn.bricks import DropPath
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmext.models.arguments import resolve_arch
from mmext.models.backbones.base_backbone import (
    IsotropicBackbone,
    drop_path_rates,
)
from mmext.models.layers.spatial_gating_unit import LN, SpatialGatingUnit

LN_BLOCK = {'type': 'LN', 'eps': 1e-6}
GELU = {'type': 'GELU'}


class GMLPBlock(nn.Module):
    """Norm, linear, activation, spatial gate, linear, and a shortcut.

    Takes and returns tokens (B, H, W, C).
    """

    def __init__(
        self,
        channels: int,
        hidden: int,
        gate: SpatialGatingUnit,
        act_cfg: dict,
        norm_cfg: dict,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.norm = build_norm_layer(norm_cfg, channels)[1]
        self.mlp_channels = nn.Sequential(
            OrderedDict(
                fc1=nn.Linear(channels, hidden),
                act=build_activation_layer(act_cfg),
                gate=gate,
                fc2=nn.Linear(gate.out_channels, channels),
            )
        )
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop_path(self.mlp_channels(self.norm(x)))


@MODELS.register_module()
class GMLP(IsotropicBackbone):
    """gMLP with windowed spatial gating.

    Images (B, in_channels, H, W) become one map (B, embed_dims,
    ceil(H / patch_size), ceil(W / patch_size)) for each of ``out_indices``.
    For a detector follow it with :class:`SimpleFeaturePyramid`.
    ``frozen_stages``, ``norm_eval``, ``with_cp`` and ``init_cfg`` are those
    of :class:`BaseBackbone`; stages are blocks.

    Args:
        arch: ``'tiny'``, ``'small'`` or ``'base'``; or a dict with the keys
            ``embed_dims``, ``depth``, ``mlp_ratio``, ``drop_path_rate``.
            Default: ``'small'``.
        in_channels: Channels of the image. Default: 3.
        patch_size: Side of a patch in pixels, the stride. Default: 16.
        window_size: Side of a window in tokens; released weights need the
            default, 14.
        shift_windows: Whether the windows of every second block are shifted
            by half a window, so that windows exchange information. Default:
            True.
        act_cfg: The activation before the gate. Default: GELU.
        norm_cfg: Norm of the blocks and of the end, over the last dimension.
            Default: LN.
        gate_norm_cfg: Norm inside the gate. Default: LN.
        gate_form: ``'split'`` multiplies half of the channels by a spatial
            projection of the others, ``'multiply'`` all by their own;
            ``'add'`` adds it instead. Default: ``'split'``.
        final_norm: Whether to normalise the output of the last block, if it
            is returned. Default: True.
        drop_path_rate: Rate of the last block; rises linearly from 0.
            Default: that of the paper (1 minus the survival probability).
        out_indices: Blocks whose output is returned, 0 to 29. Default: -1,
            the last.

    Raises:
        UserError: If an arch or index does not exist; if an image is smaller
            than a patch or has other channels.

    Example:
        >>> import torch
        >>> model = GMLP('tiny', out_indices=(1, 3)).eval()
        >>> [tuple(x.shape) for x in model(torch.rand(1, 3, 250, 320))]
        [(1, 128, 16, 20), (1, 128, 16, 20)]
    """

    # Table 1 of the paper; mlp_ratio is d_ffn / d_model.
    arch_settings: ClassVar[dict[str, dict]] = {
        name: {
            'embed_dims': dims,
            'depth': 30,
            'mlp_ratio': 6,
            'drop_path_rate': rate,
        }
        for name, dims, rate in (
            ('tiny', 128, 0.0),
            ('small', 256, 0.05),
            ('base', 512, 0.2),
        )
    }

    def __init__(
        self,
        arch: str | dict = 'small',
        in_channels: int = 3,
        patch_size: int = 16,
        window_size: int = 14,
        shift_windows: bool = True,
        act_cfg: dict = GELU,
        norm_cfg: dict = LN_BLOCK,
        gate_norm_cfg: dict = LN,
        gate_form: str = 'split',
        final_norm: bool = True,
        drop_path_rate: float | None = None,
        out_indices: int | Sequence[int] = -1,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(
            in_channels, frozen_stages, norm_eval, with_cp, init_cfg
        )
        settings = resolve_arch(arch, self.arch_settings)
        depth, dims = settings['depth'], settings['embed_dims']
        hidden = int(dims * settings['mlp_ratio'])
        if drop_path_rate is None:
            drop_path_rate = settings['drop_path_rate']
        num_built, has_norm = self.set_blocks(
            out_indices, depth, dims, patch_size, final_norm
        )
        rates = drop_path_rates(drop_path_rate, depth)

        proj = nn.Conv2d(in_channels, dims, patch_size, patch_size)
        self.stem = nn.Sequential(OrderedDict(proj=proj))
        self.blocks = nn.ModuleList()
        for i in range(num_built):
            shift = shift_windows and i % 2 == 1
            gate = SpatialGatingUnit(
                hidden, window_size, shift, gate_norm_cfg, gate_form
            )
            block = GMLPBlock(dims, hidden, gate, act_cfg, norm_cfg, rates[i])
            self.blocks.append(block)
        self.norm = build_norm_layer(norm_cfg, dims)[1] if has_norm else None
        self.train()

    def init_weights(self) -> None:
        """Initialises as timm: Xavier, and gates near the identity."""
        if not self.is_init:
            fan_in = self.stem.proj.weight[0].numel()
            nn.init.trunc_normal_(self.stem.proj.weight, std=fan_in**-0.5)
            nn.init.zeros_(self.stem.proj.bias)
            for block in self.blocks:
                for fc in (block.mlp_channels.fc1, block.mlp_channels.fc2):
                    nn.init.xavier_uniform_(fc.weight)
                    nn.init.normal_(fc.bias, std=1e-6)
                block.mlp_channels.gate.init_weights()
        super().init_weights()
