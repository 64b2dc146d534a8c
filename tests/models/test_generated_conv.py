# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Kernels generated in bands against kernels generated at once."""

from __future__ import annotations

import pytest
import torch
from memory import peak_memory
from torch import Tensor

from mmext.models.layers import generated_conv
from mmext.models.layers.generated_conv import generated_depthwise_conv
from mmext.models.layers.inhomogeneous_conv import inhomogeneous_depthwise_conv


def make(size: tuple[int, ...], dtype=torch.float64) -> list[Tensor]:
    """Input, features and kernel; batch, C, groups, K, D, height, width."""
    b, c, g, k, d, h, w = size
    generator = torch.Generator().manual_seed(0)
    shapes = [(b, c, h, w), (b, d, h, w), (g * k * k, d + 1)]
    return [
        torch.randn(shape, generator=generator).to(dtype).requires_grad_()
        for shape in shapes
    ]


def at_once(x: Tensor, hidden: Tensor, kernel: Tensor, groups: int) -> Tensor:
    """The definition: all weights first."""
    weight = torch.einsum('kd,bdhw->bkhw', kernel[:, :-1], hidden)
    weight = weight + kernel[:, -1, None, None]
    return inhomogeneous_depthwise_conv(
        x, weight.unflatten(1, (groups, -1)), 'torch'
    )


@pytest.mark.parametrize('band', [1, 20, 1 << 20])
@pytest.mark.parametrize(
    'size',
    [
        (2, 12, 4, 7, 3, 9, 5),
        (1, 6, 6, 3, 1, 4, 8),
        (2, 8, 1, 5, 2, 2, 3),
        (1, 8, 8, 7, 2, 1, 1),
        (1, 4, 2, 1, 2, 3, 4),
    ],
)
def test_equals_weights_generated_at_once(
    size: tuple[int, ...], band: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generated_conv, 'BAND', band)
    tensors, groups = make(size), size[2]
    results = []
    for conv in (generated_depthwise_conv, at_once):
        out = conv(*tensors, groups)
        upper = torch.linspace(-1, 1, out.numel(), dtype=out.dtype)
        grads = torch.autograd.grad(out, tensors, upper.view(out.shape))
        results.append([out, *grads])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


def test_gradcheck(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generated_conv, 'BAND', 12)
    assert torch.autograd.gradcheck(
        lambda *t: generated_depthwise_conv(*t, 2),
        make((2, 4, 2, 3, 2, 3, 4)),
    )


def test_half_features_and_formats() -> None:
    """As under autocast: bf16 features, summed in float32."""
    x, hidden, kernel = make((1, 8, 2, 3, 4, 6, 5), torch.float32)
    expected = at_once(x, hidden, kernel, 2)
    low = hidden.detach().bfloat16().requires_grad_()
    tall = x.detach().contiguous(memory_format=torch.channels_last)
    tall.requires_grad_()
    out = generated_depthwise_conv(tall, low, kernel, 2)
    assert out.dtype == torch.float32
    assert (out - expected).norm() < 0.02 * expected.norm()
    out.sum().backward()
    assert low.grad.dtype == torch.bfloat16
    expected.sum().backward()
    assert (low.grad - hidden.grad).norm() < 0.02 * hidden.grad.norm()
    torch.testing.assert_close(tall.grad, x.grad, rtol=0.1, atol=0.1)


def test_the_weights_are_never_complete_in_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A training step holds less than half of the weights' size."""
    monkeypatch.setattr(generated_conv, 'BAND', 128)
    x, hidden, kernel = make((1, 24, 8, 7, 6, 96, 96), torch.float32)
    most = peak_memory(
        lambda: generated_depthwise_conv(x, hidden, kernel, 8).sum().backward()
    )
    assert most < 8 * 49 * 96 * 96 * 4 / 2


@pytest.mark.parametrize(
    'layout', [torch.contiguous_format, torch.channels_last]
)
def test_keeps_the_memory_format(layout: torch.memory_format) -> None:
    """The norms and 1x1 convolutions around it would copy any other."""
    x, hidden, kernel = make((2, 12, 4, 7, 3, 9, 5))
    x, hidden = (
        t.detach().contiguous(memory_format=layout).requires_grad_()
        for t in (x, hidden)
    )
    out = generated_depthwise_conv(x, hidden, kernel, 4)
    grads = torch.autograd.grad(out.square().sum(), (x, hidden))
    for tensor in (out, *grads):
        assert tensor.is_contiguous(memory_format=layout)
