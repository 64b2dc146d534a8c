# Licensed under the Apache License, Version 2.0. See LICENSE.
"""``ReliableRunner``: options of the config, accumulation, other loggers."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from commands import ROOT
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from tiny_run import EVERY, write_config
from trained import records, train

from mmext.checkpoints.load import load
from mmext.engine.launch import build_runner
from mmext.engine.optimizers import scaled_peaks, set_auto_scale_lr
from mmext.engine.runner import ReliableRunner
from mmext.utils.config import load_config


def test_options_of_docs_training(data, tmp_path):
    option = {
        '+default_hooks.ema.type': 'EMAHook',
        '+default_hooks.val_loss.type': 'ValLossHook',
        '+default_hooks.early_stopping.type': 'EarlyStoppingHook',
        '+default_hooks.early_stopping.monitor': 'val_loss',
        '+default_hooks.early_stopping.min_delta': 9,
        '+default_hooks.early_stopping.patience': 1,
        '+optim_wrapper.accumulative_counts': 2,
        '+optim_wrapper.clip_grad.max_norm': 10,
    }
    file = write_config(tmp_path / 'tiny.py', data, epochs=5)
    cfg = load_config(file, option)
    cfg.work_dir = str(tmp_path / 'work')
    runner = ReliableRunner.from_cfg(cfg)
    runner.train()
    assert runner.epoch == 2  # the loss did not fall by 9
    saved = load(tmp_path / 'work' / 'epoch_2.pth')
    assert 'ema_state_dict' in saved
    # Two batches an epoch, one step of AdamW.
    steps = {int(s['step']) for s in saved['optimizer']['state'].values()}
    assert steps == {2}
    assert 'grad_norm' in records(tmp_path / 'work')[1]


@pytest.mark.parametrize(
    ('name', 'files'),
    [
        ('tensorboard', '*/vis_data/events.out.tfevents.*'),
        ('wandb', '*/vis_data/wandb/offline-run-*/*.wandb'),
    ],
)
def test_configs_of_other_loggers(data, tmp_path, name, files, monkeypatch):
    monkeypatch.setenv('WANDB_MODE', 'offline')
    monkeypatch.chdir(tmp_path)  # wandb saves the Python files of this folder
    base = ROOT / 'configs/_base_'
    bases = [f'{base}/runtime/{name}.py']
    bases += [f'{base}/schedules/adamw_cosine_12e.py']
    cfg = Config.fromstring(f'_base_ = {bases}', '.py')
    assert cfg.runner_type == 'ReliableRunner'
    assert cfg.default_hooks.checkpoint.type == 'CheckpointHook'
    train(tmp_path, data, epochs=1, visualizer=cfg.visualizer)
    work = tmp_path / 'work'
    assert any(f.stat().st_size for f in work.glob(files))
    assert records(work)  # mmext compare reads these


@pytest.mark.parametrize(
    'accumulated, lr, says',
    [
        (1, 1e-3 / 8, '1 process x 2 images = 2'),
        (4, 1e-3 / 2, '1 process x 2 images x 4 accumulated = 8'),
    ],
)
def test_auto_scale_lr_scales_and_logs(data, tmp_path, accumulated, lr, says):
    config = write_config(tmp_path / 'tiny.py', data)
    cfg = load_config(
        config, {'+optim_wrapper.accumulative_counts': accumulated}
    )
    cfg.work_dir = str(tmp_path / 'work')
    set_auto_scale_lr(cfg)
    runner = build_runner(cfg)
    wrapper = runner.build_optim_wrapper(cfg.optim_wrapper)
    runner.scale_lr(wrapper, cfg.auto_scale_lr)
    rates = [group['lr'] for group in wrapper.optimizer.param_groups]
    assert rates == pytest.approx([lr] * len(rates))
    (log,) = Path(cfg.work_dir).rglob('*.log')
    assert f'{says}: lr 0.001 x' in log.read_text()


@pytest.mark.parametrize('as_list', [True, False])
def test_auto_scale_lr_scales_the_peak_of_a_cycle(data, tmp_path, as_list):
    """OneCycleLR replaces the rate of the optimizer by its own."""
    cfg = load_config(write_config(tmp_path / 'tiny.py', data))
    cfg.work_dir = str(tmp_path / 'work')
    cycle = {'type': 'OneCycleLR', 'eta_max': 0.01, 'total_steps': 8}
    cycle['by_epoch'] = False
    cfg.param_scheduler = [cycle] if as_list else cycle
    set_auto_scale_lr(cfg)
    runner = build_runner(cfg)
    wrapper = runner.build_optim_wrapper(cfg.optim_wrapper)
    runner.scale_lr(wrapper, cfg.auto_scale_lr)
    runner.optim_wrapper = wrapper
    (schedule,) = runner.build_param_scheduler(runner.param_schedulers)
    rates = []
    for _ in range(7):
        wrapper.optimizer.step()
        schedule.step()
        rates.append(wrapper.optimizer.param_groups[0]['lr'])
    assert max(rates) == pytest.approx(0.01 * 2 / 16, rel=0.05)
    found = runner.cfg.param_scheduler
    assert (found[0] if as_list else found).eta_max == 0.01
    momentum = {**cycle, 'param_name': 'momentum', 'eta_max': 0.95}
    assert scaled_peaks(momentum, 2) == momentum


@pytest.fixture
def runner(data: Path, tmp_path: Path) -> ReliableRunner:
    """A detector that uses every anchor and proposal and draws none."""
    config = write_config(tmp_path / 'tiny.py', data)
    options = {'work_dir': str(tmp_path), **EVERY}
    runner = build_runner(load_config(config, options))
    generator = torch.Generator().manual_seed(0)
    for p in runner.model.parameters():
        noise = torch.randn(p.shape, generator=generator)
        p.data = noise * 0.5 / max(1, p[0].numel()) ** 0.5
    return runner


def step(runner, batches: list[list[int]]) -> list[torch.Tensor]:
    """Returns how one step of SGD with rate 1 changes the weights."""
    model = copy.deepcopy(runner.model).train()
    before = [p.detach().clone() for p in model.parameters()]
    wrapper = OptimWrapper(
        torch.optim.SGD(model.parameters(), lr=1.0),
        accumulative_counts=len(batches),
    )
    wrapper.initialize_count_status(model, 0, len(batches))
    dataset = runner.build_dataloader(runner.cfg.val_dataloader).dataset
    for batch in batches:
        samples = [dataset[i] for i in batch]
        keys = ('inputs', 'data_samples')
        data = {key: [s[key] for s in samples] for key in keys}
        model.train_step(data, wrapper)
    return [
        p.detach() - b for p, b in zip(model.parameters(), before, strict=True)
    ]


def test_two_accumulated_batches_of_two_equal_one_of_four(runner):
    whole = step(runner, [[0, 1, 2, 3]])
    both = step(runner, [[0, 2], [1, 3]])
    half = step(runner, [[0, 2]])
    moved = differ = 0
    for one, two, other in zip(whole, both, half, strict=True):
        scale = one.abs().max()
        if scale > 0:
            moved += 1
            assert (two - one).abs().max() < 1e-3 * scale
            differ += (other - one).abs().max() > 1e-2 * scale
    assert moved > 60 and differ > 0.9 * moved
