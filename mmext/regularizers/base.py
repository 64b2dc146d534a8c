# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Base classes of orthogonality terms: the filters of a layer as vectors."""

from __future__ import annotations

from abc import ABCMeta, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd


def has_filters(layer: nn.Module) -> bool:
    """Returns whether a layer is linear or a (deformable) convolution."""
    if isinstance(layer, (nn.Linear, _ConvNd)):
        return True
    weight = getattr(layer, 'weight', None)
    return (
        isinstance(weight, Tensor)
        and weight.dim() > 2
        and hasattr(layer, 'out_channels')
    )


def num_groups(layer: nn.Module) -> int:
    """Returns the groups of a convolution; 1 for a linear layer."""
    return getattr(layer, 'groups', 1)


def filter_matrix(layer: nn.Module) -> Tensor:
    """Returns filters as rows: (groups, filters a group, inputs a filter).

    Filters of different groups have different inputs, so they are compared
    only within a group. Half precision becomes float32.
    """
    weight, groups = at_least_float32(layer.weight), num_groups(layer)
    if isinstance(layer, _ConvTransposeNd):  # (in, out / groups, *kernel)
        weight = weight.unflatten(0, (groups, -1)).transpose(1, 2)
        return weight.flatten(2)
    return weight.flatten(1).unflatten(0, (groups, -1))


def at_least_float32(x: Tensor) -> Tensor:
    """Converts half precision to float32; keeps float32 and float64."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def gram(filters: Tensor) -> Tensor:
    """Returns the products of all pairs of filters, (..., k, k)."""
    return filters @ filters.transpose(-1, -2)


def eye_like(square: Tensor) -> Tensor:
    """Returns the identity matrix, with the dtype and device of a matrix."""
    return torch.eye(
        square.shape[-1], dtype=square.dtype, device=square.device
    )


class Regularizer(nn.Module, metaclass=ABCMeta):
    """A scalar that is 0 if the filters of a layer are orthogonal.

    A subclass that sets ``reads_output`` also gets samples of the output of
    the layer, as :meth:`SelfOrthogonality.sample` takes them.
    """

    reads_output = False

    def start_step(self, step: int) -> None:
        """Seeds the random numbers of a step, equal in a resumed run."""

    @abstractmethod
    def forward(
        self, layer: nn.Module, output: Tensor | None = None
    ) -> Tensor:
        """Returns the term of one layer, a scalar."""


class WeightTerm(Regularizer):
    """A term that needs only the filters, not the output."""

    def forward(
        self, layer: nn.Module, output: Tensor | None = None
    ) -> Tensor:
        return self.term(filter_matrix(layer))

    @abstractmethod
    def term(self, filters: Tensor) -> Tensor:
        """Returns the term of filters of shape (groups, k, d), a scalar."""
