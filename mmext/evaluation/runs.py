# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Reads what a training or a test run left on disk.

A run is a work folder of MMEngine's runner. It holds
``<time stamp>/vis_data/scalars.json`` (one JSON object a line: training
scalars and validation metrics), a config, and after ``tools/test.py``
``predictions/<name>.<iou type>.json`` with ``<name>.meta.json``, or
``<name>.mIoU.npz`` or ``<name>.top1.npz`` with results of each image.
"""

from __future__ import annotations

import itertools
import math
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from mmext.datasets.coco import is_number
from mmext.errors import UserError
from mmext.evaluation.coco.formats import COCO, Format
from mmext.evaluation.coco.meta import read_meta
from mmext.evaluation.dumped_config import read_dumped_config
from mmext.evaluation.tested import identity, uses_tta
from mmext.utils import documents
from mmext.utils.text import some

Metrics = dict[str, dict[str, float]]

#: mmdet's suffix -> the usual name, in the order of a table.
METRIC_NAMES = {'mAP': 'AP'}
METRIC_NAMES |= {f'mAP_{x}': f'AP{x}' for x in ('50', '75', 's', 'm', 'l')}
#: Tasks of which testing writes the results of each image.
IMAGE_TASKS = ('mIoU', 'top1')
_STEPS = ('step', 'iter', 'epoch')
_NO_METRICS = (*_STEPS, 'time', 'data_time', 'memory')
_METRIC = re.compile(r'(?:^|/)(bbox|segm)_(mAP(?:_(?:50|75|s|m|l))?)$')
_SEED = re.compile(r'^\s*(?:current )?seed:\s*(\d{1,18})\b', re.MULTILINE)


@dataclass(frozen=True)
class Run:
    """A run, finished or not; None is what is not known.

    Args:
        name: Name in the tables.
        path: The work folder, or a result file.
        config_file: The config that the runner wrote.
        metrics: IoU type -> metric name -> value from 0 to 1; nan if COCO
            gives -1 (no object of that kind). Empty before the first
            validation.
        step: The epoch (or iteration) of ``metrics``; None after a test.
        train_seconds: Time in training iterations, with data loading and
            without validation.
        seed: The seed of the training.
        train_log: The logged training scalars, in order of steps.
        val_log: The logged validation metrics, in order of steps.
        model: What testing wrote about the model: names and cost.
        predictions: IoU type -> result file that testing wrote.
        image_results: ``'mIoU'`` or ``'top1'`` -> file of the results of each
            image that testing wrote.
        other_tests: Result files of the work folder that are of another
            checkpoint, or were tested in another way.
        file_format: Who wrote the result files.
    """

    name: str
    path: Path
    config_file: Path | None = None
    metrics: Metrics = field(default_factory=dict)
    step: int | None = None
    train_seconds: float | None = None
    seed: int | None = None
    train_log: tuple[dict, ...] = ()
    val_log: tuple[dict, ...] = ()
    model: Mapping[str, Any] = field(default_factory=dict)
    predictions: dict[str, Path] = field(default_factory=dict)
    image_results: dict[str, Path] = field(default_factory=dict)
    other_tests: tuple[Path, ...] = ()
    file_format: Format = COCO

    @cached_property
    def config(self) -> dict[str, Any] | None:
        """The config of the run, None if there is none; never executed."""
        if self.config_file is None:
            return None
        return read_dumped_config(self.config_file)

    @cached_property
    def names(self) -> dict[str, str]:
        """``detector`` and ``backbone`` in words, if they are known.

        Those of the test, otherwise those of the config in the folder.
        """
        names = {k: self.model.get(k) for k in ('detector', 'backbone')}
        if all(isinstance(name, str) for name in names.values()):
            return names
        try:
            return describe_model(self.config['model'])
        except (AttributeError, KeyError, TypeError):  # none, or another kind
            return {}

    @property
    def backbone(self) -> str:
        """A description of the backbone; ``'?'`` if it is not known."""
        return self.names.get('backbone', '?')


def read_run(path: str | Path, which: str = 'last') -> Run:
    """Reads a work folder.

    The metrics are those of the ``'last'`` validation or of the ``'best'``
    one (highest AP of the first IoU type). The best one is chosen on the data
    that it is reported on, so it is biased upwards.

    If several tests wrote predictions, those of the last test without
    test-time augmentation are taken, and the others are ``other_tests``.

    Raises:
        UserError: The folder does not exist or holds no run.
    """
    path = Path(path)
    if which not in ('last', 'best'):
        raise ValueError(f"which must be 'last' or 'best', not {which!r}")
    if not path.is_dir():
        what = 'is a file' if path.exists() else 'does not exist'
        raise UserError(
            f'{path} {what}; a run is a work folder',
            'Give the folder that training wrote to (--work-dir).',
        )
    train, val = _read_scalars(path)
    configs = _by_age(path, '*.py') or _by_age(path, '*/vis_data/config.py')
    config_file = configs[-1] if configs else None
    tested, other_tests = _read_tests(path)
    predictions, image_results = (
        {k: file for k, file in tested.items() if file.suffix == suffix}
        for suffix in ('.json', '.npz')
    )
    if not (train or val or tested):
        raise UserError(
            f'{path} holds no run: no */vis_data/scalars.json and no '
            'predictions/*.json',
            'Give the folder that training wrote to (--work-dir).',
        )
    metrics, step = _pick(val, which)
    return Run(
        name=path.resolve().name,
        path=path,
        config_file=config_file,
        metrics=metrics or _tested_metrics(path, predictions),
        step=step,
        train_seconds=_train_seconds(train),
        seed=_seed(path, config_file),
        train_log=tuple(train),
        val_log=tuple(val),
        model=model_of(tested),
        predictions=predictions,
        image_results=image_results,
        other_tests=other_tests,
    )


def parse_metrics(record: Mapping[str, Any]) -> Metrics:
    """Returns ``coco/bbox_mAP_50`` and others by IoU type and usual name."""
    found: Metrics = {}
    for key, value in record.items():
        match = _METRIC.search(key)
        if match and isinstance(value, int | float):
            iou_type, name = match[1], METRIC_NAMES[match[2]]
            value = math.nan if value < 0 else float(value)
            found.setdefault(iou_type, {})[name] = value
    return found


def other_metrics(record: Mapping[str, Any]) -> dict[str, float]:
    """Returns metrics of a validation that are not COCO's, such as mIoU."""
    return {
        key: float(value)
        for key, value in record.items()
        if isinstance(value, int | float)
        and key not in _NO_METRICS
        and not key.startswith('val_loss')
        and not _METRIC.search(key)
    }


