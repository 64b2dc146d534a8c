# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Makes a config use the data in a folder in COCO format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mmext.errors import UserError

if TYPE_CHECKING:
    from mmengine.config import Config, ConfigDict


@dataclass(frozen=True)
class CocoFolder:
    """The files and classes of a data set; paths are absolute.

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
    """Makes a detection config train and evaluate on a folder, in place.

    The data sets become mmdet's ``CocoDataset`` with the pipelines and the
    wrappers (``RepeatDataset``, ...) that they had, the evaluators read the
    folder's annotations, and every ``num_classes`` of the model becomes the
    number of its classes.

    Args:
        cfg: A detection config with train and val loaders.
        folder: See :func:`~mmext.checks.layouts.find_coco_folder`.

    Raises:
        UserError: A loader has several data sets.
    """
    from mmengine.config import ConfigDict

    from mmext.utils.config import evaluators

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
    for stage in ('val', 'test'):
        metrics = evaluators(cfg, stage)[0]
        cfg[f'{stage}_evaluator'] = ConfigDict(
            type='CocoMetric',
            ann_file=folder.ann_files['val'],
            metric=metrics.get('metric', 'bbox'),
        )
    set_num_classes(cfg.model, len(folder.classes))


def _replaced(old: ConfigDict, new: ConfigDict) -> ConfigDict:
    """Returns ``new`` with the pipeline and in the wrappers of ``old``."""
    from mmengine.config import ConfigDict

    if 'dataset' in old:
        return ConfigDict({**old, 'dataset': _replaced(old.dataset, new)})
    if 'pipeline' not in old:
        raise UserError(
            f'a data set of type {old.type} has no pipeline of its own',
            'Use a config with one data set in each loader.',
        )
    kept = {k: old[k] for k in ('pipeline', 'indices') if k in old}
    return ConfigDict({**new, **kept})


def needs_masks(cfg: Config) -> bool:
    """Returns whether a config loads masks for training or evaluates them."""
    from mmext.utils.config import evaluates_masks

    dataset = cfg.train_dataloader.dataset
    while 'dataset' in dataset:
        dataset = dataset.dataset
    steps = dataset.get('pipeline', ())
    return evaluates_masks(cfg, 'val') or any(
        step.get('with_mask') for step in steps
    )


def set_num_classes(model: Any, num_classes: int) -> None:
    """Sets every ``num_classes`` of a model's config except the RPN's."""
    if isinstance(model, list | tuple):
        for part in model:
            set_num_classes(part, num_classes)
    elif isinstance(model, Mapping):
        for key, value in model.items():
            if key == 'num_classes':
                model[key] = num_classes
            elif key != 'rpn_head':
                set_num_classes(value, num_classes)
