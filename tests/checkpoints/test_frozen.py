# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Backbones that are frozen at random values are refused."""

from __future__ import annotations

import pytest
import torch
from mmengine.model import BaseModule
from mmengine.registry import MODELS, init_default_scope
from tiny_run import make_coco, write_config
from torch import nn

from mmext.checkpoints.frozen import require_trainable
from mmext.checkpoints.pretrained import require_start, watch_pretrained
from mmext.checks.preflight import preflight
from mmext.engine.runner import ReliableRunner
from mmext.errors import UserError
from mmext.utils.config import load_config

RESNET = {
    'type': 'mmdet.ResNet',
    'depth': 18,
    'base_channels': 4,
    'stem_channels': 4,
    'norm_eval': False,
}
SWIN = {
    'type': 'mmdet.SwinTransformer',
    'embed_dims': 8,
    'depths': (1, 1, 1, 1),
    'num_heads': (1, 1, 1, 1),
    'window_size': 2,
}
STARNET = {
    'type': 'StarNet',
    'arch': {'embed_dims': 4, 'depths': (1, 1, 1, 1), 'mlp_ratio': 2},
}
FREE = '--cfg-options model.backbone.frozen_stages=-1.'


def detector(**backbone: object) -> nn.Module:
    model = nn.Module()
    model.backbone = MODELS.build(backbone)
    return model


def require(**backbone: object) -> None:
    require_trainable(detector(**backbone), {'backbone': backbone})


@pytest.mark.parametrize(
    ('backbone', 'says', 'fix'),
    [
        ({**RESNET, 'frozen_stages': 1, 'norm_eval': True},
         ['freezes 5 tensors (conv1.weight, layer1.0.conv1.weight',
          'the statistics of 20 batch norms (bn1, '],
         'model.backbone.frozen_stages=-1 model.backbone.norm_eval=False'),
        ({**RESNET, 'frozen_stages': 0},
         ['1 tensor (conv1.weight)', '1 batch norm (bn1)'], FREE),
        ({**RESNET, 'norm_eval': True},
         ['ResNet freezes the statistics of 20 batch norms'],
         '--cfg-options model.backbone.norm_eval=False.'),
        ({**SWIN, 'frozen_stages': 2},
         ['SwinTransformer freezes', 'patch_embed.projection.weight'], FREE),
        ({'type': 'mmdet.MobileNetV2', 'frozen_stages': 2},
         ['MobileNetV2 freezes'], FREE),
        ({**STARNET, 'frozen_stages': 1}, ['StarNet freezes', 'stem.0'], FREE),
        ({**RESNET, 'type': 'StepNetResNet', 'frozen_stages': 1},
         ['StepNetResNet freezes'], FREE),
    ],
    ids=lambda value: value['type'] if isinstance(value, dict) else '',
)  # fmt: skip
def test_random_values_are_not_frozen(backbone, says, fix):
    with pytest.raises(UserError) as error:
        require(**backbone)
    for text in says:
        assert text in error.value.problem
    assert fix in error.value.fix
    off = {'frozen_stages': -1, 'norm_eval': False}
    require(**{k: off.get(k, v) for k, v in backbone.items()})


def test_the_mode_and_the_random_state_are_kept():
    cfg = {**STARNET, 'frozen_stages': 1}
    model = detector(**cfg).eval()
    state = torch.get_rng_state()
    with pytest.raises(UserError):
        require_trainable(model, {'backbone': cfg})
    assert not model.backbone.training
    assert torch.equal(torch.get_rng_state(), state)


