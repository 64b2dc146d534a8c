# Licensed under the Apache License, Version 2.0. See LICENSE.
"""MMEngine's runner with exact resume, guards and support for the CPU.

``tools/train.py`` and ``tools/test.py`` of mmext use it. mmdet's own tools
and ``mim train mmdet`` use it if the config has this line::

    runner_type = 'ReliableRunner'
"""

from __future__ import annotations

import copy
import inspect
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import (
    AbstractContextManager,
    contextmanager,
    nullcontext,
    suppress,
)
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import broadcast_object_list, master_only
from mmengine.evaluator import Evaluator
from mmengine.hooks import (
    CheckpointHook,
    EarlyStoppingHook,
    Hook,
    SyncBuffersHook,
)
from mmengine.logging import MMLogger
from mmengine.optim import OptimWrapper
from mmengine.registry import RUNNERS
from mmengine.runner import BaseLoop, Runner
from mmengine.runner.checkpoint import _load_checkpoint_to_model
from mmengine.visualization import Visualizer
from torch import nn
from torch.utils.data import DataLoader

from mmext.checkpoints.files import newest_complete, writing
from mmext.checkpoints.frozen import require_trainable
from mmext.checkpoints.load import load
from mmext.checkpoints.match import require_match, require_resumable
from mmext.checkpoints.pretrained import require_start, watch_pretrained
from mmext.checkpoints.tensors import KEY, checksums
from mmext.checks.preflight import Preflight
from mmext.datasets.loading.reduced import use_reduced_decoding
from mmext.datasets.loading.transport import send_compactly
from mmext.engine.cached_config import CachedConfig
from mmext.engine.curves_hook import CurvesHook
from mmext.engine.distributed import (
    allow_bfloat16_sync_bn,
    check_launcher,
    join_processes,
    replace_torch_sync_bn,
)
from mmext.engine.fresh_metrics_hook import FreshMetricsHook
from mmext.engine.guards.numerical_guard import NumericalGuardHook
from mmext.engine.guards.start_checks import StartChecksHook, disk_warning
from mmext.engine.loader_errors import TIMEOUT, loader_errors
from mmext.engine.loaders import use_faster_transforms
from mmext.engine.memory_format import drawn_in_usual_order, set_memory_format
from mmext.engine.mixed_precision import (
    CPUAmpOptimWrapper,
    keep_depthwise_in_float32,
)
from mmext.engine.optimizers import (
    lr_scaling,
    members,
    scaled_peaks,
    update_in_one_pass,
)
from mmext.engine.resume.exact_resume import (
    ExactResumeHook,
    ResumeValidationHook,
)
from mmext.engine.resume.interrupt import InterruptHook, shield_workers
from mmext.engine.resume.seeding import EpochSeedHook
from mmext.errors import UserError, disk_fix
from mmext.models.channels import fill_channels
from mmext.utils.files import naming, sha256
from mmext.utils.locks import locked
from mmext.utils.machine import cores
from mmext.utils.modules import unwrap
from mmext.utils.random_state import set_random_state


