# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Saves a checkpoint when Ctrl-C or a cluster's SIGTERM ends a run."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from mmengine.dist import all_reduce, get_comm_device, get_world_size
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import Tensor
from torch.utils.data import DataLoader

from mmext.engine.optimizers import step_is_done
from mmext.engine.resume.exact_resume import ExactResumeHook

SIGNALS = (signal.SIGINT, signal.SIGTERM)
#: A second signal within this time, in seconds, is torchrun's repetition of
#: the first one and does not count.
REPEATED = 1.0


class Interrupted(KeyboardInterrupt):
    """A run was asked to stop and has saved the checkpoint that it names."""


class Agreement:
    """Answers whether any process of a run has said yes.

    All processes ask at the same places of the run. Each value is sent while
    the next step runs and read at the next question, so that no process
    waits: an answer belongs to the question before. Over NCCL, reading it
    waits for the device, for which MMEngine waited when it read the losses.
    """

    def __init__(self) -> None:
        self._work: dist.Work | None = None
        # One tensor for all questions, kept as long as this object: gloo's
        # thread releases it last. If it then had to free the tensor, it would
        # need Python's lock, and would abort a process that is ending.
        self._flag: Tensor | None = None

    def any(self, mine: bool, at_once: bool = False) -> bool:
        """Returns whether any process said yes to the last question.

        With ``at_once`` it also waits for the values of this question, so that
        no message is in flight afterwards.
        """
        if get_world_size() == 1:
            return mine
        answer = self._read()
        if self._flag is None:
            device = get_comm_device()
            self._flag = torch.zeros(1, dtype=torch.int32, device=device)
        self._flag.fill_(mine)
        self._work = dist.all_reduce(
            self._flag, dist.ReduceOp.MAX, async_op=True
        )
        if at_once:
            answer = self._read() or answer
        return answer

    def close(self) -> None:
        """Waits for the message in flight; a process must not end before."""
        with contextlib.suppress(RuntimeError):  # the other process has ended
            self._read()

    def _read(self) -> bool:
        if self._work is None:
            return False
        work, self._work = self._work, None
        work.wait()
        return bool(self._flag.item())


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
        self._training, self._agreed, self._asked = True, False, None
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
        self, runner: Runner, batch_idx: int, **kwargs: Any
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
        if self._heard(at_once=True):
            self._stop(runner, f'epoch_{runner.epoch + 1}.pth')

    def before_val_epoch(self, runner: Runner) -> None:
        if self._training:  # the batches that every process validates
            batches = torch.tensor(len(runner.val_dataloader))
            all_reduce(batches, 'min')
            self._shared = int(batches)

    def after_val_iter(
        self, runner: Runner, batch_idx: int, **kwargs: Any
    ) -> None:
        """Stops if the step that is being validated has been saved."""
        if self._training and batch_idx < self._shared and self._heard():
            saved = _last(runner)
            steps = f'epoch_{runner.epoch}.pth', f'iter_{runner.iter}.pth'
            if saved and Path(saved).name in steps:
                raise Interrupted(saved)

    def after_val_epoch(self, runner: Runner, **kwargs: Any) -> None:
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


def shield_workers(loader: DataLoader) -> None:
    """Makes only the loader itself stop its workers.

    Ctrl-C in a terminal and a cluster's SIGTERM reach every process of a job.
    If a worker dies of it, the training cannot finish the step or the
    validation before it saves.
    """
    loader.worker_init_fn = partial(_start, loader.worker_init_fn)


def _start(init: Callable[[int], None] | None, worker_id: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, 'sigwaitinfo'):  # not on macOS
        # The loader also ends its workers with SIGTERM.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_obey_the_loader, daemon=True).start()
    if init is not None:
        init(worker_id)


def _obey_the_loader() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
