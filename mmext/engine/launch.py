# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Trains and tests a detector: what ``tools/train.py`` and ``test.py`` call.

Both check the config, the data and the checkpoint before they write anything.
"""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from mmdet.evaluation import DumpDetResults
from mmdet.registry import MODELS, RUNNERS
from mmdet.utils import setup_cache_size_limit_of_dynamo
from mmengine.config import Config
from mmengine.dist import broadcast_object_list
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmext.checkpoints.read import require_sha256
from mmext.checkpoints.trust import trusting
from mmext.checks.config import check_tta
from mmext.checks.layouts import use_data_folder
from mmext.checks.preflight import Preflight, preflight
from mmext.engine.batch_size import (
    find_batch_size,
    require_batch_size,
    set_batch_size,
)
from mmext.engine.distributed import (
    SharedError,
    check_launcher,
    is_first_process,
    join_processes,
    reported_once,
)
from mmext.engine.guards.start_checks import CheckDataHook
from mmext.engine.loader_speed import find_workers, require_workers
from mmext.engine.mixed_precision import set_amp
from mmext.engine.optimizers import set_auto_scale_lr
from mmext.engine.pictures_hook import set_show
from mmext.engine.predictions_hook import PredictionsHook
from mmext.engine.resume.interrupt import Interrupted
from mmext.engine.runner import ReliableRunner
from mmext.engine.tta import set_tta
from mmext.errors import UserError
from mmext.utils.config import load_config, merge_options, parse_options
from mmext.utils.files import naming, replacing
from mmext.utils.locks import locked

Options = Mapping[str, Any] | Sequence[str]


def train(
    config: str | Path | Config,
    *,
    data: str | Path | None = None,
    classes: Sequence[str] | None = None,
    work_dir: str | Path | None = None,
    amp: bool = False,
    auto_scale_lr: bool = False,
    batch_size: int | str | None = None,
    workers: int | str | None = None,
    resume: bool | str | Path = False,
    cfg_options: Options | None = None,
    launcher: str = 'none',
    trust_checkpoint: str | Sequence[str] = (),
    check_data: bool = True,
    hooks: Sequence[Hook] = (),
) -> Runner:
    """Trains a detector.

    Args:
        config: A config file, or an MMEngine config, which is not changed.
        data: A folder of COCO, YOLO or VOC instead of the config's data; see
            :func:`~mmext.checks.layouts.use_data_folder`. Default: none.
        classes: Categories of ``data`` to use. Default: all.
        work_dir: Folder of logs and checkpoints. Default: the config's, or
            ``work_dirs/<name of the config>``.
        amp: Whether to use mixed precision: float16 on a GPU, bfloat16 on
            the CPU. Default: False.
        auto_scale_lr: Whether to scale the learning rate to the total batch
            size. Default: False.
        batch_size: Images in the batch of a process, or ``'auto'``; see
            :func:`~mmext.engine.batch_size.find_batch_size`. The learning
            rate is scaled in proportion. Default: the config's.
        workers: Processes that load the training images, or ``'auto'``; see
            :func:`~mmext.engine.loader_speed.find_workers`. Default: the
            config's.
        resume: A checkpoint to continue from, or True for the newest complete
            one in the work dir, if there is one. Default: False.
        cfg_options: Changes of the config: dotted keys with their values, or
            ``KEY=VALUE`` strings. Default: none.
        launcher: What started the processes: ``none``, ``pytorch``, ``slurm``
            or ``mpi``. Default: ``none``.
        trust_checkpoint: SHA-256 of checkpoints that may run any code.
            Default: none.
        check_data: Whether to check annotations and images before the run.
            Default: True.
        hooks: Hooks in addition to those of the config. Default: none.

    Returns:
        The runner after its last epoch.

    Raises:
        UserError: The run cannot work, and nothing was written; or it was
            stopped by Ctrl-C, by a loss that is not finite or by a full disk.

    Example:
        >>> runner = mmext.train('my_config.py', work_dir='work_dirs/first')
        >>> runner.epoch
        12
    """
    check_launcher(launcher)
    with trusting(trust_checkpoint):
        with reported_once(launcher):
            cfg = _read_config(config, cfg_options, work_dir, data, classes)
            if amp:
                set_amp(cfg)
            if auto_scale_lr:
                set_auto_scale_lr(cfg)
            if batch_size is not None:
                require_batch_size(cfg, batch_size)
            if workers is not None:
                require_workers(workers)
        cfg.launcher = launcher
        if resume:
            cfg.resume = True
            # The weights to start from if there is nothing to resume yet.
            cfg.start_from = cfg.get('load_from')
            cfg.load_from = None if resume is True else str(resume)
        with naming(cfg.work_dir), _locked(cfg):
            checked = _preflight(
                cfg, ('train', 'val'), check_data, batch_size, workers
            )
            runner = build_runner(cfg, checked)
            del checked  # the runner frees the checkpoint once it is loaded
            for hook in hooks:
                runner.register_hook(hook)
            _train(runner)
    return runner


def _train(runner: Runner) -> None:
    try:
        runner.train()
    except (SharedError, KeyboardInterrupt) as stop:
        shared = isinstance(stop, SharedError | Interrupted)
        if shared and runner.rank > 0:
            raise SystemExit(0) from None  # the first process reports it
        if isinstance(stop, SharedError):
            raise
        where = f'the last checkpoint in {runner.work_dir}'
        if isinstance(stop, Interrupted):
            where = f'{stop}, with the next batch'
        raise UserError(
            f'interrupted in epoch {runner.epoch + 1}, iteration '
            f'{runner.iter + 1}',
            f'{runner.same_command} continues from {where}.',
        ) from None


def test(
    config: str | Path | Config,
    checkpoint: str | Path,
    *,
    data: str | Path | None = None,
    classes: Sequence[str] | None = None,
    work_dir: str | Path | None = None,
    out: str | Path | None = None,
    show: bool = False,
    show_dir: str | Path | None = None,
    wait_time: float = 2,
    tta: bool = False,
    sha256: str | None = None,
    cfg_options: Options | None = None,
    launcher: str = 'none',
    trust_checkpoint: str | Sequence[str] = (),
    check_data: bool = True,
    hooks: Sequence[Hook] = (),
) -> dict[str, float]:
    """Tests a checkpoint and writes its predictions as COCO result files.

    Args:
        config: A config file, or an MMEngine config, which is not changed.
        checkpoint: A checkpoint file, a URL or ``torchvision://NAME``.
        data: See :func:`train`.
        classes: See :func:`train`.
        work_dir: Folder of logs and ``predictions``. Default: the config's,
            or ``work_dirs/<name of the config>``.
        out: A ``.pkl`` file for the raw results. Default: none.
        show: Whether to show the detections in a window. Default: False.
        show_dir: Folder for images with the detections, inside of
            ``<work_dir>/<time>``. Default: none.
        wait_time: How long each image is shown, in seconds. Default: 2.
        tta: Whether to merge the results of each image and its mirror image
            (test-time augmentation). The files are named ``<checkpoint>-tta``.
            Default: False.
        sha256: The first 8 or more digits of the checkpoint's SHA-256.
            Default: not checked.
        cfg_options: See :func:`train`.
        launcher: See :func:`train`.
        trust_checkpoint: See :func:`train`.
        check_data: See :func:`train`.
        hooks: See :func:`train`.

    Returns:
        The metrics by name, such as ``'coco/bbox_mAP'``, from 0 to 1.

    Raises:
        UserError: The test cannot work, and nothing was written.

    Example:
        >>> checkpoint = 'work_dirs/first/epoch_12.pth'
        >>> metrics = mmext.test('my_config.py', checkpoint)
        >>> metrics['coco/bbox_mAP']
        0.374
    """
    check_launcher(launcher)
    with trusting(trust_checkpoint):
        with reported_once(launcher):
            if out and Path(out).suffix not in ('.pkl', '.pickle'):
                raise UserError(
                    f'--out {out}: the raw results are a pickle file',
                    f'--out {Path(out).with_suffix(".pkl")}. COCO result '
                    'files are written to WORK_DIR/predictions in any case.',
                )
            cfg = _read_config(config, cfg_options, work_dir, data, classes)
            if sha256 is not None:
                require_sha256(checkpoint, sha256)
            cfg.load_from = str(checkpoint)
            cfg.resume = False
            if tta:
                check_tta(cfg)
            if show or show_dir:
                set_show(cfg, show, show_dir, wait_time)
        cfg.launcher = launcher
        with naming(cfg.work_dir):
            checked = _preflight(cfg, ('test',), check_data)
            plain = copy.deepcopy(cfg)
            if tta:
                warning = set_tta(cfg)
                if checked is not None:
                    both = {**cfg.tta_model, 'module': checked.model}
                    checked = replace(checked, model=MODELS.build(both))
            with _keeping_config(plain):
                runner = build_runner(cfg, checked)
            if tta and warning:
                runner.logger.warning(warning)
            for hook in (PredictionsHook(), *hooks):
                runner.register_hook(hook)
            if not out:
                return runner.test()
            part = Path(out).with_name(f'.writing-{Path(out).name}')
            dump = DumpDetResults(out_file_path=str(part))
            runner.test_evaluator.metrics.append(dump)
            first = runner.rank == 0
            with replacing(out, part) if first else nullcontext():
                return runner.test()


def _locked(cfg: Config) -> AbstractContextManager[None]:
    """Locks the work dir; the first process does so for all of a run."""
    if is_first_process(cfg.launcher):
        return locked(cfg.work_dir)
    return nullcontext()


@contextmanager
def _keeping_config(cfg: Config) -> Iterator[None]:
    """Keeps the config of a training, which a test's runner would replace.

    In a work dir without a training, ``cfg`` is written, which has no
    test-time augmentation. The log's ``vis_data/config.py`` is the test's.
    """
    folder = Path(cfg.work_dir)
    trained = (folder / 'last_checkpoint').is_file() or any(
        folder.glob('*.pth')
    )
    before = {p: p.read_bytes() for p in folder.glob('*.py')}
    yield
    if not is_first_process(cfg.launcher):
        return
    for path in folder.glob('*.py'):
        if path.read_bytes() == before.get(path):
            continue
        if not trained:
            cfg.dump(path)
        elif path in before:
            with replacing(path) as part:
                part.write_bytes(before[path])
        else:
            path.unlink()


def _read_config(
    config: str | Path | Config,
    options: Options | None,
    work_dir: str | Path | None,
    data: str | Path | None,
    classes: Sequence[str] | None,
) -> Config:
    if isinstance(config, Config):
        cfg = copy.deepcopy(config)
        if options and not isinstance(options, Mapping):
            options = parse_options(options)
        merge_options(cfg, options or {})
    else:
        cfg = load_config(config, options)
    set_work_dir(cfg, work_dir)
    if data is not None:
        use_data_folder(cfg, data, classes)
    return cfg


def _preflight(
    cfg: Config,
    stages: tuple[str, ...],
    data: bool,
    batch_size: int | str | None = None,
    workers: int | str | None = None,
) -> Preflight | None:
    """Checks in the first process; the others wait before they write."""
    checked = None
    if is_first_process(cfg.launcher):
        checked = preflight(cfg, stages, data)
        options = {'--batch-size': batch_size, '--workers': workers}
        for name, value in options.items():
            if value == 'auto' and checked.resume:
                raise UserError(
                    f'{name} auto: {checked.checkpoint_path} is to be '
                    'resumed, with what it was trained with',
                    f'Give the number: the config in {cfg.work_dir} has it.',
                )
        if batch_size == 'auto':
            batch_size = find_batch_size(cfg)
        if batch_size is not None:
            set_batch_size(cfg, batch_size)
        if workers == 'auto':
            workers = find_workers(cfg)
    join_processes(cfg.launcher, cfg.get('env_cfg') or {})
    shared = [batch_size, workers]
    broadcast_object_list(shared)
    batch_size, workers = shared
    if batch_size is not None:
        set_batch_size(cfg, batch_size)
    if workers is not None:
        cfg.train_dataloader.num_workers = workers
    return checked


def build_runner(cfg: Config, checked: Preflight | None = None) -> Runner:
    """Builds the runner that a config names, by default ``ReliableRunner``.

    The runner uses what preflight built and read for the same config, and
    ``CheckDataHook`` does not check the data again.
    """
    if torch.cuda.is_available():
        setup_cache_size_limit_of_dynamo()  # as mmdet's tools do
    kind = cfg.setdefault('runner_type', 'ReliableRunner')
    kind = RUNNERS.get(kind) if isinstance(kind, str) else kind
    if issubclass(kind, ReliableRunner):
        runner = kind.from_cfg(cfg, checked)
    else:
        runner = RUNNERS.build(cfg)
    for hook in runner.hooks:
        if isinstance(hook, CheckDataHook):
            hook.checked = checked is not None
    if checked is not None:
        _write_to_log(runner, checked.printed)
    return runner


def _write_to_log(runner: Runner, lines: Sequence[str]) -> None:
    """Writes lines into the log file, and not on the screen."""
    log = runner.logger
    for line in lines:
        warns = line.startswith('warning: ')
        level = logging.WARNING if warns else logging.INFO
        text = line.removeprefix('warning: ')
        record = log.makeRecord(log.name, level, '', 0, text, (), None)
        for handler in log.handlers:
            if isinstance(handler, logging.FileHandler):
                handler.handle(record)


def set_work_dir(cfg: Config, work_dir: str | Path | None) -> None:
    """Sets the folder of a run, by default ``work_dirs/<name of the config>``.

    Raises `UserError` if it cannot be created or written.
    """
    if work_dir is not None:
        cfg.work_dir = str(work_dir)
    elif cfg.get('work_dir') is None:
        name = Path(cfg.filename or 'config.py').stem
        cfg.work_dir = str(Path('work_dirs', name))
    path = existing = Path(cfg.work_dir)
    while not os.path.exists(existing):  # False too if it must not be read
        existing = existing.parent
    if not existing.is_dir():
        problem = f'{existing} is a file'
    elif not os.access(existing, os.W_OK | os.X_OK):
        problem = f'{existing} is not writable'
    else:
        return
    if existing != path:
        problem = f'{path} cannot be made: {problem}'
    raise UserError(f'work dir {problem}', 'Name a folder with --work-dir.')