@RUNNERS.register_module()
class ReliableRunner(Runner):
    """A ``Runner`` that differs from its parent in these points.

    - Several processes run without a GPU (gloo), SyncBN included, and
      validate with the same BN statistics.
    - ``AmpOptimWrapper`` on the CPU becomes ``CPUAmpOptimWrapper``.
    - Models run in the faster memory format; see
      :mod:`mmext.engine.memory_format`. On the CPU, optimizers are fused.
    - ``auto_scale_lr`` counts accumulated batches and logs its arithmetic.
    - A checkpoint is written to a temporary file, flushed, read back and then
      renamed. A full disk stops the run and leaves the older checkpoints.
    - Resuming takes the newest complete checkpoint. The resumed run ends
      where the undisturbed one ends, bit for bit on the CPU.
    - Testing raises an error if a checkpoint does not fit the model. Training
      raises one if less than half of it fits, or no backbone, or if random
      weights are frozen.
    - A loss or gradient that is not finite stops the run. Ctrl-C saves.
    - Curves are drawn, and a table of the validations ends the log.
    - Another process cannot train in the same work dir.
    - Images are packed and sent with fewer copies. A worker of a loader that
      dies or hangs is an error with a remedy.

    Args:
        checked: What :func:`mmext.checks.preflight.preflight` built and read
            for the same config. A run of one process uses its model and its
            checkpoint instead of building and reading them again. Default:
            None.
        args: Of ``Runner``, as ``kwargs``.
    """

    def __init__(
        self, *args: Any, checked: Preflight | None = None, **kwargs: Any
    ) -> None:
        self._checked = checked
        self._evaluating = False
        super().__init__(*args, **kwargs)

    @classmethod
    def from_cfg(
        cls, cfg: Config, checked: Preflight | None = None
    ) -> ReliableRunner:
        """Builds a runner from a config, which is copied."""
        cfg = CachedConfig.of(cfg)
        fill_channels(cfg.get('model'))  # and in the config that is dumped
        if cfg.pop('reduced_decoding', False):
            use_reduced_decoding(cfg)
        names = set(inspect.signature(Runner).parameters) - {'cfg'}
        settings = {name: cfg[name] for name in names if name in cfg}
        return cls(checked=checked, cfg=cfg, **settings)

    def setup_env(self, env_cfg: dict) -> None:
        """Joins the other processes, with or without GPUs."""
        check_launcher(self.launcher)
        join_processes(self.launcher, env_cfg)
        if get_device() == 'cpu':
            torch.set_num_threads(min(torch.get_num_threads(), cores()))
        super().setup_env(env_cfg)
        shared = [_later(self._timestamp, self.work_dir)]
        broadcast_object_list(shared)
        (self._timestamp,) = shared

    def build_model(self, model: nn.Module | dict) -> nn.Module:
        """Builds the model, or takes the one that preflight has built."""
        # Models may ask for the number of processes when they are built.
        if self._checked is None or self.distributed:
            return super().build_model(model)
        set_random_state(self._checked.random_state)
        return self._checked.model.train()

    def wrap_model(
        self, model_wrapper_cfg: dict | None, model: nn.Module
    ) -> nn.Module:
        """Sets the memory format, and what DDP needs without a GPU."""
        memory_format = self.cfg.get('memory_format', 'auto')
        name = set_memory_format(model, get_device(), memory_format)
        self.logger.info(f'Memory format: {name} ({memory_format})')
        if not self.distributed or get_device() != 'cpu':
            return super().wrap_model(model_wrapper_cfg, model)
        replace_torch_sync_bn(model)
        if self.cfg.get('sync_bn') == 'torch':
            self.cfg.sync_bn = 'mmcv'
        unused = self.cfg.get('find_unused_parameters', False)
        model_wrapper_cfg = {
            # The keys that the parent sets if it is given none.
            'broadcast_buffers': False,
            'find_unused_parameters': unused,
            **(model_wrapper_cfg or {}),
            'device_ids': None,
        }
        wrapped = super().wrap_model(model_wrapper_cfg, model)
        allow_bfloat16_sync_bn(wrapped)
        return wrapped

    def build_optim_wrapper(
        self, optim_wrapper: dict | OptimWrapper
    ) -> OptimWrapper:
        """On the CPU, replaces ``AmpOptimWrapper`` and fuses the update.

        Depth-wise convolutions stay in float32.
        """
        if (
            isinstance(optim_wrapper, dict)
            and optim_wrapper.get('type') == 'AmpOptimWrapper'
            and get_device() == 'cpu'
        ):
            optim_wrapper = copy.deepcopy(optim_wrapper)
            for key in ('loss_scale', 'dtype', 'use_fsdp'):
                optim_wrapper.pop(key, None)
            optim_wrapper['type'] = 'CPUAmpOptimWrapper'
            self.logger.info('Mixed precision on the CPU: bfloat16')
        built = super().build_optim_wrapper(optim_wrapper)
        if get_device() == 'cpu':
            update_in_one_pass(built)
            if any(isinstance(m, CPUAmpOptimWrapper) for m in members(built)):
                keep_depthwise_in_float32(self.model)
        return built

    def scale_lr(
        self, optim_wrapper: OptimWrapper, auto_scale_lr: dict | None = None
    ) -> None:
        """Counts accumulated batches too and logs the arithmetic."""
        scaling = lr_scaling(self.cfg, self.world_size)
        if scaling is None or not (auto_scale_lr or {}).get('enable'):
            super().scale_lr(optim_wrapper, auto_scale_lr)
            return
        self.logger.info(f'auto_scale_lr: {scaling.text}')
        for group in optim_wrapper.optimizer.param_groups:
            group['lr'] *= scaling.factor
        self.param_schedulers = scaled_peaks(
            self.param_schedulers, scaling.factor
        )

    @staticmethod
    def build_dataloader(
        dataloader: dict | DataLoader,
        seed: int | None = None,
        diff_rank_seed: bool = False,
    ) -> DataLoader:
        """Builds a loader with fewer copies and with seeded workers."""
        if not isinstance(dataloader, dict):
            return dataloader
        dataloader = copy.deepcopy(dataloader)
        use_faster_transforms(dataloader)
        if not dataloader.get('num_workers'):
            # PyTorch refuses these if there are no workers.
            dataloader.pop('persistent_workers', None)
            dataloader.pop('prefetch_factor', None)
            dataloader.pop('timeout', None)
        else:
            dataloader.setdefault('timeout', TIMEOUT)
            if dataloader.get('sampler', {}).get('shuffle'):
                # A worker that outlives the epoch would keep its generator.
                dataloader['persistent_workers'] = False
                init = {'type': 'epoch_worker_init'}
                dataloader.setdefault('worker_init_fn', init)
        built = Runner.build_dataloader(dataloader, seed, diff_rank_seed)
        shield_workers(built)
        send_compactly(built)
        return built

    def build_logger(self, *args: Any, **options: Any) -> MMLogger:
        """Builds a logger that does not print tracebacks on a full disk."""
        logger = super().build_logger(*args, **options)
        for handler in logger.handlers:
            if isinstance(handler, logging.FileHandler):
                handler.handleError = partial(_log_is_lost, handler)
        return logger

    def build_visualizer(
        self, visualizer: dict | Visualizer | None = None
    ) -> Visualizer:
        """Gives every run of this process its own log folder.

        All configs of mmdet name their visualizer ``visualizer``, and
        MMEngine returns the first instance of that name.
        """
        name = visualizer.get('name') if isinstance(visualizer, dict) else None
        if name and Visualizer.check_instance_created(name):
            visualizer['name'] = f'{name}_{self.work_dir}_{self.timestamp}'
        return super().build_visualizer(visualizer)

    def build_evaluator(self, evaluator: dict | list | Evaluator) -> Evaluator:
        """Builds an evaluator that gathers results over gloo, not files."""
        built = super().build_evaluator(evaluator)
        if self.distributed and get_device() == 'cpu':
            for metric in built.metrics:
                metric.collect_device = 'gpu'  # that is: all_gather_object
        return built

    def register_hooks(
        self,
        default_hooks: dict | None = None,
        custom_hooks: list | None = None,
    ) -> None:
        """Adds the hooks of this class; keeps at least two checkpoints."""
        super().register_hooks(default_hooks, custom_hooks)
        for hook in [*self.hooks]:
            if isinstance(hook, EarlyStoppingHook):
                # Before a new best checkpoint, which stores its count.
                self.hooks.remove(hook)
                self.register_hook(hook, 'LOW')
        kinds: list[type[Hook]] = [
            EpochSeedHook,
            NumericalGuardHook,
            StartChecksHook,
            ExactResumeHook,
            InterruptHook,
            FreshMetricsHook,
            CurvesHook,
            ResumeValidationHook,
        ]
        if self.distributed:
            # Otherwise each process validates with its own BN statistics,
            # and the checkpoint, which has those of the first process,
            # cannot reproduce the AP.
            kinds.append(SyncBuffersHook)
        for kind in kinds:
            if not any(isinstance(hook, kind) for hook in self.hooks):
                self.register_hook(kind())
        for hook in self.hooks:
            if isinstance(hook, CheckpointHook) and hook.max_keep_ckpts == 1:
                # It removes the old file before it writes the new one.
                hook.max_keep_ckpts = 2

    def build_train_loop(self, loop: dict | BaseLoop) -> BaseLoop:
        """Builds a loop that can resume in the middle of an epoch."""
        if isinstance(loop, dict):
            loop = dict(loop)
            by_epoch = loop.get('by_epoch')
            if by_epoch or loop.get('type') == 'EpochBasedTrainLoop':
                loop.pop('by_epoch', None)
                loop['type'] = 'ResumableEpochLoop'
        return super().build_train_loop(loop)

    def train(self) -> nn.Module:
        """Trains; Ctrl-C and SIGTERM save a checkpoint first."""
        try:
            with self._working(locked(self.work_dir)):
                return super().train()
        finally:
            for hook in self.hooks:
                if isinstance(hook, InterruptHook):
                    hook.stop_listening()

    def test(self) -> dict:
        """Tests; every tensor of the checkpoint must fit the model."""
        self._evaluating = True
        with self._working():
            return super().test()

    def val(self) -> dict:
        """Validates; every tensor of the checkpoint must fit the model."""
        self._evaluating = True
        with self._working():
            return super().val()

    @contextmanager
    def _working(
        self, lock: AbstractContextManager | None = None
    ) -> Iterator[None]:
        """Locks the work dir; explains what ended a loader's worker."""
        if self.rank > 0:
            lock = None
        with (
            naming(self.work_dir),
            lock or nullcontext(),
            loader_errors(),
        ):
            yield

    @property
    def same_command(self) -> str:
        """Names what continues this training, to begin a sentence.

        A command that resumed, such as ``mmext run``, does so again; from a
        file that it names, it would not continue but repeat.
        """
        resumes = self.cfg.get('resume') and not self.cfg.get('load_from')
        return 'The same command' + ('' if resumes else ' with --resume')

    def load_or_resume(self) -> None:
        """Loads or resumes; finds the newest checkpoint if none is named."""
        if self._resume and self._load_from is None and not self._has_loaded:
            shared = [self._newest() if self.rank == 0 else None]
            broadcast_object_list(shared)
            (newest,) = shared
            if newest is None:
                self.logger.warning(
                    f'Nothing to resume in {self.work_dir}: starting from '
                    'the beginning'
                )
                self._resume, newest = False, self.cfg.get('start_from')
            else:
                self.logger.info(f'Resuming from {newest}')
            self._load_from = newest
        super().load_or_resume()
        for hook in self.hooks:
            if isinstance(hook, ExactResumeHook):
                hook.resize(self)
        config = self.cfg.get('model')
        if (
            self._checked is None  # otherwise preflight has asked
            and not self._has_loaded
            and not self._evaluating
            and isinstance(config, Mapping)
        ):
            require_trainable(unwrap(self.model), config)
        self._checked = None  # frees the checkpoint

    def _newest(self) -> str | None:
        """Returns the newest complete checkpoint of the work dir."""
        if self._checked is None:
            hooks = [h for h in self.hooks if isinstance(h, CheckpointHook)]
            folder = hooks[0].out_dir if hooks else None
            found = newest_complete(self.work_dir, self.logger.warning, folder)
            return None if found is None else str(found[0])
        for line in self._checked.skipped:
            self.logger.warning(line)
        return self._checked.checkpoint_path if self._checked.resume else None

    def _init_model_weights(self) -> None:
        """Initialises weights; checks and logs what ``init_cfg`` loads."""
        with drawn_in_usual_order(self.model), watch_pretrained(self.model):
            super()._init_model_weights()

    def load_checkpoint(
        self,
        filename: str,
        map_location: str | Callable = 'cpu',
        strict: bool = False,
        **options: Any,
    ) -> dict:
        """Loads a checkpoint; raises `UserError` if too little of it fits."""
        checked = self._checked
        was_read = checked and checked.checkpoint_path == str(filename)
        if was_read and not self.distributed:
            content = checked.checkpoint
        else:  # several processes download a URL together
            content = load(filename, map_location)
        least = 1.0 if self._evaluating or self._resume else 0.5
        text = str(require_match(self.model, content, str(filename), least))
        if least < 1:
            parts = require_start(self.model, content, str(filename))
            text += f' ({parts})'
        name = str(filename)
        if self.rank == 0 and Path(filename).is_file():
            name += f' (SHA-256 {sha256(filename)})'
        self.logger.info(f'Checkpoint {name}: {text}')
        if self._resume and checked is None:  # otherwise preflight has asked
            require_resumable(content, str(filename))
        self.call_hook('after_load_checkpoint', checkpoint=content)
        model = unwrap(self.model)
        _load_checkpoint_to_model(model, content, strict, **options)
        self._has_loaded = True
        return content

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:
        """Calls the hooks; a checkpoint gets its checksums after all."""
        super().call_hook(fn_name, **kwargs)
        if fn_name == 'before_save_checkpoint':
            checkpoint = kwargs['checkpoint']
            checkpoint['meta'][KEY] = checksums(checkpoint)

    @master_only
    def dump_config(self) -> None:
        """Writes the config into the work dir, not where a link leads."""
        name = Path(self.cfg.filename or self.timestamp).name
        _remove_link(Path(self.work_dir, name))
        super().dump_config()

    @master_only
    def save_checkpoint(
        self, out_dir: str, filename: str, *args: Any, **options: Any
    ) -> None:
        """Writes a checkpoint completely, or raises `UserError`."""
        # CheckpointHook writes this file next.
        _remove_link(Path(self.work_dir, 'last_checkpoint'))
        local = '://' not in str(out_dir) and not options.get('backend_args')
        path = Path(out_dir, filename)
        try:
            with writing(path) if local else nullcontext(path) as part:
                super().save_checkpoint(out_dir, part.name, *args, **options)
        except OSError as error:
            raise UserError(
                f'checkpoint {path} could not be written: {error}',
                f'{disk_fix(error)}. {self.same_command} continues from the '
                'last complete checkpoint.',
            ) from error
        if local and (warning := disk_warning(self, path.stat().st_size)):
            self.logger.warning(warning)


def _later(now: str, work_dir: str) -> str:
    """Returns a time after those of all runs in a work dir.

    Their logs are read in the order of these times, which name the folders.
    The clock may have been set back since, or two runs be in one second.
    """
    form = '%Y%m%d_%H%M%S'
    for folder in sorted(Path(work_dir).glob('[0-9]*_[0-9]*')):
        with suppress(OverflowError, ValueError):  # another folder
            next_one = datetime.strptime(folder.name, form) + timedelta(0, 1)
            now = max(now, next_one.strftime(form))
    return now


def _log_is_lost(
    handler: logging.FileHandler, record: logging.LogRecord
) -> None:
    """Reports, once, that lines of the log could not be written."""
    handler.handleError = lambda record: None
    error = sys.exc_info()[1]
    print(
        f'warning: lines are missing in {handler.baseFilename}: {error}',
        file=sys.stderr,
    )


def _remove_link(path: Path) -> None:
    if path.is_symlink():
        path.unlink()
