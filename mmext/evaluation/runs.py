# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Reads what a training or test run left on disk; prints nothing.

A run is a work folder of MMEngine's runner: ``<work_dir>/<time stamp>/`` with
``vis_data/scalars.json`` (one JSON object a line: training scalars, then
validation metrics), a config beside it, and, where ``tools/test.py`` has been
there, ``<work_dir>/predictions/<name>.<iou type>.json`` with
``<name>.meta.json`` beside them.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from mmengine.config import Config, ConfigDict

from mmext.errors import UserError

#: mmdet's suffix -> the name in the field, in the order of a table.
METRIC_NAMES = {
    'mAP': 'AP',
    'mAP_50': 'AP50',
    'mAP_75': 'AP75',
    'mAP_s': 'APs',
    'mAP_m': 'APm',
    'mAP_l': 'APl',
}
_NO_METRICS = ('step', 'epoch', 'iter', 'time', 'data_time', 'memory')
_METRIC = re.compile(r'(?:^|/)(bbox|segm)_(mAP(?:_(?:50|75|s|m|l))?)$')
_SEED = re.compile(r'^\s*(?:current )?seed:\s*(\d+)', re.MULTILINE)


@dataclass(frozen=True)
class Run:
    """One finished (or unfinished) run, as its work folder tells it.

    Args:
        name: What the tables call it.
        path: The work folder.
        config_file: The config that the runner dumped, None without one.
        metrics: IoU type -> metric name -> value in 0..1, nan where COCO has
            -1 (no object of that kind). Empty where nothing was validated.
        step: The epoch (or iteration) that ``metrics`` belong to, None where
            they come from a test.
        train_seconds: Time spent in training iterations, data loading
            included and validation not; None without a training log.
        seed: The seed that was used, None where it is not on record.
        train_log: The logged training scalars, in order of steps.
        val_log: The logged validation metrics, in order of steps.
        predictions: IoU type -> prediction file, where testing left one.
    """

    name: str
    path: Path
    config_file: Path | None = None
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    step: int | None = None
    train_seconds: float | None = None
    seed: int | None = None
    train_log: tuple[dict, ...] = ()
    val_log: tuple[dict, ...] = ()
    predictions: dict[str, Path] = field(default_factory=dict)

    @cached_property
    def config(self) -> Config | None:
        """The run's config, None where it has none."""
        if self.config_file is None:
            return None
        return Config.fromfile(self.config_file)

    @property
    def backbone(self) -> str:
        """The backbone in words, ``'?'`` where no config says it."""
        model = self.config.get('model') if self.config else None
        while model and 'backbone' not in model:
            model = model.get('detector')  # a wrapper, as in semi-supervised
        return describe_backbone(model.backbone) if model else '?'


def read_run(
    path: str | Path, which: str = 'last', name: str | None = None
) -> Run:
    """Reads a work folder.

    Args:
        path: The work folder.
        which: Metrics of the ``'last'`` validation or of the ``'best'`` one
            (highest AP of the first IoU type). The best is chosen on the data
            it is then reported on, which flatters it.
        name: What tables call the run. Default: the folder's name.

    Raises:
        UserError: No such folder, or no run in it.
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
    config_file = _newest([*path.glob('*.py')]) or _newest(
        [*path.glob('*/vis_data/config.py')]
    )
    predictions = {
        p.name.split('.')[-2]: p
        for p in sorted(
            (path / 'predictions').glob('*.json'),
            key=lambda p: p.stat().st_mtime,
        )
        if not p.name.endswith('.meta.json') and p.name.count('.') >= 2
    }
    if not (train or val or predictions):
        raise UserError(
            f'{path} holds no run: no */vis_data/scalars.json and no '
            'predictions/*.json',
            'Give the folder that training wrote to (--work-dir).',
        )
    metrics, step = _pick(val, which)
    if not metrics:
        metrics = _tested_metrics(path, predictions)
    return Run(
        name=name or path.resolve().name,
        path=path,
        config_file=config_file,
        metrics=metrics,
        step=step,
        train_seconds=_train_seconds(train),
        seed=_seed(path, config_file),
        train_log=tuple(train),
        val_log=tuple(val),
        predictions=predictions,
    )


def parse_metrics(record: dict) -> dict[str, dict[str, float]]:
    """``coco/bbox_mAP_50`` and its like, by IoU type and usual name."""
    found: dict[str, dict[str, float]] = {}
    for key, value in record.items():
        match = _METRIC.search(key)
        if match and isinstance(value, (int, float)):
            iou_type, name = match[1], METRIC_NAMES[match[2]]
            value = math.nan if value < 0 else float(value)
            found.setdefault(iou_type, {})[name] = value
    return found


def other_metrics(record: dict) -> dict[str, float]:
    """What a validation logged that is not COCO's: ``mIoU`` and its like."""
    return {
        key: float(value)
        for key, value in record.items()
        if isinstance(value, int | float)
        and key not in _NO_METRICS
        and not key.startswith('val_loss')
        and not _METRIC.search(key)
    }


