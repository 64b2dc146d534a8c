# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Deformable RoI pooling (Dai et al., 2017): RoIAlign with moved bins."""

from collections.abc import Iterator

import torch
from torch import Tensor

from .bilinear import corners, sample, scatter
from .precision import writes
from .roi_align import checked, sampling_grids


def _samples(
    input: Tensor,
    rois: Tensor,
    offset: Tensor,
    size: tuple[int, int],
    scale: float,
    ratio: int,
    gamma: float,
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yields RoIs and the positions of their samples, (R, bins, samples)."""
    channels = input.shape[1]
    for roi, y, x in sampling_grids(rois, size, scale, ratio, True, channels):
        if offset.numel():
            side = (rois[roi, 3:5] - rois[roi, 1:3]) * scale * gamma
            move = offset[roi] * side[:, :, None, None]
            x = x + move[:, 0, :, :, None, None]
            y = y + move[:, 1, :, :, None, None]
        y, x = torch.broadcast_tensors(y, x)
        yield roi, y.flatten(3).flatten(1, 2), x.flatten(3).flatten(1, 2)


@writes('output')
def deform_roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    offset: Tensor,
    output: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    gamma: float,
) -> Tensor:
    """Averages each bin, moved by an offset; see RoIAlign.

    ``offset`` (R, 2, pooled_height, pooled_width) has x before y in ``gamma``
    box sizes, or is empty.
    """
    n, c, h, w = input.shape
    rois, wild = checked(rois, n)
    size = (pooled_height, pooled_width)
    flat = input.flatten(2)
    pooled = input.new_zeros(len(rois), c, *size)
    for roi, y, x in _samples(
        input, rois, offset, size, spatial_scale, sampling_ratio, gamma
    ):
        value = sample(flat, rois[roi, 0].long(), y, x, (h, w))
        pooled[roi] = value.mean(2).transpose(1, 2).unflatten(2, size)
    return pooled.masked_fill(wild[:, None, None, None], torch.nan)


@writes('grad_input', 'grad_offset')
def deform_roi_pool_backward(
    grad_output: Tensor,
    input: Tensor,
    rois: Tensor,
    offset: Tensor,
    grad_input: Tensor,
    grad_offset: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    gamma: float,
) -> tuple[Tensor, Tensor]:
    """Gradients of :func:`deform_roi_pool_forward`.

    As in mmcv, the slope at a position outside of the map is that at the
    border.
    """
    n, c, h, w = input.shape
    rois, wild = checked(rois, n)
    grad_output = grad_output.masked_fill(wild[:, None, None, None], 0)
    size = (pooled_height, pooled_width)
    flat = input.flatten(2)
    of_input = input.new_zeros(input.shape)  # contiguous, for scatter
    of_offset = torch.zeros_like(offset)
    for roi, y, x in _samples(
        input, rois, offset, size, spatial_scale, sampling_ratio, gamma
    ):
        samples = y.shape[2]
        grad = grad_output[roi].flatten(2)[..., None] / samples
        image = rois[roi, 0].long()
        scatter(
            of_input,
            image,
            grad.expand(-1, -1, -1, samples).flatten(2),
            y.flatten(1)[:, None],
            x.flatten(1)[:, None],
        )
        if not offset.numel():
            continue
        index, weight = corners(y, x, h, w)
        # Of each corner, summed over channels: (R, bins, samples)
        value = [
            (flat[image[:, None, None], :, i] * grad.permute(0, 2, 3, 1)).sum(
                3
            )
            for i in index
        ]
        y1, x1 = index[0] // w, index[0] % w
        y2, x2 = index[3] // w, index[3] % w
        slope_x = (value[1] - value[0]) * (y2 - y) + (value[3] - value[2]) * (
            y - y1
        )
        slope_y = (value[2] - value[0]) * (x2 - x) + (value[3] - value[1]) * (
            x - x1
        )
        outside = ~(weight.sum(0) > 0)  # there positions may be infinite
        slope = torch.stack([slope_x, slope_y], 1)
        slope = slope.masked_fill(outside[:, None], 0).sum(3)
        side = (rois[roi, 3:5] - rois[roi, 1:3]) * spatial_scale * gamma
        of_offset[roi] = (slope * side[..., None]).unflatten(2, size)
    return of_input, of_offset
