# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Weights that fill too little are found before the training starts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.model import BaseModel
from torch import nn

from mmext.checkpoints.match import match, naming_hint
from mmext.checkpoints.pretrained import (
    match_with_new,
    require_start,
    watch_pretrained,
)
from mmext.errors import UserError

TINY = {'base_channels': 4, 'stem_channels': 4}


def host(name: str, *args, **more) -> nn.Module:
    """A backbone of mmdet's."""
    from mmdet.models import backbones

    return getattr(backbones, name)(*args, **more)


def resnet(depth: int = 18, **more) -> nn.Module:
    return host('ResNet', depth, **TINY, **more)


class Detector(BaseModel):
    """A backbone and a head."""

    def __init__(self, backbone: nn.Module, classes: int = 2) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Conv2d(8, classes, 1)

    def forward(self, inputs, mode='tensor'):
        return inputs


def save(path: Path, state: dict, prefix: str = '') -> str:
    torch.save({'state_dict': {prefix + k: v for k, v in state.items()}}, path)
    return str(path)


def load_into(backbone: nn.Module) -> None:
    model = Detector(backbone)
    with watch_pretrained(model):
        model.init_weights()


@pytest.fixture
def logged(monkeypatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(
        'mmext.checkpoints.pretrained.print_log',
        lambda line, **_: lines.append(line),
    )
    return lines


def pretrained(path: str, **more) -> dict:
    return ConfigDict(type='Pretrained', checkpoint=path, **more)


def test_one_log_line_lists_what_was_loaded(tmp_path, logged):
    state = {**resnet().state_dict(), 'fc.weight': torch.ones(2)}
    path = save(tmp_path / 'a.pth', state)
    backbone = resnet(init_cfg=pretrained(path))
    load_into(backbone)
    assert logged == [
        f'loaded 120 of 120 backbone tensors from {path}; 1 not used: '
        'fc.weight'
    ]
    assert torch.equal(backbone.conv1.weight, state['conv1.weight'])
    # The hook is removed after loading.
    backbone.load_state_dict({}, strict=False)


@pytest.mark.parametrize(
    ('prefix', 'given', 'message'),
    [
        ('backbone.', None, r"(?s)loaded 0 of.*prefix='backbone\.'"),
        ('encoder.net.', None, r"(?s)loaded 0 of.*prefix='encoder\.net\.'"),
        ('', 'backbone.', '(?s)is not in the pretrained model.*none'),
    ],
)
def test_a_wrong_prefix_is_an_error(tmp_path, logged, prefix, given, message):
    path = save(tmp_path / 'a.pth', resnet().state_dict(), prefix)
    with pytest.raises(UserError, match=message):
        load_into(resnet(init_cfg=pretrained(path, prefix=given)))
    if prefix and not given:  # the fix in the message works
        load_into(resnet(init_cfg=pretrained(path, prefix=prefix)))


def test_another_depth_is_an_error_and_new_layers_are_not(tmp_path, logged):
    path = save(tmp_path / 'a.pth', resnet().state_dict())
    with pytest.raises(UserError, match='another depth or width'):
        load_into(resnet(34, init_cfg=pretrained(path)))
    plugin = {
        'cfg': {'type': 'ContextBlock', 'ratio': 0.25},
        'position': 'after_conv3',
    }
    save(tmp_path / 'a.pth', resnet(50).state_dict())
    load_into(resnet(50, plugins=[plugin], init_cfg=pretrained(path)))
    assert 'loaded 318 of 318 backbone' in logged[-1]
    new = 'new, not in it: layer#.#.context_block.conv_mask.weight (16)'
    assert new in logged[-1]
    dcn = {'type': 'DCNv2', 'deform_groups': 1, 'fallback_on_stride': False}
    stages = (False, True, True, True)
    load_into(
        resnet(50, dcn=dcn, stage_with_dcn=stages, init_cfg=pretrained(path))
    )
    assert '26 new, not in it: layer#.#.conv#.conv_offset' in logged[-1]
    # Fewer stages use less of it.
    three = {'strides': (1, 2, 2), 'dilations': (1, 1, 1), 'num_stages': 3}
    load_into(resnet(50, **three, out_indices=(2,), init_cfg=pretrained(path)))
    assert 'loaded 258 of 258' in logged[-1]
    assert '60 not used: layer' in logged[-1]


def test_ssd_vgg_without_its_last_layers_is_enough(tmp_path, logged):
    last = {'with_last_pool': False, 'ceil_mode': True}
    vgg = host('SSDVGG', 16, **last, out_indices=(3, 4))
    state = {
        k: v
        for k, v in vgg.state_dict().items()
        if not k.startswith(('features.31', 'features.33'))
    }
    found, enough = match_with_new(vgg, state)
    assert (len(found.loaded), len(found.missing)) == (26, 4)
    assert enough


def test_backbones_with_their_own_init_weights(tmp_path, logged):
    cfg = {
        'embed_dims': 8,
        'depths': (1, 1, 1, 1),
        'num_heads': (1, 1, 1, 1),
        'window_size': 2,
    }
    state = host('SwinTransformer', **cfg).state_dict()
    path = save(tmp_path / 'a.pth', state, 'backbone.')
    load_into(host('SwinTransformer', **cfg, init_cfg=pretrained(path)))
    count = len(state)
    assert logged[-1].startswith(f'loaded {count} of {count} backbone')
    # Swin raises its own error for position tables with other names.
    other = {k: v for k, v in state.items() if 'relative_position' not in k}
    path = save(tmp_path / 'b.pth', other, 'backbone.net.')
    with pytest.raises(UserError, match='loaded 0 of'):
        load_into(host('SwinTransformer', **cfg, init_cfg=pretrained(path)))


def test_names_of_another_library_are_not_new_layers():
    theirs = {'norm.weight': torch.ones(1)}
    model = nn.Module()
    model.layers = nn.ModuleList([nn.Linear(1, 1, False) for _ in range(9)])
    model.norm = nn.Linear(1, 1, False)
    model.norm.weight.data = torch.ones(1)
    found, enough = match_with_new(model, theirs)
    assert found.loaded == ['norm.weight']
    assert not enough


def test_load_from_accepts_other_heads_but_no_other_backbones():
    model = Detector(resnet(), classes=2)
    other = Detector(resnet(), classes=5).state_dict()
    report = require_start(model, {'state_dict': other}, 'a.pth')
    assert report == 'backbone 120 of 120, head 0 of 2'
    deeper = Detector(resnet(34))
    with pytest.raises(UserError, match='load_from: loaded 120 of 200'):
        require_start(deeper, other, 'a.pth')
    bare = resnet().state_dict()
    with pytest.raises(UserError, match=r'model\.backbone\.init_cfg'):
        require_start(model, bare, 'a.pth')


def test_hints():
    own = [f'a.{i}.weight' for i in range(4)]
    assert naming_hint(own, own) == ''
    assert naming_hint(own, ['x', 'y']) == ''
    inner = [f'net.{k}' for k in own]
    assert "prefix='net.'" in naming_hint(own, inner)
    assert 'It holds only the net' in naming_hint(inner, own)


def test_names_that_differ_only_in_numbers_are_listed_together():
    text = match(resnet(), {}).describe('backbone', 'a.pth')
    assert text.startswith(
        'loaded 0 of 100 backbone tensors from a.pth; 100 missing'
    )
    assert 'layer#.#.conv#.weight (16), layer#.#.bn#.weight (16)' in text
    assert text.endswith(' more')
