# Licensed under the Apache License, Version 2.0. See LICENSE.
"""CARAFE: upsampling with a predicted kernel per pixel (Wang et al., 2019).

The ops apply one position of the kernel at a time to the map, so memory stays
at the size of the output. mmcv's naive and fast op give the same numbers.
mmcv passes the sizes by keyword.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import pad

from .precision import writes


def _taps(
    features: Tensor,
    masks: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> Iterator[tuple[tuple[int, int], Tensor, Tensor]]:
    """Yields row and column in the kernel, and its features and weights.

    Shapes: (N, G, C / G, H, 1, W, 1) and (N, G, 1, H, scale, W, scale).
    """
    n, c, h, w = features.shape
    padded = pad(features, (kernel_size // 2,) * 4)
    masks = masks.view(
        (n, group_size, kernel_size, kernel_size)
        + (h, scale_factor, w, scale_factor)
    )
    for row in range(kernel_size):
        for col in range(kernel_size):
            seen = padded[:, :, row : row + h, col : col + w]
            yield (
                (row, col),
                seen.reshape(n, group_size, c // group_size, h, 1, w, 1),
                masks[:, :, row, col, None],
            )


def _upsample(
    features: Tensor,
    masks: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> Tensor:
    n, c, h, w = features.shape
    output = features.new_zeros(
        n, group_size, c // group_size, h, scale_factor, w, scale_factor
    )
    for _, seen, weight in _taps(
        features, masks, kernel_size, group_size, scale_factor
    ):
        output.addcmul_(seen, weight)
    return output.view(n, c, h * scale_factor, w * scale_factor)


def _gradients(
    grad: Tensor,
    features: Tensor,
    masks: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> tuple[Tensor, Tensor]:
    """Returns the gradients for features and masks."""
    n, c, h, w = features.shape
    channels, scale = c // group_size, scale_factor
    grad = grad.view(n, group_size, channels, h, scale, w, scale)
    edge = kernel_size // 2
    of_padded = pad(torch.zeros_like(features), (edge,) * 4)
    of_masks = grad.new_zeros(
        n, group_size, kernel_size, kernel_size, h, scale, w, scale
    )
    for (row, col), seen, weight in _taps(
        features, masks, kernel_size, group_size, scale_factor
    ):
        spread = (grad * weight).sum((4, 6)).view(n, c, h, w)
        of_padded[:, :, row : row + h, col : col + w] += spread
        of_masks[:, :, row, col] = (grad * seen).sum(2)
    of_features = of_padded[:, :, edge : edge + h, edge : edge + w]
    return of_features, of_masks.view(masks.shape)


@writes('output')
def carafe_naive_forward(
    features: Tensor, masks: Tensor, output: Tensor, **sizes: int
) -> Tensor:
    """Each output pixel is a weighted sum of its source's neighbours.

    ``features`` (N, C, H, W) and ``masks`` (N, group_size * kernel_size ** 2,
    sH, sW), the weights, give (N, C, sH, sW). ``sizes`` are ``kernel_size``,
    odd; ``group_size``, the channel groups with their own weights; and
    ``scale_factor``, s.
    """
    return _upsample(features, masks, **sizes)


@writes('bottom_grad', 'mask_grad')
def carafe_naive_backward(
    top_grad: Tensor,
    features: Tensor,
    masks: Tensor,
    bottom_grad: Tensor,
    mask_grad: Tensor,
    **sizes: int,
) -> tuple[Tensor, Tensor]:
    """Gradients of :func:`carafe_naive_forward`."""
    return _gradients(top_grad, features, masks, **sizes)


@writes('rfeatures', 'output')
def carafe_forward(
    features: Tensor,
    masks: Tensor,
    rfeatures: Tensor,
    routput: Tensor,
    rmasks: Tensor,
    output: Tensor,
    **sizes: int,
) -> tuple[Tensor, Tensor]:
    """Computes the same as :func:`carafe_naive_forward`.

    The compiled op rearranges the features into ``rfeatures`` for the backward
    pass. Here they are kept as they are; ``routput``, ``rmasks`` are scratch.
    """
    return features, _upsample(features, masks, **sizes)


@writes('bottom_grad', 'mask_grad')
def carafe_backward(
    top_grad: Tensor,
    rfeatures: Tensor,
    masks: Tensor,
    rtop_grad: Tensor,
    rbottom_grad_hs: Tensor,
    rbottom_grad: Tensor,
    rmask_grad: Tensor,
    bottom_grad: Tensor,
    mask_grad: Tensor,
    **sizes: int,
) -> tuple[Tensor, Tensor]:
    """Gradients of :func:`carafe_forward`; the r tensors are scratch."""
    return _gradients(top_grad, rfeatures, masks, **sizes)
