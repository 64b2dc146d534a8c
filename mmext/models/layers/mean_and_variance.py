# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The mean and the variance of a map over height and width.

On a CPU, :func:`torch.var_mean` and its gradient take several times the time
of what stands here.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmext.models.layers.global_average import global_average
from mmext.utils.modules import is_exporting


def mean_and_variance(x: Tensor) -> tuple[Tensor, Tensor]:
    """Returns mean and unbiased variance, each (N, C), of a map (N, C, H, W).

    The variance of one position is 0.
    """
    # The squares of float16 could overflow.
    fast = x.device.type == 'cpu' and x.dtype != torch.float16
    if fast and not is_exporting():
        return _MeanAndVariance.apply(x)
    several = int(x.size(2) * x.size(3) > 1)
    variance, mean = torch.var_mean(x, dim=(2, 3), correction=several)
    return mean, variance


class _MeanAndVariance(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> tuple[Tensor, Tensor]:
        area = x.size(2) * x.size(3)
        mean = global_average(x)
        centered = x - mean[..., None, None]
        variance = global_average(centered.mul_(centered))
        ctx.save_for_backward(x, mean)
        return mean, variance * (area / max(area - 1, 1))

    @staticmethod
    def backward(ctx, dmean: Tensor, dvariance: Tensor) -> Tensor:
        x, mean = ctx.saved_tensors
        area = x.size(2) * x.size(3)
        slope = dvariance * (2 / max(area - 1, 1))
        offset = dmean / area - slope * mean
        return torch.addcmul(
            offset[..., None, None], x, slope[..., None, None]
        )
