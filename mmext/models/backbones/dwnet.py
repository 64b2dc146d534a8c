# Licensed under the Apache License, Version 2.0. See LICENSE.
"""DWNet: Swin with (dynamic) depth-wise convolution instead of attention.

Paper: On the Connection between Local Attention and Dynamic Depth-wise
Convolution, ICLR 2022 (arXiv 2106.04263). Official code:
github.com/Atten4Vis/DemystifyLocalViT; the key names are those of its
detection backbone. Differences: all three forms of the convolution work (at
the official HEAD a static one replaces the homogeneous one), the
inhomogeneous one does not unfold its input and works for detection too,
stages after the last of ``out_indices`` are not built, and features are
(B, C, H, W) in channels-last order instead of tokens.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import ClassVar

from mmcv.cnn import build_norm_layer
from mmcv.cnn.bricks import DropPath
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional

from mmext.errors import UserError
from mmext.models.arguments import choose, per_stage, resolve_arch
from mmext.models.backbones.base_backbone import BaseBackbone, drop_path_rates
from mmext.models.layers.dynamic_depthwise_conv import (
    HomogeneousDynamicConv,
    InhomogeneousDynamicConv,
)
from mmext.models.layers.local_mlp import LocalMLP
from mmext.models.layers.pointwise import LayerNorm2d, PointwiseConv

BN = {'type': 'BN'}


class PatchEmbed(nn.Module):
    """Embeds patches that do not overlap; LayerNorm over channels."""

    def __init__(
        self, in_channels: int, embed_dims: int, patch_size: int
    ) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(in_channels, embed_dims, patch_size, patch_size)
        self.norm = LayerNorm2d(embed_dims)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.proj(pad_to_multiple(x, self.patch_size)))


class PatchMerging(nn.Module):
    """Merges each 2x2 patch to one position with twice the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * channels)
        self.reduction = nn.Linear(4 * channels, 2 * channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = pad_to_multiple(x, 2).permute(0, 2, 3, 1)
        # Column by column within a patch, as in Swin's code.
        x = x.unflatten(2, (-1, 2)).unflatten(1, (-1, 2))
        x = x.permute(0, 1, 3, 4, 2, 5).flatten(3)
        return self.reduction(self.norm(x)).permute(0, 3, 1, 2)


class ConvMixer(nn.Module):
    """Replaces attention: 1x1 convolution, mixing of positions, 1x1."""

    def __init__(
        self, channels: int, mixer: nn.Module, norm_cfg: dict
    ) -> None:
        super().__init__()
        self.conv0 = PointwiseConv(channels, channels, bias=False)
        self.bn0 = build_norm_layer(norm_cfg, channels)[1]
        self.conv = mixer
        self.bn = build_norm_layer(norm_cfg, channels)[1]
        self.conv2 = PointwiseConv(channels, channels, bias=False)
        self.bn2 = build_norm_layer(norm_cfg, channels)[1]
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn0(self.conv0(x)))
        x = self.relu(self.bn(self.conv(x)))
        return self.bn2(self.conv2(x))


