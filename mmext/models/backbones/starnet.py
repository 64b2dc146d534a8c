# Licensed under the Apache License, Version 2.0. See LICENSE.
"""StarNet: a four-stage network of star operations.

Paper: Rewrite the Stars, CVPR 2024 (arXiv 2403.19967), section 4 and
appendix. Official code: github.com/ma-xu/Rewrite-the-Stars; the key names are
those of its checkpoints and of timm's. Differences: it returns levels instead
of class scores, does not build stages after the last of ``out_indices``, and
has the paper's ablations as arguments.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import ClassVar

from mmcv.cnn import build_activation_layer, build_norm_layer
from mmcv.cnn.bricks import DropPath
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmext.models.arguments import choose, per_stage, resolve_arch
from mmext.models.backbones.base_backbone import BaseBackbone, drop_path_rates
from mmext.models.layers.star_operation import StarOperation

STEM_CHANNELS = 32
BN = {'type': 'BN'}
RELU6 = {'type': 'ReLU6', 'inplace': True}


class ConvBN(nn.Sequential):
    """A convolution, padded by half its kernel, and a norm, if any."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        stride: int = 1,
        groups: int = 1,
        norm_cfg: dict | None = None,
    ) -> None:
        layers = OrderedDict(
            conv=nn.Conv2d(
                in_channels,
                out_channels,
                kernel_size,
                stride,
                kernel_size // 2,
                groups=groups,
            )
        )
        if norm_cfg:
            layers['bn'] = build_norm_layer(norm_cfg, out_channels)[1]
        super().__init__(layers)


class StarBlock(nn.Module):
    """Depth-wise 7x7, star in a wider space, depth-wise 7x7, shortcut."""

    def __init__(
        self,
        channels: int,
        mlp_ratio: int,
        star: StarOperation,
        norm_cfg: dict,
        drop_path: float,
    ) -> None:
        super().__init__()
        hidden = mlp_ratio * channels
        self.dwconv = ConvBN(
            channels, channels, 7, groups=channels, norm_cfg=norm_cfg
        )
        self.f1 = ConvBN(channels, hidden)
        self.f2 = ConvBN(channels, hidden)
        self.star = star
        self.g = ConvBN(hidden, channels, norm_cfg=norm_cfg)
        self.dwconv2 = ConvBN(channels, channels, 7, groups=channels)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        y = self.dwconv(x)
        y = self.g(self.star(self.f1(y), self.f2(y)))
        return x + self.drop_path(self.dwconv2(y))


