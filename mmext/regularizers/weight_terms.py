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

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmext.regularizers.base import WeightTerm, eye_like, gram


def soft_orthogonality(filters: Tensor) -> Tensor:
    """Returns ``||W^T W - I||_F^2`` from the smaller Gram matrix.

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
        seed: Seed of the private generator of the vectors. Default: 0.
    """

    def __init__(self, num_iters: int = 2, seed: int = 0) -> None:
        super().__init__()
        self.num_iters = num_iters
        self.generator = torch.Generator().manual_seed(seed)

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
