# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The generated shapes data set and checks of a user's own."""

from mmext.datasets.coco_folder import (
    data_of_environment,
    find_coco_folder,
    use_coco_folder,
)
from mmext.datasets.shapes_dataset import ShapesDataset, ShapesMetric

__all__ = [
    'ShapesDataset',
    'ShapesMetric',
    'data_of_environment',
    'find_coco_folder',
    'use_coco_folder',
]
