# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The Self-Orthogonality Module.

"Self-Orthogonality Module: A Network Architecture Plug-in for Learning
Orthogonal Filters" (Zhang et al., WACV 2020). By locality-sensitive hashing,
``E_x[sgn(x.w_i) sgn(x.w_j)] = 1 - 2 angle(w_i, w_j) / pi``: the signs of the
outputs of a layer give the angles between its filters. There is no official
code. For convolutions and for the normalised form, which the paper does not
define, see the arguments below.
"""

from __future__ import annotations

import math

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmext.regularizers.base import Regularizer, at_least_float32, num_groups


def hash_similarity(outputs: Tensor, gamma: float = 10.0) -> Tensor:
    """Returns a smooth estimate of ``1 - 2 angle / pi`` of all filters.

    A filter whose output is 0 for every sample has no direction. It gets 0
    with all others, and a zero gradient.

    ``outputs`` are (..., samples, filters) before the activation, and the sign
    is replaced by ``tanh(gamma y)``. Returns (..., filters, filters), 1 on the
    diagonal if not all outputs of the filter are 0.
    """
    signs = torch.tanh(gamma * outputs)
    square = signs.square().sum(-2, keepdim=True)
    alive = square > 1e-12 * outputs.shape[-2]
    # `where` inside the root as well: sqrt at 0 has no finite gradient.
    norm = torch.where(alive, square, torch.ones_like(square)).sqrt()
    unit = torch.where(alive, signs / norm, torch.zeros_like(signs))
    return unit.transpose(-1, -2) @ unit


@MODELS.register_module()
class SelfOrthogonality(Regularizer):
    """``lambda1 (sum theta_ij)^2 + lambda2 sum theta_ij^2`` over i != j.

    ``lambda1`` weighs the deviation of the mean angle from 90 degrees,
    ``lambda2`` that of every pair. For a convolution the samples
    are all (image, row, column) positions.

    Args:
        lambda1: Weight of the squared sum. Default: 100, the paper's.
        lambda2: Weight of the sum of squares. Default: 1, the paper's.
        gamma: Steepness of the smooth sign. Default: 10, the paper's.
        normalize: Divide both sums by their number of terms, so that one
            weight serves layers of all widths. False gives the paper's raw
            sums, which reach 1e10 at 256 filters. Default: True.
        max_samples: Positions used in a step, evenly spaced; each step uses
            others. None uses all. Default: 512.
    """

    reads_output = True

    def __init__(
        self,
        lambda1: float = 100.0,
        lambda2: float = 1.0,
        gamma: float = 10.0,
        normalize: bool = True,
        max_samples: int | None = 512,
    ) -> None:
        super().__init__()
        self.lambda1, self.lambda2, self.gamma = lambda1, lambda2, gamma
        self.normalize, self.max_samples = normalize, max_samples

    def sample(self, layer: nn.Module, output: Tensor, step: int) -> Tensor:
        """Samples a layer's output: (N, k, *positions) -> (samples, k).

        ``step`` shifts the positions, so that all are visited in time. Copies
        only what it keeps, and saves nothing for backward, so it may run
        inside a checkpointed region.
        """
        if isinstance(layer, nn.Linear):
            rows = output.reshape(1, -1, output.shape[-1])
        else:
            rows = output.flatten(2).transpose(1, 2)  # (N, positions, k)
        images, positions, width = rows.shape
        every = 1
        if self.max_samples is not None:
            every = math.ceil(positions * images / self.max_samples)
            every = max(1, min(every, positions))
        # Multiples of the golden section spread evenly over the offsets.
        offset = int(step * 0.6180339887 % 1 * every)
        return rows[:, offset::every].reshape(-1, width).clone()

    def forward(
        self, layer: nn.Module, output: Tensor | None = None
    ) -> Tensor:
        """Returns the term from (samples, filters); pairs are in a group."""
        grouped = at_least_float32(output).unflatten(
            1, (num_groups(layer), -1)
        )
        theta = hash_similarity(grouped.transpose(0, 1), self.gamma)
        off = torch.diagonal_scatter(
            theta, torch.zeros_like(theta[..., 0]), dim1=-2, dim2=-1
        )
        total = off.sum((-1, -2))
        squares = off.square().sum((-1, -2))
        if self.normalize:
            pairs = max(1, theta.shape[-1] * (theta.shape[-1] - 1))
            total, squares = total / pairs, squares / pairs
        terms = self.lambda1 * total.square() + self.lambda2 * squares
        return terms.mean() if self.normalize else terms.sum()
