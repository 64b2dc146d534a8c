# Licensed under the Apache License, Version 2.0. See LICENSE.
"""From other annotation formats to COCO's; behind tools/dataset_converters."""

from mmext.datasets.converters.common import LabelledImage, write_coco_folder
from mmext.datasets.converters.voc import read_voc
from mmext.datasets.converters.yolo import read_yolo

__all__ = ['LabelledImage', 'read_voc', 'read_yolo', 'write_coco_folder']