def describe_backbone(cfg: ConfigDict | dict) -> str:
    """A backbone's config in a few words: ``ResNet-50 + SELayer``."""
    kind = cfg['type']
    kind = kind if isinstance(kind, str) else kind.__name__
    kind = kind.rsplit('.', 1)[-1]
    size = cfg.get('depth', cfg.get('arch', ''))
    size = size if isinstance(size, (int, str)) else ''
    words = [f'{kind}-{size}' if size != '' else kind]
    for plugin in cfg.get('plugins') or ():
        words.append(str(plugin['cfg']['type']).rsplit('.', 1)[-1])
    return ' + '.join(words)


def _newest(paths: list[Path]) -> Path | None:
    return max(paths, key=lambda p: p.stat().st_mtime, default=None)


def _records(path: Path) -> Iterator[dict]:
    """The objects of a file of JSON lines; a torn last line is left out."""
    for line in path.read_text(encoding='utf-8').splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(record, dict):
            yield record


def _is_training(record: dict) -> bool:
    return 'loss' in record or 'lr' in record


def _read_scalars(path: Path) -> tuple[list[dict], list[dict]]:
    """Training and validation records; a resumed run overrides its past.

    One that began anew in the same folder overrides all of it.
    """
    train: dict[int, dict] = {}
    val: dict[int, dict] = {}
    trained: dict[int, int] = {}  # the last step logged before a validation
    for file in sorted(path.glob('*/vis_data/scalars.json')):
        records = [r for r in _records(file) if r.get('step') is not None]
        begin = next((r['step'] for r in records if _is_training(r)), None)
        if begin is not None:  # what is done again
            train = {s: r for s, r in train.items() if s < begin}
            val = {s: r for s, r in val.items() if trained[s] < begin}
        for record in records:
            step = record['step']
            if _is_training(record):
                train[step] = record
            elif parse_metrics(record) or other_metrics(record):
                val[step] = record
                trained[step] = max(train, default=0)
    return (
        [train[s] for s in sorted(train)],
        [val[s] for s in sorted(val)],
    )


def _pick(val: list[dict], which: str) -> tuple[dict, int | None]:
    parsed = [(parse_metrics(r), r.get('step')) for r in val]
    parsed = [(metrics, step) for metrics, step in parsed if metrics]
    if not parsed:
        return {}, None
    if which == 'last':
        return parsed[-1]

    def ap(item: tuple[dict, int | None]) -> float:
        value = next(iter(item[0].values())).get('AP', math.nan)
        return -1.0 if math.isnan(value) else value

    return max(parsed, key=ap)


def _tested_metrics(path: Path, predictions: dict[str, Path]) -> dict:
    """Metrics of a test: beside the predictions, else in the test's log."""
    metrics: dict[str, dict[str, float]] = {}
    for file in predictions.values():
        meta = file.with_name(f'{file.name.rsplit(".", 2)[0]}.meta.json')
        if meta.exists():
            record = json.loads(meta.read_text(encoding='utf-8'))
            metrics.update(parse_metrics(record.get('metrics') or {}))
    for file in sorted(path.glob('*/*.json')):
        for record in _records(file) if file.parent.name[:1].isdigit() else ():
            metrics = metrics or parse_metrics(record)
    return metrics


def _train_seconds(train: list[dict]) -> float | None:
    """Iterations times the mean iteration time logged for them."""
    total, last = 0.0, 0
    for record in train:
        if 'time' not in record:
            return None
        total += (record['step'] - last) * record['time']
        last = record['step']
    return total if train else None


def _seed(path: Path, config_file: Path | None) -> int | None:
    """The seed from the newest log that states it, else from the config."""
    for log in sorted(path.glob('*/*.log'), reverse=True):
        with log.open(encoding='utf-8', errors='replace') as stream:
            match = _SEED.search(stream.read(100_000))
        if match:
            return int(match[1])
    if config_file is None:
        return None
    match = re.search(r'seed=(\d+)', config_file.read_text(encoding='utf-8'))
    return int(match[1]) if match else None
