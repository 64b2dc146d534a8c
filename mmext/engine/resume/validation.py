# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The validation that a resumed checkpoint was written before.

MMEngine writes the checkpoint of an epoch *before* it validates the epoch. The
checkpoint therefore has no results of the validation, such as the best AP and
the state of a schedule on a plateau. If a process dies between the two, the
best epoch could be overlooked, and the last one would have no AP.
"""

from __future__ import annotations

from mmengine.hooks import CheckpointHook, Hook
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop, Runner

from mmext.engine.resume.exact_resume import ExactResumeHook


@HOOKS.register_module()
class ResumeValidationHook(Hook):
    """Validates a resumed checkpoint if its step was due for a validation."""

    priority = 'LOWEST'  # the other hooks prepare themselves before

    def before_train(self, runner: Runner) -> None:
        loop = runner.train_loop
        if not runner._resume or runner.val_loop is None or not loop.iter:
            return
        if any(
            isinstance(hook, ExactResumeHook) and not hook.may_need_validation
            for hook in runner.hooks
        ):
            return
        step, last = loop.iter, loop.max_iters
        if isinstance(loop, EpochBasedTrainLoop):
            if loop.iter % len(loop.dataloader):
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
