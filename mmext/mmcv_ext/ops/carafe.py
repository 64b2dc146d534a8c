# Licensed under the Apache License, Version 2.0. See LICENSE.
"""CARAFE: upsampling with a predicted kernel a pixel (Wang et al., 2019).

One tap of the kernel at a time over the whole map, so memory stays at the
size of the output. The naive and the fast op of mmcv give the same numbers.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import pad

from .precision import full_precision, writes


def _taps(
    features: Tensor, masks: Tensor, kernel: int, groups: int, scale: int
) -> Iterator[tuple[tuple[int, int], Tensor, Tensor]]:
    """Each tap's place, the features it sees and its weights.

    Yields:
        Row and column in the kernel, (N, G, C / G, H, 1, W, 1) and
        (N, G, 1, H, scale, W, scale).
    """
    n, c, h, w = features.shape
    padded = pad(features, (kernel // 2,) * 4)
    masks = masks.view(n, groups, kernel, kernel, h, scale, w, scale)
    for row in range(kernel):
        for col in range(kernel):
            seen = padded[:, :, row : row + h, col : col + w]
            yield (
                (row, col),
                seen.reshape(n, groups, c // groups, h, 1, w, 1),
                masks[:, :, row, col, None],
            )


@full_precision
def _forward(
    features: Tensor, masks: Tensor, kernel: int, groups: int, scale: int
) -> Tensor:
    n, c, h, w = features.shape
    output = features.new_zeros(n, groups, c // groups, h, scale, w, scale)
    for _, seen, weight in _taps(features, masks, kernel, groups, scale):
        output.addcmul_(seen, weight)
    return output.view(n, c, h * scale, w * scale)


@full_precision
def _backward(
    grad: Tensor,
    features: Tensor,
    masks: Tensor,
    kernel: int,
    groups: int,
    scale: int,
) -> tuple[Tensor, Tensor]:
    n, c, h, w = features.shape
    grad = grad.view(n, groups, c // groups, h, scale, w, scale)
    edge = kernel // 2
    of_padded = pad(torch.zeros_like(features), (edge,) * 4)
    of_masks = grad.new_zeros(n, groups, kernel, kernel, h, scale, w, scale)
    for (row, col), seen, weight in _taps(
        features, masks, kernel, groups, scale
    ):
        spread = (grad * weight).sum((4, 6)).view(n, c, h, w)
        of_padded[:, :, row : row + h, col : col + w] += spread
        of_masks[:, :, row, col] = (grad * seen).sum(2)
    of_features = of_padded[:, :, edge : edge + h, edge : edge + w]
    return of_features, of_masks.view(masks.shape)


@writes('output')
def carafe_naive_forward(
    features: Tensor,
    masks: Tensor,
    output: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> Tensor:
    """Each output pixel is a weighted sum of its source's neighbours.

    Args:
        features: (N, C, H, W).
        masks: (N, group_size * kernel_size ** 2, sH, sW), the weights.
        output: Takes the result, (N, C, sH, sW).
        kernel_size: Rows and columns of the kernel, odd.
        group_size: Channel groups with their own weights.
        scale_factor: s.
    """
    return _forward(features, masks, kernel_size, group_size, scale_factor)


@writes('bottom_grad', 'mask_grad')
def carafe_naive_backward(
    top_grad: Tensor,
    features: Tensor,
    masks: Tensor,
    bottom_grad: Tensor,
    mask_grad: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> tuple[Tensor, Tensor]:
    """Gradients of :func:`carafe_naive_forward`."""
    return _backward(
        top_grad, features, masks, kernel_size, group_size, scale_factor
    )


@writes('rfeatures', 'output')
def carafe_forward(
    features: Tensor,
    masks: Tensor,
    rfeatures: Tensor,
    routput: Tensor,
    rmasks: Tensor,
    output: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> tuple[Tensor, Tensor]:
    """As :func:`carafe_naive_forward`.

    The compiled op rearranges its inputs into ``rfeatures``, which it reads
    in the backward pass, and into scratch. Here ``rfeatures`` keeps the
    features as they are.
    """
    return features, _forward(
        features, masks, kernel_size, group_size, scale_factor
    )


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
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> tuple[Tensor, Tensor]:
    """Gradients of :func:`carafe_forward`; the r tensors are scratch."""
    return _backward(
        top_grad, rfeatures, masks, kernel_size, group_size, scale_factor
    )
