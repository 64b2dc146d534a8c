# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The two steps of a convolution that is computed at some pixels only."""

from torch import Tensor
from torch.nn.functional import pad

from .precision import writes


@writes('col')
def masked_im2col_forward(
    im: Tensor,
    mask_h_idx: Tensor,
    mask_w_idx: Tensor,
    col: Tensor,
    kernel_h: int,
    kernel_w: int,
    pad_h: int,
    pad_w: int,
) -> Tensor:
    """Collects the inputs of the kernel at M pixels of (1, C, H, W).

    The result is (C * kernel_h * kernel_w, M).
    """
    # Enough zeros for a window at each pixel, whatever the padding.
    im = pad(im, (pad_w, kernel_w, pad_h, kernel_h))
    windows = im[0].unfold(1, kernel_h, 1).unfold(2, kernel_w, 1)
    seen = windows[:, mask_h_idx, mask_w_idx]  # (C, M, kh, kw)
    return seen.permute(0, 2, 3, 1).reshape(col.shape)


def masked_col2im_forward(
    col: Tensor,
    mask_h_idx: Tensor,
    mask_w_idx: Tensor,
    im: Tensor,
    height: int,
    width: int,
    channels: int,
) -> None:
    """Writes results, (channels, M), to their pixels of (1, C, H, W)."""
    im[0, :, mask_h_idx, mask_w_idx] = col.to(im.dtype)
