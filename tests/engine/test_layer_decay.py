# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Learning rates by layers, against depth alone, timm, mmdet, mmpretrain."""

from __future__ import annotations

import re
from typing import Any

import pytest
import timm
from mmengine.logging import MMLogger
from mmengine.registry import MODELS
from timm.optim import param_groups_layer_decay
from torch import nn

from mmext.engine import LayerDecayOptimWrapperConstructor
from mmext.errors import UserError
from mmext.models import GMLP, DWNet, StarNet, StepNetResNet, TimmBackbone

RATE = 0.7


class Detector(nn.Module):
    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = nn.Conv2d(8, 4, 1)
        self.bbox_head = nn.Linear(4, 2)


def multipliers(model: nn.Module, **paramwise: Any) -> dict[str, float]:
    """Returns lr / base lr; each parameter must be in exactly one group."""
    optimizer = {'type': 'AdamW', 'lr': 2.0, 'weight_decay': 0.05}
    build = LayerDecayOptimWrapperConstructor(
        {'type': 'OptimWrapper', 'optimizer': optimizer},
        {'layer_decay_rate': RATE, **paramwise},
    )
    groups = build(model).optimizer.param_groups
    names = {p: n for n, p in model.named_parameters()}
    found = [(names[p], g['lr'] / 2) for g in groups for p in g['params']]
    assert (
        len(found)
        == len(dict(found))
        == sum(p.requires_grad for p in model.parameters())
    )
    return dict(found)


def check(model: nn.Module, last: int, depth_of: dict[str, str]) -> None:
    """``depth_of`` has patterns of names and an expression of their digits."""
    found = multipliers(model)
    for name, value in found.items():
        depth = last
        for pattern, expression in depth_of.items():
            if match := re.match(pattern, name.removeprefix('backbone.')):
                digits = [int(d) for d in match.groups()]
                depth = eval(expression, {'d': digits})
                break
        assert value == pytest.approx(RATE ** (last - depth)), name
    assert found['neck.weight'] == found['bbox_head.bias'] == 1


def test_vit_of_timm() -> None:
    """Depth 6: the stem has 0, block i has i + 1, what follows has 7."""
    check(
        Detector(TimmBackbone('test_vit')),
        7,
        {r'model\.blocks\.(\d+)': 'd[0] + 1', r'model\.(?!reg)': '0'},
    )


def test_backbones_of_mmext() -> None:
    arch = {'embed_dims': 4, 'depths': (1, 2, 1, 1), 'mlp_ratio': 2}
    check(  # a stage is a strided convolution and its blocks
        Detector(StarNet(arch, final_norm=True)),
        10,
        {
            r'stem': '0',
            r'stages\.(\d)\.(\d)': '1 + [0, 2, 5, 7][d[0]] + d[1]',
        },
    )
    check(
        Detector(GMLP('tiny')),
        31,
        {r'stem': '0', r'blocks\.(\d+)': 'd[0] + 1'},
    )
    arch = {
        'embed_dims': 8,
        'depths': (1, 2, 1, 1),
        'channels_per_group': (2, 4, 8, 2),
        'drop_path_rate': 0.0,
    }
    check(
        Detector(DWNet(arch)),
        9,
        {
            r'patch_embed': '0',
            r'layers\.(\d)\.blocks\.(\d)': '1 + [0, 2, 5, 7][d[0]] + d[1]',
            r'layers\.(\d)\.downsample': '[2, 5, 7][d[0]]',
        },
    )
    check(
        Detector(StepNetResNet(18)),
        9,
        {r'(?:conv1|bn1)': '0', r'layer(\d)\.(\d)': 'd[0] * 2 - 1 + d[1]'},
    )


@pytest.mark.parametrize('name', timm.list_models('test_*'))
def test_as_timm(name: str) -> None:
    """With all layers and a classifier, timm gives the same multipliers."""
    full = timm.create_model(name)
    theirs = {
        id(p): group['lr_scale']
        for group in param_groups_layer_decay(full, layer_decay=RATE)
        for p in group['params']
    }
    expected = {n: theirs[id(p)] for n, p in full.named_parameters()}
    model = TimmBackbone(name, out_indices=-1, final_norm=True)
    for key, value in multipliers(Detector(model)).items():
        if key.startswith('backbone.model.'):
            key = key.removeprefix('backbone.model.')
            assert value == pytest.approx(expected[key]), key


