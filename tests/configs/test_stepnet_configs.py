# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The StepNet and attention configs differ from mmdet's where they say."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.hub import get_config

import mmext  # noqa: F401

ROOT = Path(__file__).resolve().parents[2]
DETECTOR = 'faster-rcnn'
LEAVES = [
    path
    for folder in ('stepnet', 'attention')
    for path in sorted((ROOT / 'configs' / folder).glob(f'{DETECTOR}_*.py'))
]
# mmdet's checkpoint for each depth, which all of these start from.
PRETRAINED = {50: 'torchvision://resnet50', 101: 'torchvision://resnet101'}


def config(folder: str, backbone: str, schedule: str = '1x') -> Config:
    name = f'{DETECTOR}_{backbone}_fpn_{schedule}_coco.py'
    return Config.fromfile(ROOT / 'configs' / folder / name)


def unscoped(cfg: object) -> object:
    """Without the mark that mmengine puts on another package's configs."""
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


@pytest.mark.parametrize('path', LEAVES, ids=lambda p: p.stem)
def test_a_leaf_is_short_and_says_how_to_run_it(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert len(lines) <= 25
    head = '\n'.join(line for line in lines if line.startswith('#'))
    assert str(path.relative_to(ROOT)) in head
    assert 'Not trained' in head


@pytest.mark.parametrize('schedule', ['1x', '2x'])
@pytest.mark.parametrize('depth', [50, 101])
def test_stepnet_is_its_baseline_but_for_the_backbone(
    depth: int, schedule: str
) -> None:
    mmdet_s = get_config(
        f'mmdet::faster_rcnn/faster-rcnn_r{depth}_fpn_{schedule}_coco.py'
    )
    baseline = config('stepnet', f'resnet-r{depth}', schedule)
    assert differences(baseline.to_dict(), mmdet_s.to_dict()) == {
        'custom_imports'
    }
    stepnet = config('stepnet', f'stepnet-r{depth}', schedule)
    backbone = baseline.model.backbone
    changed = differences(stepnet.to_dict(), baseline.to_dict())
    assert all(name.startswith('model.backbone.') for name in changed)
    ours = stepnet.model.backbone
    assert ours.init_cfg == backbone.init_cfg
    assert ours.init_cfg.checkpoint == PRETRAINED[depth]
    # What is left to defaults is what mmdet's config spells out.
    with torch.device('meta'):
        model = MODELS.build(ours)
    for key in ('depth', 'out_indices', 'frozen_stages', 'norm_eval', 'style'):
        assert getattr(model, key) == backbone[key], key
    assert model.norm_cfg == backbone.norm_cfg


@pytest.mark.parametrize(
    ('variant', 'changed'),
    [
        ('current', 'step_cfg'),
        ('next', 'step_cfg'),
        ('difference', 'step_cfg'),
        ('sum', 'step_cfg'),
        ('product', 'step_cfg'),
        ('separate', 'step_cfg'),
        ('sigmoid', 'step_cfg'),
        ('first-blocks', 'step_blocks'),
        ('stage4', 'stage_with_step'),
    ],
)
def test_an_ablation_changes_one_thing(variant: str, changed: str) -> None:
    ablation = config('stepnet', f'stepnet-r50-{variant}').to_dict()
    whole = config('stepnet', 'stepnet-r50').to_dict()
    assert {
        name.removeprefix('model.backbone.').split('.')[0]
        for name in differences(ablation, whole)
    } == {changed}


@pytest.mark.parametrize('depth', [50, 101])
@pytest.mark.parametrize('kind', ['se', 'eca', 'fca', 'srm'])
def test_attention_is_its_baseline_but_for_the_plugin(
    kind: str, depth: int
) -> None:
    attention = config('attention', f'{kind}-r{depth}').to_dict()
    baseline = config('stepnet', f'resnet-r{depth}').to_dict()
    expected = {'model.backbone.type', 'model.backbone.plugins'}
    if kind == 'srm':
        expected.add('optim_wrapper.paramwise_cfg')
    assert differences(attention, baseline) == expected
    backbone = attention['model']['backbone']
    assert backbone['plugins'][0]['position'] == 'after_conv3'
    assert backbone['init_cfg']['checkpoint'] == PRETRAINED[depth]


def test_metafiles_claim_no_result_of_ours() -> None:
    for folder in ('stepnet', 'attention'):
        meta = yaml.safe_load(
            (ROOT / 'configs' / folder / 'metafile.yml').read_text()
        )
        listed = {Path(model['Config']).stem for model in meta['Models']}
        on_disk = {p.stem for p in LEAVES if p.parent.name == folder}
        assert listed >= on_disk
        results = [r for m in meta['Models'] for r in m.get('Results', ())]
        assert all(r['Source'] for r in results)
        assert not any('results.md' in r['Source'] for r in results)


def test_the_readme_marks_the_deltas_as_the_papers() -> None:
    text = (ROOT / 'configs/stepnet/README.md').read_text()
    assert '+2.9' in text
    assert '+3.0' in text
    assert 'not trained' in text
