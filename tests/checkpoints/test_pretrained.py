# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Weights that fill nothing are found before the training begins."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.model import BaseModel
from torch import nn

from mmext.checkpoints.match import match, naming_hint
from mmext.checkpoints.pretrained import (
    describe,
    enough,
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
def said(monkeypatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(
        'mmext.checkpoints.pretrained.print_log',
        lambda message, **_: lines.append(message),
    )
    return lines


def pretrained(path: str, **more) -> dict:
    return ConfigDict(type='Pretrained', checkpoint=path, **more)


def test_one_line_says_what_was_loaded(tmp_path, said):
    state = {**resnet().state_dict(), 'fc.weight': torch.ones(2)}
    path = save(tmp_path / 'a.pth', state)
    backbone = resnet(init_cfg=pretrained(path))
    load_into(backbone)
    assert said == [
        f'loaded 120 of 120 backbone tensors from {path}; 1 not used: '
        'fc.weight'
    ]
    assert torch.equal(backbone.conv1.weight, state['conv1.weight'])
    # Watched while it loads, and no longer.
    backbone.load_state_dict({}, strict=False)


@pytest.mark.parametrize(
    ('prefix', 'asked', 'says'),
    [
        ('backbone.', None, r"(?s)loaded 0 of.*prefix='backbone\.'"),
        ('encoder.net.', None, r"(?s)loaded 0 of.*prefix='encoder\.net\.'"),
        ('', 'backbone.', '(?s)is not in the pretrained model.*none'),
    ],
)
def test_a_wrong_prefix_stops_the_stock_resnet(
    tmp_path, said, prefix, asked, says
):
    path = save(tmp_path / 'a.pth', resnet().state_dict(), prefix)
    with pytest.raises(UserError, match=says):
        load_into(resnet(init_cfg=pretrained(path, prefix=asked)))
    if prefix and not asked:  # what the message says works
        load_into(resnet(init_cfg=pretrained(path, prefix=prefix)))


def test_another_depth_stops_and_new_layers_do_not(tmp_path, said):
    path = save(tmp_path / 'a.pth', resnet().state_dict())
    with pytest.raises(UserError, match='another depth or width'):
        load_into(resnet(34, init_cfg=pretrained(path)))
    plugin = {
        'cfg': {'type': 'ContextBlock', 'ratio': 0.25},
        'position': 'after_conv3',
    }
    save(tmp_path / 'a.pth', resnet(50).state_dict())
    load_into(resnet(50, plugins=[plugin], init_cfg=pretrained(path)))
    assert 'loaded 318 of 318 backbone' in said[-1]
    assert (
        'new, not in it: layer#.#.context_block.conv_mask.weight (16)'
        in (said[-1])
    )
    dcn = {'type': 'DCNv2', 'deform_groups': 1, 'fallback_on_stride': False}
    stages = (False, True, True, True)
    load_into(
        resnet(50, dcn=dcn, stage_with_dcn=stages, init_cfg=pretrained(path))
    )
    assert '26 new, not in it: layer#.#.conv#.conv_offset' in said[-1]
    # Fewer stages use less of it.
    load_into(
        resnet(
            50,
            num_stages=3,
            strides=(1, 2, 2),
            dilations=(1, 1, 1),
            out_indices=(2,),
            init_cfg=pretrained(path),
        )
    )
    assert 'loaded 258 of 258' in said[-1] and '60 not used: layer' in said[-1]


def test_ssd_s_vgg_is_the_least_that_is_right(tmp_path, said):
    last = {'with_last_pool': False, 'ceil_mode': True}
    vgg = host('SSDVGG', 16, **last, out_indices=(3, 4))
    state = {
        k: v
        for k, v in vgg.state_dict().items()
        if not k.startswith(('features.31', 'features.33'))
    }
    found = match(vgg, state)
    assert (found.loaded, len(found.missing)) == (26, 4)
    assert enough(found, list(vgg.state_dict()))


def test_backbones_that_load_in_their_own_way(tmp_path, said):
    cfg = {
        'embed_dims': 8,
        'depths': (1, 1, 1, 1),
        'num_heads': (1, 1, 1, 1),
        'window_size': 2,
    }
    state = host('SwinTransformer', **cfg).state_dict()
    path = save(tmp_path / 'a.pth', state, 'backbone.')
    load_into(host('SwinTransformer', **cfg, init_cfg=pretrained(path)))
    assert said[-1].startswith(f'loaded {len(state)} of {len(state)} backbone')
    # (With position tables of other names it stops by itself.)
    other = {k: v for k, v in state.items() if 'relative_position' not in k}
    path = save(tmp_path / 'b.pth', other, 'backbone.net.')
    with pytest.raises(UserError, match='loaded 0 of'):
        load_into(host('SwinTransformer', **cfg, init_cfg=pretrained(path)))


def test_names_of_another_library_are_not_new_layers():
    own = [f'layers.{i}.weight' for i in range(9)] + ['norm.weight']
    theirs = {'norm.weight': torch.ones(1)}
    model = nn.Module()
    model.layers = nn.ModuleList([nn.Linear(1, 1, False) for _ in range(9)])
    model.norm = nn.Linear(1, 1, False)
    model.norm.weight.data = torch.ones(1)
    found = match(model, theirs)
    assert found.loaded == 1
    assert not enough(found, own)


def test_load_from_may_bring_other_heads_but_not_backbones():
    model = Detector(resnet(), classes=2)
    other = Detector(resnet(), classes=5).state_dict()
    assert (
        require_start(model, {'state_dict': other}, 'a.pth')
        == 'backbone 120 of 120, head 0 of 2'
    )
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
    assert "prefix='net.'" in naming_hint(own, [f'net.{k}' for k in own])
    assert 'It holds the net alone' in naming_hint(
        [f'net.{k}' for k in own], own
    )


def test_what_differs_in_numbers_alone_is_told_together():
    found = match(resnet(), {})
    names = list(resnet().state_dict())
    text = describe(found, names, 'backbone', 'a.pth')
    assert text.startswith(
        'loaded 0 of 100 backbone tensors from a.pth; 100 missing'
    )
    assert 'layer#.#.conv#.weight (16), layer#.#.bn#.weight (16)' in text
    assert text.endswith(', ...')
