# Licensed under the Apache License, Version 2.0. See LICENSE.
"""A record: one run of an experiment, enough to recompute every interval.

It needs neither images nor checkpoints, and has kilobytes to a few megabytes.
docs/records.md has the format.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from mmext.datasets.coco import is_number
from mmext.errors import UserError
from mmext.evaluation.coco.matching import Matches
from mmext.evaluation.image_results import (
    arrays_of,
    from_arrays,
    require_fit,
    require_texts,
    take,
)
from mmext.evaluation.runs import IMAGE_TASKS
from mmext.evaluation.semantic import Areas
from mmext.evaluation.top1 import Labels
from mmext.experiments.records.packing import pack, unpack
from mmext.utils.arrays import read_arrays, write_arrays
from mmext.utils.text import short, some

KIND = 'mmext-record'
VERSION = 1
TASKS = ('bbox', 'segm', *IMAGE_TASKS)
_FIX = 'Use a copy, or write it again: mmext run PLAN.'


@dataclass(frozen=True)
class Record:
    """One run: what it was, and its results on each image.

    Args:
        task: ``'bbox'``, ``'segm'``, ``'mIoU'`` or ``'top1'``.
        results: The results on each image.
        images: COCO ids of the images, or their names.
        side: Name of the side in the plan.
        seed: Seed of the training.
        data_sha256: Of the test data; see
            `~mmext.experiments.test_data.TestData`.
        config_sha256: Of the config, as in the plan.
        started: When the training began, ISO 8601 with time zone.
        finished: When the record was made.
        baseline: Whether the side is the baseline. Default: False.
        plan_sha256: Of the plan. Default: None, there is none.
        groups: (I,) integers, equal for images that belong together.
            Default: None.
        config: The config, without folders of the machine.
        config_name: File name of the config.
        detector: Of the model, in words.
        backbone: Of the model, in words.
        data_name: Of the test data: the annotation file or the data set.
        commit: Of the repository in which the run was started, with
            ``-dirty`` if files were changed. Default: None, not known.
        versions: Package -> version.
        hardware: ``device``, ``cores`` and ``threads``.
        train_seconds: Time in training iterations. Default: None.
        metrics: Those of the test, as they were logged.
        curves: Name -> (step, value) of what was logged, thinned: ``loss``,
            ``validation`` (the primary metric in points), and the metrics of
            the validation by their names.
        test: Settings of the test, as in
            `~mmext.evaluation.tested.SETTINGS`.
        params: Number of parameters. Default: None, not known.
        flops: Multiply-adds of an image. Default: None, not known.
        checkpoint: File name of the checkpoint.
        checkpoint_sha256: Of the checkpoint.
    """

    task: str
    results: Matches | Areas | Labels
    images: tuple[str, ...]
    side: str
    seed: int
    data_sha256: str
    config_sha256: str
    started: str
    finished: str
    baseline: bool = False
    plan_sha256: str | None = None
    groups: np.ndarray | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    config_name: str | None = None
    detector: str | None = None
    backbone: str | None = None
    data_name: str | None = None
    commit: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    hardware: Mapping[str, Any] = field(default_factory=dict)
    train_seconds: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    curves: Mapping[str, Sequence[Sequence[float]]] = field(
        default_factory=dict
    )
    test: Mapping[str, Any] = field(default_factory=dict)
    params: int | None = None
    flops: int | None = None
    checkpoint: str | None = None
    checkpoint_sha256: str | None = None


#: Fields that are arrays, or follow from them.
_ARRAYS = ('results', 'groups')


def write_record(path: str | Path, record: Record) -> None:
    """Writes a record completely or not at all."""
    description = {
        f.name: getattr(record, f.name)
        for f in fields(Record)
        if f.name not in _ARRAYS
    }
    description['classes'] = record.results.names
    if isinstance(record.results, Matches):
        description['areas'] = record.results.areas
    arrays = arrays_in(record)
    if record.groups is not None:
        arrays['groups'] = record.groups
    write_arrays(path, KIND, VERSION, description, arrays)


def arrays_in(record: Record) -> dict[str, np.ndarray]:
    """Returns the arrays that the results of a record are stored as."""
    if isinstance(record.results, Matches):
        return pack(record.results)
    return arrays_of(record.results)


def read_record(path: str | Path) -> Record:
    """Reads a record; scores of detections are nan in it.

    Raises:
        UserError: The file is no record, is of another version, is truncated
            or was changed, or its parts do not fit each other.
    """
    content, arrays = read_arrays(path, KIND, VERSION, _FIX)
    _require_types(path, content)
    names, images = content.pop('classes'), content['images']
    areas, task = content.pop('areas', None), content['task']
    groups = None
    if 'groups' in arrays:
        groups = take(path, arrays, 'groups', (len(images),), _FIX)
        groups = groups.astype(np.int64)
        del arrays['groups']
    if task in IMAGE_TASKS:
        rest = (task, names, len(images), arrays)
        results = from_arrays(path, *rest, _FIX)
    else:
        require_texts(path, 'areas', areas, _FIX)
        results = unpack(path, names, areas, len(images), arrays, _FIX)
    known = {f.name for f in fields(Record)}
    found = {k: v for k, v in content.items() if k in known}
    found['images'] = tuple(images)
    return Record(**{**found, 'results': results, 'groups': groups})


def _require_types(path: str | Path, content: Mapping[str, Any]) -> None:
    """Raises `UserError` for a description that is not that of a record."""
    texts = ('data_sha256', 'config_sha256', 'side', 'started', 'finished')
    maps = ('config', 'versions', 'hardware', 'metrics', 'curves', 'test')
    maybe = ('plan_sha256', 'config_name', 'detector', 'backbone')
    maybe += ('data_name', 'commit', 'checkpoint', 'checkpoint_sha256')
    for keys, right, what in (
        (('task',), lambda x: x in TASKS, some(TASKS)),
        (texts, lambda x: isinstance(x, str), 'a text'),
        (('started', 'finished'), _is_time, 'a time with its zone'),
        (('seed',), lambda x: type(x) is int, 'an integer'),
        (('baseline',), lambda x: type(x) is bool, 'true or false'),
        (maps, lambda x: isinstance(x, dict), 'an object'),
        (
            ('metrics',),
            lambda x: all(map(is_number, x.values())),
            'an object of numbers',
        ),
        (
            ('curves',),
            lambda x: all(map(_is_curve, x.values())),
            'an object of lists [step, value]',
        ),
        (maybe, lambda x: x is None or isinstance(x, str), 'a text or null'),
        (
            ('train_seconds', 'params', 'flops'),
            lambda x: x is None or is_number(x),
            'a number or null',
        ),
    ):
        for key in keys:
            if key not in content or not right(content[key]):
                raise UserError(
                    f'{path}: {key} is {short(content.get(key))}, and not '
                    f'{what}',
                    _FIX,
                )
    for key in ('images', 'classes'):
        require_texts(path, key, content.get(key), _FIX)
        require_fit(path, len(content[key]) > 0, _FIX)


def _is_time(value: str) -> bool:
    try:
        return datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return False


def _is_curve(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(point, list)
        and len(point) == 2
        and all(map(is_number, point))
        for point in value
    )
