# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The choice of the memory format, and equal results in both formats."""

from __future__ import annotations

import copy

import pytest
import torch
from backbone_checks import DWNET
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.registry import MODELS, init_default_scope
from torch import nn
from toy import Toy, build_runner

from mmext.engine.memory_format import faster_format, set_memory_format
from mmext.errors import UserError

SMALL = {'depth': 18, 'base_channels': 8, 'stem_channels': 8}
CONFIGS = {
    'faster': 'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
    'retina': 'retinanet/retinanet_r50_fpn_1x_coco.py',
    'fcos': 'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py',
    'rtmdet': 'rtmdet/rtmdet_tiny_8xb32-300e_coco.py',
}
TOKENS = {
    'DWNet': {'type': 'DWNet', 'arch': DWNET, 'norm_cfg': {'type': 'BN'}},
    'Swin': {
        'type': 'SwinTransformer',
        'embed_dims': 8,
        'depths': (1, 1, 1, 1),
        'num_heads': (1, 2, 4, 8),
    },
}


def detector(name: str, **backbone) -> nn.Module:
    init_default_scope('mmdet')
    cfg = get_config(f'mmdet::{CONFIGS[name]}').model
    cfg.backbone.init_cfg = None
    torch.manual_seed(0)
    if name == 'rtmdet':
        cfg.backbone.norm_cfg = cfg.bbox_head.norm_cfg = {'type': 'BN'}
        cfg.neck.norm_cfg = {'type': 'BN'}
        return MODELS.build(cfg)
    if 'type' in backbone:
        cfg.backbone.clear()
    cfg.backbone.update(backbone)
    cfg.neck.update(in_channels=[8, 16, 32, 64], out_channels=32)
    for head in ('rpn_head', 'bbox_head'):
        if head in cfg:
            cfg[head].update(in_channels=32, feat_channels=32)
    if 'roi_head' in cfg:
        cfg.roi_head.bbox_roi_extractor.out_channels = 32
        cfg.roi_head.bbox_head.update(in_channels=32, fc_out_channels=16)
    return MODELS.build(cfg)


@pytest.mark.parametrize(
    ('name', 'backbone'),
    [
        ('faster', SMALL),
        ('faster', TOKENS['DWNet']),
        ('faster', TOKENS['Swin']),
        ('retina', SMALL),
        ('rtmdet', {}),
    ],
)
def test_both_formats_give_the_same_losses_and_gradients(
    name: str, backbone: dict
) -> None:
    """The contiguous one with torchvision's RoIAlign, as stock mmdet has."""
    # RTMDet's assigner has float32 only.
    dtype = torch.float32 if name == 'rtmdet' else torch.float64
    plain = detector(name, **backbone).to(dtype).train()
    other = copy.deepcopy(plain)
    if name == 'faster':
        for layer in plain.roi_head.bbox_roi_extractor.roi_layers:
            layer.use_torchvision = True
    assert set_memory_format(plain, 'cpu', 'contiguous') == 'contiguous'
    assert set_memory_format(other, 'cpu') == 'channels_last'
    seen = []
    other.neck.register_forward_hook(lambda m, x, y: seen.extend(y))
    data = demo_mm_inputs(1, [[3, 96, 128]], num_classes=80)
    results = []
    for model in (plain, other):
        inputs = model.data_preprocessor(copy.deepcopy(data), True)
        inputs['inputs'] = inputs['inputs'].to(dtype)
        torch.manual_seed(0)  # the samplers draw
        loss, _ = model.parse_losses(model(**inputs, mode='loss'))
        loss.backward()
        grads = [p.grad for p in model.parameters() if p.requires_grad]
        results.append([loss, *grads])
    assert seen and all(
        x.is_contiguous(memory_format=torch.channels_last) for x in seen
    )
    limit = 1e-3 if name == 'rtmdet' else 1e-9
    for a, b in zip(*results, strict=True):
        atol = limit * float(a.abs().max()) + 1e-12
        torch.testing.assert_close(a, b, rtol=limit, atol=atol)


def test_the_choice_of_auto() -> None:
    known = detector('faster', **SMALL)
    assert faster_format(known, 'cpu') == 'channels_last'
    assert faster_format(known, 'cuda:0') == 'contiguous'
    assert faster_format(detector('fcos', **SMALL), 'cpu') == 'contiguous'
    swin = detector('fcos', **TOKENS['Swin'])
    assert faster_format(swin, 'cpu') == 'contiguous'
    known.backbone = nn.Identity()
    assert faster_format(known, 'cpu') == 'contiguous'
    assert faster_format(nn.Linear(2, 2), 'cpu') == 'contiguous'


def test_an_unknown_format() -> None:
    with pytest.raises(UserError, match='channels_last'):
        set_memory_format(nn.Linear(2, 2), 'cpu', 'channel_last')


class Drawn(Toy):
    """A toy that initialises its convolution with random weights."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def init_weights(self) -> None:
        nn.init.normal_(self.conv.weight)


def test_a_seed_gives_the_same_weights_in_both(tmp_path) -> None:
    """PyTorch draws random numbers in the order of memory."""
    weights = []
    for name in ('contiguous', 'channels_last'):
        runner = build_runner(
            tmp_path / name, Drawn(), cfg=Config({'memory_format': name})
        )
        torch.manual_seed(0)
        runner._init_model_weights()
        weight = runner.model.conv.weight
        assert (name == 'contiguous') == weight.is_contiguous()
        weights.append(weight.detach().clone())
    assert torch.equal(*weights)
