# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Passes of optimizers on the CPU, and scaled learning rates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from mmengine.config import Config
from mmengine.optim import OptimWrapper, OptimWrapperDict

from mmext.errors import UserError


def members(wrapper: OptimWrapper) -> list[OptimWrapper]:
    """Returns the wrappers that hold one optimizer each."""
    if isinstance(wrapper, OptimWrapperDict):
        return [*wrapper.values()]
    return [wrapper]


def update_in_one_pass(wrapper: OptimWrapper) -> None:
    """Makes SGD and Adam read and write each weight of a step once.

    PyTorch's default on a CPU is one pass for each operation. The results
    differ by rounding. ``fused=False`` in a config's optimizer keeps them.
    """
    for member in members(wrapper):
        for group in member.optimizer.param_groups:
            unset = group.get('fused', False) is None
            if unset and group.get('foreach') is None:
                group['fused'] = True


def step_is_done(wrapper: OptimWrapper) -> bool:
    """Returns whether no gradient is accumulated for a later step."""
    return all(member.should_update() for member in members(wrapper))


class LRScaling(NamedTuple):
    """The learning rate of a run with another batch size than the config's."""

    factor: float
    lr: float
    text: str


def lr_scaling(cfg: Mapping[str, Any], processes: int) -> LRScaling | None:
    """Returns how the learning rate of a config scales in a run.

    A config's rate is meant for one total batch size, which mmdet's configs
    name in ``auto_scale_lr.base_batch_size``; for another one it changes in
    proportion (Goyal et al., "Accurate, Large Minibatch SGD: Training ImageNet
    in 1 Hour", 2017, section 2.1). Returns None if the config does not name
    that size, or has no single rate or batch size (several optimizers, a batch
    sampler of its own).
    """
    base = (cfg.get('auto_scale_lr') or {}).get('base_batch_size')
    wrapper = cfg.get('optim_wrapper') or {}
    lr = (wrapper.get('optimizer') or {}).get('lr')
    images = (cfg.get('train_dataloader') or {}).get('batch_size')
    if not (base and lr and images):
        return None
    accumulated = wrapper.get('accumulative_counts', 1)
    batch = processes * images * accumulated
    factor = batch / base
    gpus = '' if base % 8 or base == 8 else f' (8 GPUs x {base // 8})'
    plural = '' if processes == 1 else 'es'
    run = f'{processes} process{plural} x {images} images'
    if accumulated > 1:
        run += f' x {accumulated} accumulated'
    text = (
        f'lr {lr:g} is meant for a total batch of {base}{gpus}; this run has '
        f'{run} = {batch}: lr {lr:g} x {batch} / {base} = {lr * factor:g}'
    )
    return LRScaling(factor, lr * factor, text)


def scaled_peaks(schedules: Any, factor: float) -> Any:
    """Returns the configs of schedules with their peaks scaled too.

    ``eta_max`` of ``OneCycleLR`` replaces the rate of the optimizer. Other
    schedules are factors of it, or of other parameters, and stay as they are.
    """
    if isinstance(schedules, list):
        return [scaled_peaks(schedule, factor) for schedule in schedules]
    if (
        isinstance(schedules, Mapping)
        and 'eta_max' in schedules
        and schedules.get('param_name', 'lr') == 'lr'
    ):
        return {**schedules, 'eta_max': schedules['eta_max'] * factor}
    return schedules


def set_auto_scale_lr(cfg: Config) -> None:
    """Scales the learning rate in proportion to the total batch.

    Raises `UserError` if the config does not say for which batch it is meant.
    """
    if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
        raise UserError(
            '--auto-scale-lr: the config does not say for which total batch '
            'its learning rate is meant',
            '--cfg-options +auto_scale_lr.base_batch_size=16',
        )
    cfg.auto_scale_lr.enable = True
