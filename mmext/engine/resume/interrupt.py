# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Ctrl-C, and a cluster's SIGTERM, save a checkpoint before they end a run."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop

from mmext.engine.optimizers import step_is_done
from mmext.engine.resume.agreement import Agreement
from mmext.engine.resume.exact_resume import ExactResumeHook

SIGNALS = (signal.SIGINT, signal.SIGTERM)
#: torchrun repeats a signal at once; a user who means it takes longer.
REPEATED = 1.0  # seconds


class Interrupted(KeyboardInterrupt):
    """A run that was asked to stop and has saved what it had."""


@HOOKS.register_module()
class InterruptHook(Hook):
    """Ends a run after the step it is in, with a checkpoint.

    A second Ctrl-C, a second later or more, ends it at once. Several processes
    stop at the same step, whichever of them the signal reached: the one after
    the step in which it came. The first saves for all.
    """

    priority = 'LOWEST'  # after all that belongs to the step

    def __init__(self) -> None:
        self._asked: signal.Signals | None = None
        self._agreement = Agreement()
        self._training = self._agreed = False
        self._before: dict[signal.Signals, Any] = {}

    def before_train(self, runner) -> None:
        """Listens from here on."""
        self._training, self._agreed = True, False
        self._asked = None
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
        if self._training:
            self._training = False
            self._agreement.close()

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
            self._training = False  # whatever the others do
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
        if not self._heard():
            return
        loop = runner.train_loop
        ends = isinstance(loop, EpochBasedTrainLoop) and self.end_of_epoch(
            loop.dataloader, batch_idx
        )
        if step_is_done(runner.optim_wrapper) and not ends:
            self._stop(runner, f'iter_{runner.iter + 1}.pth', by_epoch=False)

    def after_train_epoch(self, runner) -> None:
        """Saves and stops at the end of an epoch."""
        if self._heard(at_once=True):
            name = f'epoch_{runner.epoch + 1}.pth'
            self._stop(runner, name, by_epoch=True)

    def before_val_epoch(self, runner) -> None:
        """Finds how many batches every process validates at least."""
        if self._training:
            batches = torch.tensor(len(runner.val_dataloader))
            all_reduce(batches, 'min')
            self._shared = int(batches)

    def after_val_iter(
        self,
        runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
    ) -> None:
        """Stops if the step that is validated was saved before."""
        if not self._training or batch_idx >= self._shared:
            return
        if self._heard():
            saved = _last(runner)
            steps = f'epoch_{runner.epoch}.pth', f'iter_{runner.iter}.pth'
            if saved and Path(saved).name in steps:
                raise Interrupted(saved)

    def after_val_epoch(self, runner, metrics: dict | None = None) -> None:
        """Saves and stops after a validation."""
        if self._heard(at_once=True):
            meta = {'epoch': runner.epoch, 'iter': runner.iter}
            self._stop(runner, f'iter_{runner.iter}.pth', meta=meta)

    def _heard(self, at_once: bool = False) -> bool:
        """Whether to stop; the same in all processes."""
        if self._training and not self._agreed:
            asked = self._asked is not None
            self._agreed = self._agreement.any(asked, at_once)
        return self._training and self._agreed

    def _stop(self, runner, name: str, **options: Any) -> None:
        saved = _last(runner)
        if not saved or Path(saved).name != name:
            saved = str(Path(runner.work_dir, name))
            for hook in runner.hooks:
                if isinstance(hook, ExactResumeHook):
                    hook.gather(runner)
            runner.save_checkpoint(runner.work_dir, name, **options)
        raise Interrupted(saved)


def _last(runner) -> str | None:
    """The checkpoint that CheckpointHook wrote last."""
    return runner.message_hub.runtime_info.get('last_ckpt')
