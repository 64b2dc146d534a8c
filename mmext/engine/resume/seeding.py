# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Random numbers that depend only on the seed, the epoch and the process.

A run that resumes from the checkpoint of an epoch then draws the same numbers
as the undisturbed run: augmentation, sampled anchors and regions, dropped
paths. Generator states in a checkpoint would be those of rank 0 only.
"""

from __future__ import annotations

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.registry import FUNCTIONS, HOOKS
from mmengine.runner import Runner

from mmext.utils.random_state import seed_everything


@FUNCTIONS.register_module()
def epoch_worker_init(worker_id: int) -> None:
    """Seeds a worker of a loader from the generator of the main process.

    MMEngine's function gives a worker the same seed in every epoch.
    """
    seed_everything(torch.initial_seed() % 2**63)


@HOOKS.register_module()
class EpochSeedHook(Hook):
    """Seeds all generators at the start of every training epoch."""

    priority = 'VERY_HIGH'

    def before_train_epoch(self, runner: Runner) -> None:
        """Seeds with 32 bits that are mixed from seed, epoch and rank."""
        mixed = np.random.SeedSequence(
            [runner.seed or 0, runner.epoch, runner.rank]
        )
        seed_everything(int(mixed.generate_state(1)[0]))
