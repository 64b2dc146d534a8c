# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Backbones, necks and layers."""

from mmext.models import backbones, layers, necks
from mmext.models.backbones import (
    GMLP,
    DemoNet,
    DWNet,
    PluginResNet,
    StarNet,
    StepNetResNet,
)
from mmext.models.layers import (
    ECAAttention,
    FCAAttention,
    LayerNorm2d,
    SEAttention,
    SRMAttention,
    StepAdaptor,
)
from mmext.models.necks import SimpleFeaturePyramid
from mmext.models.released_weights import LoadReport, load_released_weights

__all__ = [
    'DWNet',
    'DemoNet',
    'ECAAttention',
    'FCAAttention',
    'GMLP',
    'LayerNorm2d',
    'LoadReport',
    'PluginResNet',
    'SEAttention',
    'SRMAttention',
    'SimpleFeaturePyramid',
    'StarNet',
    'StepAdaptor',
    'StepNetResNet',
    'backbones',
    'layers',
    'load_released_weights',
    'necks',
]
