# Licensed under the Apache License, Version 2.0. See LICENSE.
"""A script: ops against numbers known by hand, and one step of training.

Each line that starts with ``doctor:`` is JSON, see ``processes.py``.
"""

import contextlib
import io
import json
import math
import os
import sys
import time
import traceback
import warnings
from importlib import import_module

warnings.simplefilter('ignore')
# What packages print on import is no result.
with contextlib.redirect_stdout(io.StringIO()):
    # As a user does: the doctor itself works without mmext.
    import_module('mmext')
    import torch
    from mmcv import ops
    from mmengine.hub import get_config
    from mmengine.optim import OptimWrapper
    from mmengine.registry import MODELS, init_default_scope
    from mmengine.structures import InstanceData
    from torch.nn import functional


TOLERANCE = 1e-4


def say(**event):
    print('\ndoctor: ' + json.dumps(event), flush=True)


def plane(size, device):
    """(1, 1, size, size): the pixel's number in reading order."""
    values = torch.arange(size * size, dtype=torch.float32, device=device)
    return values.view(1, 1, size, size)


def test_nms(device):
    """Boxes 0 and 1 overlap by 81 / 119 = 0.68."""
    boxes = torch.tensor(
        [[0.0, 0, 10, 10], [1, 1, 11, 11], [20, 20, 30, 30]], device=device
    )
    scores = torch.tensor([0.9, 0.8, 0.7], device=device)
    _, kept = ops.nms(boxes, scores, 0.5)
    return kept, [0, 2]


def test_soft_nms(device):
    """The second score falls by the factor 1 - 81 / 119."""
    boxes = torch.tensor(
        [[0.0, 0, 10, 10], [1, 1, 11, 11], [20, 20, 30, 30]], device=device
    )
    scores = torch.tensor([0.9, 0.8, 0.7], device=device)
    found, _ = ops.soft_nms(boxes, scores, 0.3, method='linear')
    return found[:, 4], [0.9, 0.7, 0.8 * 38 / 119]


def test_roi_align(device):
    """Every bin of a linear plane has the value at its centre."""
    feature = plane(4, device).requires_grad_()
    rois = torch.tensor([[0.0, 0, 0, 4, 4]], device=device)
    out = ops.roi_align(feature, rois, 2, 1.0, 2, 'avg', True)
    out.sum().backward()
    return (
        torch.cat([out.detach().flatten(), feature.grad.flatten()]),
        [2.5, 4.5, 10.5, 12.5] + [0.25] * 16,
    )


def test_roi_pool(device):
    """The largest value of each quarter."""
    rois = torch.tensor([[0.0, 0, 0, 3, 3]], device=device)
    return ops.roi_pool(plane(4, device), rois, 2), [[[[5, 7], [13, 15]]]]


def test_sigmoid_focal_loss(device):
    """At a probability of 1/2: alpha / 4 ln 2, (1 - alpha) / 4 ln 2."""
    logits = torch.zeros(1, 2, device=device)
    target = torch.zeros(1, dtype=torch.long, device=device)
    loss = ops.sigmoid_focal_loss(logits, target, 2.0, 0.25, None, 'sum')
    return loss, math.log(2) / 4


def test_deform_conv2d(device):
    """Offsets of one pixel to the right: convolution of the image moved."""
    weight = plane(3, device)
    image = plane(6, device)
    offset = torch.zeros(1, 18, 4, 4, device=device)
    offset[:, 1::2] = 1
    out = ops.deform_conv2d(image, offset, weight, 1, 0, 1, 1, 1, False)
    moved = functional.pad(image, (0, 1))[..., 1:]
    return out, functional.conv2d(moved, weight)


def test_modulated_deform_conv2d(device):
    """Masks of 1/2 halve the convolution."""
    weight = plane(3, device)
    image = plane(6, device)
    offset = torch.zeros(1, 18, 4, 4, device=device)
    mask = torch.full((1, 9, 4, 4), 0.5, device=device)
    out = ops.modulated_deform_conv2d(
        image, offset, mask, weight, None, 1, 0, 1, 1, 1
    )
    return out, functional.conv2d(image, weight) / 2


def test_ms_deform_attn(device):
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


OPS = (
    test_nms,
    test_soft_nms,
    test_roi_align,
    test_roi_pool,
    test_sigmoid_focal_loss,
    test_deform_conv2d,
    test_modulated_deform_conv2d,
    test_ms_deform_attn,
)


def tiny_detector():
    """mmdet's Faster R-CNN with a narrow ResNet-18."""
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


def train_step(device):
    """Losses are finite, and the step moves the weights."""
    from mmdet.structures import DetDataSample

    torch.manual_seed(0)
    model = tiny_detector().to(device).train()
    images = [torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8)] * 2
    sample = DetDataSample(
        metainfo={
            'img_shape': (64, 96),
            'ori_shape': (64, 96),
            'pad_shape': (64, 96),
            'batch_input_shape': (64, 96),
            'scale_factor': (1.0, 1.0),
        }
    )
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
    moved = sum(
        not torch.equal(p, before[n]) for n, p in model.named_parameters()
    )
    if moved < 0.9 * len(before):
        raise ArithmeticError(f'only {moved} of {len(before)} weights moved')
    return f'loss {losses["loss"].item():.3f}, {seconds:.2f} s'


def examine(part, name, call):
    say(start=[part, name])
    try:
        value = call()
    except NotImplementedError as error:
        text = str(error).split('. ')[0]
        say(part=part, name=name, state='note', value=f'not there: {text}')
    except Exception as error:
        if os.environ.get('MMEXT_DEBUG', '0') not in ('', '0'):
            traceback.print_exception(error, file=sys.stderr)
        text = ' '.join(str(error).split())
        if 'is not compiled with' in text or 'implementation for device' in (
            text
        ):
            # Compiled builds leave some ops out on the CPU.
            value = 'the compiled ops lack it on this device'
            say(part=part, name=name, state='note', value=value)
            return
        say(part=part, name=name, error=f'{type(error).__name__}: {text}')
    else:
        say(part=part, name=name, value=value)


def exact(test, device):
    got, want = test(device)
    want = torch.as_tensor(want, dtype=torch.float32, device=device)
    off = (got.detach().float() - want).abs().max().item()
    if not off <= TOLERANCE:
        raise ArithmeticError(
            f'result is off by {off:g}: {got.flatten()[:8].tolist()}, and '
            f'{want.flatten()[:8].tolist()} is right'
        )
    return f'right to {off:.0e}' if off else 'exact'


def main():
    devices = ['cpu'] + (['cuda'] if torch.cuda.is_available() else [])
    for device in devices:
        part = f'Self-test on the {"GPU" if device == "cuda" else "CPU"}'
        for test in OPS:
            name = test.__name__.removeprefix('test_')
            examine(part, name, lambda t=test, d=device: exact(t, d))
        examine(part, 'training step', lambda d=device: train_step(d))


if __name__ == '__main__':
    with contextlib.suppress(BrokenPipeError):
        main()
