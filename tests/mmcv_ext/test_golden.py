# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The ops against results of mmcv's compiled ops."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import mmext  # noqa: F401  # before mmcv.ops: it provides mmcv._ext

# isort: split
import mmcv.ops
from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction

GOLDEN = Path(__file__).resolve().parents[3] / 'shared' / 'golden' / 'ops'


def cases(*names: str, skip: tuple[str, ...] = ()) -> Iterator:
    """Yields each case of the files as a parameter, its fields as tensors."""
    for name in names:
        path = GOLDEN / f'{name}.npz'
        if not path.exists():
            yield pytest.param(
                {}, marks=pytest.mark.skip(f'{path.name} is missing')
            )
            continue
        groups: dict[str, dict] = {}
        for key, value in np.load(path).items():
            case, _, field = key.rpartition('__')
            if value.dtype.kind != 'U':  # a 0-d text stays an array
                value = torch.from_numpy(value)
            groups.setdefault(case, {})[field] = value
        loose = groups.pop('', {})
        for case, fields in (groups or {name: {}}).items():
            if case not in skip:
                named = {'file': name, 'case': case}
                yield pytest.param({**loose, **fields, **named}, id=case)


def close(got: Tensor, want: Tensor, tol: float) -> None:
    torch.testing.assert_close(got, want, rtol=tol, atol=tol, equal_nan=True)


def check(
    out: Tensor, c: dict, tol: float, key: str = 'out', **inputs: Tensor
) -> None:
    """Compares an output, and the gradients of inputs with named fields."""
    close(out, c[key], tol)
    gout = c.get('gout', torch.ones_like(out))
    got = torch.autograd.grad(out, tuple(inputs.values()), gout)
    for grad, name in zip(got, inputs, strict=True):
        close(grad, c[name], tol)


def conv_arguments(c: dict) -> tuple:
    """Stride, padding, dilation, groups and groups of offsets."""
    if 'par' not in c:
        return 1, 1, 1, 1, 1
    sh, sw, ph, pw, dh, dw, groups, deform_groups = c['par'].tolist()
    return (sh, sw), (ph, pw), (dh, dw), groups, deform_groups


@pytest.mark.parametrize(
    'c', cases('nms', skip=('ties40', 'ties_q400', 'ties_disjoint100'))
)
def test_nms(c: dict) -> None:
    thr, offset, score_thr, max_num = c['par'].tolist()
    dets, inds = mmcv.ops.nms(
        c['boxes'], c['scores'], thr, int(offset), score_thr, int(max_num)
    )
    assert inds.tolist() == c['inds'].tolist()
    assert torch.equal(dets, c['dets'])


@pytest.mark.parametrize('c', cases('batched_nms'))
def test_batched_nms(c: dict) -> None:
    cfg = json.loads(str(c['cfg']))
    dets, keep = mmcv.ops.batched_nms(
        c['boxes'],
        c['scores'],
        c['idxs'],
        cfg['cfg'],
        cfg['class_agnostic'],
    )
    assert keep.tolist() == c['keep'].tolist()
    close(dets, c['dets'], 1e-6)


@pytest.mark.parametrize('c', cases('soft_nms'))
def test_soft_nms(c: dict) -> None:
    thr, sigma, min_score, method, offset = c['par'].tolist()
    dets, inds = mmcv.ops.soft_nms(
        c['boxes'],
        c['scores'],
        thr,
        sigma,
        min_score,
        ('naive', 'linear', 'gaussian')[int(method)],
        int(offset),
    )
    assert inds.tolist() == c['inds'].tolist()
    close(dets, c['dets'], 1e-6)


@pytest.mark.parametrize('c', cases('nms_match'))
def test_nms_match(c: dict) -> None:
    groups = mmcv.ops.nms_match(c['dets'], float(c['thr']))
    assert [len(g) for g in groups] == c['sizes'].tolist()
    assert torch.cat(groups).tolist() == c['flat'].tolist()


