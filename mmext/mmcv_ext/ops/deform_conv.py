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

# An offset that leads outside every map: both kernels read 0 there.
_OUTSIDE = 1e6


def _geometry(options: dict[str, Any]) -> tuple[tuple[int, int], ...]:
    """Returns stride, padding and dilation, each (rows, columns)."""
    if 'dH' in options:  # v1
        names = ('dH', 'dW'), ('padH', 'padW'), ('dilationH', 'dilationW')
    else:
        kinds = ('stride', 'pad', 'dilation')
        names = [(f'{kind}_h', f'{kind}_w') for kind in kinds]
    return tuple((options[h], options[w]) for h, w in names)


def _convolve(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    offset: Tensor,
    mask: Tensor | None,
    options: dict[str, Any],
) -> Tensor:
    offset = offset.nan_to_num(nan=_OUTSIDE)
    return torchvision.ops.deform_conv2d(
        input, offset, weight, bias, *_geometry(options), mask
    )


@full_precision
def _gradients(
    grad: Tensor,
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    options: dict[str, Any],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns the gradients for input, weight, offset and mask."""
    offset = offset.nan_to_num(nan=_OUTSIDE)
    stride, padding, dilation = _geometry(options)
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
    for axis in (0, 1):
        pixel = torch.arange(offset.shape[2 + axis], device=offset.device)
        tap = torch.arange(kernel[axis], device=offset.device)
        # (kernel, pixels) of this axis, to (kh, 1, rows, 1), (1, kw, 1, cols)
        at = tap[:, None] * dilation[axis] + pixel * stride[axis]
        at = (at - padding[axis]).unsqueeze(1 - axis).unsqueeze(3 - axis)
        at = position[:, :, :, :, axis] + at
        inside = (at > -1) & (at < input.shape[2 + axis]) & inside
    grad_offset = grad_offset.view_as(position) * inside[:, :, :, :, None]
    return grad_input, grad_weight, grad_offset.view_as(offset), grad_mask


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

    ``offset`` (N, 2 * deformable_group * kH * kW, h, w) has y before x.
    ``options`` are kH, kW; stride dH, dW; padH, padW; dilationH, dilationW;
    group, of the convolution; deformable_group, channel groups with their own
    offsets; and im2col_step, not used.
    """
    if offset.shape[2:] != output.shape[2:]:
        raise ValueError(
            f'deform_conv: offsets are {tuple(offset.shape[2:])}, the output '
            f'is {tuple(output.shape[2:])}; give the layer that predicts '
            'offsets the same stride, padding and dilation.'
        )
    return _convolve(input, weight, None, offset, None, options)


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
        gradOutput, input, weight, offset, None, options
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
            gradOutput, input, gradWeight, offset, None, options
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
) -> tuple[Tensor, Tensor]:
    """Returns offset and mask of the size of the output."""
    taps = options['kernel_h'] * options['kernel_w']
    taps *= options['deformable_group']
    size = output.shape[2:]
    return _flat(offset, 2 * taps, size), _flat(mask, taps, size)


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

    ``offset`` (N, 2 * taps, h, w) has y before x, ``mask`` is (N, taps, h, w),
    where taps is deformable_group * kernel_h * kernel_w. Larger maps are read
    as flat memory. ``options`` are kernel, stride, pad and dilation, each with
    ``_h`` and ``_w``; group, deformable_group and with_bias, without
    which ``bias`` is not read.
    """
    bias = bias if options['with_bias'] else None
    offset, mask = _samples_v2(offset, mask, output, options)
    return _convolve(input, weight, bias, offset, mask, options)


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
    sampled = _samples_v2(offset, mask, grad_output, options)
    of_input, of_weight, of_offset, of_mask = _gradients(
        grad_output, input, weight, *sampled, options
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
