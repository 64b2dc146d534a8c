# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Reads other annotation formats and writes COCO's."""

from mmext.datasets.converters.common import (
    LabelledImage,
    class_names,
    write_coco_folder,
)
from mmext.datasets.converters.voc import read_voc
from mmext.datasets.converters.yolo import read_yolo

__all__ = [
    'LabelledImage',
    'class_names',
    'read_voc',
    'read_yolo',
    'write_coco_folder',
]
