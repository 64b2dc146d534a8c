# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Orthogonality terms of the weights alone.

W has one filter a column in the papers, so ``W^T W`` holds the inner products
of the filters. Sources: soft, double soft, mutual coherence and SRIP from
"Can We Gain More from Orthogonality Regularizations in Training Deep CNNs?"
(Bansal et al., NeurIPS 2018), equations 1 to 6; the off-diagonal form from
BigGAN (Brock et al., ICLR 2019), equation 3. A grouped convolution is read
group by group. Coefficients are the hook's ``weight``.
"""

from __future__ import annotations

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from .base import Regularizer, eye_like, filter_matrix, gram


def soft_orthogonality(filters: Tensor) -> Tensor:
    """``||W^T W - I||_F^2`` from the smaller of the two Gram matrices.

    ``||W^T W||_F = ||W W^T||_F``, so with k filters of d numbers
    ``||W^T W - I_k||_F^2 = ||W W^T - I_d||_F^2 + k - d``.

    Args:
        filters: Shape (groups, k, d).
    """
    groups, k, d = filters.shape
    products = gram(filters if k <= d else filters.transpose(-1, -2))
    excess = (products - eye_like(products)).square().sum()
    return excess + groups * max(0, k - d)


@MODELS.register_module()
class SoftOrthogonality(Regularizer):
    """``||W^T W - I||_F^2``: orthogonal filters of norm 1."""

    def forward(
        self, layer: nn.Module, output: Tensor | None = None
    ) -> Tensor:
        return soft_orthogonality(filter_matrix(layer))


@MODELS.register_module()
class OffDiagonalOrthogonality(Regularizer):
    """``||W^T W * (1 - I)||_F^2``: orthogonal filters of any norm.

    BigGAN uses the weight 1e-4.
    """

    def forward(
        self, layer: nn.Module, output: Tensor | None = None
    ) -> Tensor:
        products = gram(filter_matrix(layer))
        return (products * (1 - eye_like(products))).square().sum()


@MODELS.register_module()
class DoubleSoftOrthogonality(Regularizer):
    """``||W^T W - I||_F^2 + ||W W^T - I||_F^2``.

    The second term can reach 0 where a layer has more filters than inputs.
    It differs from the first by a constant (see :func:`soft_orthogonality`),
    so the gradient is twice that of :class:`SoftOrthogonality`.
    """

    def forward(
        self, layer: nn.Module, output: Tensor | None = None
    ) -> Tensor:
        filters = filter_matrix(layer)
        return soft_orthogonality(filters) + soft_orthogonality(
            filters.transpose(-1, -2)
        )


@MODELS.register_module()
class MutualCoherence(Regularizer):
    """The largest entry of ``|W^T W - I|``; the sum of it over groups."""

    def forward(
        self, layer: nn.Module, output: Tensor | None = None
    ) -> Tensor:
        products = gram(filter_matrix(layer))
        return (products - eye_like(products)).abs().amax((-1, -2)).sum()


@MODELS.register_module()
class SRIP(Regularizer):
    """Spectral norm of ``W^T W - I`` by power iteration (SRIP).

    The paper decays the coefficient over training, 1e-1, 1e-3, 1e-4, 1e-6,
    0 at epochs 0, 20, 50, 70, 120: give that to the hook as
    ``schedule=[(0, 1e-1), (20, 1e-3), ...]``.

    Args:
        num_iters: Power iterations from a random vector. Default: 2, as in
            the paper.
        seed: Of the private generator that draws the vectors. Default: 0.
    """

    def __init__(self, num_iters: int = 2, seed: int = 0) -> None:
        super().__init__()
        self.num_iters = num_iters
        self.generator = torch.Generator().manual_seed(seed)

    def forward(
        self, layer: nn.Module, output: Tensor | None = None
    ) -> Tensor:
        filters = filter_matrix(layer)
        groups, num_filters, _ = filters.shape
        v = torch.randn(groups, num_filters, 1, generator=self.generator)
        v = v.to(filters)

        # (W^T W - I) v without the k x k matrix.
        def apply(v: Tensor) -> Tensor:
            return filters @ (filters.transpose(-1, -2) @ v) - v

        for _ in range(self.num_iters):
            v = nn.functional.normalize(apply(v), dim=-2)
        return apply(v).norm(dim=-2).sum()
