# Licensed under the Apache License, Version 2.0. See LICENSE.
"""RoIAlign's average on a CPU, as the product with a sparse matrix.

Each result is a weighted sum of pixels, with the same weights in all channels.
``embedding_bag`` computes such sums on all cores and with vectors of channels.
torchvision's kernel computes sample by sample and channel by channel, its
gradient on one core. The gradient is the product with the transpose.

Both add the same products, here those of a pixel first, so that results differ
by rounding. They do not depend on the number of cores.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

# RoIs are processed in chunks of about this many entries of the matrix.
ENTRIES = 1 << 23


def average(
    input: Tensor,
    rois: Tensor,
    bins: tuple[Tensor, Tensor],
    size: tuple[int, int],
    ratio: int,
) -> Tensor:
    """Returns the averages of RoIs, (R, C, height, width), channels last.

    ``bins`` are x, y of the first corner on the map and the size of a bin,
    both (R, 2); the others are as in :func:`.roi_align.roi_align_forward`.
    """
    channels = input.shape[1]
    flat = input.permute(0, 2, 3, 1).reshape(-1, channels)
    parts = [flat.new_zeros(0, channels)]
    for _, pixels, weights, offsets in _matrix(
        rois, bins, size, ratio, input.shape
    ):
        parts.append(_sums(flat, pixels, weights, offsets))
    pooled = torch.cat(parts) if len(parts) != 2 else parts[1]
    return pooled.view(-1, *size, channels).permute(0, 3, 1, 2)


def average_gradient(
    grad: Tensor,
    rois: Tensor,
    bins: tuple[Tensor, Tensor],
    ratio: int,
    shape: torch.Size,
) -> Tensor:
    """Returns the gradient for the map of ``shape``, channels last."""
    n, channels, height, width = shape
    cells = grad.shape[2] * grad.shape[3]
    flat = grad.permute(0, 2, 3, 1).reshape(-1, channels)
    total = None
    for start, pixels, weights, offsets in _matrix(
        rois, bins, (grad.shape[2], grad.shape[3]), ratio, shape
    ):
        pixels, order = pixels.sort(stable=True)
        cell = torch.repeat_interleave(offsets.diff())[order]
        taken = torch.bincount(pixels, minlength=n * height * width)
        part = _sums(
            flat[start * cells :],
            cell.int(),
            weights[order],
            _starts(taken).int(),
        )
        total = part if total is None else total.add_(part)
    if total is None:
        total = grad.new_zeros(n * height * width, channels)
    return total.view(n, height, width, channels).permute(0, 3, 1, 2)


def _sums(
    flat: Tensor, index: Tensor, weights: Tensor, offsets: Tensor
) -> Tensor:
    """Returns weighted sums of rows (offsets - 1, C) of ``flat`` (N, C)."""
    return torch.embedding_bag(
        flat,
        index,
        offsets,
        mode=0,  # the sum
        per_sample_weights=weights,
        include_last_offset=True,
    )[0]


def _matrix(
    rois: Tensor,
    bins: tuple[Tensor, Tensor],
    size: tuple[int, int],
    ratio: int,
    shape: torch.Size,
) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
    """Yields the rows of the matrix, one for each bin of each RoI.

    Yields the first RoI, and the columns (pixels of all images), weights, and
    beginnings of rows. All indices are int32.
    """
    start, step = bins
    axes = [
        _axis(start[:, i], step[:, i], size[1 - i], shape[3 - i], ratio)
        for i in (0, 1)
    ]
    entries = axes[0][2] * axes[1][2] * (size[0] * size[1])
    chunk = entries.cumsum(0) // ENTRIES
    first = 0
    for count in chunk.unique_consecutive(return_counts=True)[1].tolist():
        which = slice(first, first + count)
        x, y = ([t[which] for t in axis] for axis in axes)
        image = rois[which, 0].long() * (shape[2] * shape[3])
        yield first, *_rows(x, y, image, size, shape[3])
        first += count


def _rows(
    x: list[Tensor],
    y: list[Tensor],
    image: Tensor,
    size: tuple[int, int],
    width: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Multiplies the weights of both axes; see :func:`_matrix`."""
    # Bins, then their rows of pixels, then the pixels.
    shape = (len(image), *size)
    in_bin = [
        axis[2].view(-1, 1, 1).expand(shape).reshape(-1) for axis in (x, y)
    ]
    owner, at = _ranges(_first(y).unsqueeze(2).expand(shape), in_bin[1])
    row_weight = y[1].flatten()[at]
    row = y[0].flatten()[at] * width
    row += image.view(-1, 1, 1).expand(shape).reshape(-1)[owner]
    first = _first(x).unsqueeze(1).expand(shape).reshape(-1)[owner]
    owner, at = _ranges(first, in_bin[0][owner])
    weights = row_weight[owner] * x[1].flatten()[at]
    pixels = row.int()[owner] + x[0].int().flatten()[at]
    return pixels, weights, _starts(in_bin[0] * in_bin[1]).int()


def _axis(
    start: Tensor, step: Tensor, cells: int, length: int, ratio: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns pixels and weights of the bins along one axis of the map.

    Pixels and weights are (R, cells, S). Each bin of a RoI has as many as the
    third result, (R,), says.
    """
    fixed = torch.full_like(step, ratio).long()
    samples = fixed if ratio > 0 else step.ceil().long().clamp(min=0)
    most = max(1, int(samples.max())) if len(samples) else 1
    cell = torch.arange(cells, device=step.device).view(-1, 1)
    inner = torch.arange(most, device=step.device)
    start, step, count = (t.view(-1, 1, 1) for t in (start, step, samples))
    at = start + cell * step + (inner + 0.5) * step / count.clamp(min=1)
    used = (inner < count) & (at >= -1) & (at <= length)
    each = used / count.clamp(min=1).to(at.dtype)
    at = at.clamp(0, length - 1)
    low = at.floor()
    if ratio > 0:
        pixels = torch.cat([low, low + 1], 2)
        upper = at - low
        weights = torch.cat([each * (1 - upper), each * upper], 2)
        samples = 2 * samples
    else:
        # Neighbouring samples, at most a pixel apart, share pixels.
        base = low[..., :1]
        slot = (low - base).long().minimum(count - 1).clamp(min=0)
        upper = at - base - slot
        weights = each.new_zeros(*at.shape[:2], most + 1)
        weights.scatter_add_(2, slot, each * (1 - upper))
        weights.scatter_add_(2, slot + 1, each * upper)
        pixels = base + torch.arange(most + 1, device=step.device)
        samples = torch.where(samples > 0, samples + 1, 0)
    return pixels.clamp(max=length - 1).long(), weights, samples


def _first(axis: list[Tensor]) -> Tensor:
    """Returns the index of each bin's first entry, (R, cells)."""
    roi, cells, most = axis[0].shape
    return torch.arange(0, roi * cells * most, most).view(roi, cells)


def _ranges(first: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """Returns which range each element is of, and the element.

    Range i has the ``count[i]`` integers from ``first[i]``.
    """
    owner = torch.repeat_interleave(count)
    shift = first.reshape(-1) - _starts(count)[:-1]
    return owner, torch.arange(len(owner)) + shift[owner]


def _starts(count: Tensor) -> Tensor:
    """Returns where each of consecutive ranges starts, and the end."""
    return torch.cat([count.new_zeros(1), count.cumsum(0)])
