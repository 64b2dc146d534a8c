# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The generated shapes for MMSegmentation.

A config names this module in ``custom_imports``: ``import mmext`` does not
import it, because mmext does not require mmseg.
"""

from __future__ import annotations

from mmengine.registry import DATASETS
from mmseg.datasets import BaseSegDataset

from mmext.datasets.shapes.generate import CLASSES, COLOURS, cached_shapes


@DATASETS.register_module()
class ShapesSegDataset(BaseSegDataset):
    """Background and five classes of drawn shapes, a label a pixel.

    The files are generated on first use, as for
    :class:`~mmext.datasets.shapes.dataset.ShapesDataset`.

    Args:
        split: ``'train'`` or ``'val'``. Default: ``'train'``.
        num_train: Training images of the data set. Default: 320.
        num_val: Validation images of the data set. Default: 80.
        seed: Any integer >= 0. Default: 0.
        size: Width and height of the images. Default: (256, 192).
        pipeline: Transforms. Default: none.
        test_mode: Whether the data set is for testing. Default: False.

    Raises:
        UserError: An argument is out of range, or the cache cannot be
            written.
    """

    METAINFO = {
        'classes': ('background', *CLASSES),
        'palette': [[0, 0, 0], *map(list, COLOURS[: len(CLASSES)])],
    }

    def __init__(
        self,
        split: str = 'train',
        num_train: int = 320,
        num_val: int = 80,
        seed: int = 0,
        size: tuple[int, int] = (256, 192),
        pipeline: list[dict] | None = None,
        test_mode: bool = False,
    ) -> None:
        super().__init__(
            data_root=str(cached_shapes(num_train, num_val, seed, size)),
            data_prefix={
                'img_path': split,
                'seg_map_path': f'semantic/{split}',
            },
            img_suffix='.png',
            seg_map_suffix='.png',
            pipeline=pipeline or [],
            test_mode=test_mode,
        )
