# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Warnings before the first step: learning rate, batch norm, disk."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from mmengine.hooks import CheckpointHook, EMAHook, Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmext.engine.lr_scaling import lr_scaling


@HOOKS.register_module()
class StartChecksHook(Hook):
    """Warns of what would cost a run its result; stops nothing.

    - A learning rate for another total batch than the run has.
    - SyncBN that ``norm_eval`` keeps from synchronising, and batch norm that
      learns its statistics from one image.
    - A disk that cannot hold the checkpoints that will be written.
    """

    priority = 'LOW'

    def before_train(self, runner) -> None:
        """Checks once."""
        for warning in (
            learning_rate_warning(runner),
            *norm_warnings(runner.model, _images(runner), runner.world_size),
            disk_warning(runner, expected_bytes(runner)),
        ):
            if warning:
                runner.logger.warning(warning)


def learning_rate_warning(runner) -> str | None:
    """The arithmetic, where the config's rate is for another batch."""
    if (runner.cfg.get('auto_scale_lr') or {}).get('enable'):
        return None
    scaling = lr_scaling(runner.cfg, runner.world_size)
    if scaling is None or scaling.factor == 1:
        return None
    return (
        f'{scaling}. It is not scaled: --auto-scale-lr does '
        f'it, or --cfg-options optim_wrapper.optimizer.lr={scaling.lr:g}'
    )


def _images(runner) -> int:
    """Images of one forward pass of one process."""
    loader = runner.train_dataloader
    # A loader with a batch sampler, as all of mmdet's, has no size itself.
    for owner in (loader, getattr(loader, 'batch_sampler', None)):
        if size := getattr(owner, 'batch_size', None):
            return size
    return 0


def norm_warnings(model: nn.Module, images: int, processes: int) -> list[str]:
    """What batch norm in training would do with these batches.

    Args:
        model: The model, wrapped or not; it is put in training mode.
        images: Of a forward pass; 0 where that is not known.
        processes: That share a batch.
    """
    while is_model_wrapper(model):
        model = model.module
    model.train()
    idle, small = [], []
    for name, module in model.named_modules():
        if not isinstance(module, _BatchNorm):
            continue
        synchronised = 'SyncB' in type(module).__name__ and processes > 1
        if 'SyncB' in type(module).__name__ and not module.training:
            idle.append(name)
        # The heads of a second stage see hundreds of regions, not images.
        alone = images * (processes if synchronised else 1) == 1
        if module.training and alone and not name.startswith('roi_head'):
            small.append(name)
    warnings = []
    if idle:
        warnings.append(
            f'SyncBN: {len(idle)} layers ({idle[0]}, ...) are in evaluation '
            'mode and will not synchronise anything: norm_eval=True or '
            "frozen_stages keeps their statistics. Use norm_cfg=dict(type='BN'"
            ') with norm_eval=True, or SyncBN with norm_eval=False'
        )
    if small:
        warnings.append(
            f'Batch norm: {len(small)} layers ({small[0]}, ...) learn their '
            'statistics from one image a process: they are noise. Set '
            'norm_eval=True (with pre-trained weights), '
            'train_dataloader.batch_size=2 or more, or norm_cfg=dict('
            "type='GN', num_groups=32)"
            + ("; with several processes sync_bn='torch'" * (processes > 1))
        )
    return warnings


def expected_bytes(runner) -> int:
    """Size of a checkpoint, from the model and its optimiser."""
    model = runner.model
    weights = sum(t.numel() * t.element_size() for t in _tensors(model))
    trained = sum(
        p.numel() * p.element_size()
        for p in model.parameters()
        if p.requires_grad
    )
    optimizer = getattr(runner.optim_wrapper, 'optimizer', None)
    states = 0
    if optimizer is not None:
        # One more tensor a weight for momentum, two for Adam's moments.
        states = 2 if 'Adam' in type(optimizer).__name__ else 1
        if isinstance(optimizer, torch.optim.SGD):
            states = int(optimizer.defaults['momentum'] > 0)
    averaged = any(isinstance(hook, EMAHook) for hook in runner.hooks)
    return weights * (1 + averaged) + trained * states


def _tensors(model: nn.Module):
    yield from model.parameters()
    yield from model.buffers()


def checkpoints_to_come(runner) -> int:
    """How many more files the run will add to its folder."""
    for hook in runner.hooks:
        if isinstance(hook, CheckpointHook) and hook.interval > 0:
            done, last = runner.iter, runner.max_iters
            if hook.by_epoch:
                done, last = runner.epoch, runner.max_epochs
            count = last // hook.interval - done // hook.interval
            count += bool(hook.save_last and last % hook.interval)
            if hook.max_keep_ckpts > 0:
                # One more, since a new one is whole before an old one goes.
                count = min(count, hook.max_keep_ckpts + 1)
            return count
    return 0


def disk_warning(runner, size: int) -> str | None:
    """Whether the disk holds what is still to be written.

    Args:
        runner: In training.
        size: Of a checkpoint, in bytes.
    """
    folder = Path(runner.work_dir)
    free = shutil.disk_usage(folder).free
    count = checkpoints_to_come(runner)
    if free >= size * count:
        return None
    fit = free // size
    return (
        f'Disk: {_megabytes(free)} are free in {folder}; {count} more '
        f'checkpoints of {_megabytes(size)} each = {_megabytes(size * count)} '
        f'are to come, and it is full after {fit} of them. Free some space, '
        'or --cfg-options default_hooks.checkpoint.max_keep_ckpts='
        f'{max(min(fit - 1, 3), 1)}'
    )


def _megabytes(size: int) -> str:
    return f'{size / 1e6:,.0f} MB'
