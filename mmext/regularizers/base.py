# Licensed under the Apache License, Version 2.0. See LICENSE.
"""What every orthogonality term shares: a layer's filters as vectors."""

from __future__ import annotations

from abc import ABCMeta, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd


def has_filters(layer: nn.Module) -> bool:
    """Whether ``layer`` is a linear or a (deformable) convolution layer."""
    if isinstance(layer, (nn.Linear, _ConvNd)):
        return True
    weight = getattr(layer, 'weight', None)
    return (
        isinstance(weight, Tensor)
        and weight.dim() > 2
        and hasattr(layer, 'out_channels')
    )


def num_groups(layer: nn.Module) -> int:
    """Groups of a convolution; 1 for a linear layer."""
    return getattr(layer, 'groups', 1)


def filter_matrix(layer: nn.Module) -> Tensor:
    """The filters of a layer as rows, in float32 or better.

    Filters of different groups see different inputs, so an angle between
    them says nothing: groups stay apart.

    Returns:
        Shape (groups, filters a group, inputs a filter).
    """
    weight, groups = at_least_float32(layer.weight), num_groups(layer)
    if isinstance(layer, _ConvTransposeNd):  # (in, out / groups, *kernel)
        weight = weight.unflatten(0, (groups, -1)).transpose(1, 2)
        return weight.flatten(2)
    return weight.flatten(1).unflatten(0, (groups, -1))


def at_least_float32(x: Tensor) -> Tensor:
    """Half precision becomes float32; float32 and float64 stay."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def gram(filters: Tensor) -> Tensor:
    """Inner products of all pairs of filters, (..., k, d) -> (..., k, k)."""
    return filters @ filters.transpose(-1, -2)


def eye_like(square: Tensor) -> Tensor:
    """The identity of the last dimension's size, dtype and device."""
    return torch.eye(
        square.shape[-1], dtype=square.dtype, device=square.device
    )


class Regularizer(nn.Module, metaclass=ABCMeta):
    """A scalar that is 0 where a layer's filters are orthogonal.

    A subclass that sets ``reads_output`` is given samples of the layer's
    own output, as :meth:`SelfOrthogonality.sample` cuts them.
    """

    reads_output = False

    @abstractmethod
    def forward(
        self, layer: nn.Module, output: Tensor | None = None
    ) -> Tensor:
        """The term of one layer, a scalar."""
