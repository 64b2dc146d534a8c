# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Measures whether a data loader keeps up with the model."""

from __future__ import annotations

import copy
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from mmengine.config import Config
from torch.utils.benchmark import timer

from mmext.engine.trial import trial
from mmext.errors import UserError
from mmext.utils.machine import cores

#: Seconds for which batches are counted.
SECONDS = 4.0
STEPS = 3
#: How much faster than the model a loader should be: images of an epoch
#: differ.
MARGIN = 1.2


@dataclass(frozen=True)
class LoaderSpeed:
    """Images a second of a loader and of the training steps of its model."""

    workers: int
    loader: float
    model: float

    @property
    def needed(self) -> int:
        """The workers that feed the model, at most one for each core."""
        one = self.loader / max(self.workers, 1)
        return min(max(math.ceil(MARGIN * self.model / one), 1), cores())

    def __str__(self) -> str:
        workers = f'{self.workers} worker' + 's' * (self.workers != 1)
        text = (
            f'With {workers}, the loader feeds {self.loader:.3g} images a '
            f'second; the model takes {self.model:.3g}'
        )
        if not self.workers:
            share = self.model / (self.model + self.loader)
            return (
                f'{text}, and waits for {share:.0%} of the time: set '
                f'num_workers={self.needed}.'
            )
        if self.loader >= MARGIN * self.model:
            return f'{text}: the loader is not the bottleneck.'
        if self.needed > self.workers:
            return f'{text}: set num_workers={self.needed}.'
        return (
            f'{text}: the loader is the bottleneck on {cores()} cores. Resize '
            'images earlier, or store them smaller.'
        )


def require_workers(workers: int | str) -> None:
    """Raises ``UserError`` if this is no number of workers."""
    if workers != 'auto' and (not isinstance(workers, int) or workers < 0):
        raise UserError(
            f'--workers is {workers!r}',
            'Give the processes that load images, 0 for none, or auto.',
        )


def measure_loader(
    cfg: Config,
    workers: int | None = None,
    log: Callable[[str], object] = print,
) -> LoaderSpeed:
    """Measures the training loader of a config, then steps of the model.

    Both use the cores alone. On a CPU they share them in a training.

    Args:
        cfg: The config, which is not changed.
        workers: Worker processes. Default: the config's.
        log: Gets a line with what is measured, and one with the time left.

    Raises:
        UserError: The config has no training loader, or a step, or what
            builds the loader, fails.
    """
    if not cfg.get('train_dataloader'):
        raise UserError(
            f'{cfg.filename} has no train_dataloader',
            'Give a config that trains.',
        )
    cfg = copy.deepcopy(cfg)
    loader = cfg.train_dataloader
    loader.sampler = {'type': 'InfiniteSampler', 'shuffle': True}
    if workers is not None:
        loader.num_workers = workers
    log(f'Loads images for {SECONDS:g} s, then trains {1 + STEPS} steps.')
    with trial(cfg) as runner:
        built = runner.train_dataloader
        batches = iter(built)
        # The first ones are slower, and some wait when the clock starts.
        for _ in range(2 + built.num_workers * (built.prefetch_factor or 0)):
            batch = next(batches)
        images, start = 0, time.perf_counter()
        while (spent := time.perf_counter() - start) < SECONDS:
            batch = next(batches)
            images += len(batch['inputs'])
        del batches  # ends the workers
        times = []
        for _ in range(1 + STEPS):
            data = copy.deepcopy(batch)
            begin = timer()  # waits for the GPU
            runner.model.train_step(data, runner.optim_wrapper)
            times.append(timer() - begin)
            if len(times) == 1 and times[0] > 1:
                log(f'{STEPS * times[0]:.0f} s left')
        step = statistics.median(times[1:])
    return LoaderSpeed(
        loader.num_workers, images / spent, len(batch['inputs']) / step
    )


def find_workers(cfg: Config, log: Callable[[str], object] = print) -> int:
    """Returns how many workers feed the model of a config.

    Args:
        cfg: The config, which is not changed.
        log: Gets lines with what is measured, and what was found.

    Raises:
        UserError: See :func:`measure_loader`.
    """
    speed = measure_loader(cfg, 1, log)
    log(
        f'Workers: {speed.needed} (auto): one feeds {speed.loader:.3g} images '
        f'a second, the model takes {speed.model:.3g}'
    )
    return speed.needed
