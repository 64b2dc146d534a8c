# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Ctrl-C, and a cluster's SIGTERM, save a checkpoint before they end a run."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop

SIGNALS = (signal.SIGINT, signal.SIGTERM)
#: torchrun repeats a signal at once; a user who means it takes longer.
REPEATED = 1.0  # seconds


class Interrupted(KeyboardInterrupt):
    """A run that was asked to stop and has saved what it had."""


@HOOKS.register_module()
class InterruptHook(Hook):
    """Ends a run after the step it is in, with a checkpoint.

    A second Ctrl-C, a second later or more, ends it at once. With several
    processes the first saves; the others go on until it has ended, since none
    of them knows at which step it stops.
    """

    priority = 'LOWEST'  # after all that belongs to the step

    def __init__(self) -> None:
        self._asked: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def before_train(self, runner) -> None:
        """Listens from here on."""
        if threading.current_thread() is threading.main_thread():
            self._rank = runner.rank
            self._logger = runner.logger
            for number in SIGNALS:
                self._before[number] = signal.signal(number, self._ask)

    def stop_listening(self) -> None:
        """Gives the signals back; called by the runner, however it ends."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _ask(self, number: int, frame: Any) -> None:
        now = time.monotonic()
        if self._asked is None:
            self._asked, self._when = signal.Signals(number), now
            if self._rank == 0:
                self._logger.warning(
                    f'{self._asked.name}: saving after this step; once more '
                    'to stop without saving'
                )
        elif now - self._when > REPEATED:
            self.stop_listening()
            raise KeyboardInterrupt

    def after_train_iter(
        self,
        runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict | None = None,
    ) -> None:
        """Saves and stops, unless gradients are still being gathered."""
        if not self._heard(runner):
            return
        loop = runner.train_loop
        ends = isinstance(loop, EpochBasedTrainLoop) and self.end_of_epoch(
            loop.dataloader, batch_idx
        )
        if runner.optim_wrapper.should_update() and not ends:
            step = runner.iter + 1
            self._stop(runner, f'iter_{step}.pth', by_epoch=False)

    def after_train_epoch(self, runner) -> None:
        """Saves and stops at the end of an epoch."""
        if self._heard(runner):
            step = runner.epoch + 1
            self._stop(runner, f'epoch_{step}.pth', by_epoch=True)

    def after_val_iter(
        self,
        runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
    ) -> None:
        """Stops if the step that is validated was saved before."""
        if self._heard(runner):
            saved = _last(runner)
            steps = f'epoch_{runner.epoch}.pth', f'iter_{runner.iter}.pth'
            if saved and Path(saved).name in steps:
                raise Interrupted(saved)

    def after_val_epoch(self, runner, metrics: dict | None = None) -> None:
        """Saves and stops after a validation."""
        if self._heard(runner):
            meta = {'epoch': runner.epoch, 'iter': runner.iter}
            self._stop(runner, f'iter_{runner.iter}.pth', meta=meta)

    def _heard(self, runner) -> bool:
        return self._asked is not None and runner.rank == 0

    def _stop(self, runner, name: str, **options: Any) -> None:
        saved = _last(runner)
        if not saved or Path(saved).name != name:
            saved = str(Path(runner.work_dir, name))
            runner.save_checkpoint(runner.work_dir, name, **options)
        raise Interrupted(saved)


def _last(runner) -> str | None:
    """The checkpoint that CheckpointHook wrote last."""
    return runner.message_hub.runtime_info.get('last_ckpt')
