# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Global average pooling for channel attention."""

from __future__ import annotations

import torch
from torch import Tensor


def global_average(x: Tensor) -> Tensor:
    """Returns the mean over height and width: (N, C, H, W) to (N, C).

    The sum is scaled afterwards, because the gradient of a sum is a
    broadcast view, and that of ``mean`` a tensor in full size. Half precision
    is summed in float32, so that the sum cannot overflow.
    """
    dtype = torch.promote_types(x.dtype, torch.float32)
    area = x.shape[-2] * x.shape[-1]
    return (x.sum((2, 3), dtype=dtype) / area).to(x.dtype)
