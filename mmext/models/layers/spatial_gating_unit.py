# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The spatial gating unit of gMLP, in windows.

Paper: Pay Attention to MLPs, NeurIPS 2021 (arXiv 2105.08050), section 2.1.
The paper's unit has one weight for each pair of tokens and therefore a fixed
number of tokens. Here the map of tokens is divided into windows of that size,
which share the weights; with one window it is the paper's unit.
"""

from __future__ import annotations

import torch
from mmcv.cnn import build_norm_layer
from torch import Tensor, nn
from torch.nn.functional import pad

from mmext.models.arguments import choose

FORMS = ('split', 'multiply', 'add')
LN = {'type': 'LN', 'eps': 1e-5}


class SpatialGatingUnit(nn.Module):
    """Multiplies half of the channels by a projection of the other half.

    Tokens (B, H, W, channels) become (B, H, W, channels // 2) in time linear
    in H * W. The paper compares this ``form``, ``'split'``, with two that keep
    all channels: ``'multiply'`` multiplies them by their projection, and
    ``'add'`` adds it to them and so has no gate. Cells of a window beyond the
    border are zero after the norm, so they do not change the projection. With
    ``shift`` the windows begin half a window before the first token, along
    each side that is longer than a window. ``norm_cfg`` is the norm of what
    is projected.
    """

    def __init__(
        self,
        channels: int,
        window_size: int = 14,
        shift: bool = False,
        norm_cfg: dict = LN,
        form: str = 'split',
    ) -> None:
        super().__init__()
        self.form = choose('gate_form', form, FORMS)
        self.window_size = window_size
        self.shift = shift
        self.out_channels = channels // 2 if form == 'split' else channels
        self.norm = build_norm_layer(norm_cfg, self.out_channels)[1]
        self.proj = nn.Linear(window_size**2, window_size**2)
        self.init_weights()

    def init_weights(self) -> None:
        """Initialises as the identity: W near 0, b = 1, or 0 if added."""
        nn.init.normal_(self.proj.weight, std=1e-6)
        nn.init.constant_(self.proj.bias, float(self.form != 'add'))

    def forward(self, x: Tensor) -> Tensor:
        u, v = x.chunk(2, dim=-1) if self.form == 'split' else (x, x)
        v = self.project(self.norm(v))
        return u + v if self.form == 'add' else u * v

    def project(self, v: Tensor) -> Tensor:
        """Returns the projection in every window, (B, H, W, C)."""
        size = self.window_size
        batch, height, width, channels = v.shape
        top, left = (
            size // 2 if self.shift and n > size else 0
            for n in (height, width)
        )
        bottom, right = -(height + top) % size, -(width + left) % size
        if top or left or bottom or right:
            v = pad(v, (0, 0, left, right, top, bottom))
        rows, cols = v.size(1) // size, v.size(2) // size
        # B, rows, size, cols, size, C -> B * rows * cols, size * size, C
        v = v.view(batch, rows, size, cols, size, channels).transpose(2, 3)
        v = v.reshape(-1, size * size, channels)
        # Faster than Linear on transposed tokens.
        weight = self.proj.weight.expand(v.size(0), -1, -1)
        v = torch.baddbmm(self.proj.bias[:, None], weight, v)
        v = v.view(batch, rows, cols, size, size, channels).transpose(2, 3)
        v = v.reshape(batch, rows * size, cols * size, channels)
        return v[:, top : top + height, left : left + width]

    def extra_repr(self) -> str:
        return (
            f'window_size={self.window_size}, shift={self.shift}, '
            f'form={self.form!r}'
        )
