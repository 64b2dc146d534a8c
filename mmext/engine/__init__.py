# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The runner, its hooks, and the functions that train, test and predict."""

from mmext.engine.guards.numerical_guard import NumericalGuardHook
from mmext.engine.guards.start_checks import CheckDataHook
from mmext.engine.layer_decay import LayerDecayOptimWrapperConstructor
from mmext.engine.mixed_precision import CPUAmpOptimWrapper
from mmext.engine.pictures_hook import PicturesHook
from mmext.engine.predictions_hook import PredictionsHook
from mmext.engine.resume.seeding import EpochSeedHook
from mmext.engine.runner import ReliableRunner
from mmext.engine.tta import BoxTTAModel
from mmext.engine.val_loss_hook import ValLossHook

__all__ = [
    'BoxTTAModel',
    'CPUAmpOptimWrapper',
    'CheckDataHook',
    'EpochSeedHook',
    'LayerDecayOptimWrapperConstructor',
    'NumericalGuardHook',
    'PicturesHook',
    'PredictionsHook',
    'ReliableRunner',
    'ValLossHook',
]
