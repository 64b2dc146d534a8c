# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The mean and the variance over height and width, against PyTorch's."""

from __future__ import annotations

import pytest
import torch

from mmext.models.layers.mean_and_variance import mean_and_variance

FORMATS = (torch.contiguous_format, torch.channels_last)
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def expected(x: torch.Tensor) -> list[torch.Tensor]:
    return [x.double().mean((2, 3)), x.double().var((2, 3))]


@pytest.mark.parametrize('layout', FORMATS, ids=str)
@pytest.mark.parametrize('dtype', DTYPES, ids=str)
def test_values(dtype: torch.dtype, layout: torch.memory_format) -> None:
    x = 3 + 2 * torch.randn(3, 20, 30, 41)
    x = x.to(dtype, memory_format=layout)
    tolerance = 2 * torch.finfo(dtype).eps + 1e-6
    for value, right in zip(mean_and_variance(x), expected(x), strict=True):
        assert value.dtype == dtype
        torch.testing.assert_close(
            value.double(), right, rtol=tolerance, atol=0
        )


def test_gradients() -> None:
    x = torch.rand(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(mean_and_variance, x)
    assert torch.autograd.gradgradcheck(mean_and_variance, x)


def test_outliers_of_float16_do_not_overflow() -> None:
    x = torch.zeros(1, 1, 200, 300, dtype=torch.float16)
    x[..., 0, 0] = 400
    (mean, variance), right = mean_and_variance(x), expected(x)
    torch.testing.assert_close(mean.double(), right[0], rtol=1e-3, atol=0)
    torch.testing.assert_close(variance.double(), right[1], rtol=1e-3, atol=0)


@pytest.mark.parametrize('layout', FORMATS, ids=str)
def test_one_position(layout: torch.memory_format) -> None:
    x = torch.randn(2, 3, 1, 1).to(memory_format=layout).requires_grad_()
    mean, variance = mean_and_variance(x)
    assert torch.equal(mean, x[..., 0, 0]) and not variance.any()
    (mean + variance).sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))


def test_a_trace_holds_pytorchs_operators() -> None:
    """Functions of Python could not be saved."""
    x = torch.rand(2, 3, 4, 5)
    traced = torch.jit.trace(mean_and_variance, x)
    assert 'PythonOp' not in str(traced.graph)
    assert 'aten::var_mean' in str(traced.graph)
