# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The validation that a resumed checkpoint has not seen.

MMEngine writes an epoch's checkpoint *before* it validates the epoch. What
the validation changed, the best AP so far and a schedule on a plateau, is
therefore not in it, and a process that dies between the two has not validated
at all: the best epoch could be overlooked, and the last one end without an AP.
"""

from __future__ import annotations

from mmengine.hooks import CheckpointHook, Hook
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop

from mmext.engine.resume.exact_resume import ExactResumeHook


@HOOKS.register_module()
class ResumeValidationHook(Hook):
    """Validates a resumed checkpoint where its step was to be validated."""

    priority = 'LOWEST'  # the others' before_train prepares them for it

    def before_train(self, runner) -> None:
        """Does what the loop does after a step, with its own conditions."""
        loop = runner.train_loop
        if not runner._resume or runner.val_loop is None or not loop.iter:
            return
        if any(
            isinstance(hook, ExactResumeHook) and not hook.may_lack_validation
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
                    # Else it does not save anew what has a new best.
                    hook.last_ckpt = hook.last_ckpt or runner._load_from
            runner.val_loop.run()
