# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Writes a test's predictions to the work dir, where comparisons find them.

``<work_dir>/predictions/<checkpoint>.bbox.json`` (and ``.segm.json``) are
COCO result files. ``<checkpoint>.meta.json`` beside them describes the data,
the checkpoint and the versions that they were made with. All files are
written to a temporary folder and moved when they are complete.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
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
        self._seed: int | None = None

    def after_load_checkpoint(
        self, runner: Runner, checkpoint: dict[str, Any]
    ) -> None:
        """Notes the seed of the training that made the checkpoint."""
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
        self._temporary = tempfile.TemporaryDirectory(
            prefix='.writing-', dir=folder
        )
        for i, metric in enumerate(self._metrics):
            stem = self._stem(runner, i)
            metric.outfile_prefix = str(Path(self._temporary.name, stem))

    def after_test_epoch(
        self, runner: Runner, metrics: dict[str, float] | None = None
    ) -> None:
        """Writes the descriptions and moves all files into place."""
        if runner.rank != 0:
            return
        written = Path(self._temporary.name)
        for i, metric in enumerate(self._metrics):
            meta = describe(runner, metric, metrics or {}, self._seed)
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
    seed: int | None = None,
) -> dict[str, Any]:
    """Returns the content of a ``.meta.json`` file.

    Args:
        runner: The runner after its test.
        metric: The metric that wrote its results.
        metrics: All metrics of the test.
        seed: The seed of the training that made the checkpoint. Default:
            unknown.
    """
    dataset = runner.test_dataloader.dataset
    ann_file = getattr(metric, 'ann_file', None) or getattr(
        dataset, 'ann_file', None
    )
    config = runner.cfg.get('test_evaluator')
    for evaluator in config if isinstance(config, list) else [config]:
        ann_file = (evaluator or {}).get('ann_file') or ann_file
    known = ann_file and Path(ann_file).is_file()
    names = (metric.dataset_meta or {}).get('classes', ())
    ids = getattr(metric, 'cat_ids', None) or range(len(names))
    checkpoint = runner._load_from
    local = checkpoint and Path(checkpoint).is_file()
    return {
        'annotation_file': known and str(Path(ann_file).resolve()),
        'annotation_sha256': known and sha256(ann_file),
        'max_dets': list(getattr(metric, 'proposal_nums', ())),
        'categories': {int(i): n for i, n in zip(ids, names, strict=False)},
        'config': runner.cfg.filename,
        'config_name': runner.experiment_name.removesuffix(
            f'_{runner.timestamp}'
        ),
        'checkpoint': checkpoint and str(checkpoint),
        'checkpoint_sha256': local and sha256(checkpoint),
        'seed': seed,
        'versions': versions(),
        'metrics': {
            name: value.item() if hasattr(value, 'item') else value
            for name, value in metrics.items()
        },
    }


def versions() -> dict[str, str]:
    """Returns the versions of the packages that a result depends on."""
    modules = (mmdet, mmcv, mmengine, torch, numpy)
    found = {'mmext': __version__}
    found |= {m.__name__: str(m.__version__) for m in modules}
    for name in ('torchvision', 'pycocotools', 'hotcoco'):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