@MODELS.register_module()
class StarNet(BaseBackbone):
    """StarNet.

    Images (B, in_channels, H, W), at least as large as the largest stride,
    become up to four levels. Level i has shape (B, embed_dims * 2**i,
    H / 2**(i + 2), W / 2**(i + 2)), rounded up at every halving.
    ``frozen_stages``, ``norm_eval``, ``with_cp`` and ``init_cfg`` are those
    of :class:`BaseBackbone`.

    Args:
        arch: ``'s1'``, ``'s2'``, ``'s3'``, ``'s4'``, or the very small
            ``'s050'``, ``'s100'``, ``'s150'``; or a dict with the keys
            ``embed_dims``, ``depths``, ``mlp_ratio``. Default: ``'s1'``.
        in_channels: Channels of the image. Default: 3.
        operation: ``'star'`` or ``'sum'``, for all stages or one for each
            (the paper's table 7). Default: ``'star'``.
        act_cfg: The activation in the stem and in the blocks (table 17);
            None for none. Default: ReLU6.
        act_position: Where a block applies it: to ``'one'`` branch, to
            ``'both'``, to ``'none'``, or ``'after'`` the operation (table 9).
            Default: ``'one'``.
        norm_cfg: The norm of the ConvBN pairs. Default: BN.
        final_norm: Whether to normalise the output of the last stage, as
            before a classifier. Default: False.
        drop_path_rate: Rate of the last block; rises linearly from 0.
            Default: 0.
        out_indices: Levels to return, 0 to 3 (-1 is the last). Default: all.
        weight_init: ``'default'`` keeps PyTorch's convolution weights, with
            which the released checkpoints were trained (the official
            initialiser tests ``isinstance(m, nn.Linear or nn.Conv2d)``, which
            is Linear only); ``'trunc_normal'`` draws them with standard
            deviation 0.02, as timm does. Biases are PyTorch's in both.
            Default: ``'default'``.

    Raises:
        UserError: If an arch, operation, position or index does not exist;
            if an image is too small or has other channels.

    Example:
        >>> import torch
        >>> model = StarNet('s050', out_indices=(1, 3)).eval()
        >>> [tuple(x.shape) for x in model(torch.rand(1, 3, 65, 96))]
        [(1, 32, 9, 12), (1, 128, 3, 3)]
    """

    # Tables 5 and, for the very small ones, 13 of the paper.
    arch_settings: ClassVar[dict[str, dict]] = {
        's1': {'embed_dims': 24, 'depths': (2, 2, 8, 3), 'mlp_ratio': 4},
        's2': {'embed_dims': 32, 'depths': (1, 2, 6, 2), 'mlp_ratio': 4},
        's3': {'embed_dims': 32, 'depths': (2, 2, 8, 4), 'mlp_ratio': 4},
        's4': {'embed_dims': 32, 'depths': (3, 3, 12, 5), 'mlp_ratio': 4},
        's050': {'embed_dims': 16, 'depths': (1, 1, 3, 1), 'mlp_ratio': 3},
        's100': {'embed_dims': 20, 'depths': (1, 2, 4, 1), 'mlp_ratio': 4},
        's150': {'embed_dims': 24, 'depths': (1, 2, 4, 2), 'mlp_ratio': 3},
    }

    def __init__(
        self,
        arch: str | dict = 's1',
        in_channels: int = 3,
        operation: str | Sequence[str] = 'star',
        act_cfg: dict | None = RELU6,
        act_position: str = 'one',
        norm_cfg: dict = BN,
        final_norm: bool = False,
        drop_path_rate: float = 0.0,
        out_indices: int | Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        weight_init: str = 'default',
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(
            in_channels, frozen_stages, norm_eval, with_cp, init_cfg
        )
        settings = resolve_arch(arch, self.arch_settings)
        depths, ratio = settings['depths'], settings['mlp_ratio']
        num_stages = len(depths)
        self.weight_init = choose(
            'weight_init', weight_init, ('default', 'trunc_normal')
        )
        widths = [settings['embed_dims'] * 2**i for i in range(num_stages)]
        strides = [2 ** (i + 2) for i in range(num_stages)]
        num_built = self.set_stages(out_indices, widths, strides)
        operations = per_stage('operation', operation, num_stages)
        rates = drop_path_rates(drop_path_rate, sum(depths))

        self.stem = nn.Sequential(
            ConvBN(in_channels, STEM_CHANNELS, 3, 2, norm_cfg=norm_cfg)
        )
        if act_cfg:
            self.stem.append(build_activation_layer(act_cfg))
        self.stages = nn.ModuleList()
        width = STEM_CHANNELS
        for i in range(num_built):
            stage = nn.Sequential(
                ConvBN(width, widths[i], 3, 2, norm_cfg=norm_cfg)
            )
            width = widths[i]
            for j in range(depths[i]):
                star = StarOperation(operations[i], act_cfg, act_position)
                rate = rates[sum(depths[:i]) + j]
                stage.append(StarBlock(width, ratio, star, norm_cfg, rate))
            self.stages.append(stage)
        self.norm = None
        if final_norm and num_built == num_stages:
            self.norm = build_norm_layer(norm_cfg, width)[1]
        else:
            self.unbuilt += ('norm.',)
        self.train()

    def init_weights(self) -> None:
        """Draws truncated normal weights if configured; then ``init_cfg``."""
        if self.weight_init == 'trunc_normal' and not self.is_init:
            for module in self.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.trunc_normal_(module.weight, std=0.02)
        super().init_weights()

    def levels(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x)
        outs = []
        for i, stage in enumerate(self.stages):
            for block in stage:
                x = self.run_block(block, x)
            if i in self.out_indices:
                outs.append(x)
        if self.norm is not None:
            outs[-1] = self.norm(outs[-1])
        return outs
