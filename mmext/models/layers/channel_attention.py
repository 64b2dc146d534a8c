# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Base class of the channel-attention plugins.

Each is a plugin of mmdet's ResNet, after the last norm of the residual
branch and before the addition::

    plugins=[dict(cfg=dict(type='SEAttention'), position='after_conv3')]
"""

from __future__ import annotations

import logging

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModule
from torch import Tensor


class ChannelAttention(BaseModule):
    """Multiplies x by a gate in (0, 1) per image and channel.

    Subclasses define ``gate``, which maps (N, C, H, W) to (N, C).

    mmdet's ResNet freezes complete stages, these layers included, even if
    they were never trained; :class:`mmext.models.PluginResNet` does not.
    Random weights that are frozen are reported once.
    """

    _filled = False

    def gate(self, x: Tensor) -> Tensor:
        """Returns the attention (N, C)."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Returns x * gate(x), of the same shape (N, C, H, W)."""
        self._report_if_frozen_at_random()
        return x * self.gate(x)[..., None, None].to(x.dtype)

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        self._filled |= any(key.startswith(prefix) for key in state_dict)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _report_if_frozen_at_random(self) -> None:
        if (
            self._filled
            or not torch.is_grad_enabled()
            or any(p.requires_grad for p in self.parameters())
        ):
            return
        self._filled = True
        print_log(
            f'{type(self).__name__} is frozen at its initial, untrained '
            "weights: frozen_stages covers its stage. Use type='PluginResNet'"
            ' (freezes only what came from the checkpoint), frozen_stages=0, '
            'or a checkpoint that holds the attention weights.',
            logger='current',
            level=logging.WARNING,
        )
