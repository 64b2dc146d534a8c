# Licensed under the Apache License, Version 2.0. See LICENSE.
"""RoIPool (Girshick, Fast R-CNN, 2015), as in mmcv.

mmcv does not round the boxes before it divides them into bins. torchvision
does, so its kernel gives other numbers.
"""

import torch
from torch import Tensor

from .bilinear import SAMPLES
from .precision import writes
from .roi_align import checked


def _bins(
    rois: Tensor, axis: int, cells: int, scale: float, size: int
) -> tuple[Tensor, Tensor]:
    """Returns the first pixel of each bin and its end, both (R, cells)."""
    low = rois[:, 1 + axis, None] * scale
    high = (rois[:, 3 + axis, None] + 1) * scale
    step = (high - low) / cells
    cell = torch.arange(cells, device=rois.device, dtype=rois.dtype)
    first = (cell * step + low).floor().clamp(0, size)
    last = ((cell + 1) * step + low).ceil().clamp(0, size)
    return first.long(), last.long()


@writes('output', 'argmax')
def roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> tuple[Tensor, Tensor]:
    """Takes the largest pixel of each bin, and its number; -1 if it is empty.

    Arguments and results are those of RoIAlign.
    """
    n, c, h, w = input.shape
    rois, wild = checked(rois, n)
    y1, y2 = _bins(rois, 1, pooled_height, spatial_scale, h)
    x1, x2 = _bins(rois, 0, pooled_width, spatial_scale, w)
    output = input.new_zeros(len(rois), c, pooled_height, pooled_width)
    argmax = torch.full_like(output, -1, dtype=torch.int64)
    # mmcv skips a box without area and so leaves its argmax at pixel 0,
    # where the gradient then goes.
    area = (((rois[:, 3:] + 1) - rois[:, 1:3]) * spatial_scale > 0).all(1)
    argmax[~area] = 0
    # RoIs of similar size are processed together, because each chunk is as
    # wide as its widest bin.
    tall = (y2 - y1).amax(1, keepdim=True).clamp(min=0)
    wide = (x2 - x1).amax(1, keepdim=True).clamp(min=0)
    order = area.nonzero()[:, 0]
    order = order[(tall * wide)[order, 0].argsort(descending=True)]
    piece = SAMPLES // (c * pooled_height * pooled_width)
    flat = input.flatten(2)
    # A GPU waits once here, and not in each chunk.
    sides = torch.cat([tall, wide], 1)[order].tolist()
    start = 0
    while start < len(order):
        pixels = max(1, sides[start][0] * sides[start][1])
        end = start + max(1, piece // pixels)
        part = order[start:end]
        highest, widest = map(max, zip(*sides[start:end], strict=True))
        rows = y1[part, :, None] + torch.arange(highest, device=rois.device)
        cols = x1[part, :, None] + torch.arange(widest, device=rois.device)
        start = end
        # (R, height, width, rows, cols) of pixels, row by row as in mmcv.
        inside = (rows < y2[part, :, None])[:, :, None, :, None] & (
            cols < x2[part, :, None]
        )[:, None, :, None, :]
        if not inside.numel():
            continue
        pixel = (
            rows.clamp(max=h - 1)[:, :, None, :, None] * w
            + cols.clamp(max=w - 1)[:, None, :, None, :]
        )
        inside, pixel = inside.flatten(3), pixel.flatten(3)
        image = rois[part, 0].long()[:, None, None, None]
        value = flat[image, :, pixel].masked_fill(
            ~inside[..., None], -torch.inf
        )
        largest = value.argmax(3, keepdim=True)
        best = value.gather(3, largest)[:, :, :, 0]
        index = pixel.gather(3, largest[:, :, :, 0])
        empty = ~inside.any(3, keepdim=True)
        best = best.masked_fill(empty, 0)
        index = index.masked_fill(empty, -1)
        output[part] = best.permute(0, 3, 1, 2)
        argmax[part] = index.permute(0, 3, 1, 2)
    wild = wild[:, None, None, None]
    return output.masked_fill(wild, torch.nan), argmax.masked_fill(wild, -1)


@writes('grad_input')
def roi_pool_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax: Tensor,
    grad_input: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> Tensor:
    """Gradient of :func:`roi_pool_forward` for its input."""
    n, c, h, w = grad_input.shape
    rois, _ = checked(rois, n)
    plane = rois[:, :1].long() * c + torch.arange(c, device=rois.device)
    index = plane[:, :, None, None] * (h * w) + argmax.clamp(min=0)
    return (
        grad_output.new_zeros(n * c * h * w)
        .index_add_(
            0, index.flatten().long(), (grad_output * (argmax >= 0)).flatten()
        )
        .view(n, c, h, w)
    )
