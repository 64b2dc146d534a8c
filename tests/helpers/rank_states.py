# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Hooks that save the end state of each process, or stop it early."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner


@HOOKS.register_module()
class RankStates(Hook):
    """Writes weights and buffers of every process after the training."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def after_train(self, runner: Runner) -> None:
        state = runner.model.module.state_dict()
        torch.save(state, self.folder / f'{get_rank()}.pth')


@HOOKS.register_module()
class Dies(Hook):
    """Process 1 kills itself before a step, unless ``once`` exists."""

    def __init__(self, before: int, once: str) -> None:
        self.before = before
        self.once = Path(once)

    def before_train_iter(self, runner: Runner, *args, **kwargs) -> None:
        now = get_rank() == 1 and runner.iter == self.before
        if now and not self.once.exists():
            self.once.touch()
            os.kill(os.getpid(), signal.SIGKILL)


@HOOKS.register_module()
class Stops(Hook):
    """Process 1 stops the launcher or itself.

    Args:
        before: The step, counted from 0, before which the launcher gets
            SIGTERM. Default: none.
        validating: The epoch in whose validation this process and its
            loaders' workers get SIGINT. Default: none.
    """

    def __init__(
        self, before: int | None = None, validating: int | None = None
    ) -> None:
        self.before, self.validating = before, validating

    def before_train_iter(self, runner: Runner, *args, **kwargs) -> None:
        if get_rank() == 1 and runner.iter == self.before:
            os.kill(os.getppid(), signal.SIGTERM)

    def before_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None
    ) -> None:
        now = runner.epoch == self.validating and batch_idx == 0
        if get_rank() == 1 and now:
            os.killpg(0, signal.SIGINT)
