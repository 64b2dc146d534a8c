# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Multi-scale deformable attention (Zhu et al., Deformable DETR, 2021).

Forward and backward pass process one level at a time with ``grid_sample``,
so the samples of all levels are never in memory together.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from .precision import full_precision, writes

# Bilinear, zero padding, corners not aligned: aten's numbers for them.
_MODES = (0, 0, False)


def _levels(
    value: Tensor, shapes: Tensor, locations: Tensor
) -> Iterator[tuple[Tensor, Tensor, slice]]:
    """Yields the map of each level, its grid and its slice of ``value``.

    Shapes: (N * heads, dims, h, w), (N * heads, queries, points, 2).
    """
    n, _, heads, dims = value.shape
    start = 0
    # (N, queries, heads, levels, points, 2) to (levels, N * heads, ...)
    grids = locations.permute(3, 0, 2, 1, 4, 5).flatten(1, 2) * 2 - 1
    # NaN reads 0, as in mmcv's kernel; infinity would give NaN.
    grids = grids.nan_to_num(nan=-3).clamp(-3, 3)
    for (h, w), grid in zip(shapes.tolist(), grids, strict=True):
        place = slice(start, start + h * w)
        plane = value[:, place].permute(0, 2, 3, 1)
        yield plane.reshape(n * heads, dims, h, w), grid, place
        start += h * w


@full_precision
def _forward(
    value: Tensor, shapes: Tensor, locations: Tensor, weights: Tensor
) -> Tensor:
    n, _, heads, dims = value.shape
    queries = locations.shape[1]
    weights = weights.permute(3, 0, 2, 1, 4).flatten(1, 2)
    output = value.new_zeros(n * heads, dims, queries)
    for (plane, grid, _), weight in zip(
        _levels(value, shapes, locations), weights, strict=True
    ):
        sampled = grid_sample(plane, grid, align_corners=False)
        output += (sampled * weight[:, None]).sum(-1)
    output = output.view(n, heads * dims, queries)
    return output.transpose(1, 2).contiguous()


def ms_deform_attn_forward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> Tensor:
    """Sums samples of several maps, (N, queries, heads * dims).

    ``value`` (N, keys, heads, dims) has the pixels of all levels in a row, and
    ``value_spatial_shapes`` (levels, 2) their h, w. ``sampling_locations``
    (N, queries, heads, levels, points, 2) are x, y from 0 to 1 across a map,
    and ``attention_weights`` (N, queries, heads, levels, points) the weights.
    """
    return _forward(
        value, value_spatial_shapes, sampling_locations, attention_weights
    ).to(value.dtype)


@writes('grad_value', 'grad_sampling_loc', 'grad_attn_weight')
def ms_deform_attn_backward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor,
    im2col_step: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of :func:`ms_deform_attn_forward`."""
    n, keys, heads, dims = value.shape
    queries = sampling_locations.shape[1]
    # (N * heads, dims, queries, 1)
    grad = grad_output.view(n, queries, heads * dims).transpose(1, 2)
    grad = grad.reshape(n * heads, dims, queries, 1)
    weights = attention_weights.permute(3, 0, 2, 1, 4).flatten(1, 2)
    of_value = torch.zeros_like(value)
    of_grid, of_weight = [], []
    for (plane, grid, place), weight in zip(
        _levels(value, value_spatial_shapes, sampling_locations),
        weights,
        strict=True,
    ):
        sampled = grid_sample(plane, grid, align_corners=False)
        of_weight.append((sampled * grad).sum(1))
        of_plane, of_place = torch.ops.aten.grid_sampler_2d_backward(
            grad * weight[:, None], plane, grid, *_MODES, [True, True]
        )
        # mmcv has no gradient for a position on the zero border itself.
        size = grid.new_tensor(plane.shape[:1:-1])
        pixel = ((grid + 1) * size - 1) / 2
        inside = ((pixel > -1) & (pixel < size)).all(-1, keepdim=True)
        of_grid.append(of_place * inside * 2)
        of_plane = of_plane.flatten(2).unflatten(0, (n, heads))
        of_value[:, place] = of_plane.permute(0, 3, 1, 2)
    shape = (len(of_weight), n, heads, queries, weights.shape[-1])
    of_grid, of_weight = torch.stack(of_grid), torch.stack(of_weight)
    return (
        of_value,
        of_grid.view(*shape, 2).permute(1, 3, 2, 0, 4, 5),
        of_weight.view(shape).permute(1, 3, 2, 0, 4),
    )
