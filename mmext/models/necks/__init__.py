# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Necks."""

from mmext.models.necks.simple_feature_pyramid import SimpleFeaturePyramid

__all__ = ['SimpleFeaturePyramid']
