# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Orthogonality terms that need only the weights.

In the papers, W has one filter in each column, so ``W^T W`` has the products
of all pairs of filters. Soft, double soft, mutual coherence and SRIP are from
"Can We Gain More from Orthogonality Regularizations in Training Deep CNNs?"
(Bansal et al., NeurIPS 2018), equations 1 to 6; the off-diagonal form is from
BigGAN (Brock et al., ICLR 2019), equation 3. A grouped convolution is treated
group by group. Coefficients are the hook's ``weight``.
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
    WeightTerm,
    at_least_float32,
    eye_like,
    gram,
)


def soft_orthogonality(filters: Tensor) -> Tensor:
    """Returns ``||W^T W - I||_F^2`` of filters of shape (groups, k, d).

    ``||W^T W||_F = ||W W^T||_F``, so the smaller Gram matrix is enough:
    ``||W^T W - I_k||_F^2 = ||W W^T - I_d||_F^2 + k - d``.
    """
    groups, k, d = filters.shape
    products = gram(filters if k <= d else filters.transpose(-1, -2))
    excess = (products - eye_like(products)).square().sum()
    return excess + groups * max(0, k - d)


@MODELS.register_module()
class SoftOrthogonality(WeightTerm):
    """``||W^T W - I||_F^2``: orthogonal filters of norm 1."""

    def term(self, filters: Tensor) -> Tensor:
        return soft_orthogonality(filters)


@MODELS.register_module()
class OffDiagonalOrthogonality(WeightTerm):
    """``||W^T W * (1 - I)||_F^2``: orthogonal filters of any norm.

    BigGAN uses the weight 1e-4.
    """

    def term(self, filters: Tensor) -> Tensor:
        products = gram(filters)
        return (products * (1 - eye_like(products))).square().sum()


@MODELS.register_module()
class DoubleSoftOrthogonality(WeightTerm):
    """``||W^T W - I||_F^2 + ||W W^T - I||_F^2``.

    The second term can reach 0 if a layer has more filters than inputs.
    It differs from the first by a constant (see :func:`soft_orthogonality`),
    so the gradient is twice that of :class:`SoftOrthogonality`.
    """

    def term(self, filters: Tensor) -> Tensor:
        return soft_orthogonality(filters) + soft_orthogonality(
            filters.transpose(-1, -2)
        )


@MODELS.register_module()
class MutualCoherence(WeightTerm):
    """The largest entry of ``|W^T W - I|``, summed over groups."""

    def term(self, filters: Tensor) -> Tensor:
        products = gram(filters)
        return (products - eye_like(products)).abs().amax((-1, -2)).sum()


@MODELS.register_module()
class SRIP(WeightTerm):
    """Spectral norm of ``W^T W - I`` by power iteration (SRIP).

    The paper decays the coefficient over training, 1e-1, 1e-3, 1e-4, 1e-6,
    0 at epochs 0, 20, 50, 70, 120: give that to the hook as
    ``schedule=[(0, 1e-1), (20, 1e-3), ...]``.

    Args:
        num_iters: Power iterations from a random vector. Default: 2, as in
            the paper.
        seed: Seed of the vectors; the hook adds the number of the step, so a
            resumed run draws the same ones. Default: 0.
    """

    def __init__(self, num_iters: int = 2, seed: int = 0) -> None:
        super().__init__()
        self.num_iters, self.seed = num_iters, seed
        self.generator = torch.Generator().manual_seed(seed)

    def start_step(self, step: int) -> None:
        self.generator.manual_seed(self.seed + step)

    def term(self, filters: Tensor) -> Tensor:
        groups, num_filters, _ = filters.shape
        v = torch.randn(groups, num_filters, 1, generator=self.generator)
        v = v.to(filters)

        # (W^T W - I) v without the k x k matrix.
        def apply(v: Tensor) -> Tensor:
            return filters @ (filters.transpose(-1, -2) @ v) - v

        for _ in range(self.num_iters):
            v = nn.functional.normalize(apply(v), dim=-2)
        return apply(v).norm(dim=-2).sum()


@MODELS.register_module()
class OCNN(Regularizer):
    """``||Conv(K, K, padding=P, stride=S) - I||_F^2``.

    From "Orthogonal Convolutional Neural Networks" (Wang et al., CVPR 2020),
    equation 8 and algorithm 1, in the row form; by Lemma 1 the column form
    differs from it by a constant. A kernel with orthogonal filters does not
    make an orthogonal map, because shifted copies of the filters overlap too.
    ``P = floor((k - 1) / S) S`` reaches every shift at which they do. For a
    linear layer it is soft orthogonality. The paper's weight is 0.1.

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
        # Dilated taps meet only at shifts that are multiples of both.
        stride = [
            step // gcd(step, dilation)
            for step, dilation in zip(
                layer.stride, layer.dilation, strict=True
            )
        ]
        padding = [
            (size - 1) // step * step
            for size, step in zip(layer.kernel_size, stride, strict=True)
        ]
        groups = layer.groups
        # The filters of each group meet the filters of the same group only.
        images = kernel.unflatten(0, (groups, -1)).transpose(0, 1)
        images = images.flatten(1, 2)
        conv = getattr(nn.functional, f'conv{len(stride)}d')
        overlaps = conv(
            images, kernel, stride=stride, padding=padding, groups=groups
        ).unflatten(1, (groups, -1))
        centre = tuple(n // 2 for n in overlaps.shape[3:])
        target = torch.zeros_like(overlaps)
        same = torch.eye(len(images), dtype=kernel.dtype, device=kernel.device)
        target[(..., *centre)] = same[:, None]
        return (overlaps - target).square().sum()
