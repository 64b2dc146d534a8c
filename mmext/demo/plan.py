# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The plan of the demo: two small detectors, a training each, in minutes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmext.checks.config import find_config_splits
from mmext.checks.layouts import find_coco_folder
from mmext.checks.preflight import require_fit
from mmext.errors import UserError
from mmext.evaluation.runs import describe_backbone
from mmext.experiments.configs import config_sha256, planned_config
from mmext.experiments.design.timing import time_training
from mmext.experiments.plan import Plan, PlannedSide
from mmext.experiments.test_data import test_data
from mmext.models.build import build_from_config
from mmext.utils.files import packaged

NAMES = (
    'faster-rcnn_r18_fpn_demo_shapes',
    'faster-rcnn_stepnet-r18_fpn_demo_shapes',
)
CONFIGS = packaged('configs') / 'demo'
#: Seconds of a run that are no training: start, test, record.
_APART = 45.0


def make_plan(
    data: str | Path | None = None,
    minutes: float = 10.0,
    epochs: int | None = None,
    images: int | None = None,
    seed: int = 0,
) -> Plan:
    """Returns a plan whose trainings fit into a time on this machine.

    The number of epochs is that of the configs, or the largest that fits: a
    few steps of both detectors are measured. See
    :func:`~mmext.demo.run.run_demo` for the arguments.
    """
    for name, value in (('epochs', epochs), ('images', images)):
        if value is not None and value < 1:
            raise UserError(f'--{name} {value}: must be 1 or more')
    if not 0 < minutes < float('inf'):
        raise UserError(f'--minutes {minutes}: must be more than 0')
    folder = None if data is None else str(data)
    if folder is not None:
        # COCO alone: pictures of its layout are drawn at the end.
        used = find_coco_folder(folder).num_images['train']
        images = min(images or used, used)
    options = _images(images, folder)
    paths = [CONFIGS / f'{name}.py' for name in NAMES]
    configs = [planned_config(path, options, folder) for path in paths]
    splits = find_config_splits(configs[0], ('train', 'test'))
    require_fit(configs[0], build_from_config(configs[0]), splits)
    epochs = epochs or _fitting_epochs(configs, minutes)
    options |= _epochs(configs[0], epochs)
    data_of = test_data(configs[0])
    sides = tuple(
        PlannedSide(
            name=describe_backbone(cfg.model.backbone),
            config=str(path),
            sha256=config_sha256(path),
            seeds=(seed + n,),
        )
        for n, (path, cfg) in enumerate(zip(paths, configs, strict=True))
    )
    return Plan(
        claim=f'{sides[1].name} has a higher AP than {sides[0].name}',
        task='bbox',
        gain=2.0,
        margin=None,
        alpha=0.05,
        power=None,
        scope='images',
        seed_sd={'value': 1.0, 'source': 'assumed'},
        image_se={
            'value': 1.0,
            'images': data_of.images,
            'source': 'assumed',
        },
        looks=(1,),
        data={
            'sha256': data_of.sha256,
            'images': data_of.images,
            'annotations': data_of.file_name,
            'groups': None,
        },
        sides=sides,
        options=options,
        folder=folder,
    )


def _images(images: int | None, folder: str | None) -> dict[str, Any]:
    """The options for a number of training images."""
    if images is None:
        return {}
    if folder is not None:
        return {'+train_dataloader.dataset.indices': images}
    val = max(1, images // 4)
    return {
        f'{split}_dataloader.dataset.{key}': value
        for split in ('train', 'val', 'test')
        for key, value in (('num_train', images), ('num_val', val))
    }


def _epochs(cfg: Config, epochs: int) -> dict[str, Any]:
    """The options for a number of epochs."""
    options = {
        'train_cfg.max_epochs': epochs,
        # The test follows: a validation would take its time again.
        '+train_cfg.val_begin': epochs + 1,
        # About ten checkpoints a run, even with many short epochs.
        'default_hooks.checkpoint.interval': -(-epochs // 10),
        '+default_hooks.checkpoint.max_keep_ckpts': 1,
    }
    for n, scheduler in enumerate(cfg.param_scheduler):
        if scheduler.get('T_max'):
            options[f'param_scheduler.{n}.T_max'] = epochs
    return options


def _fitting_epochs(configs: list[Config], minutes: float) -> int:
    """The epochs of the configs, or the most that fit into the time."""
    left = 60 * minutes
    an_epoch = 0.0
    for cfg in configs:
        time = time_training(cfg)
        an_epoch += time.seconds / cfg.train_cfg.max_epochs
        left -= _APART
    planned = configs[0].train_cfg.max_epochs
    if configs[0].train_dataloader.dataset.get('indices') is not None:
        planned = 10**6  # of other data, as many as fit
    return max(1, min(planned, int(left / an_epoch)))
