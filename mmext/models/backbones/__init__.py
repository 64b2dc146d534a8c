# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Backbones."""

from mmext.models.backbones.starnet import StarNet

__all__ = ['StarNet']
