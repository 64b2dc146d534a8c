# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Writes a test's predictions to the work dir, where comparisons find them."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import mmcv
import mmdet
import mmengine
import numpy
import torch
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from mmext.utils.files import sha256
from mmext.version import __version__


@HOOKS.register_module()
class PredictionsHook(Hook):
    """Writes the predictions of a test as COCO result files.

    ``WORK_DIR/predictions/<checkpoint>.bbox.json`` (and ``.segm.json``) are
    the result files. ``<checkpoint>.meta.json`` describes the data, the
    checkpoint and the versions that they were made with. Files are moved there
    when they are complete.

    Every metric of the evaluator that can write its results and has no
    ``outfile_prefix`` writes them. The names of the second and later metrics
    end in ``-1``, ``-2``, ...

    Args:
        name: Stem of the files. Default: that of the checkpoint.
    """

    priority = 'LOWEST'

    def __init__(self, name: str | None = None) -> None:
        self.name = name
        self._metrics: list[BaseMetric] = []
        self._seed: int | None = None  # of the training

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        self._seed = checkpoint.get('meta', {}).get('seed')

    def before_test(self, runner: Runner) -> None:
        """Makes the metrics write to a temporary folder."""
        self._metrics = [
            metric
            for metric in runner.test_evaluator.metrics
            if getattr(metric, 'outfile_prefix', '') is None
        ]
        if runner.rank != 0:
            return
        folder = Path(runner.work_dir, 'predictions')
        folder.mkdir(parents=True, exist_ok=True)
        self._temporary = tempfile.TemporaryDirectory('', '.writing-', folder)
        for i, metric in enumerate(self._metrics):
            stem = self._stem(runner, i)
            metric.outfile_prefix = str(Path(self._temporary.name, stem))

    def after_test_epoch(self, runner: Runner, metrics: dict) -> None:
        """Writes the descriptions and moves all files into place."""
        if runner.rank != 0:
            return
        written = Path(self._temporary.name)
        for i, metric in enumerate(self._metrics):
            meta = describe(runner, metric, metrics, self._seed)
            path = written / f'{self._stem(runner, i)}.meta.json'
            path.write_text(json.dumps(meta, indent=1))
            metric.outfile_prefix = None
        for file in sorted(written.iterdir()):
            os.replace(file, written.parent / file.name)
        self._temporary.cleanup()
        if self._metrics:
            runner.logger.info(f'Predictions are in {written.parent}')

    def _stem(self, runner: Runner, index: int) -> str:
        stem = self.name or Path(str(runner._load_from)).stem
        return f'{stem}-{index}' if index else stem


def describe(
    runner: Runner,
    metric: BaseMetric,
    metrics: Mapping[str, Any],
    seed: int | None,
) -> dict[str, Any]:
    """Returns the content of a metric's ``.meta.json`` file after a test."""
    dataset = runner.test_dataloader.dataset
    ann_file = getattr(dataset, 'ann_file', None)
    ann_file = getattr(metric, 'ann_file', None) or ann_file
    config = runner.cfg.get('test_evaluator')
    for evaluator in config if isinstance(config, list) else [config]:
        ann_file = (evaluator or {}).get('ann_file') or ann_file
    known = ann_file and Path(ann_file).is_file()
    names = (metric.dataset_meta or {}).get('classes', ())
    ids = getattr(metric, 'cat_ids', None) or range(len(names))
    checkpoint = runner._load_from
    local = checkpoint and Path(checkpoint).is_file()
    name = runner.experiment_name.removesuffix(f'_{runner.timestamp}')
    return {
        'annotation_file': known and str(Path(ann_file).resolve()),
        'annotation_sha256': known and sha256(ann_file),
        'max_dets': list(getattr(metric, 'proposal_nums', ())),
        'categories': {int(i): n for i, n in zip(ids, names, strict=False)},
        'config': runner.cfg.filename,
        'config_name': name,
        'checkpoint': checkpoint and str(checkpoint),
        'checkpoint_sha256': local and sha256(checkpoint),
        'seed': seed,
        'versions': versions(),
        'metrics': {
            key: value.item() if hasattr(value, 'item') else value
            for key, value in metrics.items()
        },
    }


def versions() -> dict[str, str]:
    """Returns the versions of the packages that a result depends on."""
    modules = (mmdet, mmcv, mmengine, torch, numpy)
    found = {'mmext': __version__}
    found |= {m.__name__: str(m.__version__) for m in modules}
    for name in ('torchvision', 'pycocotools', 'hotcoco'):
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
