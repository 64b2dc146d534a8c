# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The dynamic depth-wise convolutions against their definitions."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch
from memory import peak_memory
from torch import Tensor, nn
from torch.nn import functional
from triton_interpreter import run_interpreted

from mmext.errors import UserError
from mmext.models.layers import inhomogeneous_conv
from mmext.models.layers.dynamic_depthwise_conv import (
    HomogeneousDynamicConv,
    InhomogeneousDynamicConv,
)
from mmext.models.layers.inhomogeneous_conv import inhomogeneous_depthwise_conv

BN = {'type': 'BN'}
# Batch, channels, groups, kernel size, height, width.
SIZES = [
    (2, 12, 4, 7, 9, 5),
    (1, 6, 6, 3, 4, 8),
    (2, 40, 1, 5, 2, 3),
    (1, 8, 8, 7, 1, 1),
]


def make(size: tuple[int, ...], dtype=torch.float64) -> tuple[Tensor, Tensor]:
    b, c, g, k, h, w = size
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(b, c, h, w, generator=generator, dtype=torch.float64)
    weight = torch.randn(
        b, g, k * k, h, w, generator=generator, dtype=torch.float64
    )
    return x.to(dtype).requires_grad_(), weight.to(dtype).requires_grad_()


def unfolded(x: Tensor, weight: Tensor) -> Tensor:
    """The definition, with an unfolded copy of the input."""
    b, c, h, w = x.shape
    g, taps = weight.shape[1:3]
    size = int(taps**0.5)
    patches = functional.unfold(x, size, padding=size // 2)
    patches = patches.view(b, g, c // g, taps, h, w)
    return (patches * weight.unsqueeze(2)).sum(3).flatten(1, 2)


def grads(out: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
    upper = torch.linspace(-1, 1, out.numel(), dtype=out.dtype)
    return torch.autograd.grad(out, (x, weight), upper.view(out.shape))


@pytest.fixture(params=[1 << 19, 40])
def band(request, monkeypatch: pytest.MonkeyPatch) -> None:
    """One band, and bands of single rows."""
    monkeypatch.setattr(inhomogeneous_conv, 'BAND', request.param)


@pytest.mark.parametrize('size', SIZES)
def test_equals_the_definition(size: tuple[int, ...], band) -> None:
    x, weight = make(size)
    out = inhomogeneous_depthwise_conv(x, weight)
    ref = unfolded(x, weight)
    torch.testing.assert_close(out, ref)
    torch.testing.assert_close(grads(out, x, weight), grads(ref, x, weight))


def test_gradcheck(band) -> None:
    assert torch.autograd.gradcheck(
        inhomogeneous_depthwise_conv, make((1, 4, 2, 3, 3, 3))
    )


def test_equal_kernels_are_a_convolution() -> None:
    """With one kernel everywhere it is PyTorch's depth-wise convolution."""
    x, _ = make((2, 6, 3, 7, 8, 9))
    kernels = torch.randn(3, 1, 7, 7, dtype=x.dtype)
    weight = kernels.view(1, 3, 49, 1, 1).expand(2, -1, -1, 8, 9)
    torch.testing.assert_close(
        inhomogeneous_depthwise_conv(x, weight),
        functional.conv2d(
            x, kernels.repeat_interleave(2, 0), padding=3, groups=6
        ),
    )


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_sums_in_float32(dtype: torch.dtype, band) -> None:
    """Only the result is rounded: 49 sums in half would lose digits."""
    x, weight = make(SIZES[0], dtype)
    out = inhomogeneous_depthwise_conv(x, weight)
    wide = (x.detach().float().requires_grad_(), weight.detach().float())
    wide[1].requires_grad_()
    ref = unfolded(*wide)
    assert out.dtype == dtype
    torch.testing.assert_close(out, ref.to(dtype))
    for ours, theirs in zip(
        grads(out.float(), x, weight), grads(ref, *wide), strict=True
    ):
        assert ours.dtype == dtype
        torch.testing.assert_close(ours.float(), theirs, rtol=2e-2, atol=4e-2)


def test_mixed_dtypes_and_formats() -> None:
    """Half weights on a float input in channels-last order."""
    x, weight = make(SIZES[0], torch.float32)
    half = weight.detach().bfloat16()
    tall = x.detach().contiguous(memory_format=torch.channels_last)
    out = inhomogeneous_depthwise_conv(tall, half)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, unfolded(x, half.float()))


def test_copies_nothing() -> None:
    """The peak of a step at the size of a detector's first stage."""
    x = torch.rand(1, 96, 200, 304, requires_grad=True)
    weight = torch.rand(1, 32, 49, 200, 304, requires_grad=True)
    out = torch.empty(0)

    def forward() -> None:
        nonlocal out
        out = inhomogeneous_depthwise_conv(x, weight)

    assert 0 < peak_memory(forward) <= out.nbytes
    upper = torch.ones_like(out)
    inputs = sum(t.nbytes for t in (x, weight, out, upper))
    step = inputs + peak_memory(lambda: out.backward(upper))
    assert step <= 2.5 * sum(t.nbytes for t in (x, weight, out))


def test_bad_arguments() -> None:
    x, weight = make(SIZES[0])
    for wrong in (
        weight.repeat(1, 2, 1, 1, 1),
        weight[:, :, :48],
        weight[..., :4],
    ):
        with pytest.raises(UserError, match=r'\(B, G, K \* K, H, W\)'):
            inhomogeneous_depthwise_conv(x, wrong)
    with pytest.raises(UserError, match="Did you mean 'triton'"):
        inhomogeneous_depthwise_conv(x, weight, 'tritn')
    with pytest.raises(UserError, match='nearest that does is 4'):
        InhomogeneousDynamicConv(12, 7, 5, BN)


@pytest.mark.skipif(find_spec('triton') is None, reason='needs Triton')
def test_triton_equals_pytorch() -> None:
    """The kernels, in Triton's interpreter: here and in every dtype."""
    assert 'kernels agree' in run_interpreted(__file__)


def compare_triton() -> None:
    """What the process started by the test above runs."""
    from mmext.models.layers import inhomogeneous_conv_triton

    # One program for each group, then several of channels and positions.
    for tile, channels, sizes in (
        (1024, 32, [(1, 6, 2, 7, 4, 5), (2, 40, 1, 3, 2, 3)]),
        (16, 8, [(1, 10, 1, 3, 3, 3)]),
    ):
        inhomogeneous_conv_triton.TILE = tile
        inhomogeneous_conv_triton.MAX_CHANNELS = channels
        for size in sizes:
            x, weight = make(size)
            tall = x.detach().contiguous(memory_format=torch.channels_last)
            tall.requires_grad_()
            out = inhomogeneous_depthwise_conv(tall, weight, 'triton')
            ref = inhomogeneous_depthwise_conv(x, weight, 'torch')
            torch.testing.assert_close(out, ref)
            torch.testing.assert_close(
                grads(out, tall, weight), grads(ref, x, weight)
            )
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        x, weight = make((1, 6, 2, 3, 4, 5), dtype)
        out = inhomogeneous_depthwise_conv(x, weight, 'triton')
        ref = inhomogeneous_depthwise_conv(x, weight, 'torch')
        assert out.dtype == dtype
        # The interpreter cuts float32 to bfloat16 instead of rounding it.
        loose = {'rtol': 1.6e-2, 'atol': 1e-2}
        torch.testing.assert_close(
            out, ref, **(loose if dtype == torch.bfloat16 else {})
        )
    print('kernels agree')


def test_homogeneous_is_a_convolution_per_image() -> None:
    torch.manual_seed(0)
    conv = HomogeneousDynamicConv(8, 7, BN).double().eval()
    nn.init.normal_(conv.bias)
    x = torch.randn(3, 8, 9, 11, dtype=torch.float64)
    for image, out in zip(x, conv(x), strict=True):
        hidden = conv.conv1.weight[:, :, 0, 0] @ image.mean((1, 2))
        hidden = (hidden / (1 + conv.bn.eps) ** 0.5).relu()
        kernels = conv.conv2.weight[:, :, 0, 0] @ hidden + conv.conv2.bias
        ref = functional.conv2d(
            image[None], kernels.view(8, 1, 7, 7), conv.bias, 1, 3, 1, 8
        )
        torch.testing.assert_close(out, ref[0])


@pytest.mark.parametrize('norm', ['BN', 'SyncBN'])
def test_homogeneous_needs_two_images_to_train(norm: str) -> None:
    conv = HomogeneousDynamicConv(8, 7, {'type': norm})
    with pytest.raises(UserError, match='training batch of one image'):
        conv(torch.rand(1, 8, 9, 9))
    conv.eval()(torch.rand(1, 8, 9, 9))


@pytest.mark.parametrize('share', [1, 4, 8])
def test_inhomogeneous_weights_come_from_their_position(share: int) -> None:
    """A change at one position moves only the 7x7 around it."""
    torch.manual_seed(0)
    conv = InhomogeneousDynamicConv(8, 7, share, BN).double().eval()
    assert conv.groups == 8 // share
    x = torch.randn(1, 8, 15, 15, dtype=torch.float64)
    moved = x.clone()
    moved[0, :, 7, 7] += 1
    changed = (conv(moved) - conv(x)).abs().amax((0, 1)) > 1e-12
    expected = torch.zeros(15, 15, dtype=torch.bool)
    expected[4:11, 4:11] = True
    assert torch.equal(changed, expected)


@pytest.mark.parametrize(
    'conv',
    [HomogeneousDynamicConv(3, 3, BN), InhomogeneousDynamicConv(3, 3, 1, BN)],
)
def test_few_channels_still_choose_the_kernels(conv: nn.Module) -> None:
    """Squeezed by 4, three channels would leave none to see the input."""
    conv.double().eval()
    for parameter in conv.parameters():  # no hidden unit is dead
        parameter.data.abs_()
    x = torch.rand(1, 3, 5, 5, dtype=torch.float64)
    assert not torch.allclose(conv(2 * x), 2 * conv(x))


if __name__ == '__main__':
    compare_triton()
