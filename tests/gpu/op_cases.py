# Licensed under the Apache License, Version 2.0. See LICENSE.
"""A call of each of mmcv's ops, for any device."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

import mmext  # noqa: F401  # before mmcv.ops: it provides mmcv._ext

# isort: split
import mmcv._ext as ext
from mmcv import ops
from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction

# A function and its inputs; those that a gradient is taken of, first.
Case = tuple[Callable, list[Tensor], int]


def rand(*shape: int, low: float = -1.0, high: float = 1.0) -> Tensor:
    return torch.rand(shape) * (high - low) + low


def boxes(n: int) -> Tensor:
    corner = rand(n, 2, low=0, high=20)
    return torch.cat([corner, corner + rand(n, 2, low=2, high=12)], 1)


def rois(n: int) -> Tensor:
    """Boxes of two images; the last is inverted, the first without area."""
    given = boxes(n)
    given[-1] = given[-1].roll(2)
    given[0, 2:] = given[0, :2]
    return torch.cat([torch.randint(0, 2, (n, 1)).float(), given], 1)


def rotated(n: int) -> Tensor:
    centre, size = rand(n, 2, low=5, high=20), rand(n, 2, low=2, high=9)
    return torch.cat([centre, size, rand(n, 1)], 1)


def carafe_naive(feat: Tensor, masks: Tensor) -> tuple[Tensor, ...]:
    """mmcv's own backward asserts that a gradient is on CUDA."""
    sizes = {'kernel_size': 3, 'group_size': 1, 'scale_factor': 2}
    out = feat.new_empty(2, 4, 16, 16)
    ext.carafe_naive_forward(feat, masks, out, **sizes)
    grads = torch.empty_like(feat), torch.empty_like(masks)
    ext.carafe_naive_backward(out, feat, masks, *grads, **sizes)
    return out, *grads