@MODELS.register_module(force=True)
class Frozen(BaseModule):
    """A backbone with a frozen layer.

    Args:
        source: ``'init'`` and ``'init_weights'`` fill the layer there, as
            from a file; ``'none'`` leaves it at random values.
    """

    def __init__(self, source: str, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        self.conv = nn.Conv2d(3, 4, 1).requires_grad_(False)
        self.table = nn.Parameter(torch.linspace(0, 1, 5), False)
        self.norm = nn.BatchNorm2d(4)
        self.source = source
        if source == 'init':
            self.fill()

    def fill(self) -> None:
        nn.init.constant_(self.conv.weight, 0.1)
        nn.init.constant_(self.conv.bias, 0.1)
        self.norm.running_mean.fill_(0.5)

    def init_weights(self) -> None:
        super().init_weights()
        if self.source == 'init_weights':
            self.fill()


@pytest.mark.parametrize('source', ['init', 'init_weights'])
def test_a_backbone_may_load_its_weights_itself(source):
    require(type='Frozen', source=source)


def test_a_backbone_that_freezes_in_its_own_way():
    with pytest.raises(UserError, match=r'2 tensors \(conv') as error:
        require(type='Frozen', source='none')
    assert 'table' not in str(error.value)
    assert '(requires_grad)' in error.value.fix


def test_weights_that_a_config_names_may_be_frozen():
    init_cfg = {'type': 'Pretrained', 'checkpoint': 'a.pth'}
    require(**RESNET, frozen_stages=1, init_cfg=init_cfg)
    model = detector(**RESNET, frozen_stages=1)
    model.init_cfg = init_cfg
    require_trainable(model, {'backbone': RESNET})


def test_models_without_a_backbone_pass():
    require_trainable(nn.Linear(2, 2).requires_grad_(False), {})


def test_the_student_of_a_semi_supervised_detector():
    cfg = {**RESNET, 'frozen_stages': 1}
    model = nn.Module()
    model.student = detector(**cfg)
    with pytest.raises(
        UserError, match=r'model\.detector\.backbone\.frozen_stages=-1'
    ):
        require_trainable(model, {'detector': {'backbone': cfg}})


def test_new_layers_in_a_frozen_stage(tmp_path):
    """A ResNet's checkpoint does not have the weights of plugins."""
    plain = {**RESNET, 'depth': 50, 'frozen_stages': 1}
    plugin = {
        'cfg': {'type': 'ContextBlock', 'ratio': 0.25},
        'position': 'after_conv3',
    }
    state = MODELS.build(plain).state_dict()
    path = tmp_path / 'a.pth'
    torch.save(state, path)
    init_cfg = {'type': 'Pretrained', 'checkpoint': str(path)}
    cfg = {**plain, 'plugins': [plugin]}
    model = detector(**cfg, init_cfg=init_cfg)
    says = r'24 frozen tensors of ResNet \(layer1\.0\.context_block'
    with watch_pretrained(model), pytest.raises(UserError, match=says):
        model.backbone.init_weights()
    whole = {f'backbone.{k}': v for k, v in state.items()}
    with pytest.raises(UserError, match=says):
        require_start(model, whole, 'det.pth')
    model = detector(**{**cfg, 'type': 'PluginResNet'})
    assert require_start(model, whole, 'det.pth')


FROZEN = "model['backbone'].update(frozen_stages=1, norm_eval=True)"


def test_a_run_is_refused_before_it_writes(tmp_path):
    """``load_from=None`` and nothing else, as people remove weights."""
    data = make_coco(tmp_path / 'coco', train=2, val=1)
    config = write_config(tmp_path / 'tiny.py', data, more=FROZEN)
    cfg = load_config(config, {'load_from': None})
    cfg.work_dir = str(tmp_path / 'work')
    with pytest.raises(UserError, match='freezes 5 tensors'):
        preflight(cfg, ('train', 'val'), data=False)
    assert not (tmp_path / 'work').exists()
    # Testing trains nothing, and load_from brings weights.
    model = preflight(cfg, ('val',), data=False).model
    torch.save(model.state_dict(), tmp_path / 'weights.pth')
    cfg.load_from = str(tmp_path / 'weights.pth')
    preflight(cfg, ('train', 'val'), data=False)


def test_a_runner_of_other_tools_refuses_too(tmp_path):
    data = make_coco(tmp_path / 'coco', train=2, val=1)
    cfg = load_config(write_config(tmp_path / 'tiny.py', data, more=FROZEN))
    cfg.work_dir = str(tmp_path / 'work')
    init_default_scope('mmdet')
    with pytest.raises(UserError, match='freezes 5 tensors'):
        ReliableRunner.from_cfg(cfg).train()
