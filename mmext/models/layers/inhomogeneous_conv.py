# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Depth-wise convolution whose kernel differs at every position.

    out[b, c, h, w] = sum_k weight[b, g(c), k, h, w] * x[b, c, h + dy, w + dx]

with tap k = K * (dy + K // 2) + (dx + K // 2), zeros outside the image and
g(c) = c // (C / G), so that C / G channels share a weight. Paper: On the
Connection between Local Attention and Dynamic Depth-wise Convolution, ICLR
2022 (arXiv 2106.04263), section 3.3.

The weights are K * K * G / C times as large as the input, so they are read
once. Every tap is a shifted view of the input, which unfolding would copy
K * K times. On CPU, bands of rows small enough for the cache are accumulated
in place; on CUDA there is a Triton kernel. Both sum in float32 (float64 for
double), so autocast does not need to cast the weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from importlib.util import find_spec

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from mmext.errors import UserError
from mmext.models.arguments import choose

BACKENDS = ('auto', 'torch', 'triton')
# Elements of the input in a band of rows: 2 MiB in float32. Smaller bands
# are slower, because they need more calls.
BAND = 1 << 19


def inhomogeneous_depthwise_conv(
    x: Tensor, weight: Tensor, backend: str = 'auto'
) -> Tensor:
    """Convolves each position with its own kernel.

    Args:
        x: Input (B, C, H, W).
        weight: Kernels (B, G, K * K, H, W): K odd, G a divisor of C. Fastest
            if the last two dimensions are contiguous.
        backend: ``'torch'``, ``'triton'``, or ``'auto'``: Triton on CUDA if
            it is installed, otherwise PyTorch. Default: ``'auto'``.

    Returns:
        (B, C, H, W) in the wider of the two dtypes. Differentiable once in
        ``x`` and ``weight``.

    Raises:
        UserError: If the shapes do not fit each other, the backend is
            unknown, or Triton is not installed.
    """
    backend = pick_backend(x, backend)
    _check_shapes(x, weight)
    return _InhomogeneousDepthwiseConv.apply(x, weight, backend)


def unrolled_depthwise_conv(x: Tensor, weight: Tensor) -> Tensor:
    """Computes the same with one product a column of taps.

    Exporters follow it, and take minutes for one product a tap. ``weight``
    may have one position, for all positions of an image.
    """
    size, groups = math.isqrt(weight.shape[2]), weight.shape[1]
    height, width = x.shape[2:]
    padded = functional.pad(x, [size // 2] * 4).unflatten(1, (groups, -1))
    rows = [padded[..., top : top + height, :] for top in range(size)]
    rows = torch.stack(rows, 2)
    weight = weight.unflatten(2, (size, size))[:, :, :, :, None]
    out = 0
    for left in range(size):
        taps = rows[..., left : left + width] * weight[:, :, :, left]
        out = out + taps.sum(2)
    return out.flatten(1, 2)


def pick_backend(x: Tensor, backend: str) -> str:
    """Returns ``'torch'`` or ``'triton'``, whichever ``'auto'`` stands for."""
    choose('backend', backend, BACKENDS)
    if backend == 'auto':
        on_gpu = x.is_cuda and find_spec('triton') is not None
        backend = 'triton' if on_gpu else 'torch'
    return backend


class _InhomogeneousDepthwiseConv(torch.autograd.Function):
    """Saves only the inputs; each gradient is one more pass over them."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, backend: str) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.backend = backend
        gather, _ = _implementation(backend)
        dtype = torch.promote_types(x.dtype, weight.dtype)
        return gather(x, weight, False, dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        gather, weight_grad = _implementation(ctx.backend)
        dx = dw = None
        if ctx.needs_input_grad[0]:
            dx = gather(grad, weight, True, x.dtype)
        if ctx.needs_input_grad[1]:
            dw = weight_grad(grad, x, weight)
        return dx, dw, None


def _implementation(backend: str) -> tuple:
    if backend == 'torch':
        return gather, weight_grad
    if find_spec('triton') is None:
        raise UserError(
            "backend='triton', but Triton is not installed.",
            "Use backend='torch', or a CUDA build of PyTorch, which has it.",
        )
    from mmext.models.layers import inhomogeneous_conv_triton as t

    return t.gather, t.weight_grad


def gather(
    x: Tensor, weight: Tensor, transposed: bool, dtype: torch.dtype
) -> Tensor:
    """Returns the convolution, or its transpose (the input's gradient).

    The transpose takes the gradient as ``x``, goes through the taps
    backwards, and takes the weights of the position that a value comes from.
    """
    groups, taps = weight.shape[1:3]
    wide = accumulation_dtype(dtype)
    x = x.unflatten(1, (groups, -1))
    out = x.new_zeros(x.shape, dtype=dtype)
    for rows, band in _bands(x, taps):
        source, weights = _readable(x[rows], wide), weight[rows]
        target = out[rows]
        acc = target if dtype == wide else torch.zeros_like(source)
        for k, here, there in _taps(source.shape, band, taps, transposed):
            at = there if transposed else here
            acc[here].addcmul_(
                weights[:, :, k, None][at].to(wide), source[there]
            )
        if dtype != wide:
            target[..., slice(*band), :] = acc[..., slice(*band), :]
    return out.flatten(1, 2)


def weight_grad(grad: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """Returns the gradient of the weights."""
    groups, taps = weight.shape[1:3]
    wide = accumulation_dtype(weight.dtype)
    x, grad = x.unflatten(1, (groups, -1)), grad.unflatten(1, (groups, -1))
    # A tap that reads outside the image has no gradient.
    out = torch.zeros_like(weight)
    for rows, band in _bands(x, taps):
        source, upper = _readable(x[rows], wide), grad[rows].to(wide)
        for k, here, there in _taps(source.shape, band, taps):
            product = upper[here] * source[there]
            target = out[rows][:, :, k][here]
            if target.dtype == wide:
                torch.sum(product, 2, out=target)
            else:
                target.copy_(product.sum(2))
    return out


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """Returns float64 for float64, float32 for all others."""
    return torch.promote_types(dtype, torch.float32)


def _bands(x: Tensor, taps: int) -> Iterator[tuple[tuple, tuple[int, int]]]:
    """Gives the rows that each band reads, and which of these it writes."""
    height, halo = x.shape[-2], math.isqrt(taps) // 2
    step = max(1, BAND * height // max(x.numel(), 1))
    if x.device.type != 'cpu':  # a GPU takes all rows at once
        step = max(1, height)
    for start in range(0, height, step):
        end = min(start + step, height)
        first = max(0, start - halo)
        rows = slice(first, end + halo)
        yield (..., rows, slice(None)), (start - first, end - first)


def _readable(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Copies rows only if they have another dtype or memory format."""
    x = x.to(dtype)
    return x if x.stride(-1) == 1 else x.contiguous()


def _taps(
    shape: torch.Size,
    band: tuple[int, int],
    taps: int,
    transposed: bool = False,
) -> Iterator[tuple[int, tuple, tuple]]:
    """Gives each tap's number, and the regions that it writes and reads.

    Both are cut to ``shape``, so that no padding is needed.
    """
    height, width = shape[-2:]
    size = math.isqrt(taps)
    for k in range(taps):
        dy, dx = k // size - size // 2, k % size - size // 2
        if transposed:
            dy, dx = -dy, -dx
        top, bottom = max(band[0], -dy), min(band[1], height - dy)
        left, right = max(0, -dx), min(width, width - dx)
        if top < bottom and left < right:
            here = (..., slice(top, bottom), slice(left, right))
            rows = slice(top + dy, bottom + dy)
            cols = slice(left + dx, right + dx)
            yield k, here, (..., rows, cols)


def _check_shapes(x: Tensor, weight: Tensor) -> None:
    if x.dim() == 4 and weight.dim() == 5:
        groups, taps = weight.shape[1:3]
        size = math.isqrt(taps)
        around = (len(x), *x.shape[2:]) == (len(weight), *weight.shape[3:])
        odd = size % 2 and size**2 == taps
        if around and odd and groups and x.size(1) % groups == 0:
            return
    raise UserError(
        f'The input is {tuple(x.shape)} and the weights are '
        f'{tuple(weight.shape)}.',
        'Weights for an input (B, C, H, W) are (B, G, K * K, H, W), K odd '
        'and G a divisor of C.',
    )
