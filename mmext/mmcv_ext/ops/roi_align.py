# Licensed under the Apache License, Version 2.0. See LICENSE.
"""RoIAlign (He et al., Mask R-CNN, 2017, section 3).

On a GPU, torchvision's kernel computes the average. On a CPU it is a product
with a sparse matrix, which takes a tenth of that kernel's time
(:mod:`.roi_average`). The maximum, which torchvision does not have, is
computed here over the same samples.

If a box is NaN or infinite, compiled kernels read out of bounds or loop for
minutes. Here such a box gives NaN and no gradient, so a diverged training run
has a NaN loss and does not crash.

With one sample per pixel, a box with ``x2 < x1`` or ``y2 < y1`` has none, and
mmcv's CUDA kernel gives 0. (torchvision's CPU kernel asks for a vector of
negative size, and one of terabytes for a box of a million pixels.)
"""

from collections import defaultdict
from collections.abc import Iterator

import torch
import torchvision  # noqa: F401  # registers torch.ops.torchvision
from torch import Tensor

from .bilinear import SAMPLES, sample, scatter
from .precision import writes
from .roi_average import average, average_gradient

# From here on, neighbouring pixels are the same number in float32.
FAR = float(1 << 24)

# On a CPU, boxes with more samples along a side of a bin are computed one by
# one, with dense weights.
MANY = 64


def checked(rois: Tensor, batch_size: int) -> tuple[Tensor, Tensor]:
    """Returns RoIs with wild values set to 0, and which had them, (R,).

    Raises `IndexError` on the CPU if a RoI names an image that does not exist.
    """
    wild = ~(rois.abs() < FAR).all(1)
    rois = rois.masked_fill(wild[:, None], 0)
    # A GPU would have to wait for the numbers.
    if rois.device.type == 'cpu' and len(rois):
        low, high = int(rois[:, 0].min()), int(rois[:, 0].max())
        if low < 0 or high >= batch_size:
            raise IndexError(
                f'rois name image {low if low < 0 else high}, but the batch '
                f'has {batch_size}: column 0 of rois counts from 0 within '
                'the batch.'
            )
    return rois, wild


