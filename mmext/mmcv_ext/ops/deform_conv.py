# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Deformable convolution, v1 and v2 (Dai et al., 2017; Zhu et al., 2019).

Both run torchvision's kernels. Two things differ there and are mended here:
torchvision gives an offset a gradient where the sampling position lies
exactly on the zero border (zero offsets and padding 1, the usual start, lie
on it), mmcv does not; and a NaN offset makes torchvision's CPU kernel read
out of bounds, while mmcv's reads 0.
"""

import torch
import torchvision
from torch import Tensor

from .precision import full_precision, writes

_Pair = tuple[int, int]
# An offset that leads outside every map: both kernels read 0 there.
_OUTSIDE = 1e6


def _convolve(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    offset: Tensor,
    mask: Tensor | None,
    stride: _Pair,
    padding: _Pair,
    dilation: _Pair,
) -> Tensor:
    return torchvision.ops.deform_conv2d(
        input,
        offset.nan_to_num(nan=_OUTSIDE),
        weight,
        bias,
        stride,
        padding,
        dilation,
        mask,
    )


def _gradients(
    grad: Tensor,
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    stride: _Pair,
    padding: _Pair,
    dilation: _Pair,
    groups: int,
    offset_groups: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients for input, weight, offset and mask."""
    offset = offset.nan_to_num(nan=_OUTSIDE)
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
            groups,
            offset_groups,
            modulated,
        )
    )
    n, _, rows, cols = offset.shape
    kernel = weight.shape[2:]
    # (N, offset_groups, kh, kw, 2, rows, cols); the pair is y, x.
    position = offset.view(n, offset_groups, *kernel, 2, rows, cols)
    inside = True
    for axis, (length, size) in enumerate(
        zip((rows, cols), input.shape[2:], strict=True)
    ):
        base = (
            torch.arange(length, device=offset.device) * stride[axis]
            - padding[axis]
        )
        base = base[:, None] if axis == 0 else base
        tap = torch.arange(kernel[axis], device=offset.device)
        tap = (tap * dilation[axis]).view(
            (-1, 1, 1, 1) if axis == 0 else (-1, 1, 1)
        )
        at = position[:, :, :, :, axis] + (base + tap).to(offset.dtype)
        inside = (at > -1) & (at < size) & inside
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
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> Tensor:
    """Deformable convolution, v1.

    Args:
        input: (N, C, H, W).
        weight: (O, C / group, kH, kW).
        offset: (N, 2 * deformable_group * kH * kW, h, w), y before x.
        output: Takes the result, (N, O, h, w).
        columns: Scratch of the compiled op, not used.
        ones: Scratch of the compiled op, not used.
        kW: Kernel width; d, pad and dilation are stride and so on.
        group: Groups of the convolution.
        deformable_group: Channel groups with their own offsets.
        im2col_step: Images at a time in the compiled op, not used.

    Raises:
        ValueError: If the offsets' size is not the output's.
    """
    if offset.shape[2:] != output.shape[2:]:
        raise ValueError(
            f'deform_conv: offsets are {tuple(offset.shape[2:])}, the output '
            f'is {tuple(output.shape[2:])}; give the layer that predicts '
            'offsets the same stride, padding and dilation.'
        )
    geometry = ((dH, dW), (padH, padW), (dilationH, dilationW))
    return _convolve(input, weight, None, offset, None, *geometry)


def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradInput: Tensor,
    gradOffset: Tensor,
    weight: Tensor,
    columns: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """Gradients of :func:`deform_conv_forward` for input and offset."""
    geometry = ((dH, dW), (padH, padW), (dilationH, dilationW))
    grad_input, grad_weight, grad_offset, _ = full_precision(_gradients)(
        gradOutput,
        input,
        weight,
        offset,
        None,
        *geometry,
        group,
        deformable_group,
    )
    gradInput.copy_(grad_input)
    gradOffset.copy_(grad_offset)
    # torchvision gives all gradients at once; mmcv asks for the weight's in
    # a second call, with the same gradient and the same scratch tensor.
    columns.weight_grad = gradOutput, grad_weight


def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradWeight: Tensor,
    columns: Tensor,
    ones: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    scale: float,
    im2col_step: int,
) -> None:
    """Gradient of :func:`deform_conv_forward` for the weight, ``scale`` d."""
    of, grad_weight = columns.__dict__.pop('weight_grad', (None, None))
    if of is not gradOutput:
        geometry = ((dH, dW), (padH, padW), (dilationH, dilationW))
        grad_weight = full_precision(_gradients)(
            gradOutput,
            input,
            gradWeight,
            offset,
            None,
            *geometry,
            group,
            deformable_group,
        )[1]
    gradWeight.add_(grad_weight.to(gradWeight.dtype), alpha=scale)


def _flat(tensor: Tensor, channels: int, size: torch.Size) -> Tensor:
    """The first values of each image's memory, as a map of another size.

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
    """Back from :func:`_flat`: zero where nothing was read."""
    if grad.shape == like.shape:
        return grad
    full = grad.new_zeros(len(like), like[0].numel())
    full[:, : grad[0].numel()] = grad.flatten(1)
    return full.view(like.shape)


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
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> Tensor:
    """Deformable convolution, v2: each sample is weighed by a mask.

    Args:
        input: (N, C, H, W).
        weight: (O, C / group, kernel_h, kernel_w).
        bias: (O,), read if ``with_bias``.
        ones: Scratch of the compiled op, not used.
        offset: (N, 2 * deformable_group * kernel_h * kernel_w, h, w), y
            before x. Larger maps are read as flat memory.
        mask: (N, deformable_group * kernel_h * kernel_w, h, w).
        output: Takes the result, (N, O, h, w).
        columns: Scratch of the compiled op, not used.

    Raises:
        ValueError: If offset or mask is smaller than the output.
    """
    taps, size = deformable_group * kernel_h * kernel_w, output.shape[2:]
    return _convolve(
        input,
        weight,
        bias if with_bias else None,
        _flat(offset, 2 * taps, size),
        _flat(mask, taps, size),
        (stride_h, stride_w),
        (pad_h, pad_w),
        (dilation_h, dilation_w),
    )


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
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of :func:`modulated_deform_conv_forward`."""
    taps, size = deformable_group * kernel_h * kernel_w, grad_output.shape[2:]
    of_input, of_weight, of_offset, of_mask = _gradients(
        grad_output,
        input,
        weight,
        _flat(offset, 2 * taps, size),
        _flat(mask, taps, size),
        (stride_h, stride_w),
        (pad_h, pad_w),
        (dilation_h, dilation_w),
        group,
        deformable_group,
    )
    of_bias = grad_output.sum((0, 2, 3)) if with_bias else grad_bias
    return (
        of_input,
        of_weight,
        of_bias,
        _unflat(of_offset, offset),
        _unflat(of_mask, mask),
    )
