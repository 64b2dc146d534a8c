# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Global average pooling for channel attention."""

from __future__ import annotations

import torch
from torch import Tensor


def global_average(x: Tensor) -> Tensor:
    """Mean over height and width: (N, C, H, W) to (N, C).

    A sum scaled afterwards: the gradient of ``mean`` is written out in full
    size before it is used, that of a sum is a broadcast view. Half precision
    accumulates in float32, where the sum cannot overflow.
    """
    dtype = torch.promote_types(x.dtype, torch.float32)
    area = x.shape[-2] * x.shape[-1]
    return (x.sum((2, 3), dtype=dtype) / area).to(x.dtype)
