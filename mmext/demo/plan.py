# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The two configs of the demo, with the same data, budget and seed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

from mmext.checks.layouts import CocoFolder, find_coco_folder, use_coco_folder
from mmext.datasets.shapes.generate import cached_shapes
from mmext.errors import UserError
from mmext.utils.files import packaged

NAMES = (
    'faster-rcnn_r18_fpn_demo_shapes',
    'faster-rcnn_stepnet-r18_fpn_demo_shapes',
)
CONFIGS = packaged('configs') / 'demo'


@dataclass(frozen=True)
class Plan:
    """Configs that are ready to run, the baseline first, and their data."""

    configs: tuple[Config, ...]
    data: CocoFolder


def make_plan(
    work_dir: str | Path,
    data: str | Path | None = None,
    epochs: int | None = None,
    images: int | None = None,
    seed: int = 0,
) -> Plan:
    """Adapts the configs to the arguments of `mmext.demo.run.run_demo`."""
    for name, value in (('epochs', epochs), ('images', images)):
        if value is not None and value < 1:
            raise UserError(f'--{name} {value}: must be 1 or more')
    configs = tuple(Config.fromfile(CONFIGS / f'{n}.py') for n in NAMES)
    folder = None if data is None else find_coco_folder(data)
    for name, cfg in zip(NAMES, configs, strict=True):
        cfg.work_dir = str(Path(work_dir) / name)
        cfg.randomness = {'seed': seed}
        cfg.resume = True
        # With a name, MMEngine would give both runs the same log.
        cfg.visualizer.pop('name', None)
        shapes = _shapes(cfg)
        budget = cfg.train_cfg.max_epochs * shapes['num_train']
        if folder is None:
            if images is not None:
                shapes['num_train'] = images
                shapes['num_val'] = max(1, images // 4)
                for key in ('train', 'val', 'test'):
                    cfg[f'{key}_dataloader'].dataset.update(shapes)
        else:
            use_coco_folder(cfg, folder)
            used = min(images or budget, folder.num_images['train'], budget)
            cfg.train_dataloader.dataset.indices = used
            epochs = epochs or max(1, round(budget / used))
        if epochs is not None:
            cfg.train_cfg.max_epochs = cfg.train_cfg.val_interval = epochs
            for scheduler in cfg.param_scheduler:
                if scheduler.get('T_max'):
                    scheduler.T_max = epochs
        # About ten checkpoints a run, even with many short epochs.
        interval = -(-cfg.train_cfg.max_epochs // 10)
        cfg.default_hooks.checkpoint.update(
            interval=interval, max_keep_ckpts=1
        )
        # The picture is drawn from the predictions of the validation.
        cfg.val_evaluator.outfile_prefix = str(
            Path(cfg.work_dir, 'predictions', 'val')
        )
    if folder is None:
        root = cached_shapes(**_shapes(configs[0]))
        folder = find_coco_folder(root)
    return Plan(configs, folder)


def _shapes(cfg: Config) -> dict:
    """The arguments of the generated data set that a config uses."""
    keys = ('num_train', 'num_val', 'seed', 'size')
    dataset = cfg.train_dataloader.dataset
    return {k: dataset[k] for k in keys if k in dataset}


def work_units(cfg: Config, folder: CocoFolder) -> tuple[int, int, int]:
    """Returns iterations an epoch, their work, the work of the validation.

    The unit is the forward pass of one image; a backward pass takes two.
    """
    loader = cfg.train_dataloader
    used = loader.dataset.get('indices') or folder.num_images['train']
    iterations = math.ceil(used / loader.batch_size)
    return iterations, 3 * loader.batch_size, folder.num_images['val']
