# Licensed under the Apache License, Version 2.0. See LICENSE.
"""What the test data of a config are, so that other data are noticed."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.registry import DATASETS

from mmext.errors import UserError
from mmext.evaluation.coco.ground_truth import read_ground_truth
from mmext.utils.config import evaluators
from mmext.utils.files import relative_names, sha256
from mmext.utils.text import some

#: Name of an evaluator -> its task. Others with a COCO file have boxes or
#: masks, as their ``metric`` says.
_TASKS = {'IoUMetric': 'mIoU', 'Accuracy': 'top1'}


@dataclass(frozen=True)
class TestData:
    """The images that a config is tested on, and their labels.

    Args:
        task: ``'bbox'``, ``'segm'``, ``'mIoU'`` or ``'top1'``.
        sha256: Of the annotation file. Without one, of the names of the
            classes and of the images, with the label of each, or the SHA-256
            of its class map. Folders do not count.
        images: Number of images.
        classes: Their names.
        annotations: COCO annotation file, None for other data.
        names: Those of the images in their order, if there is no such file.
    """

    task: str
    sha256: str
    images: int
    classes: tuple[str, ...]
    annotations: str | None = None

    @property
    def file_name(self) -> str | None:
        """Name of the annotation file, without the folders of a machine."""
        return self.annotations and Path(self.annotations).name

    names: tuple[str, ...] = ()


def test_data(cfg: Config, task: str | None = None) -> TestData:
    """Returns what the test data of a config are.

    Args:
        cfg: The config.
        task: What is evaluated. Default: what the first ``test_evaluator``
            evaluates, boxes before masks.

    Raises:
        UserError: The data cannot be read, or no evaluator has such a task.
    """
    found = dict(_tasks(cfg))
    task = task or next(iter(found), None)
    if task not in found:
        have = [_name(e) for e in evaluators(cfg, 'test').values()]
        raise UserError(
            f'test_evaluator ({some(have) or "none"}) does not evaluate '
            f'{task or "bbox, segm, mIoU or top1"}',
            f'It evaluates {some(found)}.'
            if found
            else 'Use CocoMetric, IoUMetric (MMSegmentation) or Accuracy '
            '(MMPretrain).',
        )
    part = cfg['test_dataloader']['dataset']
    named = (part.get('metainfo') or {}).get('classes') or ()
    if (annotations := found[task]) is not None:
        truth = read_ground_truth(annotations)
        return TestData(
            task=task,
            sha256=truth.sha256,
            images=len(truth.image_ids),
            classes=tuple(n for n in truth.names if not named or n in named),
            annotations=str(annotations),
        )
    return _built(cfg, task)


def _tasks(cfg: Config) -> Iterator[tuple[str, Path | None]]:
    """Yields the tasks that are evaluated, with their annotation file."""
    for evaluator in evaluators(cfg, 'test').values():
        if task := _TASKS.get(_name(evaluator)):
            yield task, None
        elif file := evaluator.get('ann_file') or _own_file(cfg):
            metrics = np.atleast_1d(evaluator.get('metric', 'bbox')).tolist()
            for kind in ('bbox', 'segm'):
                if kind in metrics:
                    yield kind, Path(file)


def _own_file(cfg: Config) -> str:
    """The annotation file of the test data, which an evaluator may use."""
    part = cfg['test_dataloader']['dataset']
    if file := part.get('ann_file'):
        return os.path.join(part.get('data_root') or '', file)
    # One that makes its files, such as ShapesDataset, knows where they are.
    return getattr(_build(cfg), 'ann_file', '')


def _name(evaluator: Any) -> str:
    kind = evaluator.get('type')
    return str(getattr(kind, '__name__', kind)).rpartition('.')[2]


def _build(cfg: Config) -> Any:
    """Builds the test data set, without loading images."""
    part = {**cfg['test_dataloader']['dataset'], 'pipeline': []}
    scope = cfg.get('default_scope', 'mmengine')
    with DATASETS.switch_scope_and_registry(scope) as registry:
        try:
            with redirect_stdout(io.StringIO()):  # of pycocotools
                return registry.build(part)
        except (OSError, AssertionError, ValueError, KeyError) as error:
            raise UserError(
                f'test_dataloader.dataset cannot be read: {error}',
                'Check its data_root, data_prefix and ann_file.',
            ) from error


def _built(cfg: Config, task: str) -> TestData:
    """Builds the data set and hashes its labels."""
    dataset = _build(cfg)
    infos = [dataset.get_data_info(i) for i in range(len(dataset))]
    if not infos:
        raise UserError(
            'test_dataloader.dataset has no images',
            'Check its data_root, data_prefix and ann_file.',
        )
    meta = dataset.metainfo
    classes = tuple(map(str, meta.get('classes') or ()))
    header = [*classes, meta.get('label_map'), meta.get('reduce_zero_label')]
    paths = [info.get('img_path') for info in infos]
    # A data set in one file has no names of images.
    names = range(len(paths)) if None in paths else relative_names(paths)
    names = tuple(map(str, names))
    rows = sorted(zip(names, map(_label, infos), strict=True))
    text = json.dumps([header, rows], default=str)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return TestData(task, digest, len(infos), classes, names=names)


def _label(info: dict[str, Any]) -> str:
    if 'seg_map_path' not in info:
        return str(np.asarray(info.get('gt_label')).tolist())
    try:
        return sha256(info['seg_map_path'])
    except OSError as error:
        raise UserError(
            f'the class map of {info.get("img_path")} cannot be read: {error}',
            'Add it, or list the other images in ann_file.',
        ) from error
