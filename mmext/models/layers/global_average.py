# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The mean of a map over height and width.

Its gradient is the same at all positions, so it is a broadcast view here. That
of :meth:`torch.Tensor.mean` is a tensor in full size.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from mmext.utils.modules import is_exporting


def global_average(x: Tensor) -> Tensor:
    """Returns the mean over height and width: (N, C, H, W) to (N, C).

    Half precision is summed in float32, so that the sum cannot overflow.
    """
    half = x.dtype in (torch.float16, torch.bfloat16)
    return _HalfAverage.apply(x) if half and not is_exporting() else _mean(x)


def _mean(x: Tensor) -> Tensor:
    dtype = torch.promote_types(x.dtype, torch.float32)
    area = x.shape[-2] * x.shape[-1]
    return (x.sum((2, 3), dtype=dtype) / area).to(x.dtype)


class _HalfAverage(torch.autograd.Function):
    """The mean of a map in half precision.

    The gradient of a sum in float32 would be cast to half precision in full
    size. On a CPU, such a sum also copies the map to float32; average pooling
    does not.
    """

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.shape = x.shape
        if x.device.type == 'cpu':
            return functional.avg_pool2d(x, x.shape[-2:]).flatten(1)
        return _mean(x)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        area = ctx.shape[-2] * ctx.shape[-1]
        return (grad / area)[..., None, None].expand(ctx.shape)
