# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Makes the record of a run from its work folder."""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmext.datasets.coco import is_number
from mmext.errors import UserError
from mmext.evaluation.classes import choose_classes
from mmext.evaluation.coco.ground_truth import read_ground_truth
from mmext.evaluation.coco.matching import match
from mmext.evaluation.coco.meta import read_meta
from mmext.evaluation.coco.predictions import read_predictions
from mmext.evaluation.groups import named_images, read_groups
from mmext.evaluation.image_results import read_image_results
from mmext.evaluation.runs import (
    IMAGE_TASKS,
    Run,
    logged_curves,
    parse_metrics,
    read_run,
)
from mmext.evaluation.tested import checkpoint_name
from mmext.experiments.records.record import Record
from mmext.utils.git import commit
from mmext.utils.machine import cores, processor
from mmext.utils.text import some

if TYPE_CHECKING:
    from mmext.experiments.test_data import TestData

_POINTS = 500  # of a curve


def record_run(
    folder: str | Path,
    *,
    task: str,
    data: TestData,
    side: str,
    seed: int,
    config_sha256: str,
    baseline: bool = False,
    plan_sha256: str | None = None,
    groups: str | Path | None = None,
) -> Record:
    """Makes the record of a work folder in which a test wrote its results.

    Args:
        folder: The work folder.
        task: What is recorded.
        data: The test data.
        side: Name of the side.
        seed: Seed of the training.
        config_sha256: Of the config.
        baseline: Whether the side is the baseline. Default: False.
        plan_sha256: Of the plan. Default: None.
        groups: Which images belong together; see
            `~mmext.evaluation.groups.read_groups`. For images without an
            annotation file, a pattern of names or a CSV file. Default: None.

    Raises:
        UserError: The folder has no results for this task, or they do not
            fit the test data.
    """
    run = read_run(folder)
    tested = {**run.predictions, **run.image_results}
    if task not in tested:
        raise UserError(
            f'{run.path} has no {task} results (it has: '
            f'{some(tested) or "none"})',
            f'Write them: mmext test CONFIG CHECKPOINT --work-dir {run.path}',
        )
    file = tested[task]
    if task in IMAGE_TASKS:
        results, images = read_image_results(file)
        truth = named_images(images, file)
    else:
        truth = read_ground_truth(data.annotations)
        truth, _ = choose_classes(truth, [(side, file)])
        results = match(truth, read_predictions(file, truth, task))
        images = tuple(map(str, truth.image_ids.tolist()))
    if len(images) != data.images:
        raise UserError(
            f'{file} has results of {len(images)} images, and the test data '
            f'have {data.images}',
            f'Write it again: mmext test CONFIG CHECKPOINT --work-dir '
            f'{run.path}',
        )
    meta, now = read_meta(file), datetime.now(timezone.utc)
    return Record(
        task=task,
        results=results,
        images=images,
        side=side,
        seed=seed,
        data_sha256=data.sha256,
        config_sha256=config_sha256,
        started=_started(run.path, now).isoformat(timespec='seconds'),
        finished=now.isoformat(timespec='seconds'),
        baseline=baseline,
        plan_sha256=plan_sha256,
        groups=None if groups is None else read_groups(groups, truth),
        config=without_folders(run.config or {}),
        config_name=run.config_file and run.config_file.name,
        **{k: run.names.get(k) for k in ('detector', 'backbone')},
        data_name=_data_name(run, data),
        commit=commit(os.getcwd()),
        versions=meta.get('versions') or {},
        hardware=_hardware(),
        train_seconds=run.train_seconds,
        metrics=_finite(meta.get('metrics') or {}),
        curves=_curves(run, task),
        test=meta.get('test') or {},
        params=run.model.get('params'),
        flops=run.model.get('flops'),
        checkpoint=checkpoint_name(meta),
        checkpoint_sha256=meta.get('checkpoint_sha256') or None,
    )


def without_folders(value: Any) -> Any:
    """Returns values of a config as JSON has them, without absolute paths.

    Of a path that begins at the root or the home folder only the last name
    is left. What JSON does not have becomes a text.
    """
    if isinstance(value, Mapping):
        return {
            without_folders(str(k)): without_folders(v)
            for k, v in value.items()
        }
    if isinstance(value, list | tuple | set):
        return [without_folders(v) for v in value]
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    text = str(value).replace('file://', '')
    if re.match(r'(~[\w.-]*)?/[^\n]*$', text):
        return Path(text).name
    # Not the slashes of an address or of a relative path.
    home = r'(?<![\w:/.~-])(?:~[\w.-]*)?'
    return re.sub(home + r'(?:/[^/\s\'",:]+)+/', '', text)


def _finite(values: Mapping[str, Any]) -> dict[str, float]:
    return {k: v for k, v in values.items() if is_number(v)}


def _curves(run: Run, task: str) -> dict[str, list[tuple[float, float]]]:
    logged = logged_curves(run)
    validated = {key for record in run.val_log for key in record}
    curves = {k: v for k, v in logged.items() if k in {'loss', *validated}}
    curves['validation'] = [
        (record['step'], value)
        for record in run.val_log
        if (value := _primary(record, task)) is not None
    ]
    return {key: _thinned(points) for key, points in curves.items() if points}


def _primary(record: Mapping[str, Any], task: str) -> float | None:
    """The primary metric in a validation, in points."""
    if task not in IMAGE_TASKS:
        ap = parse_metrics(record).get(task, {}).get('AP')
        return None if ap is None else 100 * ap
    names = (key for key in record if key.rpartition('/')[2] == task)
    return record.get(next(names, ''))


def _thinned(
    points: Sequence[tuple[float, float]],
) -> list[tuple[float, float]]:
    points = [point for point in points if all(map(is_number, point))]
    step = math.ceil(len(points) / _POINTS)
    # The last one is always there.
    return points[:: -step or -1][::-1]


def _started(folder: Path, now: datetime) -> datetime:
    """When the first training began, by the name of its log folder."""
    for path in sorted(folder.glob('*_*/vis_data/scalars.json')):
        try:
            begun = datetime.strptime(path.parts[-3], '%Y%m%d_%H%M%S')
        except ValueError:
            continue
        return begun.astimezone(timezone.utc)
    return now


def _data_name(run: Run, data: TestData) -> str:
    if data.annotations:
        return Path(data.annotations).stem
    loader = (run.config or {}).get('test_dataloader') or {}
    return str((loader.get('dataset') or {}).get('type', 'images'))


def _hardware() -> dict[str, Any]:
    """The device of a run that was executed by this process."""
    torch = sys.modules.get('torch')
    device, threads = processor(), None
    if torch is not None:
        threads = torch.get_num_threads()
        if torch.cuda.is_available():
            device = torch.cuda.get_device_name()
    return {'device': device, 'cores': cores(), 'threads': threads}
