# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Frequency channel attention.

Paper: Qin et al., FcaNet: Frequency Channel Attention Networks, ICCV 2021.
The global average is the lowest component of a 2-D discrete cosine transform.
Here each of 16 groups of channels keeps another of the 16 components that
gave the best accuracy by themselves ('top16' of the official code).
"""

from __future__ import annotations

import math

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmext.errors import UserError
from mmext.models.arguments import reduced
from mmext.models.layers.channel_attention import ChannelAttention

# Indices into a 7 x 7 grid of frequencies, best first.
TOP16_ROWS = (0, 0, 6, 0, 0, 1, 1, 4, 5, 1, 3, 0, 0, 0, 3, 2)
TOP16_COLUMNS = (0, 1, 0, 5, 2, 0, 2, 0, 0, 6, 0, 4, 6, 3, 5, 2)
# The feature sizes of the stages of a bottleneck ResNet on 224 x 224.
STAGE_SIZES = {256: 56, 512: 28, 1024: 14, 2048: 7}


def cosine_bases(frequencies: tuple[int, ...], size: int) -> Tensor:
    """Returns orthonormal cosines (len(frequencies), size), in float64."""
    f = torch.tensor(frequencies, dtype=torch.float64)[:, None]
    at = torch.arange(size, dtype=torch.float64) + 0.5
    norm = (1 + (f > 0).double()).sqrt() / math.sqrt(size)
    return torch.cos(math.pi * f * at / size) * norm


@MODELS.register_module()
class FCAAttention(ChannelAttention):
    """Sixteen cosine components in place of the average, then as in SE.

    Args:
        in_channels: Channels C, a multiple of 16.
        ratio: C over the channels of the hidden layer; the linear layers
            have no bias. Default: 16.
        dct_size: Side of the map for the transform, at least 7; other sizes
            are average-pooled to it. None is that of a bottleneck ResNet: 56,
            28, 14, 7 for 256, 512, 1024, 2048 channels. Default: None.
        init_cfg: See :class:`mmengine.model.BaseModule`.

    Raises:
        UserError: If C is not a multiple of 16, ``dct_size`` is unknown or
            ``ratio`` is below 1.

    Example:
        >>> import torch
        >>> FCAAttention(256)(torch.rand(2, 256, 7, 5)).shape
        torch.Size([2, 256, 7, 5])
    """

    # The name in FcaNet's released weights.
    _abbr_ = 'att'

    def __init__(
        self,
        in_channels: int,
        ratio: int = 16,
        dct_size: int | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        groups = len(TOP16_ROWS)
        if in_channels % groups:
            raise UserError(
                f'FCAAttention: in_channels={in_channels} is not a multiple '
                f'of {groups}, one group of channels for each frequency.'
            )
        size = STAGE_SIZES.get(in_channels) if dct_size is None else dct_size
        if size is None or size < 7:
            raise UserError(
                f'FCAAttention: dct_size={dct_size} for '
                f'in_channels={in_channels}.',
                'Give a dct_size of at least 7, the side of this feature '
                'map in pre-training; the default is known for '
                f'in_channels of {tuple(STAGE_SIZES)}.',
            )
        self.size = size
        scale = size // 7
        rows = cosine_bases(tuple(f * scale for f in TOP16_ROWS), size)
        columns = cosine_bases(tuple(f * scale for f in TOP16_COLUMNS), size)
        bases = torch.einsum('gy,gx->gyx', rows, columns).flatten(1)
        self.register_buffer('bases', bases.float(), persistent=False)
        hidden = reduced(in_channels, ratio)
        self.fc = nn.Sequential(
            nn.Linear(in_channels, hidden, bias=False),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, in_channels, bias=False),
            nn.Sigmoid(),
        )

    def gate(self, x: Tensor) -> Tensor:
        n, c, *size = x.shape
        if size != [self.size, self.size]:
            x = nn.functional.adaptive_avg_pool2d(x, self.size)
        groups = len(self.bases)
        # One matrix-vector product per group needs no copy of the bases.
        x = x.unflatten(1, (groups, -1)).flatten(3)
        y = torch.matmul(x, self.bases[:, :, None].to(x.dtype))
        return self.fc(y.reshape(n, c))
