# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Writes a test's predictions to the work dir, where comparisons find them."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import mmcv
import mmdet
import mmengine
import numpy
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import nn

from mmext.engine.image_results import image_results_metrics
from mmext.evaluation.coco.meta import read_meta
from mmext.evaluation.cost.complexity import count_complexity, input_shape
from mmext.evaluation.runs import describe_model
from mmext.evaluation.tested import SETTINGS, settings
from mmext.utils.config import evaluators, resize_scales
from mmext.utils.files import sha256
from mmext.utils.modules import unwrap
from mmext.version import __version__


@HOOKS.register_module()
class PredictionsHook(Hook):
    """Writes the predictions of a test as COCO result files.

    ``WORK_DIR/predictions/<name>.bbox.json`` (and ``.segm.json``) are the
    result files. ``<name>.mIoU.npz`` and ``<name>.top1.npz`` have the results
    of each image if the test has MMSegmentation's ``IoUMetric`` or
    MMPretrain's ``Accuracy``. ``<name>.meta.json`` describes the data, the
    checkpoint, the settings and the versions that they were made with. Files
    are moved there when they are complete.

    A test replaces the files of the same test only. ``<name>`` is that of the
    checkpoint, with ``-tta`` for test-time augmentation, and if that is taken,
    with what differs: the annotation file, the checkpoint's folder, the scale
    or another setting.

    Every metric of the evaluator that can write its results and has no
    ``outfile_prefix`` writes them. The names of the second and later metrics
    end in ``-1``, ``-2``, ...

    Args:
        name: Stem of the files. Default: as above.
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
        metrics = runner.test_evaluator.metrics
        metrics += image_results_metrics(metrics)
        self._metrics = [
            metric
            for metric in metrics
            if getattr(metric, 'outfile_prefix', '') is None
        ]
        if runner.rank != 0:
            return
        folder = Path(runner.work_dir, 'predictions')
        folder.mkdir(parents=True, exist_ok=True)
        self._free = self.name or (
            free_name(folder, describe(runner, self._metrics[0], {}, None))
            if self._metrics
            else ''
        )
        self._temporary = tempfile.TemporaryDirectory('', '.writing-', folder)
        for i, metric in enumerate(self._metrics):
            stem = self._stem(i)
            metric.outfile_prefix = str(Path(self._temporary.name, stem))

    def after_test_epoch(self, runner: Runner, metrics: dict) -> None:
        """Writes the descriptions and moves all files into place."""
        if runner.rank != 0:
            return
        written = Path(self._temporary.name)
        model = model_meta(runner.cfg, unwrap(runner.model))
        for i, metric in enumerate(self._metrics):
            meta = describe(runner, metric, metrics, self._seed)
            meta['model'] = model
            path = written / f'{self._stem(i)}.meta.json'
            path.write_text(json.dumps(meta, indent=1))
            metric.outfile_prefix = None
        for file in sorted(written.iterdir()):
            os.replace(file, written.parent / file.name)
        self._temporary.cleanup()
        if self._metrics:
            runner.logger.info(f'Predictions are in {written.parent}')

    def _stem(self, index: int) -> str:
        return f'{self._free}-{index}' if index else self._free


def free_name(folder: Path, meta: Mapping[str, Any]) -> str:
    """Returns a name for the files of a test that no other test has.

    Args:
        folder: Where the files of other tests are.
        meta: What is tested, as :func:`describe` returns it.
    """
    checkpoint, data = Path(str(meta['checkpoint'])), meta['annotation_file']
    words, test = settings(meta), meta['test']
    name = checkpoint.stem + ('-tta' if test['tta'] else '')
    additions = {
        'annotation_file': Path(str(data)).stem,
        'checkpoint': checkpoint.resolve().parent.name,
        **{
            key: f'{key}-{words[heading]}'.replace(', ', '-')
            for key, heading in SETTINGS.items()
            if heading in words
        },
    }
    while True:
        known = read_meta(folder / f'{name}.json')
        differing = _differing(known, meta) if known else []
        if not differing:
            return name
        name += f'-{additions.pop(differing[0], "other")}'


def _differing(known: Mapping[str, Any], meta: Mapping[str, Any]) -> list[str]:
    """What two tests differ in. What is not known does not differ."""
    found = []
    for key in ('annotation_file', 'checkpoint'):
        paths = [x.get(key) and Path(x[key]).resolve() for x in (known, meta)]
        if None not in paths and paths[0] != paths[1]:
            found.append(key)
    tests = [x.get('test') or {} for x in (known, meta)]
    return found + [
        key
        for key in SETTINGS
        if None not in (values := [t.get(key) for t in tests])
        and values[0] != values[1]
    ]


def settings_of(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a test's AP depends on, apart from model and data.

    ``scale`` is a list of [width, height] that images are resized to,
    ``tta`` whether results of several views are merged. ``score_thr`` and
    ``max_per_img`` limit the detections. None is what the config does not
    have.
    """
    model = cfg['model']
    tta = 'tta_cfg' in model
    limits = [model['tta_cfg']] if tta else []
    while tta and 'module' in model:
        model = model['module']
    own = model.get('test_cfg') or {}
    limits.append(own.get('rcnn') or own)

    def first(key: str) -> Any:
        return next((x[key] for x in limits if x.get(key) is not None), None)

    dataset = cfg['test_dataloader']['dataset']
    return {
        'tta': tta,
        'scale': resize_scales(dataset) or None,
        'score_thr': first('score_thr'),
        'max_per_img': first('max_per_img'),
    }


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
    configs = [*evaluators(runner.cfg, 'test').values()]
    place = runner.test_evaluator.metrics.index(metric)
    if place < len(configs):
        ann_file = configs[place].get('ann_file') or ann_file
    known = ann_file and Path(ann_file).is_file()
    names = (metric.dataset_meta or {}).get('classes', ())
    ids = getattr(metric, 'cat_ids', None) or range(len(names))
    categories = dict(zip(map(int, ids), names, strict=False))
    api = getattr(metric, '_coco_api', None)
    if api is not None and getattr(metric, 'cat_ids', None):
        # Labels are numbered by the file, whatever the order of the names.
        categories = {c['id']: c['name'] for c in api.loadCats(ids)}
    checkpoint = runner._load_from
    local = checkpoint and Path(checkpoint).is_file()
    name = runner.experiment_name.removesuffix(f'_{runner.timestamp}')
    return {
        'annotation_file': known and str(Path(ann_file).resolve()),
        'annotation_sha256': known and sha256(ann_file),
        'max_dets': list(getattr(metric, 'proposal_nums', ())),
        'categories': categories,
        'test': settings_of(runner.cfg),
        'config': runner.cfg.filename,
        'config_name': name,
        'checkpoint': checkpoint and str(checkpoint),
        'checkpoint_sha256': local and sha256(checkpoint),
        'seed': seed,
        'versions': versions(runner.cfg.get('default_scope')),
        'metrics': {
            key: value.item() if hasattr(value, 'item') else value
            for key, value in metrics.items()
        },
    }


def model_meta(cfg: Config, model: nn.Module) -> dict[str, Any]:
    """Returns names and cost of a model, so that comparing needs no config."""
    part = cfg.model
    while 'tta_cfg' in part and 'module' in part:
        part = part.module
    found: dict[str, Any] = {}
    with suppress(Exception):  # a test need not fail for these
        found |= describe_model(part)
        found |= asdict(count_complexity(model, input_shape(cfg)))
    return found


def versions(scope: str | None = None) -> dict[str, str]:
    """Returns the versions of the packages that a result depends on.

    ``scope`` is the config's ``default_scope``. That another package was
    imported by chance says nothing about the result.
    """
    modules = [mmdet, mmcv, mmengine, torch, numpy]
    found = {'mmext': __version__}
    if scope in ('mmseg', 'mmpretrain') and scope in sys.modules:
        modules.append(sys.modules[scope])
    found |= {m.__name__: str(m.__version__) for m in modules}
    for name in ('torchvision', 'pycocotools', 'hotcoco'):
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