def test_as_vitdet_and_mmpretrain() -> None:
    """ViTDet's function is written out: mmdet's wheel has no projects."""
    pytest.importorskip('mmpretrain')
    from mmpretrain.engine import LearningRateDecayOptimWrapperConstructor
    from mmpretrain.models import ImageClassifier, VisionTransformer

    arch = {
        'embed_dims': 64,
        'num_layers': 6,
        'num_heads': 2,
        'feedforward_channels': 192,
    }
    theirs = ImageClassifier(
        VisionTransformer(arch, img_size=160, final_norm=False),
        head={'type': 'LinearClsHead', 'num_classes': 3, 'in_channels': 64},
    )
    optimizer = {'type': 'AdamW', 'lr': 2.0, 'weight_decay': 0.05}
    build = LearningRateDecayOptimWrapperConstructor(
        {'optimizer': optimizer}, {'layer_decay_rate': RATE}
    )
    groups = build(theirs).optimizer.param_groups
    expected = {g['param_name']: g['lr_scale'] for g in groups}

    def vitdet(name: str) -> float:
        block = re.match(r'backbone\.layers\.(\d+)', name)
        stem = name.startswith(('backbone.cls_token', 'backbone.pos_embed'))
        stem = stem or name.startswith('backbone.patch_embed')
        depth = 0 if stem else int(block[1]) + 1 if block else 7
        return RATE ** (6 + 2 - depth - 1)

    found = multipliers(Detector(TimmBackbone('test_vit')))
    found = {
        name.replace('model.blocks', 'layers')
        .replace('model.', '')
        .replace('embed.proj', 'embed.projection'): value
        for name, value in found.items()
    }
    shared = {'backbone.patch_embed.projection.weight'}
    shared |= {'backbone.pos_embed'}
    shared |= {'backbone.layers.0.attn.qkv.weight'}
    shared |= {'backbone.layers.5.attn.proj.bias'}
    for name in shared & expected.keys():
        assert found[name] == pytest.approx(expected[name]), name
        assert found[name] == pytest.approx(vitdet(name)), name
    assert len(shared & expected.keys()) == 4
    for values in (found.values(), expected.values()):
        scales = sorted({round(v, 12) for v in values})
        assert scales == pytest.approx([RATE**i for i in range(7, -1, -1)])


def test_as_mmdet_for_convnext() -> None:
    """mmdet makes coarser groups: each rate of a block is one of ours."""
    pytest.importorskip('mmpretrain')
    from mmdet.engine import LearningRateDecayOptimizerConstructor

    model = Detector(
        MODELS.build({'type': 'mmpretrain.ConvNeXt', 'arch': 'atto'})
    )
    optimizer = {'type': 'AdamW', 'lr': 2.0, 'weight_decay': 0.05}
    build = LearningRateDecayOptimizerConstructor(
        {'optimizer': optimizer},
        {'decay_rate': RATE, 'decay_type': 'layer_wise', 'num_layers': 6},
    )
    groups = build(model).optimizer.param_groups
    heads = [
        g['lr_scale'] for g in groups if 'neck.weight' in g['param_names']
    ]
    stem = [g['lr_scale'] for g in groups if 'layer_0' in g['group_name']]
    assert heads == [1] and set(stem) == {RATE**7}
    ours = set(multipliers(Detector(TimmBackbone('convnext_atto'))).values())
    assert 1 in ours and all(
        any(abs(g['lr_scale'] - v) < 1e-12 for v in ours) for g in groups
    )


def test_other_options_and_frozen_parameters() -> None:
    model = Detector(TimmBackbone('test_resnet', frozen_stages=1))
    optimizer = {'type': 'AdamW', 'lr': 2.0, 'weight_decay': 0.05}
    options = {
        'layer_decay_rate': RATE,
        'norm_decay_mult': 0.0,
        'custom_keys': {'neck': {'lr_mult': 10}},
    }
    build = LayerDecayOptimWrapperConstructor(
        {'optimizer': optimizer}, options
    )
    groups = build(model).optimizer.param_groups
    names = {p: n for n, p in model.named_parameters()}
    seen = set()
    for group in groups:
        for param in group['params']:
            name = names[param]
            seen.add(name)
            if name.startswith('neck'):
                assert group['lr'] == 20
            assert group['weight_decay'] == (
                0 if param.ndim == 1 and 'backbone' in name else 0.05
            )
    assert seen == {n for n, p in model.named_parameters() if p.requires_grad}
    assert len(groups) < 20


def test_table_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    logger = MMLogger.get_instance('decay')
    logger.addHandler(caplog.handler)
    multipliers(Detector(TimmBackbone('test_vit')), norm_decay_mult=0.0)
    text = next(m for m in caplog.messages if 'by layers' in m)
    rows = [line.split() for line in text.splitlines()[2:]]
    assert [int(row[0]) for row in rows] == sorted(int(row[0]) for row in rows)
    model = Detector(TimmBackbone('test_vit'))
    assert sum(int(row[4].replace(',', '')) for row in rows) == sum(
        p.numel() for p in model.parameters()
    )
    assert float(rows[-1][1]) == 2
    assert float(rows[0][1]) == pytest.approx(2 * RATE**7, rel=1e-2)


def test_wrong_options() -> None:
    optimizer = {'optimizer': {'type': 'AdamW', 'lr': 1.0}}
    for rate in (None, 0, 1.5, '0.7'):
        with pytest.raises(UserError, match=f'layer_decay_rate={rate!r}'):
            LayerDecayOptimWrapperConstructor(
                optimizer, {'layer_decay_rate': rate}
            )
    build = LayerDecayOptimWrapperConstructor(
        optimizer, {'layer_decay_rate': RATE}
    )
    with pytest.raises(UserError, match='Conv2d has no layer_depths'):
        build(Detector(nn.Conv2d(3, 8, 1)))
    with pytest.raises(UserError, match='csatv2.*group_matcher'):
        build(Detector(TimmBackbone('csatv2')))
