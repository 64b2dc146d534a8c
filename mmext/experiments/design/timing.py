# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Measures the time of training steps, to tell how long a plan takes."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable
from dataclasses import dataclass

from mmengine.config import Config
from mmengine.runner import Runner
from torch.utils.benchmark import timer

from mmext.engine.trial import trial
from mmext.evaluation.cost.latency import device_name
from mmext.utils.machine import cores
from mmext.utils.text import count

#: Steps that are not measured: they start workers and choose algorithms.
WARM_UP, MEASURED = 2, 5
#: Seconds after which one measured step is enough.
_MOST_SECONDS = 60


@dataclass(frozen=True)
class TrainingTime:
    """Time of a training, without its validations and its test.

    Args:
        step: Median time of a step with its data loading, in seconds.
        steps: Number of steps of the training.
        device: What it was measured on.
    """

    step: float
    steps: int
    device: str

    @property
    def seconds(self) -> float:
        """Time of all steps."""
        return self.step * self.steps


def time_training(
    cfg: Config, progress: Callable[[float], None] | None = None
) -> TrainingTime:
    """Trains a few steps with random weights, and keeps nothing.

    Args:
        cfg: The config, which is not changed.
        progress: Called with the share that is done, from 0 to 1.

    Raises:
        UserError: A step fails.
    """
    with trial(cfg) as runner:
        return _time(runner, progress or (lambda share: None))


def busy_warnings() -> list[str]:
    """Warns if other processes slow the steps that are measured."""
    load, number = os.getloadavg()[0], cores()
    if load < 0.75 * number:
        return []
    return [
        f'Other processes use the CPU (load {load:.1f} on '
        f'{count(number, "core")}): a training on an idle machine is faster.'
    ]


def _time(runner: Runner, progress: Callable[[float], None]) -> TrainingTime:
    loop = runner.train_loop
    device = next(runner.model.parameters()).device
    batches, times = iter(loop.dataloader), []
    for done in range(WARM_UP + MEASURED):
        progress(done / (WARM_UP + MEASURED))
        start = timer()  # waits for the GPU
        batch = next(batches, None)
        if batch is None:
            batches = iter(loop.dataloader)
            batch = next(batches)
        runner.model.train_step(batch, optim_wrapper=runner.optim_wrapper)
        times.append(timer() - start)
        if done >= WARM_UP and sum(times) > _MOST_SECONDS:
            break
    return TrainingTime(
        step=statistics.median(times[WARM_UP:]),
        steps=loop.max_iters,
        device=device_name(device),
    )