def logged_curves(run: Run) -> dict[str, list[tuple[int, float]]]:
    """Returns key -> (step, value) of every number that was logged.

    Steps of training scalars are iterations. Steps of validation metrics are
    epochs, or iterations if the run was configured by iterations.
    """
    curves = defaultdict(list)
    for record in (*run.train_log, *run.val_log):
        for key, value in record.items():
            if isinstance(value, int | float) and key not in _STEPS:
                curves[key].append((record['step'], value))
    return dict(curves)


def validation_unit(run: Run) -> str:
    """Returns what the steps of ``run.val_log`` count."""
    log = run.train_log
    # MMEngine's default is epochs.
    by_epoch = not log or any('epoch' in record for record in log)
    return 'epoch' if by_epoch else 'iteration'


def common_iou_type(
    results: Sequence[tuple[Path, Mapping[str, object]]], what: str, fix: str
) -> str:
    """Returns the first IoU type that all runs have results of.

    ``results`` has the path of each run and its results by IoU type, ``what``
    names the results in the message.

    Raises:
        UserError: There is no such type.
    """
    for iou_type in ('bbox', 'segm'):
        if all(iou_type in found for _, found in results):
            return iou_type
    have = '; '.join(f'{path}: {some(r) or "none"}' for path, r in results)
    raise UserError(
        f'the runs have no {what} of a common IoU type ({have})', fix
    )


def model_of(predictions: Mapping[str, Path]) -> Mapping[str, Any]:
    """Returns what testing wrote about the model, or an empty mapping."""
    for file in predictions.values():
        model = read_meta(file).get('model')
        if isinstance(model, dict):
            return model
    return {}


def describe_model(cfg: Mapping[str, Any]) -> dict[str, str]:
    """Describes the config of a model: ``Faster R-CNN``, ``ResNet-50``."""
    while 'backbone' not in cfg:
        cfg = cfg['detector']  # a wrapper, as in semi-supervised
    detector = re.sub('(?<=[a-z])RCNN', ' R-CNN', _type_name(cfg))
    if 'mask_head' in (cfg.get('roi_head') or {}):
        detector = detector.replace('Cascade R-', 'Cascade Mask R-')
    backbone = describe_backbone(cfg['backbone'])
    return {'detector': detector, 'backbone': backbone}


def describe_backbone(cfg: Mapping[str, Any]) -> str:
    """Describes the config of a backbone: ``ResNet-50 + SELayer``."""
    name = _type_name(cfg)
    size = cfg.get('depth', cfg.get('arch'))
    if isinstance(size, int | str):
        name += f'-{size}'
    plugins = [_type_name(p['cfg']) for p in cfg.get('plugins') or ()]
    return ' + '.join([name, *plugins])


def _type_name(cfg: Mapping[str, Any]) -> str:
    kind = cfg['type']
    name = kind if isinstance(kind, str) else kind.__name__
    return name.rsplit('.', 1)[-1]


