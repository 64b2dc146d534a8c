# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Efficient channel attention.

Paper: Wang et al., ECA-Net: Efficient Channel Attention for Deep
Convolutional Neural Networks, CVPR 2020. The sigmoid is missing in the
paper's code figure; its text and the official code have it.
"""

from __future__ import annotations

import math

from mmengine.registry import MODELS
from torch import Tensor, nn

from mmext.errors import UserError
from mmext.models.layers.channel_attention import ChannelAttention
from mmext.models.layers.global_pool import global_average


def adaptive_kernel_size(channels: int) -> int:
    """Returns the odd number at or above (log2 C + 1) / 2, as the paper.

    Example:
        >>> [adaptive_kernel_size(2 ** i) for i in range(6, 12)]
        [3, 5, 5, 5, 5, 7]
    """
    t = int(abs((math.log2(channels) + 1) / 2))
    return t if t % 2 else t + 1


@MODELS.register_module()
class ECAAttention(ChannelAttention):
    """Global average, a 1-D convolution across channels, sigmoid.

    Args:
        in_channels: Channels C.
        kernel_size: Odd width of the convolution. None is the paper's
            adaptive rule, see :func:`adaptive_kernel_size`. The official
            networks have a fixed one for each stage (3, 5, 5, 7 in
            ECA-Net50): give one plugin per stage, with its ``stages`` mask,
            see docs/attention.md. Default: None.
        init_cfg: See :class:`mmengine.model.BaseModule`.

    Raises:
        UserError: If ``kernel_size`` is not odd and positive.

    Example:
        >>> import torch
        >>> ECAAttention(64)(torch.rand(2, 64, 7, 5)).shape
        torch.Size([2, 64, 7, 5])
    """

    _abbr_ = 'eca'

    def __init__(
        self,
        in_channels: int,
        kernel_size: int | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        k = (
            adaptive_kernel_size(in_channels)
            if kernel_size is None
            else kernel_size
        )
        if k < 1 or k % 2 == 0:
            raise UserError(
                f'ECAAttention: kernel_size={k} is not an odd number.',
                f'Use {max(k, 0) + 1}, or None for the adaptive rule.',
            )
        self.conv = nn.Conv1d(1, 1, k, padding=k // 2, bias=False)

    def gate(self, x: Tensor) -> Tensor:
        return self.conv(global_average(x)[:, None])[:, 0].sigmoid()
