# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The linear scaling rule and its message, and fused updates."""

from __future__ import annotations

import copy

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from torch import nn
from toy import Toy, build_runner

from mmext.engine.optimizers import lr_scaling, update_in_one_pass


def config(**optim) -> Config:
    return Config(
        {
            'auto_scale_lr': {'enable': False, 'base_batch_size': 16},
            'optim_wrapper': {'optimizer': {'type': 'SGD', 'lr': 0.02}}
            | optim,
            'train_dataloader': {'batch_size': 4},
        }
    )


def test_the_message_shows_the_arithmetic():
    found = lr_scaling(config(), 1)
    assert found.lr == pytest.approx(0.005)
    assert found.text == (
        'lr 0.02 is meant for a total batch of 16 (8 GPUs x 2); this run has '
        '1 process x 4 images = 4: lr 0.02 x 4 / 16 = 0.005'
    )
    assert lr_scaling(config(), 4).factor == 1


def test_accumulated_batches_count():
    found = lr_scaling(config(accumulative_counts=3), 2)
    assert found.factor == 24 / 16 and found.lr == pytest.approx(0.03)
    assert '2 processes x 4 images x 3 accumulated = 24' in found.text


@pytest.mark.parametrize(
    'gone', ['auto_scale_lr', 'optim_wrapper', 'train_dataloader']
)
def test_none_if_a_value_is_not_known(gone):
    cfg = config()
    cfg.pop(gone)
    assert lr_scaling(cfg, 1) is None


OPTIMIZERS = {
    'SGD': {'lr': 0.1, 'momentum': 0.9, 'weight_decay': 1e-2},
    'Adam': {'lr': 1e-2, 'amsgrad': True},
    'AdamW': {'lr': 1e-2, 'weight_decay': 0.05},
    'RMSprop': {'lr': 1e-2},  # has no fused form
}


@pytest.mark.parametrize('name', OPTIMIZERS)
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_one_pass_differs_by_rounding(name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(3, 9, 3), nn.Linear(5, 2)).to(dtype)
    plain[0].to(memory_format=torch.channels_last)
    fused = copy.deepcopy(plain)
    grads = [
        [torch.randn_like(p) for p in plain.parameters()] for _ in range(20)
    ]
    for model in (plain, fused):
        kind = getattr(torch.optim, name)
        optimizer = kind(model.parameters(), **OPTIMIZERS[name])
        if model is fused:
            update_in_one_pass(OptimWrapper(optimizer))
            is_fused = optimizer.param_groups[0].get('fused', False)
            assert is_fused == (name != 'RMSprop')
        for step in grads:
            for p, grad in zip(model.parameters(), step, strict=True):
                p.grad = grad.clone(memory_format=torch.preserve_format)
            optimizer.step()
    limit = 1e-6 if dtype == torch.float32 else 1e-14
    for a, b in zip(plain.parameters(), fused.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=limit, atol=limit)


@pytest.mark.parametrize('setting', [{'fused': False}, {'foreach': False}, {}])
def test_a_config_can_turn_it_off(tmp_path, setting: dict) -> None:
    wrapper = {'optimizer': {'type': 'SGD', 'lr': 0.1, **setting}}
    runner = build_runner(tmp_path, Toy(), optim_wrapper=wrapper)
    built = runner.build_optim_wrapper(wrapper)
    (group,) = built.optimizer.param_groups
    assert bool(group['fused']) == (not setting)
