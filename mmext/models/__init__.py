# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Backbones, necks and layers."""

from mmext.models.backbones.cifar_resnet import CifarResNet
from mmext.models.backbones.demonet import DemoNet
from mmext.models.backbones.dwnet import DWNet
from mmext.models.backbones.gmlp import GMLP
from mmext.models.backbones.plugin_resnet import PluginResNet
from mmext.models.backbones.starnet import StarNet
from mmext.models.backbones.stepnet_resnet import StepNetResNet
from mmext.models.backbones.timm_backbone import TimmBackbone
from mmext.models.layers.channel_attention import (
    ECAAttention,
    FCAAttention,
    SEAttention,
    SRMAttention,
)
from mmext.models.layers.pointwise import LayerNorm2d
from mmext.models.layers.step_adaptor import StepAdaptor
from mmext.models.necks.simple_feature_pyramid import SimpleFeaturePyramid

__all__ = [
    'CifarResNet',
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
    'TimmBackbone',
]
