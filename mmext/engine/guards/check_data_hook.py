# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The data checks of mmext's tools, for whoever trains with other ones."""

from __future__ import annotations

from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from mmext.checks import preflight
from mmext.checks.config import find_splits


@HOOKS.register_module()
class CheckDataHook(Hook):
    """Stops a run whose data cannot work, before its first iteration.

    mmext's own tools have looked before the runner existed; then this does
    nothing. ``--skip-data-checks`` of theirs turns both off.

    Raises:
        UserError: What is wrong with the data, on the first process.
    """

    priority = 'VERY_HIGH'

    def before_train(self, runner: Runner) -> None:
        """Checks training and validation data."""
        self._check(runner, ('train', 'val'))

    def before_test(self, runner: Runner) -> None:
        """Checks test data."""
        self._check(runner, ('test',))

    @master_only
    def _check(self, runner: Runner, stages: tuple[str, ...]) -> None:
        splits = find_splits(runner.cfg, stages)
        if tuple(splits) in preflight.CHECKED:
            preflight.CHECKED.remove(tuple(splits))  # a later run is another
            return
        model = runner.model
        model = model.module if is_model_wrapper(model) else model
        preflight.require_fit(runner.cfg, model, splits, runner.logger.info)
