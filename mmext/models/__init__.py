# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Backbones, necks and layers."""

from mmext.models import backbones, layers, necks
from mmext.models.backbones import PluginResNet, StepNetResNet
from mmext.models.layers import (
    ECAAttention,
    FCAAttention,
    SEAttention,
    SRMAttention,
    StepAdaptor,
)
from mmext.models.released_weights import LoadReport, load_released_weights

__all__ = [
    'ECAAttention',
    'FCAAttention',
    'LoadReport',
    'PluginResNet',
    'SEAttention',
    'SRMAttention',
    'StepAdaptor',
    'StepNetResNet',
    'backbones',
    'layers',
    'load_released_weights',
    'necks',
]
