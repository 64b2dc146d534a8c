# Licensed under the Apache License, Version 2.0. See LICENSE.
"""A batch norm in eval mode that scales each channel of each image as well.

Such a norm is x * a + b per channel. Scaling its output per image and channel
only changes a and b, so it costs no pass over the map: neither forward, nor
backward, where the gradient of the scale follows from those of a and b.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm


def can_scale(norm: nn.Module) -> bool:
    """Whether a norm is a fixed affine map per channel just now.

    And nobody watches it: hooks shall see the map that they expect.
    """
    return (
        isinstance(norm, _BatchNorm)
        and not norm.training
        and norm.affine
        and norm.running_mean is not None
        and not norm._forward_hooks
        and not norm._forward_pre_hooks
    )


def scaled_batch_norm(norm: nn.Module, x: Tensor, scale: Tensor) -> Tensor:
    """norm(x) * scale, for x (N, C, H, W) and scale (N, C).

    The images become channels of one image, which is free where each image's
    channels are contiguous; in channels-last batches it is not, and the
    scaling is a pass of its own.
    """
    n, c, h, w = x.shape
    if n > 1 and not x.is_contiguous():
        return norm(x) * scale[..., None, None].to(x.dtype)
    return functional.batch_norm(
        x.reshape(1, n * c, h, w),
        norm.running_mean.expand(n, c).flatten(),
        norm.running_var.expand(n, c).flatten(),
        (scale * norm.weight).flatten(),
        (scale * norm.bias).flatten(),
        training=False,
        eps=norm.eps,
    ).reshape(n, c, h, w)