@pytest.mark.parametrize('c', cases('roi_align_avg', 'roi_align_max'))
def test_roi_align(c: dict) -> None:
    mode, al, sr, kind, size = c['case'].split('_')
    feat = c['feat'].requires_grad_()
    out = mmcv.ops.roi_align(
        feat,
        c['rois'],
        tuple(int(s) for s in size.split('x')),
        1 / 8,
        int(sr[2:]),
        mode,
        bool(int(al[2:])),
    )
    check(out, c, 1e-6 if mode == 'avg' else 1e-5, gin=feat)


@pytest.mark.parametrize('c', cases('roi_align_max_argmax'))
def test_roi_align_argmax(c: dict) -> None:
    out, y, x = (torch.zeros_like(c[k]) for k in ('out', 'ay', 'ax'))
    al, sr = c['case'].split('_')
    mmcv._ext.roi_align_forward(
        c['feat'],
        c['rois'],
        out,
        y,
        x,
        aligned_height=out.shape[2],
        aligned_width=out.shape[3],
        spatial_scale=1 / 8,
        sampling_ratio=int(sr[2:]),
        pool_mode=0,
        aligned=bool(int(al[2:])),
    )
    close(out, c['out'], 1e-5)
    close(y, c['ay'], 1e-5)
    close(x, c['ax'], 1e-5)


@pytest.mark.parametrize('c', cases('roi_align_negsize'))
def test_roi_align_negative_size(c: dict) -> None:
    size = tuple(c['out'].shape[2:])
    out = mmcv.ops.roi_align(c['feat'], c['rois'], size, 1.0, 2, 'avg', False)
    close(out, c['out'], 1e-6)


@pytest.mark.parametrize('c', cases('mmcvtests_roi_pool'))
def test_roi_pool(c: dict) -> None:
    height, width, scale = c['par'].tolist()
    x = c['x'].requires_grad_()
    out = mmcv.ops.roi_pool(x, c['rois'], (int(height), int(width)), scale)
    check(out, c, 1e-4, gin=x)


@pytest.mark.parametrize('c', cases('kernelref_roi_pool'))
def test_roi_pool_of_unrounded_boxes(c: dict) -> None:
    x = c['x'].requires_grad_()
    scale = 1 / 8
    out = mmcv.ops.roi_pool(x, c['rois'], 7, scale)
    assert torch.equal(out, c['out'])
    check(out, c, 1e-6, gin=x)
    argmax = torch.zeros_like(c['argmax'], dtype=torch.int32)
    mmcv._ext.roi_pool_forward(
        x.detach(), c['rois'], torch.zeros_like(out), argmax, 7, 7, scale
    )
    assert torch.equal(argmax.long(), c['argmax'])


@pytest.mark.parametrize('c', cases('deform_conv2d'))
def test_deform_conv2d(c: dict) -> None:
    x, offset, w = (c[k].requires_grad_() for k in ('x', 'offset', 'w'))
    out = mmcv.ops.deform_conv2d(x, offset, w, *conv_arguments(c))
    check(out, c, 1e-5, gx=x, goffset=offset, gw=w)


@pytest.mark.parametrize(
    'c', cases('modulated_deform_conv2d', 'modulated_deform_conv2d_flat')
)
def test_modulated_deform_conv2d(c: dict) -> None:
    names = [n for n in ('x', 'offset', 'mask', 'w', 'b') if n in c]
    inputs = {n: c[n].requires_grad_() for n in names}
    out = mmcv.ops.modulated_deform_conv2d(
        *(inputs.get(n) for n in ('x', 'offset', 'mask', 'w', 'b')),
        *conv_arguments(c),
    )
    check(out, c, 1e-5, **{f'g{name}': x for name, x in inputs.items()})


@pytest.mark.parametrize('c', cases('deform_conv_grid_offsets'))
def test_deform_conv_on_the_grid(c: dict) -> None:
    """Sampling positions on the zero border have no offset gradient."""
    names = ('x', 'offset', 'mask', 'w')
    x, offset, mask, w = (c[n].requires_grad_() for n in names)
    out = mmcv.ops.deform_conv2d(x, offset, w, 1, 1, 1, 1, 1)
    check(out, c, 1e-5, 'v1out', v1gx=x, v1goffset=offset, v1gw=w)
    out = mmcv.ops.modulated_deform_conv2d(
        x, offset, mask, w, None, 1, 1, 1, 1, 1
    )
    inputs = {'v2gx': x, 'v2goffset': offset, 'v2gmask': mask, 'v2gw': w}
    check(out, c, 1e-5, 'v2out', **inputs)


