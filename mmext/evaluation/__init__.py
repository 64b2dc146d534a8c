# Licensed under the Apache License, Version 2.0. See LICENSE.
"""COCO metric with a fast engine; comparison of runs."""

from mmext.evaluation.coco_metric import FastCocoMetric

__all__ = ['FastCocoMetric']
