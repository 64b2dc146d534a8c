# Licensed under the Apache License, Version 2.0. See LICENSE.
"""BorderAlign (Qiu et al., BorderDet, 2020): maxima along box borders."""

import torch
from torch import Tensor

from .bilinear import corners, scatter
from .precision import writes


def _samples(boxes: Tensor, pool_size: int) -> tuple[Tensor, Tensor]:
    """Returns rows and columns of the samples, (N, 4, K, pool_size + 1).

    The borders are top, left, bottom and right. The first two start at the
    box's first corner, the others at its second corner, in reverse.
    """
    x1, y1, x2, y2 = boxes.unbind(-1)
    step = torch.arange(pool_size + 1, device=boxes.device, dtype=boxes.dtype)
    share_x = (x2 - x1)[..., None] / pool_size * step
    share_y = (y2 - y1)[..., None] / pool_size * step
    still = torch.zeros_like(share_x)
    y = [still, share_y, still, -share_y]
    x = [share_x, still, -share_x, still]
    start_y = torch.stack([y1, y1, y2, y2], 1)[..., None]
    start_x = torch.stack([x1, x1, x2, x2], 1)[..., None]
    return start_y + torch.stack(y, 1), start_x + torch.stack(x, 1)


@writes('output', 'argmax_idx')
def border_align_forward(
    input: Tensor,
    boxes: Tensor,
    output: Tensor,
    argmax_idx: Tensor,
    pool_size: int,
) -> tuple[Tensor, Tensor]:
    """Takes the largest sample along each border of each box, (N, C, K, 4).

    ``input`` (N, 4 * C, H, W) has C channels for each border, ``boxes``
    (N, K, 4) are x1, y1, x2, y2 on the map. ``argmax_idx`` takes the number of
    the sample, of ``pool_size + 1`` along a border.
    """
    n, channels, h, w = input.shape
    index, weight = corners(*_samples(boxes, pool_size), h, w)
    flat = input.reshape(n, 4, channels // 4, 1, h * w)
    value = 0
    for i, wt in zip(index, weight, strict=True):
        i = i[:, :, None].expand(-1, -1, channels // 4, -1, -1)
        read = flat.expand(-1, -1, -1, i.shape[3], -1).gather(4, i)
        value = value + read * wt[:, :, None]
    best = value.argmax(4, keepdim=True)  # (N, 4, C, K, 1)
    order = (0, 2, 3, 1)
    return (
        value.gather(4, best)[..., 0].permute(order),
        best[..., 0].permute(order),
    )


@writes('grad_input')
def border_align_backward(
    grad_output: Tensor,
    boxes: Tensor,
    argmax_idx: Tensor,
    grad_input: Tensor,
    pool_size: int,
) -> Tensor:
    """Gradient of :func:`border_align_forward` for its input."""
    n, channels, h, w = grad_input.shape
    grad = grad_output.new_zeros(n * 4, channels // 4, h, w)
    best = argmax_idx.long().permute(0, 3, 1, 2).flatten(0, 1)[..., None]
    y, x = (
        p.flatten(0, 1)[:, None]
        .expand(-1, channels // 4, -1, -1)
        .gather(3, best)[..., 0]
        for p in _samples(boxes, pool_size)
    )
    scatter(
        grad,
        torch.arange(n * 4, device=grad.device),
        grad_output.permute(0, 3, 1, 2).flatten(0, 1),
        y,
        x,
    )
    return grad.view_as(grad_input)
