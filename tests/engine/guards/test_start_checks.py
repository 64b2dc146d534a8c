# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The warnings before the first step."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import pytest
from mmengine.config import Config
from mmengine.model import BaseModel
from torch import nn
from toy import Toy, build_runner

from mmext.engine.guards import start_checks
from mmext.engine.guards.start_checks import (
    checkpoints_to_come,
    disk_warning,
    expected_bytes,
    learning_rate_warning,
    norm_warnings,
)


@pytest.fixture
def runner(tmp_path):
    """Builds a runner and trains three epochs."""

    def make(**more):
        built = build_runner(tmp_path / 'work', epochs=3, **more)
        built.train()
        return built

    return make


def test_the_learning_rate_for_another_batch_size():
    cfg = Config(
        {
            'train_dataloader': {'batch_size': 2},
            'optim_wrapper': {'optimizer': {'type': 'SGD', 'lr': 0.01}},
            'auto_scale_lr': {'base_batch_size': 16},
        }
    )
    runner = SimpleNamespace(cfg=cfg, world_size=1, _resume=True)
    assert learning_rate_warning(runner) is None  # the checkpoint's is used
    runner._resume = False
    message = learning_rate_warning(runner)
    assert 'lr 0.01 x 2 / 16 = 0.00125' in message
    assert '--auto-scale-lr' in message
    cfg.auto_scale_lr.enable = True
    assert learning_rate_warning(runner) is None
    cfg.auto_scale_lr = {'base_batch_size': 2}
    assert learning_rate_warning(runner) is None


class Norms(BaseModel):
    """A backbone with a norm layer, and a head with batch norm."""

    def __init__(self, kind: type[nn.Module], norm_eval: bool) -> None:
        super().__init__()
        self.norm_eval = norm_eval
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 1), kind(4))
        self.roi_head = nn.Sequential(nn.BatchNorm2d(4))

    def train(self, mode: bool = True) -> Norms:
        super().train(mode)
        if self.norm_eval:
            self.backbone[1].eval()
        return self

    def forward(self, inputs, mode='tensor'):
        return inputs


@pytest.mark.parametrize(
    ('kind', 'norm_eval', 'images', 'processes', 'says'),
    [
        (nn.BatchNorm2d, False, 2, 1, []),
        (nn.BatchNorm2d, False, 1, 1, ['Batch norm: 1 layers (backbone.1']),
        (nn.BatchNorm2d, False, 1, 8, ['Batch norm: 1 layers (backbone.1']),
        (nn.BatchNorm2d, True, 1, 1, []),
        (nn.SyncBatchNorm, True, 2, 8, ['SyncBN: 1 layers (backbone.1']),
        (nn.SyncBatchNorm, False, 1, 8, []),
        (nn.SyncBatchNorm, False, 1, 1, ['Batch norm: 1 layers (backbone.1']),
        (nn.InstanceNorm2d, False, 1, 1, []),
        (nn.BatchNorm2d, False, 0, 1, []),
    ],
)
def test_norms(kind, norm_eval, images, processes, says):
    messages = norm_warnings(Norms(kind, norm_eval), images, processes)
    assert len(messages) == len(says)
    for line, begin in zip(messages, says, strict=True):
        assert line.startswith(begin)
        assert 'norm_eval=' in line


@pytest.mark.parametrize(
    'optimizer',
    [
        {'type': 'AdamW', 'lr': 0.01},
        {'type': 'SGD', 'lr': 0.01, 'momentum': 0.9},
        {'type': 'SGD', 'lr': 0.01},
    ],
)
@pytest.mark.parametrize('hooks', [[], [{'type': 'EMAHook'}]])
def test_the_size_of_a_checkpoint_is_estimated(tmp_path, optimizer, hooks):
    model = Toy()
    model.wide = nn.Linear(300, 300)
    model.head.register_forward_hook(
        lambda m, i, out: out + 0 * model.wide.weight.sum()
    )
    runner = build_runner(
        tmp_path,
        model,
        optim_wrapper={'optimizer': optimizer},
        custom_hooks=hooks,
    )
    runner.train()
    real = Path(tmp_path, 'epoch_1.pth').stat().st_size
    assert expected_bytes(runner) == pytest.approx(real, rel=0.1)


def test_the_number_of_later_checkpoints(runner):
    hook = {'type': 'CheckpointHook', 'interval': 2}
    done = runner(default_hooks={'checkpoint': hook})
    assert checkpoints_to_come(done) == 1  # the last one counts as due
    done.train_loop._epoch = 0
    assert checkpoints_to_come(done) == 2
    done.train_loop._max_epochs = 12
    assert checkpoints_to_come(done) == 6
    kept = next(h for h in done.hooks if hasattr(h, 'max_keep_ckpts'))
    kept.max_keep_ckpts = 3
    assert checkpoints_to_come(done) == 4


def test_a_disk_that_is_too_small(runner, monkeypatch, tmp_path):
    usage = namedtuple('usage', 'total used free')
    free = [10**9]
    monkeypatch.setattr(
        shutil, 'disk_usage', lambda path: usage(0, 0, free[0])
    )
    messages = []
    real = start_checks.disk_warning

    def note(runner, size):
        messages.append(real(runner, size))
        return messages[-1]

    monkeypatch.setattr('mmext.engine.guards.start_checks.disk_warning', note)
    monkeypatch.setattr('mmext.engine.runner.disk_warning', note)
    done = runner()
    assert messages == [None] * 4  # at the start, and after each checkpoint
    done.train_loop._epoch = 0
    free[0] = 250
    text = disk_warning(done, 100)
    assert '3 more checkpoints of 0 MB each' in text
    assert 'full after 2 of them' in text
    assert 'max_keep_ckpts=1' in text
    free[0] = 300
    assert disk_warning(done, 100) is None
