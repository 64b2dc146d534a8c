# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Bilinear sampling of a map, with the border rule of RoIAlign.

A position more than one pixel outside of the map gives 0; within that margin
it gives the nearest border pixel. (``grid_sample`` with zero padding, and the
deformable convolutions, fade to 0 across the margin instead.)
"""

import torch
from torch import Tensor

# Ops process their boxes in chunks of about this many samples.
SAMPLES = 1 << 22


def corners(
    y: Tensor, x: Tensor, height: int, width: int
) -> tuple[Tensor, Tensor]:
    """Returns the four neighbours of each position, and their weights.

    ``y`` and ``x`` are in pixels and broadcast to a shape S. The results, flat
    indices into the map and weights, have shape (4, *S). Positions outside of
    the map have weight 0 and a valid index.
    """
    inside = (y >= -1) & (y <= height) & (x >= -1) & (x <= width)
    y = y.nan_to_num().clamp(0, height - 1)
    x = x.nan_to_num().clamp(0, width - 1)
    top, left = y.floor(), x.floor()
    dy, dx = y - top, x - left
    top, left = top.long(), left.long()
    bottom = (top + 1).clamp(max=height - 1)
    right = (left + 1).clamp(max=width - 1)
    index = torch.stack(
        [
            top * width + left,
            top * width + right,
            bottom * width + left,
            bottom * width + right,
        ]
    )
    weight = torch.stack(
        [(1 - dy) * (1 - dx), (1 - dy) * dx, dy * (1 - dx), dy * dx]
    )
    return index, weight * inside


def sample(
    flat: Tensor, image: Tensor, y: Tensor, x: Tensor, size: tuple[int, int]
) -> Tensor:
    """Returns values of maps, channels last.

    ``flat`` (N, C, H * W) are the maps of ``size`` (H, W), and ``image`` (R,)
    the map of each row of ``y`` and ``x`` (R, ...), in pixels.
    """
    image = image.view(-1, *[1] * (y.dim() - 1))
    value = 0
    for index, weight in zip(*corners(y, x, *size), strict=True):
        value = value + flat[image, :, index] * weight[..., None]
    return value


def scatter(
    grad_input: Tensor, batch: Tensor, grad: Tensor, y: Tensor, x: Tensor
) -> None:
    """Adds the gradient of sampled values to the gradient of their map.

    ``grad_input`` (N, C, H, W) must be contiguous. ``batch`` (R,) is the map
    that each row of ``grad`` (R, C, K) was sampled from, at ``y`` and ``x``,
    both (R, C, K) or (R, 1, K), in pixels.
    """
    n, c, h, w = grad_input.shape
    index, weight = corners(y, x, h, w)
    plane = batch[:, None] * c + torch.arange(c, device=batch.device)
    index = plane[None, :, :, None] * (h * w) + index
    grad_input.view(-1).index_add_(
        0, index.reshape(-1), (weight * grad).reshape(-1)
    )
