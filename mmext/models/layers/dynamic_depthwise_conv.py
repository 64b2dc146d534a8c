# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Depth-wise convolutions that compute their kernels from the input.

Paper: On the Connection between Local Attention and Dynamic Depth-wise
Convolution, ICLR 2022 (arXiv 2106.04263), section 3.3. Official code:
github.com/Atten4Vis/DemystifyLocalViT (``models/dwnet.py`` at its first
commit, ``models/idynamic.py``), with whose checkpoints the key names agree.
"""

from __future__ import annotations

import torch
from mmcv.cnn import build_norm_layer
from mmengine.dist import get_world_size
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import SyncBatchNorm, _BatchNorm

from mmext.errors import UserError
from mmext.models.arguments import reduced
from mmext.models.layers.generated_conv import generated_depthwise_conv
from mmext.models.layers.inhomogeneous_conv import unrolled_depthwise_conv
from mmext.models.layers.pointwise import PointwiseConv
from mmext.utils.modules import is_exporting

RATIO = 4  # channels over hidden channels


class HomogeneousDynamicConv(nn.Module):
    """One kernel per image and channel, from the image's pooled features.

    (B, C, H, W) to (B, C, H, W); the kernels are the same at all positions.
    A bias per channel, zero at the start, does not depend on the input.
    ``norm_cfg`` is the norm of the pooled, squeezed features. Raises
    `UserError` in training, if there is one image and the norm is over images.
    """

    def __init__(
        self, channels: int, kernel_size: int, norm_cfg: dict
    ) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        hidden = reduced(channels, RATIO)
        self.conv1 = PointwiseConv(channels, hidden, bias=False)
        self.bn = build_norm_layer(norm_cfg, hidden)[1]
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = PointwiseConv(hidden, channels * kernel_size**2)
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        # The batch last: an exporter would take it for granted.
        if self.bn.training and batch == 1 and _normalises_alone(self.bn):
            raise UserError(
                'The homogeneous dynamic convolution got a training batch of '
                'one image: its batch norm sees one value per channel, which '
                'has no variance.',
                'Use two images or more per process, '
                "norm_cfg=dict(type='SyncBN') over several processes, or "
                'norm_eval=True with pretrained weights.',
            )
        # There are few values in a batch, and they differ little: in half
        # precision the norm would amplify rounding errors.
        dtype = torch.promote_types(x.dtype, torch.float32)
        device = 'cpu' if x.is_meta else x.device.type  # meta has no autocast
        with torch.autocast(device, enabled=False):
            pooled = x.mean((2, 3), keepdim=True, dtype=dtype)
            pooled = pooled.to(self.conv1.weight.dtype)
            kernels = self.conv2(self.relu(self.bn(self.conv1(pooled))))
        if not batch:  # a convolution needs at least one group
            return x * kernels[:, :channels] + self.bias[:, None, None]
        if is_exporting():  # ONNX has no number of groups that varies
            kernels = kernels.view(batch, channels, -1, 1, 1)
            out = unrolled_depthwise_conv(x, kernels)
            return out + self.bias[:, None, None]
        # The channels of all images side by side are a grouped convolution,
        # with one kernel per group.
        out = functional.conv2d(
            x.reshape(1, -1, height, width),
            kernels.view(-1, 1, self.kernel_size, self.kernel_size),
            self.bias.repeat(batch),
            padding=self.kernel_size // 2,
            groups=batch * channels,
        )
        return out.view(batch, channels, height, width)


class InhomogeneousDynamicConv(nn.Module):
    """One kernel per position and group of channels, from its features.

    (B, C, H, W) to (B, C, H, W). There is no softmax over the taps and no
    bias. ``channels_per_group`` neighbouring channels share a kernel; it must
    divide C. ``norm_cfg`` is the norm of the squeezed features.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int,
        channels_per_group: int,
        norm_cfg: dict,
    ) -> None:
        super().__init__()
        self.taps = kernel_size**2
        self.groups = num_groups(channels, channels_per_group)
        hidden = reduced(channels, RATIO)
        self.conv1 = nn.Sequential(
            PointwiseConv(channels, hidden),
            build_norm_layer(norm_cfg, hidden)[1],
            nn.ReLU(inplace=True),
        )
        self.conv2 = nn.Sequential(
            nn.Conv2d(hidden, self.taps * self.groups, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        conv2 = self.conv2[0]
        kernel = torch.cat([conv2.weight.flatten(1), conv2.bias[:, None]], 1)
        return generated_depthwise_conv(x, self.conv1(x), kernel, self.groups)


def _normalises_alone(norm: nn.Module) -> bool:
    """Returns whether it is a batch norm over this process's images."""
    synced = isinstance(norm, SyncBatchNorm) and get_world_size() > 1
    return isinstance(norm, _BatchNorm) and not synced


def num_groups(channels: int, channels_per_group: int) -> int:
    """Returns the number of groups of channels that share weights."""
    if channels_per_group < 1 or channels % channels_per_group:
        near = min(
            (n for n in range(1, channels + 1) if channels % n == 0),
            key=lambda n: abs(n - channels_per_group),
        )
        raise UserError(
            f'channels_per_group={channels_per_group} does not divide '
            f'{channels} channels.',
            f'The nearest that does is {near}.',
        )
    return channels // channels_per_group
