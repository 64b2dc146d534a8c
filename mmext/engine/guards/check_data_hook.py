# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The data checks of mmext's tools, for runs that other tools start."""

from __future__ import annotations

from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from mmext.checks.config import find_config_splits
from mmext.checks.preflight import require_fit
from mmext.utils.modules import unwrap


@HOOKS.register_module()
class CheckDataHook(Hook):
    """Stops a run whose data cannot work before its first iteration.

    :func:`mmext.engine.launch.train` and ``test`` have checked the data
    before the runner is built, if ``check_data`` is set. They set ``checked``
    in both cases.

    Attributes:
        checked: Whether the hook does nothing.

    Raises:
        UserError: On the first process, with all errors in the data.
    """

    priority = 'VERY_HIGH'

    def __init__(self) -> None:
        self.checked = False

    def before_train(self, runner: Runner) -> None:
        """Checks training and validation data."""
        self._check(runner, ('train', 'val'))

    def before_test(self, runner: Runner) -> None:
        """Checks test data."""
        self._check(runner, ('test',))

    @master_only
    def _check(self, runner: Runner, stages: tuple[str, ...]) -> None:
        if not self.checked:
            splits = find_config_splits(runner.cfg, stages)
            model = unwrap(runner.model)
            require_fit(runner.cfg, model, splits, runner.logger.info)
