# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Keeps a test's predictions where comparisons find them.

``<work_dir>/predictions/<checkpoint>.bbox.json`` (and ``.segm.json``) are
COCO result files; ``<checkpoint>.meta.json`` beside them says on what and
with what they were made. They are written elsewhere and moved when whole.
"""

from __future__ import annotations

import json
import os
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import mmcv
import mmdet
import mmengine
import numpy
import torch
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from mmext.utils.files import sha256
from mmext.version import __version__


@HOOKS.register_module()
class PredictionsHook(Hook):
    """Writes the predictions of a test as COCO result files.

    Every metric of the evaluator that can dump (``outfile_prefix``) and was
    not told where does so. From the second on, names end in ``-1``, ``-2``.

    Args:
        name: Stem of the files. Default: the checkpoint's.
    """

    priority = 'LOWEST'

    def __init__(self, name: str | None = None) -> None:
        self.name = name
        self._dumping: list[BaseMetric] = []
        self._seed: int | None = None

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Notes the seed of the training that made the checkpoint."""
        self._seed = checkpoint.get('meta', {}).get('seed')

    def before_test(self, runner) -> None:
        """Points the metrics to a temporary folder beside the final one."""
        self._dumping = [
            metric
            for metric in runner.test_evaluator.metrics
            if getattr(metric, 'outfile_prefix', '') is None
        ]
        folder = Path(runner.work_dir, 'predictions')
        if runner.rank == 0:
            folder.mkdir(parents=True, exist_ok=True)
            self._temporary = tempfile.TemporaryDirectory(
                prefix='.writing-', dir=folder
            )
            for i, metric in enumerate(self._dumping):
                metric.outfile_prefix = str(
                    Path(self._temporary.name, self._stem(runner, i))
                )

    def after_test_epoch(self, runner, metrics: dict | None = None) -> None:
        """Adds the side files and moves all of them into place."""
        if runner.rank != 0:
            return
        written = Path(self._temporary.name)
        for i, metric in enumerate(self._dumping):
            side = written / f'{self._stem(runner, i)}.meta.json'
            side.write_text(
                json.dumps(
                    describe(runner, metric, metrics or {}, self._seed),
                    indent=1,
                )
            )
            metric.outfile_prefix = None
        for file in sorted(written.iterdir()):
            os.replace(file, written.parent / file.name)
        self._temporary.cleanup()
        if self._dumping:
            runner.logger.info(f'Predictions are in {written.parent}')

    def _stem(self, runner, index: int) -> str:
        stem = self.name or Path(str(runner._load_from)).stem
        return f'{stem}-{index}' if index else stem


def describe(
    runner, metric: BaseMetric, metrics: dict, seed: int | None = None
) -> dict:
    """What the side file says.

    Args:
        runner: The runner after its test.
        metric: The metric that dumped.
        metrics: All metrics of the test.
        seed: Of the training that made the checkpoint. Default: unknown.
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
        'metrics': {k: _plain(v) for k, v in metrics.items()},
    }


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    modules = (mmdet, mmcv, mmengine, torch, numpy)
    found = {'mmext': __version__}
    found |= {m.__name__: str(m.__version__) for m in modules}
    for name in ('torchvision', 'pycocotools', 'hotcoco'):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _plain(value):
    """A number as JSON has it: -1 and nan stay what they are."""
    return value.item() if hasattr(value, 'item') else value
