# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Backbones."""

from mmext.models.backbones.demonet import DemoNet
from mmext.models.backbones.gmlp import GMLP
from mmext.models.backbones.starnet import StarNet

__all__ = ['GMLP', 'DemoNet', 'StarNet']
