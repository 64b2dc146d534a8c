# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The StepNet and attention configs differ from mmdet's only as documented."""

from __future__ import annotations

import re
import shlex

import pytest
import torch
from leaves import CONFIGS, ENTRIES, LEAVES, count_parameters, load
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.hub import get_config

from mmext.utils.config import load_config

README = CONFIGS / 'stepnet' / 'README.md'
#: mmdet's checkpoint for each depth, from which all of these configs start.
PRETRAINED = {50: 'torchvision://resnet50', 101: 'torchvision://resnet101'}
#: Documented ablations of StepNet-50: option, its parsed value, parameters.
ABLATIONS = {
    'step_cfg.inputs=current': ({'inputs': 'current'}, 44_268_000),
    'step_cfg.inputs=next': ({'inputs': 'next'}, 44_268_000),
    'step_cfg.inputs=difference': ({'inputs': 'difference'}, 44_268_000),
    'step_cfg.fusion=sum': ({'fusion': 'sum'}, 44_268_000),
    'step_cfg.fusion=product': ({'fusion': 'product'}, 44_268_000),
    'step_cfg.fusion=separate': ({'fusion': 'separate'}, 46_782_944),
    'step_cfg.start=paper': ({'start': 'paper'}, 45_525_472),
    'step_blocks=[[0],[0],[0],[0]]': ([[0], [0], [0], [0]], 42_797_536),
    'stage_with_step=[False,False,False,True]': (
        [False, False, False, True],
        44_112_352,
    ),
}


def config(backbone: str, schedule: str = '1x') -> Config:
    return load(f'faster-rcnn_{backbone}_fpn_{schedule}_coco')


def unscoped(cfg: object) -> object:
    """Removes the mark that MMEngine puts on another package's configs."""
    if isinstance(cfg, dict):
        return {k: unscoped(v) for k, v in cfg.items() if k != '_scope_'}
    if isinstance(cfg, list | tuple):
        return [unscoped(value) for value in cfg]
    return cfg


def differences(a: object, b: object, at: str = '') -> set[str]:
    """Dotted names of what differs between two configs."""
    if isinstance(a, dict) and isinstance(b, dict):
        return {
            d
            for key in (a.keys() | b.keys()) - {'_scope_'}
            for d in differences(a.get(key), b.get(key), f'{at}.{key}')
        }
    return set() if unscoped(a) == unscoped(b) else {at.lstrip('.')}


@pytest.mark.parametrize('schedule', ['1x', '2x'])
@pytest.mark.parametrize('depth', [50, 101])
def test_stepnet_is_its_baseline_but_for_the_backbone(
    depth: int, schedule: str
) -> None:
    mmdet_s = get_config(
        f'mmdet::faster_rcnn/faster-rcnn_r{depth}_fpn_{schedule}_coco.py'
    )
    baseline = config(f'resnet-r{depth}', schedule)
    assert differences(baseline.to_dict(), mmdet_s.to_dict()) == {
        'custom_imports'
    }
    stepnet = config(f'stepnet-r{depth}', schedule)
    backbone = baseline.model.backbone
    changed = differences(stepnet.to_dict(), baseline.to_dict())
    assert all(name.startswith('model.backbone.') for name in changed)
    ours = stepnet.model.backbone
    assert ours.init_cfg == backbone.init_cfg
    assert ours.init_cfg.checkpoint == PRETRAINED[depth]
    # The defaults of StepNetResNet are the values in mmdet's config.
    with torch.device('meta'):
        model = MODELS.build(ours)
    for key in ('depth', 'out_indices', 'frozen_stages', 'norm_eval', 'style'):
        assert getattr(model, key) == backbone[key], key
    assert model.norm_cfg == backbone.norm_cfg


def test_the_readme_documents_every_ablation() -> None:
    rows = re.findall(
        r'^\| .* \| `(\S+)` \| (\S+) M \|$', README.read_text(), re.M
    )
    assert [(shlex.split(option), params) for option, params in rows] == [
        ([f'model.backbone.{option}'], f'{params / 1e6:.2f}')
        for option, (_, params) in ABLATIONS.items()
    ]


@pytest.mark.parametrize('option', ABLATIONS)
def test_an_ablation_changes_one_thing(option: str) -> None:
    value, params = ABLATIONS[option]
    name = 'faster-rcnn_stepnet-r50_fpn_1x_coco'
    ablation = load_config(LEAVES[name], [f'model.backbone.{option}'])
    key = re.match(r'\w+', option)[0]
    expected = load(name)
    expected.model.backbone[key] = value
    assert ablation.to_dict() == expected.to_dict()
    assert count_parameters(ablation) == params


@pytest.mark.parametrize('depth', [50, 101])
@pytest.mark.parametrize('kind', ['se', 'eca', 'fca', 'srm'])
def test_attention_is_its_baseline_but_for_the_plugin(
    kind: str, depth: int
) -> None:
    attention = config(f'{kind}-r{depth}').to_dict()
    baseline = config(f'resnet-r{depth}').to_dict()
    expected = {'model.backbone.type', 'model.backbone.plugins'}
    if kind == 'srm':
        expected.add('optim_wrapper.paramwise_cfg')
    assert differences(attention, baseline) == expected
    backbone = attention['model']['backbone']
    assert backbone['plugins'][0]['position'] == 'after_conv3'
    assert backbone['init_cfg']['checkpoint'] == PRETRAINED[depth]


@pytest.mark.parametrize('folder', ['stepnet', 'attention'])
def test_metafiles_claim_no_result_of_ours(folder: str) -> None:
    models = [m for m in ENTRIES if f'configs/{folder}/' in m['Config']]
    assert models
    for result in [r for m in models for r in m.get('Results', ())]:
        assert result['Source']
        assert 'results.md' not in result['Source']
