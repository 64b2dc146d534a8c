# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Saves what MMEngine's checkpoints do not store, for an exact resume.

- Checkpoints within an epoch: MMEngine starts that epoch again. Here the
  batches that were trained on are skipped, and the generators of random
  numbers continue from their saved state.
- The order of the images without a given seed: MMEngine restores the seed of
  the checkpoint after the sampler was built with another one.
- Gradients that are accumulated for a later step, if the batches of an epoch
  are no multiple of ``accumulative_counts``; for one process.
- The patience of ``EarlyStoppingHook``: MMEngine starts to count again.
- Whether the step was validated: a checkpoint that is written after the
  validation, such as that of a new best one, has its results.
- The number of processes and the batch size. If they have changed, a run goes
  on from the start of an epoch.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from mmengine.dist import all_gather_object
from mmengine.hooks import CheckpointHook, EarlyStoppingHook, Hook
from mmengine.registry import HOOKS, LOOPS
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch.utils.data import DataLoader

from mmext.engine.optimizers import step_is_done
from mmext.engine.resume.training_data import describe_data
from mmext.engine.resume.unused_settings import unused_settings
from mmext.utils.random_state import random_state, set_random_state

KEY = 'mmext_resume'


class Size(NamedTuple):
    """What decides which images are in a batch of an epoch."""

    processes: int
    images: int  # of each process in a batch
    batches: int  # of each process in an epoch

    def __str__(self) -> str:
        es = '' if self.processes == 1 else 'es'
        return (
            f'{self.processes} process{es} with batches of {self.images} '
            f'({self.batches} an epoch)'
        )


def images_of(loader: DataLoader) -> int:
    """Returns the images of a batch; 0 if not known."""
    # A loader with a batch sampler, as mmdet's, has no batch size itself.
    sampler = getattr(loader, 'batch_sampler', None)
    return loader.batch_size or getattr(sampler, 'batch_size', 0)


def size_of(runner: Runner) -> Size:
    """Returns the number of processes and the size of their batches."""
    loader = runner.train_loop.dataloader
    known = hasattr(loader.dataset, '__len__')  # a stream has none
    batches = len(loader) if known else 0
    return Size(runner.world_size, images_of(loader), batches)


@LOOPS.register_module()
class ResumableEpochLoop(EpochBasedTrainLoop):
    """An ``EpochBasedTrainLoop`` that can resume in the middle of an epoch."""

    _done = 0
    _state: dict[str, Any] | None = None

    def resume_within(self, done: int, state: dict[str, Any] | None) -> None:
        """Skips the first ``done`` batches of the next epoch.

        They are loaded nevertheless, because the random numbers of a worker
        depend on the batches that it has loaded before. The generators then
        continue from ``state``, if it is known.
        """
        self._done, self._state = done, state

    def run_epoch(self) -> None:
        super().run_epoch()
        self._done = 0

    def run_iter(self, idx: int, data_batch: Any) -> None:
        if idx >= self._done:
            super().run_iter(idx, data_batch)
        elif idx == self._done - 1 and self._state is not None:
            set_random_state(self._state)


