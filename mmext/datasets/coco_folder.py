# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Points a config to the data in a folder in COCO format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmengine.config import Config, ConfigDict

from mmext.errors import UserError


@dataclass(frozen=True)
class CocoFolder:
    """What was found in a folder; paths are absolute.

    Args:
        classes: Names in the order of the JSON, which is the order of labels.
        ann_files: Split -> annotation file.
        img_dirs: Split -> folder that its file names are relative to.
        num_images: Split -> number of images.
    """

    classes: tuple[str, ...]
    ann_files: dict[str, str]
    img_dirs: dict[str, str]
    num_images: dict[str, int]


def use_coco_folder(cfg: Config, folder: CocoFolder) -> None:
    """Turns a config to a user's data, in place.

    The data sets become mmdet's ``CocoDataset`` with the pipelines and the
    wrappers (``RepeatDataset``, ...) that they had, the evaluators read the
    folder's annotations, and every ``num_classes`` of the model becomes the
    number of its classes.

    Args:
        cfg: A detection config with train and val loaders.
        folder: See :func:`find_coco_folder`.

    Raises:
        UserError: If a loader's data set is several.
    """
    from mmengine.config import ConfigDict

    for key, split in (('train', 'train'), ('val', 'val'), ('test', 'val')):
        new = ConfigDict(
            type='CocoDataset',
            ann_file=folder.ann_files[split],
            data_prefix={'img': folder.img_dirs[split]},
            metainfo={'classes': folder.classes},
            test_mode=split == 'val',
        )
        if key == 'train':
            new.filter_cfg = ConfigDict(filter_empty_gt=True, min_size=1)
        loader = cfg[f'{key}_dataloader']
        loader.dataset = _replaced(loader.dataset, new)
    for key in ('val_evaluator', 'test_evaluator'):
        cfg[key] = ConfigDict(
            type='CocoMetric',
            ann_file=folder.ann_files['val'],
            metric=cfg[key].get('metric', 'bbox'),
        )
    set_num_classes(cfg.model, len(folder.classes))


def _replaced(old: ConfigDict, new: ConfigDict) -> ConfigDict:
    """``new`` with the pipeline and in the wrappers of ``old``."""
    from mmengine.config import ConfigDict

    if 'dataset' in old:
        return ConfigDict({**old, 'dataset': _replaced(old.dataset, new)})
    if 'pipeline' not in old:
        raise UserError(
            f'a data set of type {old.type} has no pipeline of its own',
            'use_coco_folder needs a config with one data set a loader',
        )
    return ConfigDict({**new, 'pipeline': old.pipeline})


def set_num_classes(model: dict | list, num_classes: int) -> None:
    """Sets every ``num_classes`` in a model's config but the RPN's."""
    if isinstance(model, list | tuple):
        for part in model:
            set_num_classes(part, num_classes)
    elif isinstance(model, dict):
        for key, value in model.items():
            if key == 'num_classes':
                model[key] = num_classes
            elif key != 'rpn_head':
                set_num_classes(value, num_classes)
