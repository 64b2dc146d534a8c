# Licensed under the Apache License, Version 2.0. See LICENSE.
"""What MMEngine's checkpoints leave out, so that a resumed run ends alike.

- A checkpoint from the middle of an epoch: MMEngine would begin that epoch
  anew. Here the batches that were done are passed over, and the generators of
  random numbers go on where they stopped.
- The order of the images where no seed is given: it is the checkpoint's seed
  that counts, and MMEngine's sampler has another one by then.
- Gradients that are gathered for a step that is not due, where an epoch's
  batches are no multiple of ``accumulative_counts``; of one process.
- ``EarlyStoppingHook``'s patience: MMEngine would begin counting anew.
- Whether the step was validated: a checkpoint that is written after the
  validation, as that of a new best one is, has all that came of it.
"""

from __future__ import annotations

from typing import Any

from mmengine.dist import all_gather_object
from mmengine.hooks import CheckpointHook, EarlyStoppingHook, Hook
from mmengine.registry import HOOKS, LOOPS
from mmengine.runner import EpochBasedTrainLoop
from torch import Tensor, nn

from mmext.engine.optimizers import step_is_done
from mmext.utils.random_state import random_state, set_random_state

KEY = 'mmext_resume'


@LOOPS.register_module()
class ResumableEpochLoop(EpochBasedTrainLoop):
    """An epoch loop that can go on in the middle of an epoch.

    The arguments are those of ``EpochBasedTrainLoop``, for which
    ``ReliableRunner`` takes this one.
    """

    _done = 0
    _state: dict[str, Any] | None = None

    def resume_within(self, done: int, state: dict[str, Any] | None) -> None:
        """Passes over the first batches of the next epoch to run.

        They are loaded all the same: what a worker draws for a batch depends
        on the batches before it.

        Args:
            done: Batches of that epoch that were trained on.
            state: Of the random generators after them. Default: unknown.
        """
        self._done, self._state = done, state

    def run_epoch(self) -> None:
        """One epoch, or the rest of one."""
        super().run_epoch()
        self._done = 0

    def run_iter(self, idx: int, data_batch: Any) -> None:
        """One step, unless it was done before the run broke off."""
        if idx >= self._done:
            super().run_iter(idx, data_batch)
        elif idx == self._done - 1 and self._state is not None:
            set_random_state(self._state)


