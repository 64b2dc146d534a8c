# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The mean over height and width, in each precision and memory layout."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mmext.models.layers.global_average import global_average

HALF = (torch.float16, torch.bfloat16)
FORMATS = (torch.contiguous_format, torch.channels_last)


def test_it_is_the_mean() -> None:
    x = torch.rand(2, 3, 5, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(global_average, x)
    torch.testing.assert_close(global_average(x), x.mean((2, 3)))


@pytest.mark.parametrize('layout', FORMATS, ids=str)
@pytest.mark.parametrize('dtype', HALF, ids=str)
def test_half_precision_is_rounded_once(dtype, layout) -> None:
    x = torch.randn(3, 20, 30, 41).to(dtype, memory_format=layout)
    expected = x.double().mean((2, 3))
    error = (global_average(x).double() - expected).abs()
    unit = torch.finfo(dtype).eps / 2
    # Half a unit in the last place, and that of the sum in float32.
    assert (error <= unit * expected.abs() * 1.001 + 1e-7).all()


@pytest.mark.parametrize('layout', FORMATS, ids=str)
def test_the_sum_cannot_overflow(layout: torch.memory_format) -> None:
    x = torch.full((1, 2, 200, 304), 60.0, dtype=torch.float16)
    assert (global_average(x.to(memory_format=layout)) == 60).all()


@pytest.mark.parametrize('dtype', (torch.float32, *HALF), ids=str)
def test_the_gradient_is_a_view(dtype: torch.dtype) -> None:
    """A tensor in full size would cost as much as the forward pass."""
    x = torch.randn(2, 3, 5, 7).to(dtype).requires_grad_()
    seen: list[Tensor] = []
    same = x.clone()
    same.register_hook(seen.append)
    factor = torch.randn(2, 3).to(dtype)
    global_average(same).backward(factor)
    assert seen[0].untyped_storage().nbytes() <= 6 * dtype.itemsize
    expected = (factor / 35)[..., None, None].expand_as(x)
    assert x.grad.dtype == dtype
    assert torch.equal(x.grad, expected)
