# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The local MLP against its definition."""

from __future__ import annotations

import pytest
import torch

from mmext.models.layers.local_mlp import LocalMLP


def by_loops(mlp: LocalMLP, x: torch.Tensor) -> torch.Tensor:
    """out[c, p] = bias + sum of weight[g, p, q] x[c, q] over p's window."""
    size, share = mlp.window_size, x.size(1) // mlp.groups
    out = torch.zeros_like(x)
    _, channels, height, width = x.shape
    for c in range(channels):
        for h in range(height):
            for w in range(width):
                top = (h + mlp.shift) // size * size - mlp.shift
                left = (w + mlp.shift) // size * size - mlp.shift
                p = (h - top) * size + w - left
                total = mlp.bias[c // share, p]
                for q in range(size * size):
                    i, j = top + q // size, left + q % size
                    if 0 <= i < height and 0 <= j < width:
                        weight = mlp.weight[c // share, p, q]
                        total = total + weight * x[:, c, i, j]
                out[:, c, h, w] = total
    return out


@pytest.mark.parametrize('shift', [0, 1])
@pytest.mark.parametrize('share', [1, 2, 4])
@pytest.mark.parametrize('size', [(3, 6), (5, 4)])
def test_equals_the_definition(shift: int, share: int, size) -> None:
    torch.manual_seed(0)
    mlp = LocalMLP(4, 3, share, shift).double()
    torch.nn.init.normal_(mlp.bias)
    x = torch.randn(2, 4, *size, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(mlp(x), by_loops(mlp, x))


def test_windows_share_weights_and_nothing_else() -> None:
    """Moving by a window moves the output; by a position does not."""
    torch.manual_seed(0)
    mlp = LocalMLP(4, 3, 2).double()
    x = torch.randn(1, 4, 6, 6, dtype=torch.float64)
    rolled = mlp(x.roll(3, 2)).roll(-3, 2)
    torch.testing.assert_close(rolled, mlp(x))
    assert not torch.allclose(mlp(x.roll(1, 2)).roll(-1, 2), mlp(x))
