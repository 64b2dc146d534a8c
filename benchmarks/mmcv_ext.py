# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Times mmext's implementation of mmcv's ops against other implementations.

    python benchmarks/mmcv_ext.py [--rounds 15] [--cpu-time]

An op and its rival run in turn in one process, forward and backward. The
ratio is the median over rounds, so a busy machine affects both equally.
Rivals are torchvision's ops, or the pure PyTorch code that mmdet and mmcv use
on the CPU.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torchvision
from torch import Tensor
from torch.nn.functional import one_hot

import mmext

# isort: split
from mmcv import ops
from mmcv.ops.multi_scale_deform_attn import (
    MultiScaleDeformableAttnFunction,
    multi_scale_deformable_attn_pytorch,
)
from mmdet.models.losses.focal_loss import py_sigmoid_focal_loss

Work = tuple[Callable[[], object], Callable[[], object]]


def both(
    op: Callable[..., Tensor], rival: Callable[..., Tensor], *inputs: Tensor
) -> Work:
    """Returns functions that run an op and its rival, with gradients."""

    def step(run: Callable[..., Tensor]) -> Callable[[], object]:
        leaves = [x.clone().requires_grad_() for x in inputs]

        def work() -> object:
            out = run(*leaves)
            return torch.autograd.grad(out, leaves, torch.ones_like(out))

        return work

    return step(op), step(rival)


def cases(device: str) -> dict[str, Work]:
    """Returns each op at a size of Faster R-CNN, RetinaNet or DETR."""

    def rand(*shape: int) -> Tensor:
        return torch.rand(shape, device=device)

    corner = rand(2000, 2) * 600
    boxes = torch.cat([corner, corner + rand(2000, 2) * 150 + 4], 1)
    scores = rand(2000)
    feat = rand(2, 256, 50, 76)
    image = torch.arange(512, device=device).float().remainder(2)[:, None]
    rois = torch.cat([image, boxes[:512]], 1)
    x, weight = rand(2, 64, 50, 76), rand(64, 64, 3, 3)
    offset, mask = rand(2, 18, 50, 76) * 4 - 2, rand(2, 9, 50, 76)
    logits = rand(40000, 80) * 4 - 4
    target = torch.randint(0, 81, (40000,), device=device)
    labels = one_hot(target, 81)[:, :80].float()
    shapes = torch.tensor([[50, 76], [25, 38], [13, 19]], device=device)
    sizes = shapes.prod(1)
    start = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)[:-1]])
    value = rand(1, int(sizes.sum()), 8, 32)
    places, attn = rand(1, 1000, 8, 3, 4, 2), rand(1, 1000, 8, 3, 4)
    return {
        'nms, 2000 boxes': (
            lambda: ops.nms(boxes, scores, 0.7),
            lambda: torchvision.ops.nms(boxes, scores, 0.7),
        ),
        'roi_align, 512 RoIs': both(
            lambda f: ops.roi_align(f, rois, 7, 1 / 16, 0, 'avg', True),
            lambda f: torchvision.ops.roi_align(f, rois, 7, 1 / 16, 0, True),
            feat,
        ),
        'roi_pool, 512 RoIs': both(
            lambda f: ops.roi_pool(f, rois, 7, 1 / 16),
            lambda f: torchvision.ops.roi_pool(f, rois, 7, 1 / 16),
            feat,
        ),
        'deform_conv2d, 64 channels': both(
            lambda x, o, w: ops.deform_conv2d(x, o, w, 1, 1),
            lambda x, o, w: torchvision.ops.deform_conv2d(x, o, w, padding=1),
            x,
            offset,
            weight,
        ),
        'modulated_deform_conv2d': both(
            lambda x, o, m, w: ops.modulated_deform_conv2d(
                x, o, m, w, None, 1, 1, 1, 1, 1
            ),
            lambda x, o, m, w: torchvision.ops.deform_conv2d(
                x, o, w, padding=1, mask=m
            ),
            x,
            offset,
            mask,
            weight,
        ),
        'sigmoid_focal_loss, torchvision': both(
            lambda p: ops.sigmoid_focal_loss(
                p, target, 2.0, 0.25, None, 'sum'
            ),
            lambda p: torchvision.ops.sigmoid_focal_loss(
                p, labels, 0.25, 2.0, 'sum'
            ),
            logits,
        ),
        'sigmoid_focal_loss, mmdet in Python': both(
            lambda p: ops.sigmoid_focal_loss(
                p, target, 2.0, 0.25, None, 'sum'
            ),
            lambda p: py_sigmoid_focal_loss(p, labels, reduction='sum'),
            logits,
        ),
        'ms_deform_attn, mmcv in PyTorch': both(
            lambda v, p, a: MultiScaleDeformableAttnFunction.apply(
                v, shapes, start, p, a, 64
            ),
            lambda v, p, a: multi_scale_deformable_attn_pytorch(
                v, shapes, p, a
            ),
            value,
            places,
            attn,
        ),
    }


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--rounds', type=int, default=15)
    parser.add_argument('--threads', type=int, default=torch.get_num_threads())
    parser.add_argument('--cpu-time', action='store_true')
    parser.add_argument('--out', type=Path, help='JSON file to write')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    cuda = torch.cuda.is_available()
    clock = time.process_time if args.cpu_time else time.perf_counter
    wait = torch.cuda.synchronize if cuda else lambda: None
    result = {
        'device': torch.cuda.get_device_name() if cuda else 'cpu',
        'torch': torch.__version__,
        'torchvision': torchvision.__version__,
        'ops': ops.get_compiler_version(),
        'mmext': mmext.__version__,
        **{k: v for k, v in vars(args).items() if k != 'out'},
    }
    print(f'{"op, rival":36} {"op":>9} {"rival":>9}  ratio')
    for name, pair in cases('cuda' if cuda else 'cpu').items():
        times: tuple[list[float], list[float]] = ([], [])
        for i in range(args.rounds + 2):
            for run, taken in zip(pair, times, strict=True):
                wait()
                begin = clock()
                run()
                wait()
                if i >= 2:  # the first rounds warm up
                    taken.append(clock() - begin)
        op, rival = (1e3 * statistics.median(taken) for taken in times)
        ratio = statistics.median(a / b for a, b in zip(*times, strict=True))
        result[name] = {'ms': op, 'rival ms': rival, 'ratio': ratio}
        print(f'{name:36} {op:6.1f} ms {rival:6.1f} ms {ratio:6.2f}')
    if args.out:
        args.out.write_text(json.dumps(result, indent=2) + '\n')


if __name__ == '__main__':
    main()