class DWBlock(nn.Module):
    """A convolutional mixer and an MLP, each with a shortcut.

    The mixer's input is padded to a multiple of ``pad_to``.
    """

    def __init__(
        self,
        channels: int,
        mixer: nn.Module,
        pad_to: int,
        mlp_ratio: float,
        drop_path: float,
        norm_cfg: dict,
    ) -> None:
        super().__init__()
        self.pad_to = pad_to
        self.attn2conv = ConvMixer(channels, mixer, norm_cfg)
        self.drop_path = DropPath(drop_path)
        hidden = int(mlp_ratio * channels)
        self.mlp = nn.Sequential(
            OrderedDict(
                fc1=nn.Linear(channels, hidden),
                act=nn.GELU(),
                fc2=nn.Linear(hidden, channels),
            )
        )
        self.bn = build_norm_layer(norm_cfg, channels)[1]

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        # The padding comes before the norms, so it is not zero inside the
        # mixer, as in the training of the released detectors.
        y = self.attn2conv(pad_to_multiple(x, self.pad_to))
        x = x + self.drop_path(y[..., :height, :width])
        y = self.mlp(self.bn(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return x + self.drop_path(y)


@MODELS.register_module()
class DWNet(BaseBackbone):
    """DWNet, static, homogeneous dynamic or inhomogeneous dynamic.

    Images (B, in_channels, H, W), at least as large as the largest stride,
    become up to four levels. Level i has shape (B, embed_dims * 2**i,
    H / 2**(i + 2), W / 2**(i + 2)) with patches of 4x4, rounded up at every
    halving.
    ``frozen_stages``, ``norm_eval``, ``with_cp`` and ``init_cfg`` are those
    of :class:`BaseBackbone`. No ImageNet checkpoint has the norms of the
    levels: give ``allow_missing=['norm']``. They are never frozen.

    Args:
        arch: ``'tiny'`` or ``'base'``; or a dict with the keys
            ``embed_dims``, ``depths``, ``channels_per_group``,
            ``drop_path_rate``. Default: ``'tiny'``.
        dynamic: None learns the depth-wise kernels; ``'homogeneous'``
            computes one per image and channel, ``'inhomogeneous'`` one per
            position and group of channels. Default: None.
        in_channels: Channels of the image. Default: 3.
        token_mixer: ``'conv'``, or ``'local_mlp'`` for the paper's local
            MLP: learned weights that the positions of a window do not share;
            windows shift in every other block. Only with ``dynamic=None``.
            Default: ``'conv'``.
        channels_per_group: Channels that share weights, in the inhomogeneous
            convolution and the local MLP; one number or one for each stage,
            a divisor of the stage's channels. Default: that of the arch.
        patch_size: Side of a patch in pixels, the stride of the first level.
            Default: 4.
        window_size: Side of the kernels and of the windows, in positions.
            Default: 7.
        mlp_ratio: Hidden channels of the MLPs over their input's. Default: 4.
        pad_to_window: Whether to pad features with zeros to multiples of
            ``window_size`` before each block's mixer and crop them after, as
            the released detectors do. False is the ImageNet network at any
            size; both are equal if the windows tile the features (224x224
            with 7). Default: True.
        norm_cfg: All norms except those of patch embedding and merging, which
            are LayerNorm. The official detectors have SyncBN. Default: BN.
        final_norm: Whether there is a LayerNorm on the last level (3, which
            must be returned) and no norm on the others, as for
            classification. Default: False.
        drop_path_rate: Rate of the last block; rises linearly from 0.
            Default: that of the official detectors, 0.2 for tiny and 0.3 for
            base (0.5 for base on ImageNet).
        out_indices: Levels to return, 0 to 3 (-1 is the last). Default: all.

    Raises:
        UserError: If an argument is not allowed; if an image is too small or
            has other channels.

    Example:
        >>> import torch
        >>> model = DWNet('tiny', dynamic='homogeneous').eval()
        >>> [tuple(x.shape) for x in model(torch.rand(1, 3, 99, 64))]
        [(1, 96, 25, 16), (1, 192, 13, 8), (1, 384, 7, 4), (1, 768, 4, 2)]
    """

    # The paper's table 7; channels_per_group from the official configs,
    # which call it num_heads.
    arch_settings: ClassVar[dict[str, dict]] = {
        'tiny': {
            'embed_dims': 96,
            'depths': (2, 2, 6, 2),
            'channels_per_group': (3, 6, 12, 24),
            'drop_path_rate': 0.2,
        },
        'base': {
            'embed_dims': 128,
            'depths': (2, 2, 18, 2),
            'channels_per_group': (4, 8, 16, 32),
            'drop_path_rate': 0.3,
        },
    }

    def __init__(
        self,
        arch: str | dict = 'tiny',
        dynamic: str | None = None,
        in_channels: int = 3,
        token_mixer: str = 'conv',
        channels_per_group: int | Sequence[int] | None = None,
        patch_size: int = 4,
        window_size: int = 7,
        mlp_ratio: float = 4.0,
        pad_to_window: bool = True,
        norm_cfg: dict = BN,
        final_norm: bool = False,
        drop_path_rate: float | None = None,
        out_indices: int | Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(
            in_channels, frozen_stages, norm_eval, with_cp, init_cfg
        )
        settings = resolve_arch(arch, self.arch_settings)
        depths = settings['depths']
        num_stages = len(depths)
        if dynamic is not None:
            choose('dynamic', dynamic, ('homogeneous', 'inhomogeneous'))
        choose('token_mixer', token_mixer, ('conv', 'local_mlp'))
        if token_mixer == 'local_mlp' and dynamic is not None:
            raise UserError(
                f'The local MLP has learned weights, but dynamic={dynamic!r}.',
                "Use dynamic=None with token_mixer='local_mlp'.",
            )
        if window_size < 1 or window_size % 2 == 0:
            raise UserError(
                f'window_size={window_size} is not a positive odd number.',
                f'A kernel has a centre: use {max(window_size, 0) + 1}.',
            )
        self.dynamic = dynamic
        self.token_mixer = token_mixer
        self.window_size = window_size
        self.norm_cfg = norm_cfg
        widths = [settings['embed_dims'] * 2**i for i in range(num_stages)]
        strides = [patch_size * 2**i for i in range(num_stages)]
        num_built = self.set_stages(
            out_indices, widths, strides, 'patch_embed', 'layers'
        )
        if channels_per_group is None:
            channels_per_group = settings['channels_per_group']
        shares = per_stage(
            'channels_per_group', channels_per_group, num_stages
        )
        if drop_path_rate is None:
            drop_path_rate = settings['drop_path_rate']
        rates = drop_path_rates(drop_path_rate, sum(depths))

        self.patch_embed = PatchEmbed(in_channels, widths[0], patch_size)
        self.layers = nn.ModuleList()
        last = num_built - 1
        for i in range(num_built):
            blocks = [
                DWBlock(
                    widths[i],
                    self._build_mixer(widths[i], shares[i], j),
                    window_size if pad_to_window else 1,
                    mlp_ratio,
                    rates[sum(depths[:i]) + j],
                    norm_cfg,
                )
                for j in range(depths[i])
            ]
            layer = OrderedDict(blocks=nn.Sequential(*blocks))
            if i < last:
                layer['downsample'] = PatchMerging(widths[i])
            self.layers.append(nn.Sequential(layer))
        if final_norm and last < num_stages - 1:
            raise UserError(
                f'final_norm=True, but out_indices={out_indices} leaves out '
                'the last stage, which that norm belongs to.',
                f'Add {num_stages - 1} to out_indices, or final_norm=False.',
            )
        # The name of each level's norm.
        self.norm_of = {i: f'norm{i}' for i in self.out_indices}
        if final_norm:
            self.norm_of = {last: 'norm'}
            norm_cfg = {'type': 'LayerNorm2d'}
        for i, name in self.norm_of.items():
            self.add_module(name, build_norm_layer(norm_cfg, widths[i])[1])
        absent = {'norm', *(f'norm{i}' for i in range(num_stages))}
        absent -= set(self.norm_of.values())
        absent.add(f'layers.{last}.downsample')
        self.unbuilt += tuple(f'{name}.' for name in absent)
        self.train()

    def _build_mixer(self, channels: int, share: int, block: int) -> nn.Module:
        size = self.window_size
        if self.token_mixer == 'local_mlp':
            shift = size // 2 if block % 2 else 0
            return LocalMLP(channels, size, share, shift)
        if self.dynamic == 'homogeneous':
            return HomogeneousDynamicConv(channels, size, self.norm_cfg)
        if self.dynamic == 'inhomogeneous':
            return InhomogeneousDynamicConv(
                channels, size, share, self.norm_cfg
            )
        return nn.Conv2d(
            channels, channels, size, padding=size // 2, groups=channels
        )

    def init_weights(self) -> None:
        """Initialises linear layers as Swin; convolutions are PyTorch's."""
        if not self.is_init:
            for module in self.modules():
                if isinstance(module, nn.Linear):
                    nn.init.trunc_normal_(module.weight, std=0.02)
                    if module.bias is not None:
                        nn.init.zeros_(module.bias)
        super().init_weights()

    def levels(self, x: Tensor) -> list[Tensor]:
        x = self.patch_embed(x)
        outs = []
        for i, layer in enumerate(self.layers):
            for block in layer.blocks:
                x = self.run_block(block, x)
            if i in self.out_indices:
                # Compiled RoI ops of detectors need contiguous maps.
                out = x.contiguous()
                if i in self.norm_of:
                    out = self.get_submodule(self.norm_of[i])(out)
                outs.append(out)
            if i < self.out_indices[-1]:
                x = layer.downsample(x)
        return outs


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Pads with zeros at the right and the bottom up to multiples."""
    height, width = x.shape[2:]
    right, bottom = -width % multiple, -height % multiple
    if right or bottom:
        x = functional.pad(x, (0, right, 0, bottom))
    return x
