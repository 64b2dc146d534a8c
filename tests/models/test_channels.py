# Licensed under the Apache License, Version 2.0. See LICENSE.
"""``in_channels='auto'`` of necks."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from mmengine.registry import init_default_scope

from mmext.errors import UserError
from mmext.models.build import build_model
from mmext.models.channels import fill_channels

CONVNEXT = {'type': 'TimmBackbone', 'name': 'test_convnext'}
VIT = {'type': 'TimmBackbone', 'name': 'test_vit'}
RESNET = {'type': 'ResNet', 'depth': 18, 'base_channels': 8}
FPN = {'type': 'FPN', 'out_channels': 8, 'num_outs': 5}
PYRAMID = {'type': 'SimpleFeaturePyramid', 'out_channels': 8}
AUTO = {'in_channels': 'auto'}


def filled(**cfg: Any) -> dict:
    init_default_scope('mmdet')
    fill_channels(cfg)
    return cfg


@pytest.mark.parametrize(
    'backbone, expected',
    [
        (CONVNEXT, [24, 32, 48, 64]),
        ({**CONVNEXT, 'out_indices': (1, 3)}, [32, 64]),
        (VIT, [64]),
        (RESNET, [8, 16, 32, 64]),
        ({'type': 'StarNet', 'arch': 's050'}, [16, 32, 64, 128]),
    ],
)
def test_channels_of_the_backbone(backbone: dict, expected: list) -> None:
    neck = filled(backbone=backbone, neck={**FPN, **AUTO})['neck']
    assert neck == {**FPN, 'in_channels': expected}


def test_stride_and_lists_of_necks() -> None:
    neck = {**PYRAMID, **AUTO, 'stride': 'auto'}
    cfg = filled(backbone=VIT, neck=neck)
    assert cfg['neck'] == {**PYRAMID, 'in_channels': [64], 'stride': 16}
    dyhead = {'type': 'DyHead', 'in_channels': 8}
    cfg = filled(backbone=CONVNEXT, neck=[{**FPN, **AUTO}, dyhead])
    assert cfg['neck'][0]['in_channels'] == [24, 32, 48, 64]
    assert cfg['neck'][1] == dyhead


def test_heads_without_a_neck_and_nested_models() -> None:
    inner = {'backbone': CONVNEXT, 'panoptic_head': dict(AUTO)}
    cfg = filled(type='SoftTeacher', detector=inner)
    head = cfg['detector']['panoptic_head']
    assert head == {'in_channels': [24, 32, 48, 64]}


def test_nothing_to_fill_builds_nothing() -> None:
    cfg = {'backbone': {'type': 'Unknown'}, 'neck': FPN}
    before = copy.deepcopy(cfg)
    fill_channels(cfg)
    assert cfg == before


def test_random_numbers_and_weights_stay() -> None:
    """A model has the weights that it has with written channels."""
    init_default_scope('mmdet')
    base = {
        'type': 'RetinaNet',
        'backbone': CONVNEXT,
        'bbox_head': {
            'type': 'RetinaHead',
            'num_classes': 2,
            'in_channels': 8,
            'feat_channels': 8,
            'anchor_generator': {
                'type': 'AnchorGenerator',
                'octave_base_scale': 4,
                'scales_per_octave': 3,
                'ratios': [1.0],
                'strides': [4, 8, 16, 32, 64],
            },
        },
    }
    states = []
    for channels in ('auto', [24, 32, 48, 64]):
        torch.manual_seed(0)
        cfg = {**base, 'neck': {**FPN, 'in_channels': channels}}
        before = copy.deepcopy(cfg)
        states.append(build_model(cfg).state_dict())
        assert cfg == before
    for key, value in states[0].items():
        assert torch.equal(value, states[1][key])


def test_backbone_that_fails() -> None:
    fixed = {'type': 'mmpretrain.SwinTransformer', 'arch': 'tiny'}
    pytest.importorskip('mmpretrain')
    with pytest.raises(UserError, match="in_channels='auto': .* fails on an"):
        filled(backbone={**fixed, 'in_channels': 4}, neck={**FPN, **AUTO})
