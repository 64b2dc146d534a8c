# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Names and packages of the parts of a config."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
from mmengine.config import Config
from mmengine.registry import (
    HOOKS,
    MODELS,
    VISBACKENDS,
    init_default_scope,
)
from mmengine.visualization import WandbVisBackend

from mmext.checks import parts
from mmext.checks.config import check_tta
from mmext.checks.parts import TRACKERS, check_parts
from mmext.errors import UserError
from mmext.utils.registries import find_class


def config(*backends: str | type, **options: object) -> Config:
    init_default_scope('mmdet')
    found = [{'type': kind, **options} for kind in backends]
    return Config({'visualizer': {'vis_backends': found}})


@pytest.fixture
def none_installed(monkeypatch) -> None:
    monkeypatch.setattr(parts, 'find_spec', lambda name: None)


def test_every_tracker_of_mmengine_is_known():
    assert {*TRACKERS} == {*VISBACKENDS.module_dict} - {'LocalVisBackend'}


@pytest.mark.parametrize(('kind', 'needed'), TRACKERS.items())
def test_a_tracker_that_is_not_installed(kind, needed, none_installed):
    with pytest.raises(UserError) as error:
        check_parts(config('LocalVisBackend', kind), ('train',))
    assert str(error.value) == (
        f'visualizer.vis_backends.1 ({kind}) needs {" and ".join(needed)}, '
        f'not found in this environment\n  -> pip install {" ".join(needed)}, '
        'or remove the backend from vis_backends of the config.'
    )


def test_all_missing_trackers_are_named(none_installed):
    cfg = config('MLflowVisBackend', 'AimVisBackend')
    with pytest.raises(UserError, match='mlflow, .*needs aim.*\n.*mlflow aim'):
        check_parts(cfg, ('test',))


def test_a_backend_that_extends_a_tracker(none_installed):
    class Own(WandbVisBackend):
        pass

    with pytest.raises(UserError, match=r'0 \(Own\) needs wandb'):
        check_parts(config(Own), ('train',))


def test_a_folder_of_the_name_is_no_package(tmp_path, monkeypatch):
    """W&B writes into ./wandb, which can be imported as a namespace."""
    (tmp_path / 'mlflow').mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    if find_spec('mlflow').origin is not None:
        pytest.skip('mlflow is installed')
    with pytest.raises(UserError, match='needs mlflow'):
        check_parts(config('MLflowVisBackend'), ('train',))


@pytest.mark.parametrize('logged_in', [True, False])
def test_wandb_without_a_key(monkeypatch, logged_in):
    monkeypatch.delenv('WANDB_MODE', raising=False)
    monkeypatch.setattr(sys, 'stdin', SimpleNamespace(isatty=lambda: False))
    monkeypatch.setattr(parts, '_installed', lambda name: True)
    wandb = SimpleNamespace(login=lambda prompt, verify: logged_in)
    monkeypatch.setitem(sys.modules, 'wandb', wandb)
    cfg = config('WandbVisBackend')
    if logged_in:
        check_parts(cfg, ('train',))
        return
    with pytest.raises(UserError, match='not logged in\n  -> wandb login, or'):
        check_parts(cfg, ('train',))
    offline = {'init_kwargs': {'mode': 'offline'}}
    check_parts(config('WandbVisBackend', **offline), ('train',))
    monkeypatch.setenv('WANDB_MODE', 'offline')
    check_parts(cfg, ('train',))


def test_an_unknown_argument_of_a_backend():
    cfg = config('LocalVisBackend', dir='a')
    with pytest.raises(UserError, match='vis_backends.0: .* no argument'):
        check_parts(cfg, ('train',))


@pytest.mark.parametrize(
    ('kind', 'registry', 'message'),
    [
        (
            'TIMMBackbone',
            MODELS,
            "'TimmBackbone' or 'mmpretrain.TIMMBackbone'",
        ),
        ('TIMMBackbon', MODELS, "Did you mean 'TimmBackbone'"),
        ('RIFormerr', MODELS, "Did you mean 'mmpretrain.RIFormer'"),
        ('mmpretrain.RIFormerr', MODELS, "mean 'mmpretrain.RIFormer'"),
        ('ResNett', MODELS, r"Did you mean 'ResNet'\?"),
        ('StarNett', MODELS, r"Did you mean 'StarNet'\?"),
        ('DetVisualisationHook', HOOKS, r"mean 'DetVisualizationHook'\?"),
    ],
)
def test_names_of_other_packages_have_their_scope(kind, registry, message):
    pytest.importorskip('mmpretrain.models')
    init_default_scope('mmdet')
    with pytest.raises(UserError, match=message):
        find_class(kind, registry, 'mmdet', 'model.backbone.type')


@pytest.mark.parametrize(
    ('evaluator', 'message'),
    [
        ({'metric': ['bbox', 'segm']}, 'evaluates masks'),
        ([{}, {'metric': 'segm'}], ' test_evaluator.1.metric=bbox'),
        ([{'type': 'CocoPanopticMetric'}], 'evaluates panoptic'),
    ],
)
def test_tta_of_masks(evaluator, message):
    cfg = Config({'test_evaluator': evaluator})
    with pytest.raises(UserError, match=message):
        check_tta(cfg)
    cfg.tta_model = {'type': 'OwnTTAModel'}
    check_tta(cfg)
    check_tta(Config({'test_evaluator': {'metric': 'bbox'}}))