def sync_bn(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
    """The five steps, as mmcv's SyncBatchNorm calls them in one process."""
    c = x.shape[1]
    mean, var, std, grad_weight, grad_bias = (x.new_empty(c) for _ in range(5))
    running = x.new_zeros(c), x.new_ones(c)
    norm, out, grad = (torch.empty_like(x) for _ in range(3))
    ext.sync_bn_forward_mean(x, mean)
    ext.sync_bn_forward_var(x, mean, var)
    ext.sync_bn_forward_output(
        *(x, mean, var, weight, bias, *running, norm, std, out),
        eps=1e-5,
        momentum=0.1,
        group_size=1,
    )
    ext.sync_bn_backward_param(out, norm, grad_weight, grad_bias)
    ext.sync_bn_backward_data(
        out, weight, grad_weight, grad_bias, norm, std, grad
    )
    return out, *running, grad_weight, grad_bias, grad


def attend(
    value: Tensor, at: Tensor, weight: Tensor, sizes: Tensor, start: Tensor
) -> Tensor:
    return MultiScaleDeformableAttnFunction.apply(
        value, sizes, start, at, weight, 64
    )


def op_cases() -> dict[str, Case]:
    """Returns cases by name; the names of ops are in it."""
    torch.manual_seed(0)
    feat = rand(2, 4, 32, 32)
    scores = rand(90, low=0)
    of_class = torch.randint(0, 3, (90,))
    dets = torch.cat([boxes(20), scores[:20, None]], 1)
    offset = rand(2, 18, 32, 32)
    by_nms = {'type': 'nms', 'iou_threshold': 0.5}
    cases: dict[str, Case] = {
        'nms': (lambda b, s: ops.nms(b, s, 0.5), [boxes(90), scores], 0),
        'batched_nms': (
            lambda b, s, i: ops.batched_nms(b, s, i, by_nms),
            [boxes(90), scores, of_class],
            0,
        ),
        'soft_nms': (
            lambda b, s: ops.soft_nms(b, s, 0.5),
            [boxes(90), scores],
            0,
        ),
        'nms_match': (lambda d: ops.nms_match(d, 0.5), [dets], 0),
        'nms_rotated': (
            lambda b, s: ops.nms_rotated(b, s, 0.3),
            [rotated(90), scores],
            0,
        ),
        'nms_rotated with labels': (
            lambda b, s, i: ops.nms_rotated(b, s, 0.3, i.float()),
            [rotated(90), scores, of_class],
            0,
        ),
        'box_iou_rotated': (
            ops.box_iou_rotated,
            [rotated(5), rotated(6)],
            0,
        ),
        'bbox_overlaps': (ops.bbox_overlaps, [boxes(5), boxes(6)], 0),
        'deform_roi_pool': (
            lambda f, o, r: ops.deform_roi_pool(f, r, o, 3, 1.0, 0, 0.1),
            [feat, rand(6, 2, 3, 3), rois(6)],
            2,
        ),
        'roi_pool': (
            lambda f, r: ops.roi_pool(f, r, 3, 1.0),
            [feat, rois(6)],
            1,
        ),
        'border_align': (
            lambda f, b: ops.border_align(f, b, 5),
            [rand(2, 8, 8, 8), rand(2, 64, 4, low=0, high=7)],
            1,
        ),
        'deform_conv2d': (
            lambda x, o, w: ops.deform_conv2d(x, o, w, 1, 1, 1),
            [feat, offset, rand(5, 4, 3, 3)],
            3,
        ),
        'modulated_deform_conv2d': (
            lambda x, o, m, w, b: ops.modulated_deform_conv2d(
                x, o, m, w, b, 1, 1, 1
            ),
            [feat, offset, rand(2, 9, 32, 32), rand(5, 4, 3, 3), rand(5)],
            5,
        ),
        'modulated_deform_conv2d of larger offsets': (
            lambda x, o, m, w: ops.modulated_deform_conv2d(
                x, o, m, w, None, 2, 1, 1
            ),
            [feat, offset, rand(2, 9, 32, 32), rand(5, 4, 3, 3)],
            4,
        ),
        'carafe': (
            lambda f, m: ops.carafe(f, m, 3, 1, 2),
            [rand(2, 4, 8, 8), rand(2, 9, 16, 16)],
            2,
        ),
        'carafe_naive': (
            carafe_naive,
            [rand(2, 4, 8, 8), rand(2, 9, 16, 16)],
            0,
        ),
        'sigmoid_focal_loss': (
            ops.sigmoid_focal_loss,
            [rand(6, 3), torch.randint(0, 4, (6,))],
            1,
        ),
        'sigmoid_focal_loss with weights': (
            lambda p, t, w: ops.sigmoid_focal_loss(p, t, 2.0, 0.25, w),
            [rand(6, 3), torch.randint(0, 4, (6,)), rand(3, low=0)],
            1,
        ),
        'softmax_focal_loss': (
            ops.softmax_focal_loss,
            [rand(6, 3), torch.randint(0, 3, (6,))],
            1,
        ),
        'masked_conv2d': (
            lambda x, m, w, b: ops.masked_conv2d(x, m, w, b, 1),
            [
                rand(1, 4, 8, 8),
                (rand(1, 8, 8) > 0).float(),
                rand(5, 4, 3, 3),
                rand(5),
            ],
            0,
        ),
        'ms_deform_attn': (
            attend,
            [
                rand(2, 20, 2, 4),
                rand(2, 5, 2, 2, 3, 2, low=0),
                rand(2, 5, 2, 2, 3, low=0),
                torch.tensor([[4, 4], [2, 2]]),
                torch.tensor([0, 16]),
            ],
            3,
        ),
        'sync_bn': (
            sync_bn,
            [rand(2, 4, 9), rand(4, low=0), rand(4)],
            0,
        ),
    }
    for mode in ('avg', 'max'):
        for ratio in (0, 2):
            cases[f'roi_align {mode}, ratio {ratio}'] = (
                lambda f, r, ratio=ratio, mode=mode: ops.roi_align(
                    f, r, 3, 1.0, ratio, mode, True
                ),
                [feat, rois(6)],
                1,
            )
    return cases
