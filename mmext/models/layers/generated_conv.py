# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Depth-wise convolution whose kernels come from the features.

    weight[b, :, p] = kernel @ [hidden[b, :, p], 1]

for every position p, then :mod:`~mmext.models.layers.inhomogeneous_conv` with
these weights. A CPU would spend its time on writing and reading them. Here
they are computed for a band of positions small enough for the cache, and
computed again in the backward pass (docs/dwnet.md). A GPU, which would wait
for a thousand small bands, computes all weights at once.

Rows are stored one after the other, so that a tap has the same offset at
every position and a band is contiguous. The weight of a tap that leaves its
row, and so reads another one, is set to zero.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmext.models.layers.inhomogeneous_conv import (
    accumulation_dtype,
    inhomogeneous_depthwise_conv,
    pick_backend,
    unrolled_depthwise_conv,
)
from mmext.utils.modules import is_exporting

# Positions in a band. Half or twice as many are as fast.
BAND = 1024


def generated_depthwise_conv(
    x: Tensor, hidden: Tensor, kernel: Tensor, groups: int
) -> Tensor:
    """Convolves each position of x with the kernel that its features give.

    ``hidden`` is (B, D, H, W), and ``kernel`` (groups * K * K, D + 1) with the
    bias in its last column. The result is in the wider of the dtypes of x and
    hidden. See :func:`inhomogeneous_depthwise_conv` for the rest.
    """
    exporting = is_exporting()
    on_cpu = x.device.type == 'cpu' and pick_backend(x, 'auto') == 'torch'
    if on_cpu and not exporting:
        return _GeneratedConv.apply(x, hidden, kernel.to(hidden.dtype), groups)
    # bmm instead of `@` keeps the positions last.
    weight = torch.bmm(kernel.expand(x.shape[0], -1, -1), _features(hidden))
    weight = weight.unflatten(2, x.shape[2:]).unflatten(1, (groups, -1))
    if exporting:
        return unrolled_depthwise_conv(x, weight)
    return inhomogeneous_depthwise_conv(x, weight)


def _features(hidden: Tensor) -> Tensor:
    """Returns (B, D + 1, positions); a row of ones carries the bias."""
    ones = torch.ones_like(hidden[:, :1])
    return torch.cat([hidden, ones], 1).flatten(2)


class _GeneratedConv(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, x: Tensor, hidden: Tensor, kernel: Tensor, groups: int
    ) -> Tensor:
        ctx.save_for_backward(x, hidden, kernel)
        ctx.groups = groups
        plan = _Layout(x, groups, kernel)
        source, features = plan.spread(x), _features(hidden)
        # In the memory format of x, as the next layers expect.
        out = torch.empty_like(
            x, dtype=torch.promote_types(x.dtype, hidden.dtype)
        )
        for b, rows, band in plan.bands():
            weight = plan.weights(kernel, features[b, :, band])
            first, *rest = plan.taps(source[b], band)
            acc = first * weight[:, 0]
            for k, tap in enumerate(rest, 1):
                acc.addcmul_(tap, weight[:, k])
            out[b, :, rows] = plan.as_rows(acc).flatten(0, 1)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, hidden, kernel = ctx.saved_tensors
        plan = _Layout(x, ctx.groups, kernel)
        source, features = plan.spread(x), _features(hidden)
        upper = plan.spread(grad)[..., plan.start :]
        dsource = torch.zeros_like(source)
        dfeatures = torch.empty_like(features)
        dkernel = torch.zeros_like(kernel, dtype=plan.dtype)
        for b, _, band in plan.bands():
            part = features[b, :, band]
            weight = plan.weights(kernel, part)
            dweight = torch.empty_like(weight)
            above = upper[b, ..., band]
            product = torch.empty_like(above)
            taps = zip(
                plan.taps(source[b], band),
                plan.taps(dsource[b], band),
                strict=True,
            )
            for k, (tap, dtap) in enumerate(taps):
                torch.mul(above, tap, out=product)
                torch.sum(product, 1, keepdim=True, out=dweight[:, k])
                dtap.addcmul_(above, weight[:, k])
            dweight = plan.zero_outside(dweight).view(len(kernel), -1)
            dweight = dweight.to(kernel.dtype)  # as autocast multiplies
            torch.mm(kernel.T, dweight, out=dfeatures[b, :, band])
            dkernel += dweight @ part.T
        return (
            torch.empty_like(x).copy_(plan.inside(dsource).flatten(1, 2)),
            torch.empty_like(hidden).copy_(plan.as_rows(dfeatures[:, :-1])),
            dkernel.to(kernel.dtype),
            None,
        )


class _Layout:
    """Positions in memory: row after row, zeros around the image."""

    def __init__(self, x: Tensor, groups: int, kernel: Tensor) -> None:
        self.shape, self.groups = x.shape, groups
        self.height, self.width = x.shape[2:]
        self.size = math.isqrt(len(kernel) // groups)
        # The offset of the first tap from its position.
        self.start = (self.size // 2) * (self.width + 1)
        dtype = torch.promote_types(x.dtype, kernel.dtype)
        self.dtype = accumulation_dtype(dtype)

    def bands(self) -> Iterator[tuple[int, slice, slice]]:
        """Gives the image, rows and positions of each band."""
        step = max(1, BAND // self.width)
        for b in range(self.shape[0]):
            for top in range(0, self.height, step):
                end = min(top + step, self.height)
                band = slice(top * self.width, end * self.width)
                yield b, slice(top, end), band

    def inside(self, spread: Tensor) -> Tensor:
        """Returns the view (B, G, C / G, H, W) of the image."""
        end = self.start + self.height * self.width
        return self.as_rows(spread[..., self.start : end])

    def spread(self, x: Tensor) -> Tensor:
        """Returns (B, G, C / G, positions with zeros around)."""
        b, c = self.shape[:2]
        length = self.height * self.width + 2 * self.start
        spread = x.new_zeros(
            (b, self.groups, c // self.groups, length), dtype=self.dtype
        )
        self.inside(spread).copy_(x.unflatten(1, (self.groups, -1)))
        return spread

    def as_rows(self, flat: Tensor) -> Tensor:
        """Returns (..., rows, W) of (..., positions), a view."""
        return flat.unflatten(-1, (-1, self.width))

    def weights(self, kernel: Tensor, features: Tensor) -> Tensor:
        """Returns the weights of a band, (G, taps, 1, positions)."""
        weight = torch.mm(kernel, features).to(self.dtype)
        weight = weight.view(self.groups, self.size**2, 1, -1)
        return self.zero_outside(weight)

    def zero_outside(self, weight: Tensor) -> Tensor:
        """Sets the weights of taps beside the image to zero, in place."""
        by_tap = self.as_rows(weight[:, :, 0])
        by_tap = by_tap.unflatten(1, (self.size, self.size))
        for dx in range(self.size):
            shift = dx - self.size // 2
            if shift < 0:
                by_tap[:, :, dx, :, :-shift] = 0
            elif shift > 0:
                by_tap[:, :, dx, :, max(self.width - shift, 0) :] = 0
        return weight

    def taps(self, spread: Tensor, band: slice) -> Iterator[Tensor]:
        """Gives the input of each tap of a band, (G, C / G, positions)."""
        for dy in range(self.size):
            for dx in range(self.size):
                at = dy * self.width + dx
                yield spread[..., band.start + at : band.stop + at]
