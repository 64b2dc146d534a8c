# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Runner hooks, launching and checkpoint handling."""

from mmext.engine import checkpoint, onedl_names
from mmext.engine.amp import CPUAmpOptimWrapper
from mmext.engine.check_data_hook import CheckDataHook
from mmext.engine.numerical_guard import NumericalGuardHook
from mmext.engine.predictions import PredictionsHook
from mmext.engine.runner import ReliableRunner
from mmext.engine.seeding import EpochSeedHook
from mmext.engine.val_loss import ValLossHook

# Whoever reads a checkpoint from here on reads it without running it.
checkpoint.install()
onedl_names.register()

__all__ = [
    'CPUAmpOptimWrapper',
    'CheckDataHook',
    'EpochSeedHook',
    'NumericalGuardHook',
    'PredictionsHook',
    'ReliableRunner',
    'ValLossHook',
]
