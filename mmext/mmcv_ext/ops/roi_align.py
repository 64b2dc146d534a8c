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

from .bilinear import SAMPLES, sample, scatter
from .precision import writes

# From here on, neighbouring pixels are the same number in float32.
FAR = float(1 << 24)


def checked(rois: Tensor, batch_size: int) -> tuple[Tensor, Tensor]:
    """Returns RoIs with wild values set to 0, and which had them, (R,).

    Raises `IndexError` on the CPU if a RoI names an image that does not exist.
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
    size: tuple[int, int],
    scale: float,
    ratio: int,
    aligned: bool,
    channels: int,
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yields RoIs with equally many samples, and the positions of these.

    Yields indices of the RoIs (R,), rows (R, height, 1, gh, 1) and columns
    (R, 1, width, 1, gw) of their samples on the map. The arguments are those
    of :func:`roi_align_forward`, and the values per sample, ``channels``,
    which limit the RoIs at a time.
    """
    height, width = size
    start = rois[:, 1:3] * scale - (0.5 if aligned else 0)
    side = rois[:, 3:5] * scale - (0.5 if aligned else 0) - start
    if not aligned:
        side = side.clamp(min=1)
    bins = side / side.new_tensor([width, height])
    count = bins.ceil().int()
    if ratio > 0:
        count = torch.full_like(count, ratio)

    def positions(
        which: Tensor, axis: int, cells: int, samples: int
    ) -> Tensor:
        cell = torch.arange(cells, device=rois.device, dtype=rois.dtype)
        step = torch.arange(samples, device=rois.device, dtype=rois.dtype)
        first = start[which, axis, None, None]
        length = bins[which, axis, None, None]
        inner = (step + 0.5) * length / samples
        return first + cell[:, None] * length + inner

    for gw, gh in torch.unique(count, dim=0).tolist():
        if gw <= 0 or gh <= 0:
            continue
        equal = (count == count.new_tensor([gw, gh])).all(1).nonzero()[:, 0]
        samples = channels * height * gh * width * gw
        for which in equal.split(max(1, SAMPLES // samples)):
            rows = positions(which, 1, height, gh)[:, :, None, :, None]
            cols = positions(which, 0, width, gw)[:, None, :, None, :]
            yield which, rows, cols


def _maximum(
    input: Tensor,
    rois: Tensor,
    size: tuple[int, int],
    scale: float,
    ratio: int,
    aligned: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the largest sample of each bin and its position.

    An empty bin has the value -1e4 and the position -1.
    """
    _, c, h, w = input.shape
    shape = (len(rois), c, *size)
    output = input.new_full(shape, -1e4)  # as mmcv's CPU kernel
    best_y, best_x = input.new_full(shape, -1), input.new_full(shape, -1)
    flat = input.flatten(2)
    for roi, y, x in sampling_grids(rois, size, scale, ratio, aligned, c):
        y, x = (p.flatten(3) for p in torch.broadcast_tensors(y, x))
        value = sample(flat, rois[roi, 0].long(), y, x, (h, w))
        # (R, height, width, samples, C)
        largest = value.argmax(3, keepdim=True)
        best = value.gather(3, largest)[:, :, :, 0]
        output[roi] = best.permute(0, 3, 1, 2)
        largest = largest[:, :, :, 0].permute(0, 3, 1, 2)[..., None]
        for taken, position in ((best_y, y), (best_x, x)):
            position = position[:, None].expand(-1, c, -1, -1, -1)
            taken[roi] = position.gather(4, largest)[..., 0]
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
    """Pools boxes of a map to a fixed size, (R, C, height, width).

    ``rois`` (R, 5) are image in the batch, x1, y1, x2, y2 in image pixels;
    ``spatial_scale`` is map pixels per image pixel. Each bin has
    ``sampling_ratio`` samples along a side; 0 is one per pixel. ``pool_mode``
    1 averages; 0 takes the maximum, whose rows and columns ``argmax_y`` and
    ``argmax_x`` take. ``aligned`` puts pixel centres at half coordinates.
    """
    rois, wild = checked(rois, len(input))
    geometry = (spatial_scale, sampling_ratio, aligned)
    size = (aligned_height, aligned_width)
    if pool_mode == 0:
        pooled, argmax_y, argmax_x = _maximum(input, rois, size, *geometry)
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
