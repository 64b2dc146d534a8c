# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Keeps metrics of an earlier validation out of the log of this one."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer
from mmengine.registry import HOOKS
from mmengine.runner import Runner


@HOOKS.register_module()
class FreshMetricsHook(Hook):
    """Forgets the metrics that a validation did not measure.

    MMEngine logs the newest value of every metric it has ever seen, which is
    that of an earlier validation if this one has none: in ``scalars.json``,
    and so in curves and tables.
    """

    priority = 'NORMAL'  # before LoggerHook

    def before_val_epoch(self, runner: Runner) -> None:
        self._before = _counts(runner)

    def after_val_epoch(self, runner: Runner, **kwargs: Any) -> None:
        for name, (buffer, count) in _counts(runner).items():
            old, before = self._before.get(name, (None, 0))
            # ValLossHook replaces the buffer.
            if buffer is old and count == before:
                del runner.message_hub.log_scalars[name]


def _counts(runner: Runner) -> dict[str, tuple[HistoryBuffer, int]]:
    """Returns the values of each scalar of validations, and their number."""
    return {
        name: (buffer, len(buffer.data[0]))
        for name, buffer in runner.message_hub.log_scalars.items()
        if name.startswith('val/')
    }
