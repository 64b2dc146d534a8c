# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Saves a checkpoint when Ctrl-C or a cluster's SIGTERM ends a run."""

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
from mmengine.runner import EpochBasedTrainLoop, Runner

from mmext.engine.optimizers import step_is_done
from mmext.engine.resume.agreement import Agreement
from mmext.engine.resume.exact_resume import ExactResumeHook

SIGNALS = (signal.SIGINT, signal.SIGTERM)
#: A second signal within this time, in seconds, is torchrun's repetition of
#: the first one and does not count.
REPEATED = 1.0


class Interrupted(KeyboardInterrupt):
    """A run was asked to stop and has saved the checkpoint that it names."""


@HOOKS.register_module()
class InterruptHook(Hook):
    """Saves and ends a run after the current step.

    A second Ctrl-C, at least a second later, ends the run at once. Several
    processes stop at the same step, whichever of them got the signal: the
    step after the one in which it came. The first process saves.
    """

    priority = 'LOWEST'  # after everything that belongs to the step

    def __init__(self) -> None:
        self._asked: signal.Signals | None = None
        self._agreement = Agreement()
        self._training = self._agreed = False
        self._before: dict[signal.Signals, Any] = {}

    def before_train(self, runner: Runner) -> None:
        """Installs the signal handlers."""
        self._training, self._agreed = True, False
        self._asked = None
        if threading.current_thread() is threading.main_thread():
            self._rank = runner.rank
            self._logger = runner.logger
            for number in SIGNALS:
                self._before[number] = signal.signal(number, self._ask)

    def stop_listening(self) -> None:
        """Restores the signal handlers; the runner calls this at its end."""
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
                    f'{self._asked.name}: saving after this step; send it '
                    'again to stop without saving'
                )
        elif now - self._when > REPEATED:
            self._training = False  # do not wait for the other processes
            self.stop_listening()
            raise KeyboardInterrupt

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict | None = None,
    ) -> None:
        """Saves and stops, unless gradients are being accumulated."""
        if not self._heard():
            return
        loop = runner.train_loop
        ends = isinstance(loop, EpochBasedTrainLoop) and self.end_of_epoch(
            loop.dataloader, batch_idx
        )
        if step_is_done(runner.optim_wrapper) and not ends:
            self._stop(runner, f'iter_{runner.iter + 1}.pth', by_epoch=False)

    def after_train_epoch(self, runner: Runner) -> None:
        """Saves and stops at the end of an epoch."""
        if self._heard(at_once=True):
            name = f'epoch_{runner.epoch + 1}.pth'
            self._stop(runner, name, by_epoch=True)

    def before_val_epoch(self, runner: Runner) -> None:
        """Finds the number of batches that every process validates."""
        if self._training:
            batches = torch.tensor(len(runner.val_dataloader))
            all_reduce(batches, 'min')
            self._shared = int(batches)

    def after_val_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
    ) -> None:
        """Stops if the step that is being validated has been saved."""
        if not self._training or batch_idx >= self._shared:
            return
        if self._heard():
            saved = _last(runner)
            steps = f'epoch_{runner.epoch}.pth', f'iter_{runner.iter}.pth'
            if saved and Path(saved).name in steps:
                raise Interrupted(saved)

    def after_val_epoch(
        self, runner: Runner, metrics: dict[str, float] | None = None
    ) -> None:
        """Saves and stops after a validation."""
        if self._heard(at_once=True):
            meta = {'epoch': runner.epoch, 'iter': runner.iter}
            self._stop(runner, f'iter_{runner.iter}.pth', meta=meta)

    def _heard(self, at_once: bool = False) -> bool:
        """Returns whether to stop; the same in all processes."""
        if self._training and not self._agreed:
            asked = self._asked is not None
            self._agreed = self._agreement.any(asked, at_once)
        return self._training and self._agreed

    def _stop(self, runner: Runner, name: str, **options: Any) -> None:
        saved = _last(runner)
        if not saved or Path(saved).name != name:
            saved = str(Path(runner.work_dir, name))
            for hook in runner.hooks:
                if isinstance(hook, ExactResumeHook):
                    hook.gather(runner)
            runner.save_checkpoint(runner.work_dir, name, **options)
        raise Interrupted(saved)


def _last(runner: Runner) -> str | None:
    """Returns the checkpoint that CheckpointHook has written last."""
    return runner.message_hub.runtime_info.get('last_ckpt')
