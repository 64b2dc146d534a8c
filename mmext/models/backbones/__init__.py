# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Backbones for detectors."""

from mmext.models.backbones.demonet import DemoNet
from mmext.models.backbones.dwnet import DWNet
from mmext.models.backbones.gmlp import GMLP
from mmext.models.backbones.plugin_resnet import PluginResNet
from mmext.models.backbones.starnet import StarNet
from mmext.models.backbones.stepnet_resnet import StepNetResNet

__all__ = [
    'DWNet',
    'GMLP',
    'DemoNet',
    'PluginResNet',
    'StarNet',
    'StepNetResNet',
]
