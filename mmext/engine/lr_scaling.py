# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The linear scaling rule of the learning rate.

A config's learning rate is meant for one total batch size, which mmdet's
configs name in ``auto_scale_lr.base_batch_size``. For another batch size the
rate changes in proportion (Goyal et al., "Accurate, Large Minibatch SGD:
Training ImageNet in 1 Hour", 2017, section 2.1).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class LRScaling:
    """The learning rate of a config and of a run with another batch size.

    Attributes:
        base_batch: Images of a step that the config's rate is meant for.
        base_lr: The config's learning rate.
        processes: Processes of the run, one for each GPU.
        images: Images of a process in one forward pass.
        accumulated: Forward passes of a step of the optimizer. Default: 1.
    """

    base_batch: int
    base_lr: float
    processes: int
    images: int
    accumulated: int = 1

    @property
    def batch(self) -> int:
        """Images of a step of the optimizer."""
        return self.processes * self.images * self.accumulated

    @property
    def factor(self) -> float:
        """What the config's learning rate is multiplied with."""
        return self.batch / self.base_batch

    @property
    def lr(self) -> float:
        """The learning rate for the batch size of the run."""
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
    """Returns how the learning rate of a config scales.

    Args:
        cfg: The config; ``auto_scale_lr.base_batch_size``, ``optim_wrapper``
            and ``train_dataloader.batch_size`` are read.
        processes: Processes of the run, one for each GPU.

    Returns:
        None if the config does not name the batch size that its rate is meant
        for, or has no single rate or batch size (several optimizers, a batch
        sampler of its own).
    """
    base = (cfg.get('auto_scale_lr') or {}).get('base_batch_size')
    wrapper = cfg.get('optim_wrapper') or {}
    lr = (wrapper.get('optimizer') or {}).get('lr')
    images = (cfg.get('train_dataloader') or {}).get('batch_size')
    if not (base and lr and images):
        return None
    accumulated = wrapper.get('accumulative_counts', 1)
    return LRScaling(base, lr, processes, images, accumulated)
