# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Local MLP: learned mixing of the positions in a window.

The static counterpart of window attention: every position in a window has
learned weights over all positions of the window. The weights are the same in
all windows and in all channels of a group. Paper: On the Connection between
Local Attention and Dynamic Depth-wise Convolution, ICLR 2022 (arXiv
2106.04263), section 3.2 and table 3. There is no official code: this follows
the definition, with a bias per position and optionally shifted windows, as in
the Swin framework of the authors.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmext.models.layers.dynamic_depthwise_conv import num_groups


class LocalMLP(nn.Module):
    """Multiplies the positions of each window by a matrix, per group.

    (B, C, H, W) to (B, C, H, W); a map that the windows do not tile is
    padded with zeros and cropped again. ``weight[g, p, q]`` is the weight of
    position q in the output of p; positions are row-major in the window.
    ``channels_per_group`` neighbouring channels share weights; it must divide
    C. The windows begin ``shift`` positions before the top left corner.
    """

    def __init__(
        self,
        channels: int,
        window_size: int,
        channels_per_group: int,
        shift: int = 0,
    ) -> None:
        super().__init__()
        self.window_size = window_size
        self.groups = num_groups(channels, channels_per_group)
        self.shift = shift
        area = window_size**2
        self.weight = nn.Parameter(torch.empty(self.groups, area, area))
        self.bias = nn.Parameter(torch.zeros(self.groups, area))
        # As PyTorch initialises a depth-wise convolution of this size.
        bound = area**-0.5
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        size, shift = self.window_size, self.shift
        batch, channels, height, width = x.shape
        right = -(width + shift) % size
        bottom = -(height + shift) % size
        x = functional.pad(x, (shift, right, shift, bottom))
        rows, cols = x.size(2) // size, x.size(3) // size
        share = channels // self.groups
        windows = x.reshape(batch, self.groups, share, rows, size, cols, size)
        # (G, window's positions, B * channels of a group * windows)
        windows = windows.permute(1, 4, 6, 0, 2, 3, 5)
        shape = windows.shape
        windows = windows.reshape(self.groups, size * size, -1)
        windows = torch.baddbmm(
            self.bias.unsqueeze(-1), self.weight, windows
        ).view(shape)
        x = windows.permute(3, 0, 4, 5, 1, 6, 2).reshape(x.shape)
        return x[..., shift : shift + height, shift : shift + width]
