# Licensed under the Apache License, Version 2.0. See LICENSE.
"""A call of each of mmcv's ops, for any device.

``benchmarks/gpu_check.py`` and the tests on a pretended GPU make them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

import mmext  # noqa: F401  # before mmcv.ops: it provides mmcv._ext

# isort: split
import mmcv._ext as ext
from mmcv import ops
from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction

# A function and its inputs; those that a gradient is taken of, first.
Case = tuple[Callable, list[Tensor], int]


def tensors(value: Any) -> list[Tensor]:
    return [t for t in tree_leaves(value) if isinstance(t, Tensor)]


def run_case(case: Case, device: torch.device | str) -> list[Tensor]:
    """Returns the results of a call, and the gradients of its inputs."""
    function, inputs, leaves = case
    given = [t.clone().to(device) for t in inputs]
    for tensor in given[:leaves]:
        tensor.requires_grad_()
    out = tensors(function(*given))
    if leaves:
        sum(t.square().sum() for t in out if t.requires_grad).backward()
    return out + [t.grad for t in given[:leaves]]


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
    cases: dict[str, Case] = {}

    def add(
        name: str, function: Callable, *inputs: Tensor, leaves: int = 0
    ) -> None:
        cases[name] = (function, list(inputs), leaves)

    feat, at = rand(2, 4, 32, 32), rois(6)
    scores, labels = rand(90, low=0), torch.randint(0, 3, (90,))
    add('nms', lambda b, s: ops.nms(b, s, 0.5), boxes(90), scores)
    by_nms = {'type': 'nms', 'iou_threshold': 0.5}
    add(
        'batched_nms',
        lambda b, s, i: ops.batched_nms(b, s, i, by_nms),
        *(boxes(90), scores, labels),
    )
    add('soft_nms', lambda b, s: ops.soft_nms(b, s, 0.5), boxes(90), scores)
    dets = torch.cat([boxes(20), scores[:20, None]], 1)
    add('nms_match', lambda d: ops.nms_match(d, 0.5), dets)
    turned = rotated(90)
    add(
        'nms_rotated',
        lambda b, s: ops.nms_rotated(b, s, 0.3),
        *(turned, scores),
    )
    add(
        'nms_rotated with labels',
        lambda b, s, i: ops.nms_rotated(b, s, 0.3, i.float()),
        *(turned, scores, labels),
    )
    add('box_iou_rotated', ops.box_iou_rotated, rotated(5), rotated(6))
    add('bbox_overlaps', ops.bbox_overlaps, boxes(5), boxes(6))
    for mode in ('avg', 'max'):
        for ratio in (0, 2):
            add(
                f'roi_align {mode}, ratio {ratio}',
                lambda f, r, ratio=ratio, mode=mode: ops.roi_align(
                    f, r, 3, 1.0, ratio, mode, True
                ),
                *(feat, at),
                leaves=1,
            )
    add(
        'roi_pool', lambda f, r: ops.roi_pool(f, r, 3, 1.0), feat, at, leaves=1
    )
    add(
        'deform_roi_pool',
        lambda f, o, r: ops.deform_roi_pool(f, r, o, 3, 1.0, 0, 0.1),
        *(feat, rand(6, 2, 3, 3), at),
        leaves=2,
    )
    add(
        'border_align',
        lambda f, b: ops.border_align(f, b, 5),
        *(rand(2, 8, 8, 8), rand(2, 64, 4, low=0, high=7)),
        leaves=1,
    )
    offset, mask = rand(2, 18, 32, 32), rand(2, 9, 32, 32)
    weight, bias = rand(5, 4, 3, 3), rand(5)
    add(
        'deform_conv2d',
        lambda x, o, w: ops.deform_conv2d(x, o, w, 1, 1, 1),
        *(feat, offset, weight),
        leaves=3,
    )
    add(
        'modulated_deform_conv2d',
        lambda *inputs: ops.modulated_deform_conv2d(*inputs, 1, 1, 1),
        *(feat, offset, mask, weight, bias),
        leaves=5,
    )
    add(
        'modulated_deform_conv2d of larger offsets',
        lambda *inputs: ops.modulated_deform_conv2d(*inputs, None, 2, 1, 1),
        *(feat, offset, mask, weight),
        leaves=4,
    )
    small, masks = rand(2, 4, 8, 8), rand(2, 9, 16, 16)
    add(
        'carafe',
        lambda f, m: ops.carafe(f, m, 3, 1, 2),
        *(small, masks),
        leaves=2,
    )
    add('carafe_naive', carafe_naive, small, masks)
    logits, targets = rand(6, 3), torch.randint(0, 4, (6,))
    add(
        'sigmoid_focal_loss', ops.sigmoid_focal_loss, logits, targets, leaves=1
    )
    add(
        'sigmoid_focal_loss with weights',
        lambda p, t, w: ops.sigmoid_focal_loss(p, t, 2.0, 0.25, w),
        *(logits, targets, rand(3, low=0)),
        leaves=1,
    )
    add(
        'softmax_focal_loss',
        ops.softmax_focal_loss,
        *(logits, targets.clamp(max=2)),
        leaves=1,
    )
    add(
        'masked_conv2d',
        lambda *inputs: ops.masked_conv2d(*inputs, 1),
        *(small[:1], (rand(1, 8, 8) > 0).float(), weight, bias),
    )
    add(
        'ms_deform_attn',
        attend,
        rand(2, 20, 2, 4),
        rand(2, 5, 2, 2, 3, 2, low=0),
        rand(2, 5, 2, 2, 3, low=0),
        torch.tensor([[4, 4], [2, 2]]),
        torch.tensor([0, 16]),
        leaves=3,
    )
    add('sync_bn', sync_bn, rand(2, 4, 9), rand(4, low=0), rand(4))
    return cases