def _bins(
    rois: Tensor, size: tuple[int, int], scale: float, aligned: bool
) -> tuple[Tensor, Tensor]:
    """Returns x, y of the first corner on the map and the size of a bin.

    Both are (R, 2). Bins of a box with ``x2 < x1`` have a negative width,
    unless ``aligned`` is False, which makes boxes at least one pixel large.
    """
    height, width = size
    start = rois[:, 1:3] * scale - (0.5 if aligned else 0)
    side = rois[:, 3:5] * scale - (0.5 if aligned else 0) - start
    if not aligned:
        side = side.clamp(min=1)
    return start, side / side.new_tensor([width, height])


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
    start, bins = _bins(rois, size, scale, aligned)

    def positions(
        which: Tensor, axis: int, cells: int, samples: int
    ) -> Tensor:
        cell = torch.arange(cells, device=rois.device, dtype=rois.dtype)
        step = torch.arange(samples, device=rois.device, dtype=rois.dtype)
        first = start[which, axis, None, None]
        length = bins[which, axis, None, None]
        inner = (step + 0.5) * length / samples
        return first + cell[:, None] * length + inner

    count = [(ratio, ratio)] * len(rois)
    if ratio <= 0:
        count = bins.ceil().int().tolist()
    equal = defaultdict(list)
    for i, (gw, gh) in enumerate(count):
        equal[gw, gh].append(i)
    for (gw, gh), members in equal.items():
        if gw <= 0 or gh <= 0:
            continue
        members = torch.tensor(members, device=rois.device)
        samples = channels * height * gh * width * gw
        for which in members.split(max(1, SAMPLES // samples)):
            rows = positions(which, 1, height, gh)[:, :, None, :, None]
            cols = positions(which, 0, width, gw)[:, None, :, None, :]
            yield which, rows, cols


def _for_kernel(
    rois: Tensor,
    size: tuple[int, int],
    scale: float,
    ratio: int,
    aligned: bool,
) -> Tensor:
    """Returns RoIs for torchvision's kernel.

    RoIs without samples are moved out of the map, where they give 0 and no
    gradient.
    """
    if ratio > 0:
        return rois
    skip = (_bins(rois, size, scale, aligned)[1] <= 0).any(1)
    boxes = rois[:, 1:].masked_fill(skip[:, None], -FAR)
    return torch.cat([rois[:, :1], boxes], 1)


def _for_matrix(
    rois: Tensor,
    size: tuple[int, int],
    scale: float,
    ratio: int,
    aligned: bool,
) -> tuple[tuple[Tensor, Tensor], list[int]]:
    """Returns :func:`_bins`, and the indices of boxes with many samples.

    The bins of these are empty.
    """
    start, bins = _bins(rois, size, scale, aligned)
    if ratio > 0:
        return (start, bins), []
    large = (bins > MANY).any(1)
    bins = bins.masked_fill(large[:, None], 0)
    return (start, bins), large.nonzero()[:, 0].tolist()


def _axis(at: Tensor, size: int) -> Tensor:
    """Returns the weights of an axis' pixels in each bin, (cells, size).

    The average of a bin is a weighted sum of rows of weighted sums of pixels,
    because a sample's weights are products of one of its row and column.
    ``at`` (cells, samples) are positions.
    """
    weight = at.new_zeros(1, len(at), size, 1)
    image, at = torch.zeros(1, dtype=torch.long), at[None]
    scatter(weight, image, torch.ones_like(at), at, torch.zeros_like(at))
    return weight[0, :, :, 0] / at.shape[2]


def _large_box(
    roi: Tensor,
    input: Tensor,
    size: tuple[int, int],
    scale: float,
    aligned: bool,
) -> tuple[int, Tensor, Tensor]:
    """Returns the image of a RoI (1, 5) and the weights of both axes."""
    _, y, x = next(sampling_grids(roi, size, scale, 0, aligned, 1))
    rows = _axis(y[0, :, 0, :, 0], input.shape[2])
    cols = _axis(x[0, 0, :, 0], input.shape[3])
    return int(roi[0, 0]), rows, cols


def _maximum(
    input: Tensor,
    rois: Tensor,
    size: tuple[int, int],
    scale: float,
    ratio: int,
    aligned: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the largest sample of each bin and its position.

    A bin without samples has the value -1e4 and the position -1.
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


def _filled(values: Tensor, wild: Tensor, value: float) -> Tensor:
    """Fills the values of wild RoIs; a CPU copies none if there are none."""
    if values.device.type == 'cpu' and not wild.any():
        return values
    return values.masked_fill(wild[:, None, None, None], value)


@writes('output', 'argmax_y', 'argmax_x', keep_layout=True)
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
    elif input.device.type != 'cpu':
        boxes = _for_kernel(rois, size, *geometry)
        # torchvision.ops.roi_align would compile another implementation on
        # a GPU with deterministic algorithms; this kernel is deterministic.
        pooled = torch.ops.torchvision.roi_align(
            input, boxes, spatial_scale, *size, sampling_ratio, aligned
        )
    else:
        bins, large = _for_matrix(rois, size, *geometry)
        pooled = average(input, rois, bins, size, sampling_ratio)
        for i in large:
            image, rows, cols = _large_box(
                rois[i : i + 1], input, size, spatial_scale, aligned
            )
            pooled[i] = rows @ input[image] @ cols.T
    return _filled(pooled, wild, torch.nan), argmax_y, argmax_x


@writes('grad_input', keep_layout=True)
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
    grad_output = _filled(grad_output, wild, 0)
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
    size = (aligned_height, aligned_width)
    geometry = (spatial_scale, sampling_ratio, aligned)
    if grad_output.device.type != 'cpu':
        boxes = _for_kernel(rois, size, *geometry)
        if torch.are_deterministic_algorithms_enabled():
            # The kernel adds in any order, so PyTorch would refuse it.
            return _ordered_gradient(
                grad_output, boxes, grad_input, size, geometry
            )
        return torch.ops.torchvision._roi_align_backward(
            grad_output,
            boxes,
            spatial_scale,
            *size,
            *grad_input.shape,
            sampling_ratio,
            aligned,
        )
    bins, large = _for_matrix(rois, size, *geometry)
    grad = average_gradient(
        grad_output, rois, bins, sampling_ratio, grad_input.shape
    )
    for i in large:
        image, rows, cols = _large_box(
            rois[i : i + 1], grad, size, spatial_scale, aligned
        )
        grad[image] += rows.T @ grad_output[i] @ cols
    return grad


def _ordered_gradient(
    grad_output: Tensor,
    rois: Tensor,
    input: Tensor,
    size: tuple[int, int],
    geometry: tuple[float, int, bool],
) -> Tensor:
    """Computes the gradient of the average with PyTorch's index_add."""
    grad = grad_output.new_zeros(input.shape)
    for roi, y, x in sampling_grids(rois, size, *geometry, input.shape[1]):
        y, x = torch.broadcast_tensors(y, x)
        samples = y.shape[3] * y.shape[4]
        of_sample = grad_output[roi].flatten(2)[..., None] / samples
        scatter(
            grad,
            rois[roi, 0].long(),
            of_sample.expand(-1, -1, -1, samples).flatten(2),
            y.flatten(1)[:, None],
            x.flatten(1)[:, None],
        )
    return grad