@HOOKS.register_module()
class ExactResumeHook(Hook):
    """Saves and restores what MMEngine's checkpoints leave out.

    Bit for bit on the CPU, over several processes too: all of them are asked
    (:meth:`gather`) where one within an epoch is about to be saved.
    """

    priority = 'LOW'  # after whom a validation changes, before CheckpointHook

    def __init__(self) -> None:
        self._done = 0
        self._validated: int | None = None
        self._loaded: dict[str, Any] = {}
        self._processes: list[dict[str, Any]] = []

    def gather(self, runner) -> None:
        """Collects, for the next checkpoint, what each process alone knows.

        All of them call it: the state of its random generators, and, from the
        second on, the statistics that are averaged only when an epoch ends.
        """
        buffers = {} if runner.rank == 0 else _statistics(runner.model)
        self._processes = all_gather_object(
            {'random_state': random_state(), 'buffers': buffers}
        )

    def before_run(self, runner) -> None:
        """Notes the seed that the sampler was built with."""
        self._drawn = runner.seed

    def before_train(self, runner) -> None:
        """Sets the loop to the batch that is next."""
        loop = runner.train_loop
        batches = getattr(loop.dataloader, 'batch_sampler', None)
        sampler = getattr(batches, 'sampler', None)
        if getattr(sampler, 'seed', None) == self._drawn:
            sampler.seed = runner.seed
        for name, value in self._loaded.get('gradients', {}).items():
            runner.model.get_parameter(name).grad = value
        done = self._loaded.get('batches_done', 0)
        if not done or not isinstance(loop, ResumableEpochLoop):
            return
        if self._loaded['batches'] != len(loop.dataloader):
            runner.logger.warning(
                f'The checkpoint is from the middle of an epoch of '
                f'{self._loaded["batches"]} batches, and now it has '
                f'{len(loop.dataloader)}: epoch {loop.epoch + 1} begins anew'
            )
            loop._iter = loop.epoch * len(loop.dataloader)
            return
        runner.logger.info(
            f'Resuming within epoch {loop.epoch + 1}: its first {done} of '
            f'{len(loop.dataloader)} batches are loaded and passed over'
        )
        processes = dict(enumerate(self._loaded['processes']))
        mine = processes.get(runner.rank, {})
        loop.resume_within(done, mine.get('random_state'))
        for name, value in mine.get('buffers', {}).items():
            runner.model.get_buffer(name).copy_(value)

    def before_train_iter(
        self, runner, batch_idx: int, data_batch: Any = None
    ) -> None:
        """Counts."""
        self._done = batch_idx + 1

    def after_train_iter(
        self,
        runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict | None = None,
    ) -> None:
        """Asks all processes where CheckpointHook is about to save."""
        if runner.world_size > 1 and any(
            isinstance(hook, CheckpointHook) and _saves_now(hook, runner)
            for hook in runner.hooks
        ):
            self.gather(runner)

    def after_train_epoch(self, runner) -> None:
        """Begins to count anew: what is saved from here on has the epoch."""
        self._done = 0

    def after_val_epoch(self, runner, metrics: dict | None = None) -> None:
        """Notes it."""
        self._validated = runner.iter

    @property
    def may_lack_validation(self) -> bool:
        """Whether the resumed checkpoint has no validation of its step."""
        known = 'validated', 'batches_done'
        return not any(self._loaded.get(key) for key in known)

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Adds its own to a checkpoint that can be resumed."""
        if 'optimizer' not in checkpoint:
            return
        loop = runner.train_loop
        extra: dict[str, Any] = {
            'validated': self._validated == checkpoint['meta']['iter'],
            'stop_training': loop.stop_training,
            'early_stopping': [
                [hook.wait_count, float(hook.best_score)]
                for hook in _early_stopping(runner)
            ],
        }
        if runner.world_size == 1 and not step_is_done(runner.optim_wrapper):
            extra['gradients'] = {
                name: parameter.grad
                for name, parameter in runner.model.named_parameters()
                if parameter.grad is not None
            }
        if isinstance(loop, ResumableEpochLoop) and self._done:
            extra |= {
                'batches_done': self._done,
                'batches': len(loop.dataloader),
                'processes': self._processes
                or [{'random_state': random_state()}],
            }
        self._processes = []
        checkpoint[KEY] = extra

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Takes its own from a checkpoint that is resumed."""
        if not runner._resume:
            return
        self._loaded = checkpoint.get(KEY, {})
        for hook, (count, best) in zip(
            _early_stopping(runner),
            self._loaded.get('early_stopping', ()),
            strict=False,
        ):
            hook.wait_count, hook.best_score = count, best
        stop = self._loaded.get('stop_training', False)
        runner.train_loop.stop_training = stop


def _statistics(model: nn.Module) -> dict[str, Tensor]:
    """What SyncBuffersHook averages: the running statistics of norms."""
    return {
        name: value.cpu()
        for name, value in model.named_buffers()
        if value.is_floating_point()
    }


def _saves_now(hook: CheckpointHook, runner) -> bool:
    """Whether it saves after this iteration, by its own conditions."""
    return not hook.by_epoch and (
        hook.every_n_train_iters(runner, hook.interval, hook.save_begin)
        or (hook.save_last and hook.is_last_train_iter(runner))
    )


def _early_stopping(runner) -> list[EarlyStoppingHook]:
    return [h for h in runner.hooks if isinstance(h, EarlyStoppingHook)]
