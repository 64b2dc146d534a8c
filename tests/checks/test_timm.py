# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Runs with a backbone of timm: their checks, and a training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import RUNNERS, init_default_scope
from safetensors.torch import save_file
from tiny_run import make_coco, write_config

from mmext.checks.preflight import preflight
from mmext.engine.launch import train
from mmext.errors import UserError
from mmext.models.build import build_model
from mmext.utils.config import load_config, parse_options

CONVNEXT = "type='TimmBackbone', name='test_convnext'"
EFFICIENTNET = "type='TimmBackbone', name='test_efficientnet'"
VIT = "type='TimmBackbone', name='test_vit'"
FPN = "type='FPN', in_channels='auto', out_channels=16, num_outs=5"
PYRAMID = "type='SimpleFeaturePyramid', in_channels='auto', out_channels=16"


def config(
    folder: Path, backbone: str = CONVNEXT, neck: str = FPN, more: str = ''
) -> Path:
    if not (folder / 'data').is_dir():
        make_coco(folder / 'data')
    lines = (
        f'model.update(backbone=dict(_delete_=True, {backbone}),'
        f'neck=dict(_delete_=True, {neck}))\n{more}'
    )
    return write_config(folder / 'tiny.py', folder / 'data', more=lines)


def checked(folder: Path, *options: str, **given: str) -> Config:
    cfg = load_config(config(folder, **given), parse_options(options))
    cfg.work_dir = str(folder / 'work')
    preflight(cfg, ('train', 'val'))
    return cfg


@pytest.fixture
def weights(tmp_path: Path) -> str:
    init_default_scope('mmdet')
    cfg = {'type': 'TimmBackbone', 'name': 'test_efficientnet'}
    state = build_model(cfg).model.state_dict()
    save_file(state, tmp_path / 'w.safetensors')
    return f"init_cfg=dict(type='Pretrained', checkpoint={str(tmp_path)!r}"


RIGHT = ('mean=123.675,116.28,103.53', 'std=58.395,57.12,57.375')
PLACE = 'model.data_preprocessor'


@pytest.mark.parametrize(
    'change, says',
    [
        ((f'{PLACE}.bgr_to_rgb=False',), [f'{PLACE}.bgr_to_rgb=True']),
        (
            # mmdet's Caffe values: BGR, not scaled.
            (
                f'{PLACE}.bgr_to_rgb=False',
                f'{PLACE}.mean=103.53,116.28,123.675',
                f'{PLACE}.std=1.0,1.0,1.0',
            ),
            [f'{PLACE}.{value}' for value in RIGHT]
            + [f'{PLACE}.bgr_to_rgb=True'],
        ),
        (
            (f'{PLACE}.mean=127.5,127.5,127.5',),
            [f'{PLACE}.{RIGHT[0]}'],
        ),
        (
            (f'{PLACE}.mean=None', f'{PLACE}.std=None'),
            [f'{PLACE}.{value}' for value in RIGHT],
        ),
    ],
)
def test_wrong_pixels(tmp_path, weights, change, says) -> None:
    given = {'backbone': f"{EFFICIENTNET}, {weights} + '/w.safetensors')"}
    checked(tmp_path, **given)  # mmdet's default is right
    with pytest.raises(UserError, match='have seen other pixels') as error:
        checked(tmp_path, *change, **given)
    options = error.value.fix.removeprefix('--cfg-options ').split()
    assert options == says
    checked(tmp_path, *change, *options, **given)
    assert not (tmp_path / 'work').exists()


def test_models_trained_on_other_pixels(tmp_path) -> None:
    """timm's ConvNeXt of this size has mean and std 0.5."""
    name = f'{CONVNEXT}, pretrained=True'
    halves = [f'{PLACE}.{k}=127.5,127.5,127.5' for k in ('mean', 'std')]
    with pytest.raises(UserError) as error:
        checked(tmp_path, backbone=name)
    assert error.value.fix == f'--cfg-options {" ".join(halves)}'
    checked(tmp_path, *halves, backbone=name)


