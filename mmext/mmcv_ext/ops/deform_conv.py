# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Deformable convolution, v1 and v2 (Dai et al., 2017; Zhu et al., 2019).

Both run torchvision's kernels. Two differences from mmcv's are corrected
here. torchvision computes a gradient for an offset whose sampling position
lies exactly on the zero border (zero offsets and padding 1, the usual start,
do), mmcv does not. A NaN offset makes torchvision's CPU kernel read out of
bounds, while mmcv's reads 0.

mmcv passes the geometry of a convolution by keyword, so the functions collect
it in ``options``. Of the scratch tensors of the compiled ops (``columns``,
``ones``), only ``columns`` is used.
"""

from typing import Any

import torch
import torchvision
from torch import Tensor

from .precision import full_precision, writes

#: Stride, padding and dilation, each (rows, columns).
_Geometry = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
# An offset that leads outside every map: both kernels read 0 there.
_OUTSIDE = 1e6


def _convolve(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    offset: Tensor,
    mask: Tensor | None,
    geometry: _Geometry,
) -> Tensor:
    offset = offset.nan_to_num(nan=_OUTSIDE)
    return torchvision.ops.deform_conv2d(
        input, offset, weight, bias, *geometry, mask
    )


@full_precision
def _gradients(
    grad: Tensor,
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    geometry: _Geometry,
    options: dict[str, Any],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns the gradients for input, weight, offset and mask."""
    offset = offset.nan_to_num(nan=_OUTSIDE)
    stride, padding, dilation = geometry
    modulated = mask is not None
    grad_input, grad_weight, grad_offset, grad_mask, _ = (
        torch.ops.torchvision._deform_conv2d_backward(
            grad,
            input,
            weight,
            offset,
            mask if modulated else input.new_zeros(len(input), 1),
            input.new_zeros(len(weight)),
            *stride,
            *padding,
            *dilation,
            options['group'],
            options['deformable_group'],
            modulated,
        )
    )
    n, _, rows, cols = offset.shape
    kernel = weight.shape[2:]
    # (N, deformable_group, kh, kw, 2, rows, cols); the pair is y, x.
    groups = options['deformable_group']
    position = offset.view(n, groups, *kernel, 2, rows, cols)
    inside = True
    for axis, (length, size) in enumerate(
        zip((rows, cols), input.shape[2:], strict=True)
    ):
        base = torch.arange(length, device=offset.device) * stride[axis]
        base -= padding[axis]
        tap = torch.arange(kernel[axis], device=offset.device) * dilation[axis]
        if axis == 0:
            base, tap = base.view(-1, 1), tap.view(-1, 1, 1, 1)
        else:
            tap = tap.view(-1, 1, 1)
        at = position[:, :, :, :, axis] + (base + tap).to(offset.dtype)
        inside = (at > -1) & (at < size) & inside
    grad_offset = grad_offset.view_as(position) * inside[:, :, :, :, None]
    return grad_input, grad_weight, grad_offset.view_as(offset), grad_mask


def _geometry_v1(options: dict[str, int]) -> _Geometry:
    return (
        (options['dH'], options['dW']),
        (options['padH'], options['padW']),
        (options['dilationH'], options['dilationW']),
    )


@writes('output')
def deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    output: Tensor,
    columns: Tensor,
    ones: Tensor,
    **options: int,
) -> Tensor:
    """Deformable convolution, v1.

    Args:
        input: (N, C, H, W).
        weight: (O, C / group, kH, kW).
        offset: (N, 2 * deformable_group * kH * kW, h, w), y before x.
        output: Takes the result, (N, O, h, w).
        columns: Scratch.
        ones: Scratch.
        options: kH, kW; stride dH, dW; padH, padW; dilationH, dilationW;
            group, of the convolution; deformable_group, channel groups with
            their own offsets; im2col_step, not used.

    Raises:
        ValueError: The size of the offsets is not that of the output.
    """
    if offset.shape[2:] != output.shape[2:]:
        raise ValueError(
            f'deform_conv: offsets are {tuple(offset.shape[2:])}, the output '
            f'is {tuple(output.shape[2:])}; give the layer that predicts '
            'offsets the same stride, padding and dilation.'
        )
    return _convolve(input, weight, None, offset, None, _geometry_v1(options))


