# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Triton kernels of the inhomogeneous depth-wise convolution.

A program computes a run of positions for a tile of channels that share their
weights. It loads each weight once for the tile and reads the input through
the cache, tap by tap; it writes only the result. Only the CUDA builds of
PyTorch include Triton, so this module is imported if needed. With
``TRITON_INTERPRET=1``, set before the import, the kernels run on the CPU.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

# Elements of a tile, and the maximum number of channels and positions in it.
# A thread has 255 registers: with 1,024 positions of one channel their offsets
# did not fit (tests/gpu/test_triton_compiles.py).
TILE = 1024
MAX_CHANNELS = 32
MAX_POSITIONS = 256


@triton.jit
def _gather_kernel(
    x, weight, out, height, width, share, channel_tiles,
    x_b, x_c, x_h, x_w,
    w_b, w_g, w_k, w_h, w_w,
    o_b, o_c, o_h, o_w,
    SIZE: tl.constexpr, TRANSPOSED: tl.constexpr, ACC: tl.constexpr,
    CHANNELS: tl.constexpr, POSITIONS: tl.constexpr,
):  # fmt: skip
    """out[c, p] = sum_k weight[g, k, p or source] * x[c, source]."""
    position = tl.program_id(0) * POSITIONS + tl.arange(0, POSITIONS)
    group = tl.program_id(1) // channel_tiles
    channel = (tl.program_id(1) % channel_tiles) * CHANNELS
    channel += tl.arange(0, CHANNELS)
    in_group = channel < share
    channel += group * share
    # A batch of weights can have over 2**31 elements: 64-bit offsets.
    batch = tl.program_id(2).to(tl.int64)
    row, col = position // width, position % width
    x += batch * x_b + channel[:, None].to(tl.int64) * x_c
    weight += batch * w_b + group.to(tl.int64) * w_g
    acc = tl.zeros((CHANNELS, POSITIONS), ACC)
    for ky in range(SIZE):
        for kx in tl.static_range(SIZE):
            if TRANSPOSED:
                from_row, from_col = row - ky + SIZE // 2, col - kx + SIZE // 2
                w_row, w_col = from_row, from_col
            else:
                from_row, from_col = row + ky - SIZE // 2, col + kx - SIZE // 2
                w_row, w_col = row, col
            inside = (from_row >= 0) & (from_row < height)
            inside = inside & (from_col >= 0) & (from_col < width)
            inside = inside & (position < height * width)
            w_at = (ky * SIZE + kx) * w_k + w_row * w_h + w_col * w_w
            w = tl.load(weight + w_at, mask=inside, other=0.0)
            x_at = (from_row * x_h + from_col * x_w)[None, :]
            mask = in_group[:, None] & inside[None, :]
            value = tl.load(x + x_at, mask=mask, other=0.0)
            acc += w.to(ACC)[None, :] * value.to(ACC)
    out += batch * o_b + channel[:, None].to(tl.int64) * o_c
    out += (row * o_h + col * o_w)[None, :]
    mask = in_group[:, None] & (position < height * width)[None, :]
    tl.store(out, acc.to(out.dtype.element_ty), mask=mask)


@triton.jit
def _weight_grad_kernel(
    grad, x, out, height, width, share,
    g_b, g_c, g_h, g_w,
    x_b, x_c, x_h, x_w,
    o_b, o_g, o_k, o_h, o_w,
    SIZE: tl.constexpr, ACC: tl.constexpr,
    CHANNELS: tl.constexpr, POSITIONS: tl.constexpr,
):  # fmt: skip
    """out[g, k, p] = sum over c of g of grad[c, p] * x[c, p + tap k]."""
    position = tl.program_id(0) * POSITIONS + tl.arange(0, POSITIONS)
    group = tl.program_id(1).to(tl.int64)
    batch = tl.program_id(2).to(tl.int64)
    row, col = position // width, position % width
    present = position < height * width
    grad += batch * g_b + (row * g_h + col * g_w)[None, :]
    x += batch * x_b
    out += batch * o_b + group * o_g + row * o_h + col * o_w
    for ky in range(SIZE):
        for kx in tl.static_range(SIZE):
            from_row, from_col = row + ky - SIZE // 2, col + kx - SIZE // 2
            inside = (from_row >= 0) & (from_row < height)
            inside = inside & (from_col >= 0) & (from_col < width)
            inside = inside & present
            x_at = (from_row * x_h + from_col * x_w)[None, :]
            acc = tl.zeros((POSITIONS,), ACC)
            for first in range(0, share, CHANNELS):
                channel = first + tl.arange(0, CHANNELS)
                mask = (channel < share)[:, None] & inside[None, :]
                channel = (channel + group * share)[:, None]
                upper = tl.load(grad + channel * g_c, mask=mask, other=0.0)
                value = tl.load(x + channel * x_c + x_at, mask=mask, other=0.0)
                acc += tl.sum(upper.to(ACC) * value.to(ACC), axis=0)
            at = out + (ky * SIZE + kx) * o_k
            tl.store(at, acc.to(out.dtype.element_ty), mask=present)


def gather(
    x: Tensor, weight: Tensor, transposed: bool, dtype: torch.dtype
) -> Tensor:
    """See :func:`..inhomogeneous_conv.gather`."""
    batch, channels, height, width = x.shape
    groups = weight.size(1)
    share = channels // groups
    out = x.new_empty(x.shape, dtype=dtype)
    tile, positions = _tile(share)
    channel_tiles = triton.cdiv(share, tile)
    grid = (
        triton.cdiv(height * width, positions),
        groups * channel_tiles,
        batch,
    )
    with torch.cuda.device_of(x):  # Triton launches on the current one
        _gather_kernel[grid](
            x,
            weight,
            out,
            height,
            width,
            share,
            channel_tiles,
            *x.stride(),
            *weight.stride(),
            *out.stride(),
            SIZE=math.isqrt(weight.size(2)),
            TRANSPOSED=transposed,
            ACC=_accumulator(dtype),
            CHANNELS=tile,
            POSITIONS=positions,
        )
    return out


def weight_grad(grad: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """See :func:`..inhomogeneous_conv.weight_grad`."""
    batch, channels, height, width = x.shape
    groups = weight.size(1)
    out = torch.empty_like(weight)
    tile, positions = _tile(channels // groups)
    grid = (triton.cdiv(height * width, positions), groups, batch)
    with torch.cuda.device_of(x):
        _weight_grad_kernel[grid](
            grad,
            x,
            out,
            height,
            width,
            channels // groups,
            *grad.stride(),
            *x.stride(),
            *out.stride(),
            SIZE=math.isqrt(weight.size(2)),
            ACC=_accumulator(weight.dtype),
            CHANNELS=tile,
            POSITIONS=positions,
        )
    return out


def _tile(share: int) -> tuple[int, int]:
    """Returns channels and positions of a program, both powers of 2."""
    channels = min(triton.next_power_of_2(share), MAX_CHANNELS)
    return channels, min(TILE // channels, MAX_POSITIONS)


def _accumulator(dtype: torch.dtype) -> tl.dtype:
    return tl.float64 if dtype == torch.float64 else tl.float32