def test_pixels_of_random_weights_are_free(tmp_path) -> None:
    checked(tmp_path, f'{PLACE}.bgr_to_rgb=False')


@pytest.mark.parametrize('stride', ["'auto'", 16])
def test_pyramid_of_a_plain_model(tmp_path, stride, capsys) -> None:
    cfg = checked(tmp_path, backbone=VIT, neck=f'{PYRAMID}, stride={stride}')
    assert 'AP will be close to 0' not in capsys.readouterr().out
    with pytest.raises(UserError, match='neck.stride is 14.*has stride 16'):
        checked(tmp_path, backbone=VIT, neck=f'{PYRAMID}, stride=14')
    assert cfg.model.neck.in_channels == 'auto'  # a copy was filled


def test_patches_of_14_pixels_fit_the_anchors(tmp_path, capsys) -> None:
    name = "type='TimmBackbone', name='vit_small_patch14_dinov2'"
    name += ', out_indices=0, img_size=224'
    checked(tmp_path, backbone=name, neck=f"{PYRAMID}, stride='auto'")
    assert 'AP will be close to 0' not in capsys.readouterr().out


def test_models_of_one_size_are_checked_at_it(tmp_path) -> None:
    name = "type='TimmBackbone', name='test_maxvit', img_size=160"
    checked(tmp_path, backbone=name)
    with pytest.raises(UserError, match='rpn_conv takes 32 channels'):
        checked(tmp_path, 'model.rpn_head.in_channels=32', backbone=name)


DECAY = """
optim_wrapper.update(
    constructor='LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(layer_decay_rate={}))
"""


def test_decay_is_checked_before_anything_is_written(tmp_path) -> None:
    checked(tmp_path, more=DECAY.format(0.7))
    with pytest.raises(UserError, match='layer_decay_rate=7'):
        checked(tmp_path, more=DECAY.format(7))
    given = {'backbone': "type='RegNet', arch='regnetx_400mf'"}
    with pytest.raises(UserError, match='RegNet has no layer_depths'):
        checked(tmp_path, more=DECAY.format(0.7), **given)


def test_frozen_random_weights_are_refused(tmp_path) -> None:
    with pytest.raises(UserError, match='TimmBackbone freezes') as error:
        checked(
            tmp_path, backbone=f'{VIT}, frozen_stages=1', neck=f'{PYRAMID}'
        )
    assert 'model.backbone.frozen_stages=-1' in error.value.fix


def test_several_processes_use_every_parameter(tmp_path) -> None:
    cfg = load_config(config(tmp_path))
    cfg.launcher = 'pytorch'
    preflight(cfg, ('train',))


@pytest.mark.parametrize('name', [CONVNEXT, VIT])
def test_training(tmp_path: Path, name: str) -> None:
    """One epoch; the dumped config has numbers, the log the table."""
    neck = FPN if name == CONVNEXT else f"{PYRAMID}, stride='auto'"
    file = config(tmp_path, name, neck, DECAY.format(0.7))
    train(file, work_dir=tmp_path / 'work')
    dumped = Config.fromfile(tmp_path / 'work' / 'tiny.py')
    channels = [24, 32, 48, 64] if name == CONVNEXT else [64]
    assert dumped.model.neck.in_channels == channels
    (log,) = (tmp_path / 'work').glob('*/*.log')
    assert 'Learning rates by layers' in log.read_text()
    saved = torch.load(tmp_path / 'work' / 'epoch_1.pth', weights_only=False)
    model = build_model(dumped.model)
    model.load_state_dict(saved['state_dict'])


def test_mmdets_own_script_with_our_runner(tmp_path: Path) -> None:
    cfg = load_config(config(tmp_path))
    cfg.work_dir, cfg.runner_type = str(tmp_path / 'w'), 'ReliableRunner'
    cfg.experiment_name = 'auto'
    runner = RUNNERS.build(cfg)
    assert runner.cfg.model.neck.in_channels == [24, 32, 48, 64]
