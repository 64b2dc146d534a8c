# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Randomness that depends on the seed and the epoch, and on nothing before.

A run that resumes from an epoch's checkpoint then draws what the undisturbed
run drew: augmentation, sampled anchors and regions, dropped paths. Saving the
generators' states instead would keep rank 0's only.
"""

from __future__ import annotations

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.registry import FUNCTIONS, HOOKS

from mmext.utils.random_state import seed_everything


@FUNCTIONS.register_module()
def epoch_worker_init(worker_id: int) -> None:
    """Seeds a loader's worker from the main process's generator.

    MMEngine's own gives a worker the same seed every epoch.
    """
    seed_everything(torch.initial_seed() % 2**63)


@HOOKS.register_module()
class EpochSeedHook(Hook):
    """Seeds all generators at the start of every training epoch."""

    priority = 'VERY_HIGH'

    def before_train_epoch(self, runner) -> None:
        """Mixes seed, epoch and rank into one 32-bit seed."""
        mixed = np.random.SeedSequence(
            [runner.seed or 0, runner.epoch, runner.rank]
        )
        seed_everything(int(mixed.generate_state(1)[0]))
