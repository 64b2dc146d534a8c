# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The generated shapes as a data set that a config can name."""

from __future__ import annotations

from typing import Any

from mmdet.datasets import CocoDataset
from mmdet.datasets.api_wrappers import COCO
from mmdet.evaluation import CocoMetric
from mmengine.registry import DATASETS, METRICS

from mmext.datasets.shapes.generate import (
    CLASSES,
    COLOURS,
    SPLITS,
    cached_shapes,
)
from mmext.errors import UserError, did_you_mean
from mmext.utils.text import sentences


@DATASETS.register_module()
class ShapesDataset(CocoDataset):
    """Five classes of drawn shapes with boxes and masks.

    The files are generated on first use and kept in
    :func:`~mmext.utils.machine.cache_dir`; see
    :mod:`mmext.datasets.shapes.generate` for their content.

    Args:
        split: ``'train'`` or ``'val'``. Default: ``'train'``.
        num_train: Training images of the data set. Default: 320.
        num_val: Validation images of the data set. Default: 80.
        seed: Any integer >= 0. Default: 0.
        size: Width and height of the images. Default: (256, 192).
        **kwargs: Arguments of mmdet's ``CocoDataset`` except paths:
            ``pipeline``, ``filter_cfg``, ``test_mode``, ``indices``...

    Raises:
        UserError: The split is unknown, an argument is out of range, or the
            cache cannot be written.

    Example:
        >>> data = ShapesDataset(split='val', num_train=1, num_val=2)
        >>> len(data), data.metainfo['classes'][0]
        (2, 'circle')
    """

    METAINFO = {'classes': CLASSES, 'palette': list(COLOURS[: len(CLASSES)])}

    def __init__(
        self,
        split: str = 'train',
        num_train: int = 320,
        num_val: int = 80,
        seed: int = 0,
        size: tuple[int, int] = (256, 192),
        **kwargs: Any,
    ) -> None:
        if split not in SPLITS:
            near = did_you_mean(split, SPLITS)
            raise UserError(
                f'ShapesDataset has no split {split!r}',
                sentences(f'Use one of {SPLITS}.', near),
            )
        root = cached_shapes(num_train, num_val, seed, tuple(size))
        ann_file = root / 'annotations' / f'instances_{split}.json'
        super().__init__(
            data_root=str(root),
            ann_file=str(ann_file),
            data_prefix={'img': f'{split}/', 'seg': f'semantic/{split}/'},
            **kwargs,
        )
        # For ShapesMetric. MMEngine would read the file if it were given as
        # `metainfo`.
        self._metainfo['ann_file'] = str(ann_file)


@METRICS.register_module()
class ShapesMetric(CocoMetric):
    """COCO AP on :class:`ShapesDataset`, whose annotations it finds.

    mmdet's ``CocoMetric`` needs the path of the annotations in the config,
    which cannot know the cache folder.
    """

    @property
    def dataset_meta(self) -> dict | None:
        """Meta information of the data set that is evaluated."""
        return self._dataset_meta

    @dataset_meta.setter
    def dataset_meta(self, dataset_meta: dict) -> None:
        self._dataset_meta = dataset_meta
        self._coco_api = COCO(dataset_meta['ann_file'])
