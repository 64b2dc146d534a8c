# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Official checkpoints: every layout loads, every defect is an error."""

from __future__ import annotations

import argparse
import sys
import types
from collections.abc import Callable
from pathlib import Path

import backbone_checks as checks
import pytest
import torch
from mmengine.registry import MODELS
from safetensors.torch import save_file
from torch import Tensor, nn

from mmext.checkpoints.released import (
    convert_released_weights,
    load_released_weights,
)
from mmext.errors import UserError
from mmext.models import GMLP, StarNet

LAYOUTS = {
    'timm_gmlp_ti16_224': {'type': 'GMLP', 'arch': 'tiny'},
    'timm_gmlp_s16_224': {'type': 'GMLP', 'arch': 'small'},
    'timm_gmlp_b16_224': {'type': 'GMLP', 'arch': 'base'},
}
for arch in ('s1', 's2', 's3', 's4', 's050', 's100', 's150'):
    for source in ('', 'timm_'):
        cfg = {'type': 'StarNet', 'arch': arch}
        LAYOUTS[f'{source}starnet_{arch}'] = cfg
for arch in ('tiny', 'base'):
    for form, dynamic in (
        ('static', None),
        ('dynamic', 'homogeneous'),
        ('inhomogeneous', 'inhomogeneous'),
    ):
        derived = '_DERIVED' if form == 'inhomogeneous' else ''
        cfg = {'type': 'DWNet', 'arch': arch, 'dynamic': dynamic}
        LAYOUTS[f'dwnet_{arch}_{form}_detection{derived}'] = cfg
        LAYOUTS[f'dwnet_{arch}_{form}_imagenet'] = {
            **cfg,
            'final_norm': True,
            'out_indices': -1,
        }
SMALL = {'embed_dims': 4, 'depths': (1, 1, 1, 1), 'mlp_ratio': 2}


def small(**kwargs) -> StarNet:
    return StarNet(SMALL, **kwargs)


@pytest.fixture
def weights() -> dict[str, Tensor]:
    """A released checkpoint of the small network: with norm and head."""
    state = checks.randomise(small(final_norm=True), seed=1).state_dict()
    head = {'head.weight': torch.rand(10, 32), 'head.bias': torch.rand(10)}
    return {**state, **head}


def assert_filled(model: nn.Module, weights: dict[str, Tensor]) -> None:
    for key, value in model.state_dict().items():
        assert torch.equal(value, weights[key]), key


@pytest.mark.parametrize('layout', LAYOUTS)
def test_every_official_layout(layout: str, shared: Callable) -> None:
    path = shared(f'facts/state_dict_keys/{layout}.json')
    weights = checks.made_up_weights(path)
    with torch.device('meta'):  # building is most of the time
        model = MODELS.build(LAYOUTS[layout])
    model.to_empty(device='cpu')
    report = load_released_weights(model, {'state_dict': weights})
    assert_filled(model, weights)
    assert report.loaded == list(model.state_dict())
    assert not report.missing
    # Dropped: the classifier, and StarNet's norm before it.
    assert {k.split('.')[0] for k in report.unused} <= {'head', 'norm'}
    assert set(weights) == {*report.loaded, *report.unused}
    total = len(report.loaded)
    assert report.describe('backbone', 'it').startswith(
        f'loaded {total} of {total} backbone tensors from it'
    )


def test_dwnet_detector_from_an_imagenet_checkpoint(shared: Callable) -> None:
    """The norms of the levels are new and not frozen."""
    path = shared('facts/state_dict_keys/dwnet_tiny_static_imagenet.json')
    weights = checks.made_up_weights(path)
    cfg = {'type': 'DWNet', 'arch': 'tiny', 'norm_eval': True}
    model = MODELS.build(cfg)
    with pytest.raises(UserError, match=r"allow_missing=\['norm0'\]"):
        load_released_weights(model, weights)
    report = load_released_weights(model, weights, allow_missing=['norm'])
    norms = {'norm0', 'norm1', 'norm2', 'norm3'}
    assert {k.split('.')[0] for k in report.missing} == norms
    assert '349 of 365 tensors fit' in str(report)
    model.train()
    assert model.norm0.training and model.norm3.training
    assert not model.layers[0].blocks[0].bn.training