@pytest.mark.parametrize('c', cases('ms_deform_attn'))
def test_ms_deform_attn(c: dict) -> None:
    shapes = c['spatial_shapes']
    start = torch.cat([shapes.new_zeros(1), shapes.prod(1).cumsum(0)[:-1]])
    names = ('value', 'loc', 'attn')
    value, loc, attn = (c[n].requires_grad_() for n in names)
    out = MultiScaleDeformableAttnFunction.apply(
        value, shapes, start, loc, attn, 64
    )
    check(out, c, 1e-5, gvalue=value, gloc=loc, gattn=attn)


@pytest.mark.parametrize(
    'c',
    cases('mmcvtests_sigmoid_focal_loss', 'mmcvtests_softmax_focal_loss'),
)
def test_focal_loss(c: dict) -> None:
    loss = getattr(mmcv.ops, c['file'].removeprefix('mmcvtests_'))
    x = c['x'].requires_grad_()
    check(loss(x, c['target'], 2.0, 0.25, None, 'mean'), c, 1e-4, gin=x)


@pytest.mark.parametrize('c', cases('mmcvtests_masked_conv2d'))
def test_masked_conv2d(c: dict) -> None:
    padding = c['weight'].shape[2] // 2
    out = mmcv.ops.masked_conv2d(
        c['input'], c['mask'], c['weight'], c['bias'], padding
    )
    close(out, c['out'], 1e-4)


@pytest.mark.parametrize('c', cases('mmcvtests_carafe'))
@pytest.mark.parametrize('op', ['carafe', 'carafe_naive'])
def test_carafe(c: dict, op: str) -> None:
    feat, mask = (c[k].requires_grad_() for k in ('feat', 'mask'))
    out = getattr(mmcv.ops, op)(feat, mask, 5, 4, 2)
    close(out, c['out'], 1e-3)
    if op == 'carafe':  # mmcv's naive backward asserts CUDA
        check(out, c, 1e-3, gfeat=feat, gmask=mask)


@pytest.mark.parametrize('aligned', [False, True])
@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('mode', ['iou', 'iof'])
@pytest.mark.parametrize('c', cases('bbox_overlaps'))
def test_bbox_overlaps(c: dict, mode: str, offset: int, aligned: bool) -> None:
    key = f'{mode}_o{offset}' + '_aligned' * aligned
    other = c['b3' if aligned else 'b2']
    out = mmcv.ops.bbox_overlaps(c['b1'], other, mode, aligned, offset)
    close(out, c[key], 1e-6)


@pytest.mark.parametrize('pool', [1, 2])
@pytest.mark.parametrize('c', cases('mmcvtests_border_align'))
def test_border_align(c: dict, pool: int) -> None:
    x = c['x'].requires_grad_()
    out = mmcv.ops.border_align(x, c['boxes'], pool)
    check(out, c, 1e-4, f'out{pool}', **{f'gin{pool}': x})


@pytest.mark.parametrize('aligned', [False, True])
@pytest.mark.parametrize('clockwise', [False, True])
@pytest.mark.parametrize('mode', ['iou', 'iof'])
@pytest.mark.parametrize('c', cases('box_iou_rotated'))
def test_box_iou_rotated(
    c: dict, mode: str, clockwise: bool, aligned: bool
) -> None:
    key = f'{mode}_cw{int(clockwise)}' + '_aligned' * aligned
    other = c['b3' if aligned else 'b2']
    out = mmcv.ops.box_iou_rotated(c['b1'], other, mode, aligned, clockwise)
    close(out, c[key], 1e-4)


@pytest.mark.parametrize('c', cases('nms_rotated'))
def test_nms_rotated(c: dict) -> None:
    dets, keep = mmcv.ops.nms_rotated(c['boxes'], c['scores'], float(c['thr']))
    assert keep.tolist() == c['keep'].tolist()
    close(dets, c['dets'], 1e-6)
