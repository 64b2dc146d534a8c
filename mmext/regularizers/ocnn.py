# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Orthogonality of the convolution operator (OCNN).

"Orthogonal Convolutional Neural Networks" (Wang et al., CVPR 2020), equation
8 and algorithm 1. A kernel with orthogonal filters does not make an
orthogonal map, because shifted copies of the filters overlap too. The term
convolves the kernel with itself and compares the result with the identity.
This is the row form; by Lemma 1 of the paper, the column form differs from it
by a constant.
"""

from __future__ import annotations

from math import gcd

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from mmext.errors import UserError
from mmext.regularizers.base import (
    Regularizer,
    at_least_float32,
    eye_like,
    gram,
)

_CONVS = {
    1: nn.functional.conv1d,
    2: nn.functional.conv2d,
    3: nn.functional.conv3d,
}


@MODELS.register_module()
class OCNN(Regularizer):
    """``||Conv(K, K, padding=P, stride=S) - I||_F^2``.

    ``P = floor((k - 1) / S) S`` reaches every shift at which two filters
    overlap. For a linear layer it is soft orthogonality. The paper's weight
    is 0.1.

    Raises:
        UserError: If the layer is a transposed or deformable convolution.
    """

    def forward(
        self, layer: nn.Module, output: Tensor | None = None
    ) -> Tensor:
        kernel = at_least_float32(layer.weight)
        if isinstance(layer, nn.Linear):
            products = gram(kernel)
            return (products - eye_like(products)).square().sum()
        if not isinstance(layer, _ConvNd) or isinstance(
            layer, _ConvTransposeNd
        ):
            raise UserError(
                f'OCNN is defined for convolutions, not for {layer}.',
                'Narrow `layers`, or use another regularizer.',
            )
        dims = range(kernel.dim() - 2)
        # Dilated taps meet only at shifts that are multiples of both.
        stride = [
            layer.stride[i] // gcd(layer.stride[i], layer.dilation[i])
            for i in dims
        ]
        padding = [
            (layer.kernel_size[i] - 1) // stride[i] * stride[i] for i in dims
        ]
        groups = layer.groups
        # The filters of each group meet the filters of the same group only.
        images = (
            kernel.unflatten(0, (groups, -1)).transpose(0, 1).flatten(1, 2)
        )
        overlaps = _CONVS[len(dims)](
            images, kernel, stride=stride, padding=padding, groups=groups
        ).unflatten(1, (groups, -1))
        centre = tuple(n // 2 for n in overlaps.shape[3:])
        target = torch.zeros_like(overlaps)
        same = torch.eye(len(images), dtype=kernel.dtype, device=kernel.device)
        target[(slice(None), slice(None), slice(None), *centre)] = same[
            :, None
        ]
        return (overlaps - target).square().sum()