@pytest.mark.parametrize(
    ('wrap', 'options'),
    [
        (lambda w: w, {}),
        (lambda w: {'state_dict': w, 'epoch': 3}, {}),
        (lambda w: {'model': w, 'optimizer': {'lr': 1}}, {}),
        (lambda w: {'model': {'state_dict': w}}, {}),
        (lambda w: {'state_dict_ema': w}, {}),
        (
            lambda w: {'state_dict': {}, 'state_dict_ema': w},
            {'wrapper': 'state_dict_ema'},
        ),
        (lambda w: {'params': w}, {'wrapper': 'params'}),
        (lambda w: {f'module.{k}': v for k, v in w.items()}, {}),
        (lambda w: {f'module._orig_mod.{k}': v for k, v in w.items()}, {}),
        (lambda w: {f'net.{k}': v for k, v in w.items()}, {'prefix': 'net.'}),
    ],
)
def test_wrappers(weights: dict, wrap: Callable, options: dict) -> None:
    model = small()
    report = load_released_weights(model, wrap(weights), **options)
    assert_filled(model, weights)
    assert not report.renamed


def test_averaged_weights_only_if_there_are_no_others(weights: dict) -> None:
    model = small()
    other = {k: v + 1 for k, v in weights.items()}
    load_released_weights(model, {'state_dict_ema': other, 'model': weights})
    assert_filled(model, weights)


def test_a_detectors_checkpoint(weights: dict) -> None:
    """Other parts of the detector are dropped and reported."""
    neck = {'neck.conv.weight': torch.rand(3)}
    body = {f'backbone.{k}': v for k, v in small().state_dict().items()}
    model = nn.Module()
    model.backbone = small()
    report = load_released_weights(model, {'state_dict': {**body, **neck}})
    assert report.unused == ['neck.conv.weight']
    assert_filled(model.backbone, {k[9:]: v for k, v in body.items()})


def test_a_classifiers_head_is_filled_if_it_fits(weights: dict) -> None:
    def classifier(num_classes: int) -> nn.Module:
        model = nn.Module()
        model.backbone = small(final_norm=True)
        model.head = nn.Module()
        model.head.fc = nn.Linear(32, num_classes)
        return model

    model = classifier(10)
    report = load_released_weights(model, weights)
    assert torch.equal(model.head.fc.weight, weights['head.weight'])
    assert torch.equal(model.head.fc.bias, weights['head.bias'])
    assert report.renamed['head.weight'] == 'head.fc.weight'
    assert not report.unused
    other = classifier(5)
    before = other.head.fc.weight.clone()
    report = load_released_weights(other, weights)
    assert report.unused == ['head.weight', 'head.bias']
    assert torch.equal(other.head.fc.weight, before)


def test_stages_that_are_not_built_are_dropped(weights: dict) -> None:
    model = small(out_indices=(0, 1))
    report = load_released_weights(model, weights)
    assert_filled(model, weights)
    assert {k.split('.')[0] + k.split('.')[1] for k in report.unused} == {
        *('stages2', 'stages3', 'headweight', 'headbias'),
        *('normweight', 'normbias', 'normrunning_mean'),
        *('normrunning_var', 'normnum_batches_tracked'),
    }


def test_files(weights: dict, tmp_path: Path, monkeypatch) -> None:
    logged: list[str] = []
    monkeypatch.setattr(
        'mmext.checkpoints.released.print_log',
        lambda line, **_: logged.append(line),
    )
    old, plain = tmp_path / 'old.pth', tmp_path / 'a.safetensors'
    torch.save({'state_dict': weights}, tmp_path / 'a.pth.tar')
    save_file(weights, plain)
    torch.save(weights, old, _use_new_zipfile_serialization=False)
    for name in ('a.pth.tar', 'a.safetensors', 'old.pth'):
        model = small()
        load_released_weights(model, tmp_path / name)
        assert_filled(model, weights)
        assert f'backbone tensors from {tmp_path / name};' in logged[-1]


