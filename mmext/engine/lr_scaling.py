# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The linear scaling rule: what a learning rate is worth at another batch.

A config's learning rate belongs to one total batch, which mmdet's configs
name in ``auto_scale_lr.base_batch_size``. With another one the rate should
change in proportion (Goyal et al., "Accurate, Large Minibatch SGD", 2017).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class LRScaling:
    """The arithmetic from a config's batch to that of a run.

    Attributes:
        base_batch: Images a step that the config's rate is meant for.
        base_lr: The config's rate.
        processes: Of the run, one a GPU.
        images: A process and forward pass.
        accumulated: Forward passes a step of the optimiser.
    """

    base_batch: int
    base_lr: float
    processes: int
    images: int
    accumulated: int = 1

    @property
    def batch(self) -> int:
        """Images a step of the optimiser."""
        return self.processes * self.images * self.accumulated

    @property
    def factor(self) -> float:
        """What the rate is to be multiplied with."""
        return self.batch / self.base_batch

    @property
    def lr(self) -> float:
        """The rate for this run's batch."""
        return self.base_lr * self.factor

    def __str__(self) -> str:
        usual = self.base_batch // 8
        example = (
            f' (8 GPUs x {usual})' if usual * 8 == self.base_batch else ''
        )
        plural = '' if self.processes == 1 else 'es'
        run = f'{self.processes} process{plural} x {self.images} images'
        if self.accumulated > 1:
            run += f' x {self.accumulated} accumulated'
        return (
            f'lr {self.base_lr:g} is meant for a total batch of '
            f'{self.base_batch}{example}; this run has {run} = {self.batch}: '
            f'lr {self.base_lr:g} x {self.batch} / {self.base_batch} = '
            f'{self.lr:g}'
        )


def lr_scaling(cfg: Mapping[str, Any], processes: int) -> LRScaling | None:
    """The scaling of a config's learning rate for a number of processes.

    Args:
        cfg: The config: ``auto_scale_lr.base_batch_size``,
            ``optim_wrapper`` and ``train_dataloader.batch_size`` are read.
        processes: Of the run, one a GPU.

    Returns:
        None where the config does not name its batch, or names no single
        rate or batch (several optimisers, a batch sampler of its own).
    """
    base = (cfg.get('auto_scale_lr') or {}).get('base_batch_size')
    wrapper = cfg.get('optim_wrapper') or {}
    lr = (wrapper.get('optimizer') or {}).get('lr')
    images = (cfg.get('train_dataloader') or {}).get('batch_size')
    if not (base and lr and images):
        return None
    accumulated = wrapper.get('accumulative_counts', 1)
    return LRScaling(base, lr, processes, images, accumulated)
