# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Optimizers on the CPU, and scaled learning rates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn


@OPTIM_WRAPPERS.register_module()
class CPUAmpOptimWrapper(OptimWrapper):
    """An ``OptimWrapper`` whose forward pass runs in bfloat16 on the CPU.

    ``AmpOptimWrapper`` does not work there: PyTorch implements no float16
    convolutions for the CPU. bfloat16 has the range of float32, so that the
    loss need not be scaled. Weights, gradients and the state of the optimizer
    stay in float32. The arguments are those of ``OptimWrapper``.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        cast = torch.autocast('cpu', dtype=torch.bfloat16)
        with super().optim_context(model), cast:
            yield

    def load_state_dict(self, state_dict: dict) -> None:
        """Loads a state, also that of a run with loss scaling (on a GPU)."""
        state_dict.pop('loss_scaler', None)
        super().load_state_dict(state_dict)


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
    gpus = '' if base % 8 else f' (8 GPUs x {base // 8})'
    plural = '' if processes == 1 else 'es'
    run = f'{processes} process{plural} x {images} images'
    if accumulated > 1:
        run += f' x {accumulated} accumulated'
    text = (
        f'lr {lr:g} is meant for a total batch of {base}{gpus}; this run has '
        f'{run} = {batch}: lr {lr:g} x {batch} / {base} = {lr * factor:g}'
    )
    return LRScaling(factor, lr * factor, text)