def test_records_of_a_run_beside_the_weights(
    weights: dict, tmp_path: Path, monkeypatch
) -> None:
    """timm's trainer saves an argparse record, Swin's family a yacs one."""
    yacs = types.ModuleType('yacs.config')
    yacs.CfgNode = type('CfgNode', (dict,), {'__module__': 'yacs.config'})
    monkeypatch.setitem(sys.modules, 'yacs', types.ModuleType('yacs'))
    monkeypatch.setitem(sys.modules, 'yacs.config', yacs)
    node = yacs.CfgNode(MODEL=yacs.CfgNode(NAME='dwnet', DEPTHS=[2, 2]))
    node.__dict__['__immutable__'] = True
    args = argparse.Namespace(lr=1e-3, model='starnet_s1')
    torch.save(
        {'model': weights, 'args': args, 'config': node}, tmp_path / 'a.pth'
    )
    monkeypatch.delitem(sys.modules, 'yacs.config')
    model = small()
    load_released_weights(model, tmp_path / 'a.pth')
    assert_filled(model, weights)


def unchanged(model: nn.Module, checkpoint, match: str, **options) -> None:
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(UserError, match=match) as info:
        load_released_weights(model, checkpoint, **options)
    assert info.value.fix
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_a_truncated_file(weights: dict, tmp_path: Path) -> None:
    path = tmp_path / 'a.safetensors'
    save_file(weights, path)
    path.write_bytes(path.read_bytes()[:-100])
    unchanged(small(), path, 'a.safetensors.*not a complete checkpoint')


def drop(weights: dict, prefix: str) -> dict:
    return {k: v for k, v in weights.items() if not k.startswith(prefix)}


def test_defects_of_the_content(weights: dict) -> None:
    key = 'stages.1.1.f1.conv.weight'
    model = small()
    unchanged(model, drop(weights, key), f'missing: 1: {key}')
    unchanged(model, {**weights, 'extra': torch.ones(1)}, 'unknown.*extra')
    misspelt = {**drop(weights, key), key.replace('f1', 'f11'): weights[key]}
    unchanged(model, misspelt, f"Did you mean '{key}'")
    bad = {**weights, key: weights[key][:1]}
    unchanged(model, bad, rf'{key} is \(1, 8, 1, 1\), expected \(16, 8')
    unchanged(model, {**weights, 'lr': 0.1}, 'lr is not a tensor')
    unchanged(model, {'optimizer': {}}, 'not a state dict|no tensors')
    unchanged(model, {'state_dict': {}}, 'no tensors')
    unchanged(model, {}, 'no tensors')
    unchanged(model, weights, "no tensors under 'ema'", wrapper='ema')
    unchanged(model, weights, "begins with 'body.'", prefix='body.')


def test_another_arch_is_an_error(weights: dict) -> None:
    says = '(?s)does not fit StarNet.*of another shape: 9'
    unchanged(StarNet('s050'), weights, says)
    unchanged(GMLP('tiny', out_indices=0), weights, 'does not fit GMLP')


def test_modules_are_frozen_when_the_model_is_built(
    weights: dict, tmp_path: Path
) -> None:
    """The optimiser and DDP read requires_grad before weights are loaded."""
    fresh = 'stages.0.1.g.'
    path = tmp_path / 'cut.pth'
    torch.save({'state_dict': drop(weights, fresh)}, path)
    init_cfg = {'type': 'Pretrained', 'checkpoint': str(path)}
    model = small(
        init_cfg={**init_cfg, 'allow_missing': [fresh]},
        frozen_stages=2,
        norm_eval=True,
    )

    def check() -> None:
        for name, parameter in model.named_parameters():
            frozen = name.startswith(('stem', 'stages.0', 'stages.1'))
            assert parameter.requires_grad == (
                name.startswith(fresh) or not frozen
            )
        assert model.stages[0][1].g.bn.training
        assert not model.stages[0][1].dwconv.bn.training

    check()
    model.init_weights()
    check()
    model.train()
    check()