@HOOKS.register_module()
class ExactResumeHook(Hook):
    """Saves and restores what MMEngine's checkpoints do not store.

    The resumed run equals the undisturbed one bit for bit on the CPU, with
    several processes too: before a checkpoint within an epoch is saved, it
    collects the state of all processes (:meth:`gather`).
    """

    priority = 'LOW'  # after hooks that use a validation, before saving

    def __init__(self) -> None:
        self._done = 0
        self._validated: int | None = None
        self._loaded: dict[str, Any] = {}
        self._resized = False
        self._data: dict[str, Any] | None = None
        self._processes: list[dict[str, Any]] = []

    def gather(self, runner: Runner) -> None:
        """Collects the state of each process for the next checkpoint.

        All processes must call it. The state is that of the random generators
        and, except for the first process, the statistics of norms.
        """
        buffers = {}
        if runner.rank > 0:  # SyncBuffersHook averages them after an epoch
            for name, value in runner.model.named_buffers():
                if value.is_floating_point():
                    buffers[name] = value.cpu()
        self._processes = all_gather_object(
            {'random_state': random_state(), 'buffers': buffers}
        )

    def before_run(self, runner: Runner) -> None:
        self._drawn = runner.seed  # that the sampler was built with

    def before_train(self, runner: Runner) -> None:
        """Restores gradients and sets the loop to the next batch."""
        loop = runner.train_loop
        batches = getattr(loop.dataloader, 'batch_sampler', None)
        sampler = getattr(batches, 'sampler', None)
        if getattr(sampler, 'seed', None) == self._drawn:
            sampler.seed = runner.seed  # that of the checkpoint
        if self._resized:
            return
        for name, value in self._loaded.get('gradients', {}).items():
            parameter = runner.model.get_parameter(name)
            parameter.grad = value.to(parameter.device)
        done = self._loaded.get('batches_done', 0)
        if not done or not isinstance(loop, ResumableEpochLoop):
            return
        runner.logger.info(
            f'Resuming within epoch {loop.epoch + 1}: its first {done} of '
            f'{len(loop.dataloader)} batches are loaded and skipped'
        )
        processes = dict(enumerate(self._loaded['processes']))
        mine = processes.get(runner.rank, {})
        loop.resume_within(done, mine.get('random_state'))
        for name, value in mine.get('buffers', {}).items():
            runner.model.get_buffer(name).copy_(value)

    def resize(self, runner: Runner) -> None:
        """Goes on from the start of an epoch if it has other batches.

        The runner calls this when it has loaded the checkpoint. Steps are
        counted on, so that the log has each step once.
        """
        loop = runner.train_loop
        if not self._loaded:
            return
        before, now = self._size_before(runner), size_of(runner)
        changes = [f'{now} instead of {before}'] if before != now else []
        data, saved = self._data_of(runner), self._loaded.get('data')
        if saved not in (None, data):
            changes.append(
                f'{data["images"]} training images instead of '
                f'{saved["images"]}'
                if data['images'] != saved['images']
                else 'other annotations of the training images'
            )
        if not changes:
            return
        if not isinstance(loop, EpochBasedTrainLoop):
            runner.logger.warning(
                f'Resuming with {" and ".join(changes)}. '
                f'{type(loop).__name__} counts batches: it skips the first '
                f'{loop.iter} of those that it has now, and not the images '
                'that were trained on'
            )
            return
        self._resized = True
        done = self._loaded.get('batches_done', 0)
        loop._iter -= done
        loop._max_iters = (
            loop.iter + (loop.max_epochs - loop.epoch) * now.batches
        )
        again = 'starts again' if done else 'is the next one'
        runner.logger.warning(
            f'Resuming with {" and ".join(changes)}: epoch {loop.epoch + 1} '
            f'{again}, from its first batch. The learning rate is that of the '
            'checkpoint, and schedules that count iterations count those of '
            'the new size'
        )

    def _data_of(self, runner: Runner) -> dict[str, Any]:
        """Returns the description of the training data, read once."""
        if self._data is None:
            self._data = describe_data(runner.train_loop.dataloader.dataset)
        return self._data

    def _size_before(self, runner: Runner) -> Size:
        """Returns the size of the run that wrote the checkpoint."""
        if 'size' in self._loaded:
            return Size(*self._loaded['size'])
        # Older checkpoints have it only within an epoch, and in part.
        now = size_of(runner)
        return now._replace(
            processes=len(self._loaded.get('processes', ())) or now.processes,
            batches=self._loaded.get('batches', now.batches),
        )

    def before_train_iter(
        self, runner: Runner, batch_idx: int, **kwargs: Any
    ) -> None:
        self._done = batch_idx + 1

    def after_train_iter(self, runner: Runner, **kwargs: Any) -> None:
        """Collects the states if CheckpointHook is about to save."""
        if runner.world_size > 1 and any(
            isinstance(hook, CheckpointHook) and _saves_now(hook, runner)
            for hook in runner.hooks
        ):
            self.gather(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        self._done = 0  # checkpoints now contain the complete epoch

    def after_val_epoch(self, runner: Runner, **kwargs: Any) -> None:
        self._validated = runner.iter

    @property
    def needs_validation(self) -> bool | None:
        """Whether the resumed checkpoint has no validation of its step.

        None if another runner wrote it.
        """
        if not self._loaded:
            return None
        return not (
            self._loaded.get('validated') or self._loaded.get('batches_done')
        )

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Adds the state to a checkpoint that can be resumed."""
        if 'optimizer' not in checkpoint:
            return
        loop = runner.train_loop
        early = _early_stopping(runner)
        extra: dict[str, Any] = {
            'validated': self._validated == checkpoint['meta']['iter'],
            'stop_training': loop.stop_training,
            'early_stopping': [
                [h.wait_count, float(h.best_score)] for h in early
            ],
        }
        if runner.world_size == 1 and not step_is_done(runner.optim_wrapper):
            extra['gradients'] = {
                name: parameter.grad
                for name, parameter in runner.model.named_parameters()
                if parameter.grad is not None
            }
        extra['size'] = list(size_of(runner))
        extra['data'] = self._data_of(runner)
        if isinstance(loop, ResumableEpochLoop) and self._done:
            alone = [{'random_state': random_state()}]
            extra |= {
                'batches_done': self._done,
                'processes': self._processes or alone,
            }
        self._processes = []
        checkpoint[KEY] = extra

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Restores the state from a checkpoint that is resumed.

        It warns of values of the config that the resumed run does not use.
        """
        if not runner._resume:
            return
        if warning := unused_settings(runner, checkpoint):
            runner.logger.warning(warning)
        self._loaded = checkpoint.get(KEY, {})
        saved = self._loaded.get('early_stopping', ())
        for hook, values in zip(_early_stopping(runner), saved, strict=False):
            hook.wait_count, hook.best_score = values
        stop = self._loaded.get('stop_training', False)
        runner.train_loop.stop_training = stop


def _saves_now(hook: CheckpointHook, runner: Runner) -> bool:
    """Returns whether the hook saves after this iteration."""
    return not hook.by_epoch and (
        hook.every_n_train_iters(runner, hook.interval, hook.save_begin)
        or (hook.save_last and hook.is_last_train_iter(runner))
    )


def _early_stopping(runner: Runner) -> list[EarlyStoppingHook]:
    return [h for h in runner.hooks if isinstance(h, EarlyStoppingHook)]


@HOOKS.register_module()
class ResumeValidationHook(Hook):
    """Validates a resumed checkpoint if its step was due for a validation.

    MMEngine writes the checkpoint of an epoch *before* it validates the epoch.
    The checkpoint therefore has no results of the validation, such as the best
    AP and the state of a schedule on a plateau. If a process dies between the
    two, the best epoch could be overlooked, and the last one have no AP.
    """

    priority = 'LOWEST'  # the other hooks prepare themselves before

    def before_train(self, runner: Runner) -> None:
        loop = runner.train_loop
        if not runner._resume or runner.val_loop is None or not loop.iter:
            return
        needed = None
        for hook in runner.hooks:
            if isinstance(hook, ExactResumeHook):
                needed = hook.needs_validation
        if needed is False:
            return
        step, last = loop.iter, loop.max_iters
        if isinstance(loop, EpochBasedTrainLoop):
            if needed is None and loop.iter % len(loop.dataloader):
                return  # in the middle of an epoch
            step, last = loop.epoch, loop.max_epochs
        loop._decide_current_val_interval()
        if step >= loop.val_begin and (
            step % loop.val_interval == 0 or step == last
        ):
            runner.logger.info(
                'Validating first: the checkpoint was written before its '
                'validation'
            )
            for hook in runner.hooks:
                if isinstance(hook, CheckpointHook):
                    # Otherwise it does not save a new best checkpoint.
                    hook.last_ckpt = hook.last_ckpt or runner._load_from
            runner.val_loop.run()
