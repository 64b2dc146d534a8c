# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Channels that do not fit, and masks that are not predicted."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from tiny_run import make_coco, write_config
from torch import nn

from mmext.checks.model import check_model
from mmext.checks.preflight import preflight
from mmext.errors import UserError
from mmext.models.build import build_model
from mmext.utils.config import load_config

STAGES = ('train', 'val')


def build(folder: Path, **options: object) -> tuple[Config, nn.Module]:
    cfg = load_config(write_config(folder / 'tiny.py', folder), options)
    init_default_scope('mmdet')
    return cfg, build_model(cfg.model)


@pytest.mark.parametrize(
    'key, value, says',
    [
        (
            'neck.in_channels',
            [16, 32, 64, 256],
            r'(?s)in_channels is \[16, 32, 64, 256\], and the backbone gives '
            r'\[16, 32, 64, 128\].*model\.neck\.in_channels=16,32,64,128',
        ),
        (
            'neck.in_channels',
            [16, 32, 64],
            r'(?s)\[16, 32, 64\], and the backbone'
            r'.*model\.neck\.in_channels=16,32,64,128',
        ),
        (
            'rpn_head.in_channels',
            32,
            'model.rpn_head.rpn_conv takes 32 channels and gets 16',
        ),
        (
            'roi_head.bbox_head.in_channels',
            32,
            'model.roi_head.bbox_head.shared_fcs.0 takes 1568 channels and '
            'gets 784',
        ),
    ],
)
def test_channels_that_do_not_fit(tmp_path, key, value, says):
    with pytest.raises(UserError, match=says):
        check_model(*build(tmp_path, **{f'model.{key}': value}), STAGES)


def test_a_later_stage_of_a_cascade():
    cfg = Config.fromstring(
        "_base_ = 'mmdet::_base_/models/cascade-rcnn_r50_fpn.py'\n"
        'model = dict(backbone=dict(depth=18, init_cfg=None),\n'
        '    neck=dict(in_channels=[64, 128, 256, 512]))',
        '.py',
    )
    init_default_scope('mmdet')
    check_model(cfg, build_model(cfg.model), ('train',))
    cfg.model.roi_head.bbox_head[2].in_channels = 128
    says = r'bbox_head\.2\.shared_fcs\.0 takes 6272 channels and gets 12544'
    with pytest.raises(UserError, match=says):
        check_model(cfg, build_model(cfg.model), ('train',))


def test_masks_evaluated_and_not_predicted(tmp_path):
    metrics = {'val_evaluator.metric': ['bbox', 'segm']}
    with pytest.raises(UserError, match='FasterRCNN predicts boxes only'):
        check_model(*build(tmp_path, **metrics), STAGES)


def test_a_model_that_fits_passes_and_draws_nothing(tmp_path):
    cfg, model = build(tmp_path)
    before = torch.get_rng_state()
    check_model(cfg, model, STAGES)
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(m._forward_pre_hooks for m in model.modules())


def test_other_errors_are_ignored(tmp_path):
    class Picky(nn.Module):
        def extract_feat(self, image):
            raise RuntimeError('needs 224x224 pixels')

    cfg = load_config(write_config(tmp_path / 'tiny.py', tmp_path))
    check_model(cfg, Picky(), ('train',))


def orthogonality(**options: object) -> dict:
    hook = {
        'type': 'OrthogonalityHook',
        'regularizer': {'type': 'SoftOrthogonality'},
        **options,
    }
    return {'+custom_hooks': [hook]}


@pytest.mark.parametrize(
    ('options', 'says'),
    [
        ({'layers': 'backbone.layer9.*'}, 'matches none of the'),
        ({'layers': 'backbone.conv['}, 'is not a regular expression'),
        ({'layers': 'backbone.conv1', 'loss_name': 'orth'}, "'loss', so"),
    ],
)
def test_a_hook_that_does_not_fit_the_model(tmp_path, options, says):
    with pytest.raises(UserError, match=says):
        check_model(*build(tmp_path, **orthogonality(**options)), STAGES)


def test_a_hook_is_checked_for_training_only(tmp_path, capsys):
    right = orthogonality(layers='backbone.conv1', priority='LOW')
    check_model(*build(tmp_path, **right), STAGES)
    assert 'egularised' not in capsys.readouterr().out
    wrong = orthogonality(layers='nowhere')
    check_model(*build(tmp_path, **wrong), ('test',))


def test_a_wrong_pattern_writes_no_files(tmp_path):
    data = make_coco(tmp_path / 'coco', train=2, val=1)
    cfg = load_config(
        write_config(tmp_path / 'tiny.py', data),
        orthogonality(layers='backbone.layer9.*'),
    )
    cfg.work_dir = str(tmp_path / 'work')
    with pytest.raises(UserError, match='matches none of the'):
        preflight(cfg, STAGES)
    assert not (tmp_path / 'work').exists()
