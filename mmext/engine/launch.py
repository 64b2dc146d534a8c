# Licensed under the Apache License, Version 2.0. See LICENSE.
"""From parsed arguments to a finished run; what the tools call."""

from __future__ import annotations

import copy
import os
from argparse import Namespace
from pathlib import Path

import torch
from mmdet.registry import RUNNERS
from mmengine.config import Config, ConfigDict
from mmengine.runner import Runner

from mmext.checkpoints.read import require_sha256
from mmext.checkpoints.untrusted import TRUST
from mmext.checks.preflight import preflight
from mmext.engine.distributed import check_launcher, is_first_process
from mmext.engine.predictions_hook import PredictionsHook
from mmext.engine.resume.interrupt import Interrupted
from mmext.errors import UserError
from mmext.utils.config import load_config


def train(args: Namespace) -> Runner:
    """Trains as ``tools/train.py``'s arguments say.

    Raises:
        UserError: What the user can mend, before anything is written.
    """
    cfg = _config(args)
    if args.amp:
        set_amp(cfg)
    if args.auto_scale_lr:
        set_auto_scale_lr(cfg)
    if args.resume is not None:
        cfg.resume = True
        # What a run begins with that has nothing to resume yet.
        cfg.start_from = cfg.get('load_from')
        cfg.load_from = None if args.resume == 'auto' else args.resume
    if is_first_process(args.launcher):
        preflight(cfg, ('train', 'val'), not args.skip_data_checks)
    runner = build_runner(cfg)
    try:
        runner.train()
    except KeyboardInterrupt as stop:
        if isinstance(stop, Interrupted) and runner.rank:
            raise SystemExit(0) from None  # the first saves and tells it
        where = (
            f'from {stop}, with the batch that is next'
            if isinstance(stop, Interrupted)
            else f'from the last checkpoint in {runner.work_dir}'
        )
        raise UserError(
            f'interrupted in epoch {runner.epoch + 1}, iteration '
            f'{runner.iter + 1}',
            f'The same command with --resume continues {where}.',
        ) from None
    return runner


def test(args: Namespace) -> dict:
    """Tests as ``tools/test.py``'s arguments say; returns the metrics.

    Raises:
        UserError: What the user can mend, before anything is written.
    """
    if args.out is not None and not args.out.endswith(('.pkl', '.pickle')):
        raise UserError(
            f'--out {args.out}: the raw results are a pickle file',
            f'--out {Path(args.out).with_suffix(".pkl")}. COCO result files '
            'are written to WORK_DIR/predictions in any case.',
        )
    cfg = _config(args)
    if args.sha256 is not None:
        require_sha256(args.checkpoint, args.sha256)
    cfg.load_from = args.checkpoint
    cfg.resume = False
    if args.show or args.show_dir:
        _show(cfg, args)
    if is_first_process(args.launcher):
        preflight(cfg, ('test',), not args.skip_data_checks)
    if args.tta:
        set_tta(cfg)
    runner = build_runner(cfg)
    runner.register_hook(PredictionsHook())
    if args.out is not None:
        from mmdet.evaluation import DumpDetResults

        runner.test_evaluator.metrics.append(
            DumpDetResults(out_file_path=args.out)
        )
    return runner.test()


def _config(args: Namespace) -> Config:
    """Reads the config and applies what both tools share."""
    if args.trust_checkpoint:
        os.environ[TRUST] = '1'
    check_launcher(args.launcher)
    cfg = load_config(args.config, args.cfg_options)
    cfg.launcher = args.launcher
    set_work_dir(cfg, args.work_dir, args.config)
    return cfg


def build_runner(cfg: Config) -> Runner:
    """Builds the config's runner, ours where it names none."""
    cfg.setdefault('runner_type', 'ReliableRunner')
    if torch.cuda.is_available():
        # What mmdet's tools do for torch.compile's sake.
        from mmdet.utils import setup_cache_size_limit_of_dynamo

        setup_cache_size_limit_of_dynamo()
    return RUNNERS.build(cfg)


def _show(cfg: Config, args: Namespace) -> None:
    from mmdet.engine.hooks.utils import trigger_visualization_hook

    try:
        trigger_visualization_hook(cfg, args)
    except RuntimeError as error:
        raise UserError(
            '--show: the config has no visualization hook',
            '--cfg-options '
            '+default_hooks.visualization.type=DetVisualizationHook',
        ) from error


def set_tta(cfg: Config) -> None:
    """Tests every image as it is and flipped; merges by NMS.

    Uses the config's ``tta_model`` and ``tta_pipeline`` where it has them.
    """
    if 'tta_model' not in cfg:
        cfg.tta_model = {
            'type': 'DetTTAModel',
            'tta_cfg': {
                'nms': {'type': 'nms', 'iou_threshold': 0.5},
                'max_per_img': 100,
            },
        }
    dataset = cfg.test_dataloader.dataset
    while 'dataset' in dataset:
        dataset = dataset['dataset']
    if 'tta_pipeline' not in cfg:
        pack = copy.deepcopy(dataset.pipeline[-1])
        keys = (*pack.get('meta_keys', ()), 'flip', 'flip_direction')
        pack['meta_keys'] = tuple(dict.fromkeys(keys))
        flips = [{'type': 'RandomFlip', 'prob': p} for p in (1.0, 0.0)]
        both = {'type': 'TestTimeAug', 'transforms': [flips, [pack]]}
        cfg.tta_pipeline = [*copy.deepcopy(dataset.pipeline[:-1]), both]
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    dataset.pipeline = cfg.tta_pipeline


def set_work_dir(cfg: Config, work_dir: str | None, filename: str) -> None:
    """The command line's folder, else the config's, else by its name."""
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs', Path(filename).stem))
    path = there = Path(cfg.work_dir)
    while not os.path.exists(there):  # False, too, where nobody may look
        there = there.parent
    problem = ''
    if not there.is_dir():
        problem = f'{there} is a file'
    elif not os.access(there, os.W_OK | os.X_OK):
        problem = f'{there} is not writable'
    if problem:
        if there != path:
            problem = f'{path} cannot be made: {problem}'
        raise UserError(
            f'work dir {problem}', 'Name a folder with --work-dir.'
        )


def set_amp(cfg: Config) -> None:
    """Turns mixed precision on; the runner picks the device's type."""
    cfg.optim_wrapper.type = 'AmpOptimWrapper'
    cfg.optim_wrapper.loss_scale = 'dynamic'


def set_auto_scale_lr(cfg: Config) -> None:
    """Turns the linear scaling of the learning rate on.

    Raises:
        UserError: The config does not say for which batch its rate is.
    """
    if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
        raise UserError(
            '--auto-scale-lr: the config does not say for which total batch '
            'its learning rate is meant',
            '--cfg-options +auto_scale_lr.base_batch_size=16',
        )
    cfg.auto_scale_lr.enable = True