@pytest.mark.parametrize('allowed', [True, ['stages.0.1.g.']])
def test_missing_tensors_are_never_frozen(
    weights: dict, allowed: bool | list[str]
) -> None:
    fresh = 'stages.0.1.g.'
    unchanged(
        small(frozen_stages=2),
        drop(weights, fresh),
        r"(?s)freezes 6 tensors.*allow_missing=\['stages\.0\.1\.g\.'\]",
        allow_missing=allowed,
    )
    # After the frozen stages any tensor may be missing.
    cut, model = drop(weights, 'stages.3.'), small(frozen_stages=2)
    assert load_released_weights(model, cut, allow_missing=True).missing


def test_missing_tensors_can_be_allowed(weights: dict) -> None:
    """They keep their values."""
    fresh = 'stages.0.1.g.'
    cut = drop(weights, fresh)
    report = load_released_weights(small(), cut, allow_missing=[fresh])
    assert len(report.missing) == 6  # the counter of batch norm apart
    unchanged(small(), cut, 'missing: 6', allow_missing=['stem'])
    # A text is one name, not a list of letters.
    assert load_released_weights(small(), cut, allow_missing=fresh).missing
    unchanged(small(), cut, 'missing: 6', allow_missing='norms')
    assert load_released_weights(small(), cut, allow_missing=True)


def test_a_checkpoint_older_than_batch_norms_counter(weights: dict) -> None:
    old = {k: v for k, v in weights.items() if 'num_batches' not in k}
    report = load_released_weights(small(), old)
    assert not report.missing


def test_pretrained_in_a_config(weights: dict, tmp_path: Path) -> None:
    path = tmp_path / 'a.pth'
    torch.save({'state_dict': weights}, path)
    init_cfg = {'type': 'Pretrained', 'checkpoint': str(path)}
    model = small(init_cfg=init_cfg, frozen_stages=1, norm_eval=True)
    model.init_weights()
    assert_filled(model, weights)
    assert model.init_cfg == init_cfg
    torch.save({'state_dict': drop(weights, 'stem.0.bn.bias')}, path)
    with pytest.raises(UserError, match=r'missing: 1: stem\.0\.bn\.bias'):
        small(init_cfg=init_cfg).init_weights()
    lenient = {**init_cfg, 'allow_missing': ['stem.0.bn']}
    small(init_cfg=lenient).init_weights()


def test_converter(weights: dict, tmp_path: Path) -> None:
    source, target = tmp_path / 'a.pth.tar', tmp_path / 'b.pth'
    torch.save({'state_dict': weights}, source)
    cfg = {'type': 'StarNet', 'arch': SMALL}
    report = convert_released_weights(cfg, source, target)
    assert len(report.loaded) == len(small().state_dict())
    content = torch.load(target, weights_only=True)
    model = small()
    model.load_state_dict(content['state_dict'])
    assert_filled(model, weights)
    # A checkpoint that does not fit leaves no file.
    torch.save(drop(weights, 'stem.0.bn.bias'), source)
    with pytest.raises(UserError, match='missing'):
        convert_released_weights(cfg, source, tmp_path / 'c.pth')
    with pytest.raises(UserError, match='.pth file'):
        convert_released_weights(cfg, source, tmp_path / 'no' / 'c.pth')
    assert {p.name for p in tmp_path.iterdir()} == {'a.pth.tar', 'b.pth'}


def test_two_names_of_one_tensor(weights: dict) -> None:
    class Renamed(StarNet):
        def released_key(self, key: str) -> str | None:
            return super().released_key(key.replace('trunk.', 'stem.'))

    model = Renamed(SMALL)
    other = {k.replace('stem.', 'trunk.'): v for k, v in weights.items()}
    report = load_released_weights(model, other)
    assert report.renamed['trunk.0.conv.bias'] == 'stem.0.conv.bias'
    assert_filled(model, weights)
    unchanged(model, {**other, **weights}, 'twice')
