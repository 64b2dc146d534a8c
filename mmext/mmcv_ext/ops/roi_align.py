# Licensed under the Apache License, Version 2.0. See LICENSE.
"""RoIAlign (He et al., Mask R-CNN, 2017, section 3).

torchvision's kernel computes the average. The maximum, which torchvision does
not have, is computed here over the same samples.

If a box is NaN or infinite, compiled kernels read out of bounds or loop for
minutes. Here such a box gives NaN and no gradient, so a diverged training run
has a NaN loss and does not crash.
"""

from collections.abc import Iterator

import torch
import torchvision
from torch import Tensor

from .bilinear import SAMPLES, corners, scatter
from .precision import writes

# From here on, neighbouring pixels are the same number in float32.
FAR = float(1 << 24)


def checked(rois: Tensor, batch_size: int) -> tuple[Tensor, Tensor]:
    """Returns RoIs with wild values set to 0, and which had them, (R,).

    Raises:
        IndexError: On the CPU, a RoI names an image that does not exist.
    """
    wild = ~(rois.abs() < FAR).all(1)
    rois = rois.masked_fill(wild[:, None], 0)
    if not rois.is_cuda and len(rois):  # CUDA would have to synchronise
        low, high = int(rois[:, 0].min()), int(rois[:, 0].max())
        if low < 0 or high >= batch_size:
            raise IndexError(
                f'rois name image {low if low < 0 else high}, but the batch '
                f'has {batch_size}: column 0 of rois counts from 0 within '
                'the batch.'
            )
    return rois, wild


def sampling_grids(
    rois: Tensor,
    height: int,
    width: int,
    scale: float,
    ratio: int,
    aligned: bool,
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yields groups of RoIs with equally many samples, and their positions.

    Args:
        rois: (R, 5): image in the batch, x1, y1, x2, y2 in image pixels.
        height: Bins along a RoI's height.
        width: Bins along its width.
        scale: Map pixels per image pixel.
        ratio: Samples along each side of a bin; 0 for one per pixel.
        aligned: Whether pixel centres are at half coordinates.

    Yields:
        Indices of the RoIs (R,), rows (R, height, gh) and columns
        (R, width, gw) of their samples on the map.
    """
    start = rois[:, 1:3] * scale - (0.5 if aligned else 0)
    size = rois[:, 3:5] * scale - (0.5 if aligned else 0) - start
    if not aligned:
        size = size.clamp(min=1)
    bins = size / size.new_tensor([width, height])
    count = bins.ceil().int()
    if ratio > 0:
        count = torch.full_like(count, ratio)
    for gw, gh in torch.unique(count, dim=0).tolist():
        if gw <= 0 or gh <= 0:
            continue
        which = (count == count.new_tensor([gw, gh])).all(1).nonzero()[:, 0]
        axes = []
        for axis, cells, samples in ((1, height, gh), (0, width, gw)):
            cell = torch.arange(cells, device=rois.device, dtype=rois.dtype)
            step = torch.arange(samples, device=rois.device, dtype=rois.dtype)
            first = start[which, axis, None, None]
            length = bins[which, axis, None, None]
            axes.append(
                first
                + cell[:, None] * length
                + (step + 0.5) * length / samples
            )
        yield which, *axes


def _maximum(
    input: Tensor,
    rois: Tensor,
    height: int,
    width: int,
    scale: float,
    ratio: int,
    aligned: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the largest sample of each bin and its position.

    An empty bin has the value -1e4 and the position -1.
    """
    _, c, h, w = input.shape
    shape = (len(rois), c, height, width)
    output = input.new_full(shape, -1e4)  # as mmcv's CPU kernel
    best_y, best_x = input.new_full(shape, -1), input.new_full(shape, -1)
    flat = input.flatten(2)
    for which, rows, cols in sampling_grids(
        rois, height, width, scale, ratio, aligned
    ):
        samples = c * rows[0].numel() * cols[0].numel()
        for part in torch.arange(len(which)).split(max(1, SAMPLES // samples)):
            part = part.to(which.device)
            # (R, height, width, gh, gw)
            y, x = torch.broadcast_tensors(
                rows[part][:, :, None, :, None],
                cols[part][:, None, :, None, :],
            )
            y, x = y.flatten(3), x.flatten(3)
            index, weight = corners(y, x, h, w)
            image = rois[which[part], 0].long()
            value = 0
            for i, wt in zip(index, weight, strict=True):
                # Index the image and the pixel, keep all channels: C last.
                read = flat[image[:, None, None, None], :, i]
                value = value + read * wt[..., None]
            largest = value.argmax(3, keepdim=True)
            output[which[part]] = value.gather(3, largest)[:, :, :, 0].permute(
                0, 3, 1, 2
            )
            largest = largest[:, :, :, 0].permute(0, 3, 1, 2)[..., None]
            for best, pos in ((best_y, y), (best_x, x)):
                pos = pos[:, None].expand(-1, c, -1, -1, -1)
                best[which[part]] = pos.gather(4, largest)[..., 0]
    return output, best_y, best_x


@writes('output', 'argmax_y', 'argmax_x')
def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Pools boxes of a map to a fixed size.

    Args:
        input: (N, C, H, W).
        rois: (R, 5): image in the batch, x1, y1, x2, y2 in image pixels.
        output: Takes the result, (R, C, aligned_height, aligned_width).
        argmax_y: Takes the rows of the maxima; empty when averaging.
        argmax_x: Takes their columns.
        aligned_height: Rows of the result.
        aligned_width: Columns of the result.
        spatial_scale: Map pixels per image pixel.
        sampling_ratio: Samples along each side of a bin; 0 for one per
            pixel.
        pool_mode: 0 maximum, 1 average.
        aligned: Whether pixel centres are at half coordinates.

    Raises:
        IndexError: On the CPU, a RoI names an image that does not exist.
    """
    rois, wild = checked(rois, len(input))
    geometry = (spatial_scale, sampling_ratio, aligned)
    size = (aligned_height, aligned_width)
    if pool_mode == 0:
        pooled, argmax_y, argmax_x = _maximum(input, rois, *size, *geometry)
    else:
        pooled = torchvision.ops.roi_align(input, rois, size, *geometry)
    return (
        pooled.masked_fill(wild[:, None, None, None], torch.nan),
        argmax_y,
        argmax_x,
    )


@writes('grad_input')
def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> Tensor:
    """Gradient of :func:`roi_align_forward` for its input."""
    rois, wild = checked(rois, len(grad_input))
    grad_output = grad_output.masked_fill(wild[:, None, None, None], 0)
    if pool_mode == 0:
        grad = grad_output.new_zeros(grad_input.shape)
        # An empty bin has the position -1, which would sample the border.
        taken = (argmax_y != -1) & ~wild[:, None, None, None]
        scatter(
            grad,
            rois[:, 0].long(),
            (grad_output * taken).flatten(2),
            argmax_y.flatten(2),
            argmax_x.flatten(2),
        )
        return grad
    return torch.ops.torchvision._roi_align_backward(
        grad_output,
        rois,
        spatial_scale,
        aligned_height,
        aligned_width,
        *grad_input.shape,
        sampling_ratio,
        aligned,
    )
