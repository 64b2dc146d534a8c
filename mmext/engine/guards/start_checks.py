# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Checks before the first step: data, learning rate, batch norm, disk."""

from __future__ import annotations

import shutil
from itertools import chain
from pathlib import Path

import torch
from mmengine.dist import master_only
from mmengine.hooks import CheckpointHook, EMAHook, Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmext.checks.config import find_config_splits
from mmext.checks.preflight import require_fit
from mmext.engine.optimizers import lr_scaling
from mmext.engine.resume.exact_resume import images_of
from mmext.utils.modules import unwrap


@HOOKS.register_module()
class CheckDataHook(Hook):
    """Stops a run whose data cannot work before its first iteration.

    It is for runs that other tools start: :func:`mmext.engine.launch.train`
    and ``test`` have checked the data and set ``checked``. On the first
    process it raises `UserError` with all errors in the data.
    """

    priority = 'VERY_HIGH'

    def __init__(self) -> None:
        self.checked = False

    def before_train(self, runner: Runner) -> None:
        self._check(runner, ('train', 'val'))

    def before_test(self, runner: Runner) -> None:
        self._check(runner, ('test',))

    @master_only
    def _check(self, runner: Runner, stages: tuple[str, ...]) -> None:
        if not self.checked:
            splits = find_config_splits(runner.cfg, stages)
            model = unwrap(runner.model)
            require_fit(runner.cfg, model, splits, runner.logger.info)


@HOOKS.register_module()
class StartChecksHook(Hook):
    """Warns of settings that would spoil the result of a run.

    - A learning rate for another total batch size.
    - SyncBN that does not synchronise because of ``norm_eval``, and batch
      norm that computes its statistics from one image.
    - A disk that is too small for the checkpoints of the run.
    """

    priority = 'LOW'

    def before_train(self, runner: Runner) -> None:
        images = images_of(runner.train_dataloader)
        for warning in (
            learning_rate_warning(runner),
            *norm_warnings(runner.model, images, runner.world_size),
            disk_warning(runner, expected_bytes(runner)),
        ):
            if warning:
                runner.logger.warning(warning)


def learning_rate_warning(runner: Runner) -> str | None:
    """Warns if the config's rate is meant for another total batch size."""
    if runner._resume:
        return None  # the rate is that of the checkpoint
    if (runner.cfg.get('auto_scale_lr') or {}).get('enable'):
        return None
    scaling = lr_scaling(runner.cfg, runner.world_size)
    if scaling is None or scaling.factor == 1:
        return None
    return (
        f'{scaling.text}. It is not scaled: use --auto-scale-lr, '
        f'or --cfg-options optim_wrapper.optimizer.lr={scaling.lr:g}'
    )


def norm_warnings(model: nn.Module, images: int, processes: int) -> list[str]:
    """Warns of batch norms that do not suit the batches.

    The model is put in training mode. ``images`` are those of a process in a
    forward pass; 0 if not known.
    """
    model = unwrap(model)
    model.train()
    idle, small = [], []
    for name, module in model.named_modules():
        if not isinstance(module, _BatchNorm):
            continue
        batch, is_sync = images, 'SyncB' in type(module).__name__
        if is_sync:
            batch *= processes
        if is_sync and not module.training:
            idle.append(name)
        # The heads of a second stage get hundreds of regions, not images.
        regions = name.startswith('roi_head')
        if module.training and batch == 1 and not regions:
            small.append(name)
    warnings = []
    if idle:
        warnings.append(
            f'SyncBN: {len(idle)} layers ({idle[0]}, ...) are in evaluation '
            'mode and do not synchronise: norm_eval=True or '
            "frozen_stages keeps their statistics. Use norm_cfg=dict(type='BN'"
            ') with norm_eval=True, or SyncBN with norm_eval=False'
        )
    if small:
        text = (
            f'Batch norm: {len(small)} layers ({small[0]}, ...) compute their '
            'statistics from one image in each process: they are noise. Set '
            'norm_eval=True (with pre-trained weights), '
            'train_dataloader.batch_size=2 or more, or norm_cfg=dict('
            "type='GN', num_groups=32)"
        )
        if processes > 1:
            text += "; with several processes sync_bn='torch'"
        warnings.append(text)
    return warnings


def expected_bytes(runner: Runner) -> int:
    """Returns the size of a checkpoint, from the model and its optimizer."""
    parameters = list(runner.model.parameters())
    stored = chain(parameters, runner.model.buffers())
    weights = sum(tensor.nbytes for tensor in stored)
    trained = sum(p.nbytes for p in parameters if p.requires_grad)
    optimizer = getattr(runner.optim_wrapper, 'optimizer', None)
    states = 0
    if optimizer is not None:
        # Each weight has one more tensor for momentum, or two for Adam.
        states = 2 if 'Adam' in type(optimizer).__name__ else 1
        if isinstance(optimizer, torch.optim.SGD):
            states = int(optimizer.defaults['momentum'] > 0)
    if any(isinstance(hook, EMAHook) for hook in runner.hooks):
        weights *= 2
    return weights + trained * states


def checkpoints_to_come(runner: Runner) -> int:
    """Returns how many more checkpoints the run will add to its folder."""
    for hook in runner.hooks:
        if isinstance(hook, CheckpointHook) and hook.interval > 0:
            done, last = runner.iter, runner.max_iters
            if hook.by_epoch:
                done, last = runner.epoch, runner.max_epochs
            count = last // hook.interval - done // hook.interval
            if hook.save_last and last % hook.interval:
                count += 1
            if hook.max_keep_ckpts > 0:
                # A new file is complete before an old one is removed.
                count = min(count, hook.max_keep_ckpts + 1)
            return count
    return 0


def disk_warning(runner: Runner, size: int) -> str | None:
    """Warns if the disk is too small for checkpoints of ``size`` bytes."""
    folder = Path(runner.work_dir)
    free = shutil.disk_usage(folder).free
    count = checkpoints_to_come(runner)
    if free >= size * count:
        return None
    fit = free // size
    return (
        f'Disk: {_megabytes(free)} are free in {folder}. The run will write '
        f'{count} more checkpoints of {_megabytes(size)} each = '
        f'{_megabytes(size * count)}: the disk is full after {fit} of them. '
        'Free some space, or use --cfg-options '
        'default_hooks.checkpoint.max_keep_ckpts='
        f'{max(min(fit - 1, 3), 1)}'
    )


def _megabytes(size: int) -> str:
    return f'{size / 1e6:,.0f} MB'
