# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The linear scaling rule of the learning rate.

A config's learning rate is meant for one total batch size, which mmdet's
configs name in ``auto_scale_lr.base_batch_size``. For another batch size the
rate changes in proportion (Goyal et al., "Accurate, Large Minibatch SGD:
Training ImageNet in 1 Hour", 2017, section 2.1).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class LRScaling(NamedTuple):
    """The learning rate of a run with another batch size than the config's."""

    factor: float
    lr: float
    text: str


def lr_scaling(cfg: Mapping[str, Any], processes: int) -> LRScaling | None:
    """Returns how the learning rate of a config scales in a run.

    It is None if the config does not name the batch size that its rate is
    meant for, or has no single rate or batch size (several optimizers, a batch
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
