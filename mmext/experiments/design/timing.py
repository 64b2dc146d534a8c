# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Measures the time of training steps, to tell how long a plan takes."""

from __future__ import annotations

import copy
import io
import statistics
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any

from mmengine.config import Config
from mmengine.runner import Runner
from torch.utils.benchmark import timer

from mmext.engine.launch import build_runner
from mmext.errors import UserError
from mmext.evaluation.cost.latency import device_name

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
    with TemporaryDirectory() as folder:
        try:
            with redirect_stdout(io.StringIO()):  # of pycocotools
                runner = build_runner(_silent(cfg, folder))
                loop = runner.train_loop  # builds the loader
            return _time(runner, loop, progress or (lambda share: None))
        except UserError:
            raise
        except Exception as error:  # of any model
            raise UserError(
                f'{cfg.filename}: a training step fails: '
                f'{type(error).__name__}: {error}',
                'mmext train shows where. --no-timing plans without steps.',
            ) from error


def _silent(cfg: Config, folder: str) -> Config:
    """A config whose runner writes into a folder, and nowhere else."""
    cfg = copy.deepcopy(cfg)
    cfg.work_dir = folder
    cfg.load_from, cfg.resume = None, False
    cfg.log_level = 'ERROR'
    cfg.visualizer = {'type': 'Visualizer', 'vis_backends': []}
    return cfg


def _time(
    runner: Runner, loop: Any, progress: Callable[[float], None]
) -> TrainingTime:
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    runner.optim_wrapper.initialize_count_status(
        runner.model, 0, loop.max_iters
    )
    device = next(runner.model.parameters()).device
    runner.model.train()
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
