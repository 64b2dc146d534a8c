# Licensed under the Apache License, Version 2.0. See LICENSE.
"""A hook that ends a training as the file ``crash`` of its folder says."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner


@HOOKS.register_module(force=True)
class CrashOnce(Hook):
    """Dies (``kill``), raises (``fail``) or makes NaN (``nan``), once."""

    def after_train_iter(self, runner: Runner, **kwargs: Any) -> None:
        file = Path(runner.work_dir, 'crash')
        if runner.iter < 2 or not file.is_file():
            return
        what = file.read_text()
        file.unlink()
        if what == 'kill':
            os.kill(os.getpid(), signal.SIGKILL)
        if what == 'fail':
            raise RuntimeError('a GPU has fallen off the bus')
        if what == 'interrupt':
            os.kill(os.getpid(), signal.SIGINT)
        if what == 'nan':
            for parameter in runner.model.parameters():
                parameter.data.fill_(float('nan'))
