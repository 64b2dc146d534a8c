# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Backbones, necks and layers."""

from mmext.models import backbones, layers, necks
from mmext.models.released_weights import LoadReport, load_released_weights

__all__ = [
    'LoadReport',
    'backbones',
    'layers',
    'load_released_weights',
    'necks',
]
