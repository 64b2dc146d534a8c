# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Squeeze-and-excitation.

Paper: Hu et al., Squeeze-and-Excitation Networks, CVPR 2018.
"""

from __future__ import annotations

from mmengine.registry import MODELS
from torch import Tensor, nn

from mmext.models.arguments import reduced
from mmext.models.layers.channel_attention import ChannelAttention
from mmext.models.layers.global_pool import global_average


@MODELS.register_module()
class SEAttention(ChannelAttention):
    """Global average, C -> C / ratio, ReLU, -> C, sigmoid.

    Args:
        in_channels: Channels C.
        ratio: C over the channels of the hidden layer. Default: 16.
        bias: Whether the two linear layers have biases. The 44.02 million
            parameters in the ECA paper are without. Default: True.
        init_cfg: See :class:`mmengine.model.BaseModule`.

    Raises:
        UserError: If ``ratio`` is below 1.

    Example:
        >>> import torch
        >>> SEAttention(64)(torch.rand(2, 64, 7, 5)).shape
        torch.Size([2, 64, 7, 5])
    """

    _abbr_ = 'se'

    def __init__(
        self,
        in_channels: int,
        ratio: int = 16,
        bias: bool = True,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        hidden = reduced(in_channels, ratio)
        self.fc = nn.Sequential(
            nn.Linear(in_channels, hidden, bias=bias),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, in_channels, bias=bias),
            nn.Sigmoid(),
        )

    def gate(self, x: Tensor) -> Tensor:
        return self.fc(global_average(x))