def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradInput: Tensor,
    gradOffset: Tensor,
    weight: Tensor,
    columns: Tensor,
    **options: int,
) -> None:
    """Gradients of :func:`deform_conv_forward` for input and offset."""
    grad_input, grad_weight, grad_offset, _ = _gradients(
        gradOutput,
        input,
        weight,
        offset,
        None,
        _geometry_v1(options),
        options,
    )
    gradInput.copy_(grad_input)
    gradOffset.copy_(grad_offset)
    # torchvision computes all gradients at once; mmcv asks for the weight's
    # in a second call, with the same gradient and the same scratch tensor.
    columns.weight_grad = gradOutput, grad_weight


def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradWeight: Tensor,
    columns: Tensor,
    ones: Tensor,
    *,
    scale: float,
    **options: int,
) -> None:
    """Adds ``scale`` times the gradient of the weight to ``gradWeight``."""
    of, grad_weight = columns.__dict__.pop('weight_grad', (None, None))
    if of is not gradOutput:
        _, grad_weight, _, _ = _gradients(
            gradOutput,
            input,
            gradWeight,
            offset,
            None,
            _geometry_v1(options),
            options,
        )
    gradWeight.add_(grad_weight.to(gradWeight.dtype), alpha=scale)


def _flat(tensor: Tensor, channels: int, size: torch.Size) -> Tensor:
    """Returns the first values of each image's memory as a smaller map.

    DyHead passes offsets of a larger map than the output. mmcv's kernels
    read them as flat memory, and models were trained with that.
    """
    if tensor.shape[2:] == size:
        return tensor
    n, need = len(tensor), channels * size.numel()
    if tensor[0].numel() < need:
        raise ValueError(
            f'modulated_deform_conv: offset or mask of shape '
            f'{tuple(tensor.shape)} is too small for an output of '
            f'{tuple(size)}.'
        )
    return tensor.flatten(1)[:, :need].reshape(n, channels, *size)


def _unflat(grad: Tensor, like: Tensor) -> Tensor:
    """Inverts :func:`_flat`, with zeros where nothing was read."""
    if grad.shape == like.shape:
        return grad
    full = grad.new_zeros(len(like), like[0].numel())
    full[:, : grad[0].numel()] = grad.flatten(1)
    return full.view(like.shape)


def _samples_v2(
    offset: Tensor, mask: Tensor, output: Tensor, options: dict[str, Any]
) -> tuple[Tensor, Tensor, _Geometry]:
    """Returns offset, mask and geometry of a modulated convolution."""
    taps = options['kernel_h'] * options['kernel_w']
    taps *= options['deformable_group']
    size = output.shape[2:]
    geometry = (
        (options['stride_h'], options['stride_w']),
        (options['pad_h'], options['pad_w']),
        (options['dilation_h'], options['dilation_w']),
    )
    return _flat(offset, 2 * taps, size), _flat(mask, taps, size), geometry


@writes('output')
def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    **options: Any,
) -> Tensor:
    """Deformable convolution, v2: a mask weights each sample.

    Args:
        input: (N, C, H, W).
        weight: (O, C / group, kernel_h, kernel_w).
        bias: (O,), read if ``with_bias``.
        ones: Scratch.
        offset: (N, 2 * deformable_group * kernel_h * kernel_w, h, w), y
            before x. Larger maps are read as flat memory.
        mask: (N, deformable_group * kernel_h * kernel_w, h, w).
        output: Takes the result, (N, O, h, w).
        columns: Scratch.
        options: kernel, stride, pad and dilation, each with ``_h`` and
            ``_w``; group, deformable_group and with_bias.

    Raises:
        ValueError: Offset or mask is smaller than the output.
    """
    bias = bias if options['with_bias'] else None
    offset, mask, geometry = _samples_v2(offset, mask, output, options)
    return _convolve(input, weight, bias, offset, mask, geometry)


@writes('grad_input', 'grad_weight', 'grad_bias', 'grad_offset', 'grad_mask')
def modulated_deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    **options: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of :func:`modulated_deform_conv_forward`."""
    of_input, of_weight, of_offset, of_mask = _gradients(
        grad_output,
        input,
        weight,
        *_samples_v2(offset, mask, grad_output, options),
        options,
    )
    of_bias = grad_bias
    if options['with_bias']:
        of_bias = grad_output.sum((0, 2, 3))
    return (
        of_input,
        of_weight,
        of_bias,
        _unflat(of_offset, offset),
        _unflat(of_mask, mask),
    )