def _by_age(folder: Path, pattern: str) -> list[Path]:
    """The files that match, the newest last."""
    files = filter(os.path.isfile, folder.glob(pattern))
    return sorted(files, key=os.path.getmtime)


def _read_tests(path: Path) -> tuple[dict[str, Path], tuple[Path, ...]]:
    """The result files of one test by their kind, and those of others."""
    tests: dict[str, dict[str, Path]] = {}
    for file in _by_age(path, 'predictions/*'):
        stem, _, kind = file.stem.rpartition('.')
        results = {'.json': kind != 'meta', '.npz': kind in IMAGE_TASKS}
        if stem and results.get(file.suffix):
            # Again at the end: a test is as old as its newest file.
            tests[stem] = {**tests.pop(stem, {}), kind: file}
    metas = {
        stem: read_meta(next(iter(files.values())))
        for stem, files in tests.items()
    }
    order = sorted(tests, key=lambda stem: not uses_tta(metas[stem]))
    if not order:
        return {}, ()
    last = order[-1]
    predictions = {k: f for stem in order for k, f in tests[stem].items()}
    others = [
        file
        for stem in order
        if identity(metas[stem], stem) != identity(metas[last], last)
        for file in tests[stem].values()
    ]
    return predictions, tuple(others)


def _records(path: Path) -> Iterator[dict]:
    """The objects of a file of JSON lines, without a truncated last line."""
    text = documents.read_bytes(path).decode(errors='replace')
    for line in text.splitlines():
        try:
            record = documents.parse_json(line, path)
        except UserError:
            continue
        if isinstance(record, dict):
            # An integer may be larger than any float.
            yield {
                key: value
                for key, value in record.items()
                if type(value) is not int or is_number(value)
            }


def _is_training(record: dict) -> bool:
    return 'loss' in record or 'lr' in record


def _read_scalars(path: Path) -> tuple[list[dict], list[dict]]:
    """Training and validation records.

    The records of a resumed run replace those of the steps that it repeats.
    A run that started from the beginning in the same folder replaces all.
    """
    train: dict[int, dict] = {}
    val: dict[int, dict] = {}
    trained: dict[int, int] = {}  # the last step logged before a validation
    for file in sorted(path.glob('*/vis_data/scalars.json')):
        records = [r for r in _records(file) if is_number(r.get('step'))]
        begin = next((r['step'] for r in records if _is_training(r)), None)
        if begin is not None:
            train = {s: r for s, r in train.items() if s < begin}
            val = {s: r for s, r in val.items() if trained[s] < begin}
        for record in records:
            step = record['step']
            if _is_training(record):
                train[step] = record
            elif parse_metrics(record) or other_metrics(record):
                val[step] = record
                trained[step] = max(train, default=0)
    return [train[s] for s in sorted(train)], [val[s] for s in sorted(val)]


def _pick(val: list[dict], which: str) -> tuple[Metrics, int | None]:
    """The metrics of the last or best validation, and its step."""
    parsed = [(m, r['step']) for r in val if (m := parse_metrics(r))]
    if not parsed:
        return {}, None
    if which == 'last':
        return parsed[-1]

    def ap(item: tuple[Metrics, int]) -> float:
        value = next(iter(item[0].values())).get('AP', math.nan)
        return -1.0 if math.isnan(value) else value

    return max(parsed, key=ap)


def _tested_metrics(path: Path, predictions: dict[str, Path]) -> Metrics:
    """Metrics of a test: beside the predictions, or in the log of the test."""
    metrics: Metrics = {}
    for file in predictions.values():
        metrics.update(parse_metrics(read_meta(file).get('metrics') or {}))
    if metrics:
        return metrics
    for file in sorted(path.glob('[0-9]*/*.json')):
        for record in _records(file):
            metrics = metrics or parse_metrics(record)
    return metrics


def _train_seconds(train: list[dict]) -> float | None:
    """Sum of the number of iterations times their logged mean time."""
    timed = [is_number(record.get('time')) for record in train]
    if not timed or not all(timed):
        return None
    steps = itertools.pairwise([0, *(record['step'] for record in train)])
    times = [record['time'] for record in train]
    return sum((b - a) * t for (a, b), t in zip(steps, times, strict=True))


def _seed(path: Path, config_file: Path | None) -> int | None:
    """The seed in the newest log that has one, or in the config."""
    logs = filter(os.path.isfile, path.glob('*/*.log'))
    for log in sorted(logs, reverse=True):
        with log.open(encoding='utf-8', errors='replace') as stream:
            match = _SEED.search(stream.read(100_000))
        if match:
            return int(match[1])
    if config_file is None:
        return None
    text = documents.read_bytes(config_file).decode(errors='replace')
    match = re.search(r'seed=(\d{1,18})\b', text)
    return int(match[1]) if match else None
