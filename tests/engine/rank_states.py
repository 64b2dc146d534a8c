# Licensed under the Apache License, Version 2.0. See LICENSE.
"""A hook that keeps what each process ends with, and one that dies."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class RankStates(Hook):
    """Writes every process's weights and buffers after the training."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def after_train(self, runner) -> None:
        state = runner.model.module.state_dict()
        torch.save(state, self.folder / f'{get_rank()}.pth')


@HOOKS.register_module()
class Dies(Hook):
    """Process 1 kills itself before a step, unless ``once`` is there."""

    def __init__(self, before: int, once: str) -> None:
        self.before = before
        self.once = Path(once)

    def before_train_iter(self, runner, *args, **kwargs) -> None:
        now = get_rank() == 1 and runner.iter == self.before
        if now and not self.once.exists():
            self.once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
