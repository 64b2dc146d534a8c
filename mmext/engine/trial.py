# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Takes a few training steps of a config and keeps nothing of them."""

from __future__ import annotations

import copy
import io
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from tempfile import TemporaryDirectory

from mmengine.config import Config
from mmengine.runner import Runner

from mmext.engine.runner import ReliableRunner
from mmext.errors import UserError
from mmext.utils.random_state import random_state_kept


@contextmanager
def trial(cfg: Config) -> Iterator[Runner]:
    """Builds a runner with random weights that can take training steps.

    It has a loader, and an optimizer for its model; it writes into a folder
    that is removed. Random numbers that are drawn later do not change.

    Args:
        cfg: The config, which is not changed.

    Raises:
        UserError: A step, or what builds the runner, fails.
    """
    cfg = copy.deepcopy(cfg)
    cfg.load_from, cfg.resume = None, False
    cfg.log_level, cfg.launcher = 'ERROR', 'none'
    cfg.visualizer = {'type': 'Visualizer', 'vis_backends': []}
    with TemporaryDirectory() as cfg.work_dir, random_state_kept():
        try:
            with redirect_stdout(io.StringIO()):  # of pycocotools
                runner = ReliableRunner.from_cfg(cfg)
                loop = runner.train_loop  # builds the loader
            wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
            wrapper.initialize_count_status(runner.model, 0, loop.max_iters)
            runner.optim_wrapper = wrapper
            runner.model.train()
            yield runner
        except UserError:
            raise
        except Exception as error:  # of any model
            raise UserError(
                f'{cfg.filename}: a training step fails: '
                f'{type(error).__name__}: {error}',
                'mmext train shows where.',
            ) from error
