# Licensed under the Apache License, Version 2.0. See LICENSE.
"""A script that compares ops with known results and runs a training step.

Lines that start with ``doctor:`` contain JSON, see ``processes.py``.
"""

from __future__ import annotations

import contextlib
import math
import time
import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmext.doctor.imports import one_line, report

# isort: split
from mmcv import ops
from mmengine.hub import get_config
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData

TOLERANCE = 1e-4
#: An op's result and the right one.
Results = tuple[Tensor, Tensor | Sequence]


def plane(size: int, device: str) -> Tensor:
    """Returns (1, 1, size, size): pixels numbered row by row."""
    values = torch.arange(size * size, dtype=torch.float32, device=device)
    return values.view(1, 1, size, size)


def boxes_and_scores(device: str) -> tuple[Tensor, Tensor]:
    """Returns three boxes; the first two overlap by 81 / 119 = 0.68."""
    boxes = [[0.0, 0, 10, 10], [1, 1, 11, 11], [20, 20, 30, 30]]
    scores = torch.tensor([0.9, 0.8, 0.7], device=device)
    return torch.tensor(boxes, device=device), scores


def test_nms(device: str) -> Results:
    """The first box removes the second."""
    _, kept = ops.nms(*boxes_and_scores(device), 0.5)
    return kept, [0, 2]


def test_soft_nms(device: str) -> Results:
    """The second score is multiplied by 1 - 81 / 119."""
    boxes, scores = boxes_and_scores(device)
    found, _ = ops.soft_nms(boxes, scores, 0.3, method='linear')
    return found[:, 4], [0.9, 0.7, 0.8 * 38 / 119]


def test_roi_align(device: str) -> Results:
    """Each bin of a linear plane has the value at the bin's centre."""
    feature = plane(4, device).requires_grad_()
    rois = torch.tensor([[0.0, 0, 0, 4, 4]], device=device)
    out = ops.roi_align(feature, rois, 2, 1.0, 2, 'avg', True)
    out.sum().backward()
    return (
        torch.cat([out.detach().flatten(), feature.grad.flatten()]),
        [2.5, 4.5, 10.5, 12.5] + [0.25] * 16,
    )


def test_roi_pool(device: str) -> Results:
    """The largest value of each quarter."""
    rois = torch.tensor([[0.0, 0, 0, 3, 3]], device=device)
    return ops.roi_pool(plane(4, device), rois, 2), [[[[5, 7], [13, 15]]]]


def test_sigmoid_focal_loss(device: str) -> Results:
    """At a probability of 1/2: alpha / 4 ln 2, (1 - alpha) / 4 ln 2."""
    logits = torch.zeros(1, 2, device=device)
    target = torch.zeros(1, dtype=torch.long, device=device)
    loss = ops.sigmoid_focal_loss(logits, target, 2.0, 0.25, None, 'sum')
    return loss, math.log(2) / 4


def test_deform_conv2d(device: str) -> Results:
    """Offsets of one pixel to the right: convolution of the moved image."""
    weight = plane(3, device)
    image = plane(6, device)
    offset = torch.zeros(1, 18, 4, 4, device=device)
    offset[:, 1::2] = 1
    out = ops.deform_conv2d(image, offset, weight, 1, 0, 1, 1, 1, False)
    moved = functional.pad(image, (0, 1))[..., 1:]
    return out, functional.conv2d(moved, weight)


def test_modulated_deform_conv2d(device: str) -> Results:
    """Masks of 1/2 halve the convolution."""
    weight = plane(3, device)
    image = plane(6, device)
    offset = torch.zeros(1, 18, 4, 4, device=device)
    mask = torch.full((1, 9, 4, 4), 0.5, device=device)
    out = ops.modulated_deform_conv2d(
        image, offset, mask, weight, None, 1, 0, 1, 1, 1
    )
    return out, functional.conv2d(image, weight) / 2


def test_ms_deform_attn(device: str) -> Results:
    """The middle of pixel (row 2, column 1) of a 4 x 4 plane is 9."""
    value = plane(4, device).view(1, 16, 1, 1)
    shapes = torch.tensor([[4, 4]], device=device)
    start = torch.tensor([0], device=device)
    where = torch.tensor([1.5 / 4, 2.5 / 4], device=device)
    weights = torch.ones(1, 1, 1, 1, 1, device=device)
    from mmcv.ops.multi_scale_deform_attn import (
        MultiScaleDeformableAttnFunction,
    )

    out = MultiScaleDeformableAttnFunction.apply(
        value, shapes, start, where.view(1, 1, 1, 1, 1, 2), weights, 1
    )
    return out, [[[9.0]]]


