# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Backbones, necks and layers."""

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

__all__ = [
    'DWNet',
    'DemoNet',
    'ECAAttention',
    'FCAAttention',
    'GMLP',
    'LayerNorm2d',
    'PluginResNet',
    'SEAttention',
    'SRMAttention',
    'SimpleFeaturePyramid',
    'StarNet',
    'StepAdaptor',
    'StepNetResNet',
]
