# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Draws the predictions of a test, and shows or saves the pictures."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmcv.transforms import LoadImageFromFile
from mmdet.engine.hooks import DetVisualizationHook
from mmdet.structures import DetDataSample
from mmengine.config import Config, ConfigDict
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from mmext.utils.images import as_picture


@HOOKS.register_module()
class PicturesHook(DetVisualizationHook):
    """mmdet's hook, with a picture of its own for each image of the test.

    mmdet's hook names pictures by the names of the files without folders, so
    that equal names overwrite each other, and it turns each image by its EXIF
    tag. Here pictures keep the folders that are below the image folder of the
    data set, and an image is read as the pipeline of the test reads it.

    Args:
        test_out_dir: Folder of the pictures inside of the run's folder.
            Others: see mmdet's ``DetVisualizationHook``.
    """

    def before_test(self, runner: Runner) -> None:
        datasets = list(_flat(runner.test_loop.dataloader.dataset))
        prefixes = [getattr(d, 'data_prefix', None) or {} for d in datasets]
        folders = {
            os.path.abspath(folder)
            for prefix in prefixes
            for key, folder in prefix.items()
            if key.startswith('img')  # not those of class maps
            if isinstance(folder, str) and '://' not in folder
        }
        self.base = os.path.commonpath(folders) if folders else None
        steps = getattr(datasets[0], 'pipeline', None)
        loaders = [
            step
            for step in getattr(steps, 'transforms', ())
            if isinstance(step, LoadImageFromFile)
        ]
        self.loader = loaders[0] if loaders else LoadImageFromFile()
        draw = self._visualizer.add_datasample
        # That of MMSegmentation takes none.
        known = 'pred_score_thr' in inspect.signature(draw).parameters
        self.threshold = {'pred_score_thr': self.score_thr} if known else {}

    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict,
        outputs: Sequence[DetDataSample],
    ) -> None:
        if not self.draw:
            return
        for sample in outputs:
            self._test_index += 1
            path = Path(os.path.abspath(sample.img_path))
            name = path.name
            if self.base and path.is_relative_to(self.base):
                name = path.relative_to(self.base).as_posix()
            out_file = None
            if self.test_out_dir is not None:
                out_file = os.path.join(
                    runner.work_dir, runner.timestamp, self.test_out_dir, name
                )
            image = self.loader({'img_path': sample.img_path})['img']
            self._visualizer.add_datasample(
                name if self.show else 'test_img',
                as_picture(image)[..., ::-1],
                data_sample=sample,
                show=self.show,
                wait_time=self.wait_time,
                out_file=out_file,
                step=self._test_index,
                **self.threshold,
            )


def _flat(dataset: Any) -> Iterator[Any]:
    """Yields the data sets inside of wrappers."""
    if hasattr(dataset, 'datasets'):
        for one in dataset.datasets:
            yield from _flat(one)
    elif hasattr(dataset, 'dataset'):
        yield from _flat(dataset.dataset)
    else:
        yield dataset


def set_show(
    cfg: Config, show: bool, show_dir: str | Path | None, wait_time: float
) -> None:
    """Makes the config's visualization hook show or save predictions."""
    hooks = cfg.setdefault('default_hooks', ConfigDict())
    hook = hooks.get('visualization')
    if hook is None:
        hook = hooks['visualization'] = ConfigDict(type='PicturesHook')
    hook.draw = True
    kind = str(hook.type).rpartition('.')[2]
    if kind in ('DetVisualizationHook', 'SegVisualizationHook'):
        hook.type = 'PicturesHook'
    if show:
        hook.show = True
        hook.wait_time = wait_time
    if show_dir is not None:
        hook.test_out_dir = str(show_dir)
