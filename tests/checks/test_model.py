# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Channels that do not fit, and masks that are not predicted."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModule
from mmengine.registry import init_default_scope
from tiny_run import MASK_HEADS, MASK_RCNN, make_coco, write_config
from torch import Tensor, nn

from mmext.checks.model import check_model
from mmext.checks.preflight import preflight
from mmext.errors import UserError
from mmext.models.build import build_model
from mmext.utils.config import load_config, parse_options

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


class Pyramid(BaseModule):
    """Four stages; a subclass makes one mistake."""

    def __init__(self, first: int = 4) -> None:
        super().__init__()
        widths = [3, 16, 32, 64, 128]
        self.steps = nn.ModuleList(
            nn.Conv2d(a, b, 3, first if a == 3 else 2, 1)
            for a, b in zip(widths, widths[1:], strict=False)
        )

    def forward(self, x: Tensor) -> object:
        outs = []
        for step in self.steps:
            x = step(x).relu()
            outs.append(x)
        return self.end(outs)

    def end(self, outs: list[Tensor]) -> object:
        return tuple(outs)


class OneTensor(Pyramid):
    def end(self, outs: list[Tensor]) -> Tensor:
        return outs[-1]


class Unused(Pyramid):
    def __init__(self) -> None:
        super().__init__()
        self.classifier = nn.Linear(128, 10)


class UsedInTraining(Unused):
    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        *maps, last = super().forward(x)
        if self.training:
            extra = self.classifier(last.mean((2, 3))).mean()
            last = last + extra
        return *maps, last


def check_with(
    folder: Path, backbone: nn.Module, base: str = '', **cfg: object
) -> list[str]:
    """Checks a tiny detector with a backbone; returns the warnings."""
    more = {'base': base, 'more': MASK_HEADS} if base else {}
    config = load_config(write_config(folder / 'tiny.py', folder, **more))
    config.merge_from_dict(cfg)
    init_default_scope('mmdet')
    model = build_model(config.model)
    model.backbone = backbone
    warnings: list[str] = []
    check_model(config, model, ('train', 'val'), warnings.append)
    return warnings


def test_one_tensor_without_a_neck():
    """A head would take the images of a batch for levels."""
    model = nn.Module()
    model.backbone = OneTensor()
    model.bbox_head = nn.Module()
    model.bbox_head.forward = lambda maps: [one + 1 for one in maps]
    model.extract_feat = lambda x: model.backbone(x)
    with pytest.raises(UserError, match='OneTensor returns a Tensor'):
        check_model(Config({'model': {}}), model, ('train',))


def test_strides_that_do_not_fit(tmp_path):
    assert check_with(tmp_path, Pyramid(), MASK_RCNN) == []
    (line,) = check_with(tmp_path, Pyramid(first=2), MASK_RCNN)
    for text in (
        'model.rpn_head.anchor_generator.strides is [4, 8, 16, 32, 64]',
        'model.roi_head.bbox_roi_extractor.featmap_strides is [4, 8, 16, 32]',
        'the maps have strides [2, 4, 8, 16, 32]',
        'AP will be close to 0',
    ):
        assert text in line
    options = line.partition('--cfg-options ')[2].partition(', or')[0].split()
    assert set(options) == {
        'model.rpn_head.anchor_generator.strides=2,4,8,16,32',
        'model.roi_head.bbox_roi_extractor.featmap_strides=2,4,8,16',
        'model.roi_head.mask_roi_extractor.featmap_strides=2,4,8,16',
    }
    right = parse_options(options)
    assert check_with(tmp_path, Pyramid(first=2), MASK_RCNN, **right) == []


@pytest.mark.parametrize(
    'base',
    [
        'retinanet/retinanet_r18_fpn_1x_coco.py',
        'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py',
        'yolox/yolox_tiny_8xb8-300e_coco.py',
        'yolo/yolov3_mobilenetv2_8xb24-320-300e_coco.py',
        'cascade_rcnn/cascade-rcnn_r18_fpn_8xb8-amp-lsj-200e_coco.py',
    ],
)
@pytest.mark.parametrize('launcher', ['none', 'pytorch'])
def test_no_warning_for_detectors_of_mmdet(tmp_path, base, launcher):
    file = tmp_path / 'config.py'
    file.write_text(f"_base_ = 'mmdet::{base}'")
    cfg = load_config(file)
    cfg.launcher = launcher
    init_default_scope('mmdet')
    warnings: list[str] = []
    check_model(cfg, build_model(cfg.model), ('train',), warnings.append)
    assert warnings == []


def test_parameters_without_a_gradient_in_several_processes(tmp_path):
    many = {'launcher': 'pytorch'}
    says = (
        r'2 parameters get no gradient \(model\.backbone\.classifier\.weight, '
    )
    with pytest.raises(UserError, match=says) as error:
        check_with(tmp_path, Unused(), **many)
    assert '--cfg-options find_unused_parameters=True' in error.value.fix
    check_with(tmp_path, Unused())
    check_with(tmp_path, Unused(), find_unused_parameters=True, **many)
    wrapper = {'find_unused_parameters': True}
    check_with(tmp_path, Unused(), model_wrapper_cfg=wrapper, **many)
    backbone = Unused()
    backbone.classifier.requires_grad_(False)
    check_with(tmp_path, backbone, **many)
    assert all(p.grad is None for p in backbone.parameters())
    # A regression: the model was in evaluation mode.
    check_with(tmp_path, UsedInTraining(), **many)


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