OPS = [f for name, f in globals().items() if name.startswith('test_')]


def tiny_detector() -> nn.Module:
    """Builds mmdet's Faster R-CNN with a narrow ResNet-18."""
    from mmdet.utils import register_all_modules

    register_all_modules(init_default_scope=False)
    init_default_scope('mmdet')
    cfg = get_config('mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py').model
    cfg.backbone.update(
        depth=18,
        base_channels=8,
        stem_channels=8,
        frozen_stages=-1,
        norm_eval=False,
        init_cfg=None,
    )
    cfg.neck.update(in_channels=[8, 16, 32, 64], out_channels=8)
    cfg.rpn_head.update(in_channels=8, feat_channels=8)
    cfg.roi_head.bbox_roi_extractor.out_channels = 8
    cfg.roi_head.bbox_head.update(
        in_channels=8, fc_out_channels=16, num_classes=2
    )
    cfg.train_cfg.rpn_proposal.update(nms_pre=50, max_per_img=20)
    return MODELS.build(cfg)


def train_step(device: str) -> str:
    """Checks that losses are finite and that a step changes the weights."""
    from mmdet.structures import DetDataSample

    torch.manual_seed(0)
    model = tiny_detector().to(device).train()
    images = [torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8)] * 2
    sample = DetDataSample(metainfo={'img_shape': (64, 96)})
    sample.gt_instances = InstanceData(
        bboxes=torch.tensor([[10.0, 10, 50, 50]]), labels=torch.tensor([1])
    )
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    optim = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.01))
    start = time.perf_counter()
    losses = model.train_step(
        {'inputs': images, 'data_samples': [sample, sample.clone()]}, optim
    )
    seconds = time.perf_counter() - start
    bad = [n for n, v in losses.items() if not torch.isfinite(v).all()]
    if bad:
        raise ArithmeticError(f'{", ".join(bad)} not finite')
    changed = sum(
        not torch.equal(p, before[n]) for n, p in model.named_parameters()
    )
    if changed < 0.9 * len(before):
        raise ArithmeticError(f'only {changed} of {len(before)} changed')
    return f'loss {losses["loss"].item():.3f}, {seconds:.2f} s'


def compare(test: Callable[[str], Results], device: str) -> str:
    """Describes an op's error, or raises ``ArithmeticError``."""
    result, expected = test(device)
    expected = torch.as_tensor(expected, dtype=torch.float32, device=device)
    error = (result.detach().float() - expected).abs().max().item()
    if not error <= TOLERANCE:
        raise ArithmeticError(
            f'result is off by {error:g}: {result.flatten()[:8].tolist()} '
            f'instead of {expected.flatten()[:8].tolist()}'
        )
    return f'right to {error:.0e}' if error else 'exact'


def run(
    part: str, name: str, check: Callable[..., str], *args: object
) -> None:
    """Runs a check and reports what it returns or raises."""
    report(start=[part, name])
    try:
        event = {'value': check(*args)}
    except NotImplementedError as error:
        text = str(error).split('. ')[0]
        event = {'state': 'note', 'value': f'not implemented: {text}'}
    except Exception as error:
        event = {'error': one_line(error)}
        # Compiled builds leave some ops out on the CPU.
        missing = ('is not compiled with', 'implementation for device')
        if any(text in event['error'] for text in missing):
            value = 'not among the compiled ops for this device'
            event = {'state': 'note', 'value': value}
    report(part=part, name=name, **event)


def main() -> None:
    warnings.simplefilter('ignore')
    devices = {'cpu': 'CPU'}
    if torch.cuda.is_available():
        devices['cuda'] = 'GPU'
    for device, title in devices.items():
        part = f'Self-test on the {title}'
        for test in OPS:
            name = test.__name__.removeprefix('test_')
            run(part, name, compare, test, device)
        run(part, 'training step', train_step, device)


if __name__ == '__main__':
    with contextlib.suppress(BrokenPipeError):
        main()
