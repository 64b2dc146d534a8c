# Licensed under the Apache License, Version 2.0. See LICENSE.
"""MMEngine's runner, on any device and hard to lose work with.

``tools/train.py`` and ``tools/test.py`` of mmext use it. mmdet's own tools
and ``mim train mmdet`` do with one line in the config::

    runner_type = 'ReliableRunner'
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from pathlib import Path

import torch
from mmengine.device import get_device
from mmengine.dist import (
    broadcast_object_list,
    is_distributed,
    master_only,
)
from mmengine.evaluator import Evaluator
from mmengine.hooks import (
    CheckpointHook,
    EarlyStoppingHook,
    SyncBuffersHook,
)
from mmengine.optim import OptimWrapper
from mmengine.registry import RUNNERS
from mmengine.runner import BaseLoop, Runner
from mmengine.visualization import Visualizer
from torch import nn
from torch.utils.data import DataLoader

from mmext.checkpoints.files import newest_valid, replace_durably
from mmext.checkpoints.match import require_match
from mmext.checkpoints.pretrained import require_start, watch_pretrained
from mmext.engine.curves_hook import CurvesHook
from mmext.engine.distributed import (
    check_launcher,
    cores,
    init_gloo,
    mend_sync_bn,
    replace_torch_sync_bn,
)
from mmext.engine.guards.numerical_guard import NumericalGuardHook
from mmext.engine.guards.start_checks import StartChecksHook, disk_warning
from mmext.engine.loader_workers import shield_workers
from mmext.engine.lr_scaling import lr_scaling
from mmext.engine.memory_format import (
    drawn_in_usual_order,
    set_memory_format,
)
from mmext.engine.resume.exact_resume import ExactResumeHook
from mmext.engine.resume.interrupt import InterruptHook
from mmext.engine.resume.seeding import EpochSeedHook
from mmext.engine.resume.validation import ResumeValidationHook
from mmext.errors import UserError
from mmext.utils.files import sha256


@RUNNERS.register_module()
class ReliableRunner(Runner):
    """A ``Runner`` that differs from its parent in these points.

    - Several processes work without a GPU (gloo), SyncBN included, and
      validate with the same BN statistics.
    - ``AmpOptimWrapper`` on the CPU becomes ``CPUAmpOptimWrapper``.
    - The faster memory format is used, see :mod:`mmext.engine.memory_format`.
    - ``auto_scale_lr`` counts accumulated batches and shows its arithmetic.
    - A checkpoint is written beside its place, flushed, read back and only
      then renamed; a full disk stops the run and leaves the older ones.
    - Resuming takes the newest *whole* checkpoint, and the run then ends
      where the undisturbed one ends, bit for bit on the CPU.
    - Testing a checkpoint that does not fit the model is an error, and so is
      training from one of which less than half fits, or no backbone.
    - A loss or gradient that is not finite stops the run; Ctrl-C saves.
    - Curves are drawn, and a table of the validations ends the log.
    """

    _evaluating = False

    def setup_env(self, env_cfg: dict) -> None:
        """Meets the other processes, on GPUs or on none."""
        check_launcher(self.launcher)
        if get_device() == 'cpu':
            if self.distributed and not is_distributed():
                timeout = env_cfg.get('dist_cfg', {}).get('timeout')
                init_gloo(self.launcher, timeout)
            torch.set_num_threads(min(torch.get_num_threads(), cores()))
        super().setup_env(env_cfg)

    def wrap_model(
        self, model_wrapper_cfg: dict | None, model: nn.Module
    ) -> nn.Module:
        """Picks the memory format; adds what DDP needs without a GPU."""
        memory_format = self.cfg.get('memory_format', 'auto')
        set_memory_format(model, get_device(), memory_format)
        if self.distributed and get_device() == 'cpu':
            replace_torch_sync_bn(model)
            if self.cfg.get('sync_bn') == 'torch':
                self.cfg.sync_bn = 'mmcv'
            # The keys that the parent sets where it is given none.
            model_wrapper_cfg = {
                'broadcast_buffers': False,
                'find_unused_parameters': self.cfg.get(
                    'find_unused_parameters', False
                ),
                **(model_wrapper_cfg or {}),
                'device_ids': None,
            }
            wrapped = super().wrap_model(model_wrapper_cfg, model)
            mend_sync_bn(wrapped)
            return wrapped
        return super().wrap_model(model_wrapper_cfg, model)

    def build_optim_wrapper(
        self, optim_wrapper: dict | OptimWrapper
    ) -> OptimWrapper:
        """Replaces the wrapper that needs a GPU where there is none."""
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
        return super().build_optim_wrapper(optim_wrapper)

    def scale_lr(
        self, optim_wrapper: OptimWrapper, auto_scale_lr: dict | None = None
    ) -> None:
        """Scales the rate to the images of a step, and shows how.

        The parent leaves accumulated batches out.
        """
        scaling = lr_scaling(self.cfg, self.world_size)
        if scaling is None or not (auto_scale_lr or {}).get('enable'):
            super().scale_lr(optim_wrapper, auto_scale_lr)
            return
        self.logger.info(f'auto_scale_lr: {scaling}')
        for group in optim_wrapper.optimizer.param_groups:
            group['lr'] *= scaling.factor

    @staticmethod
    def build_dataloader(
        dataloader: dict | DataLoader,
        seed: int | None = None,
        diff_rank_seed: bool = False,
    ) -> DataLoader:
        """Suits the loader to its number of workers, and shields them."""
        if isinstance(dataloader, dict):
            dataloader = copy.deepcopy(dataloader)
            if not dataloader.get('num_workers'):
                # torch refuses both without workers.
                dataloader.pop('persistent_workers', None)
                dataloader.pop('prefetch_factor', None)
            elif dataloader.get('sampler', {}).get('shuffle'):
                # A worker that outlives the epoch carries its generator on.
                dataloader['persistent_workers'] = False
                dataloader.setdefault(
                    'worker_init_fn', {'type': 'epoch_worker_init'}
                )
        built = Runner.build_dataloader(dataloader, seed, diff_rank_seed)
        if isinstance(dataloader, dict):
            shield_workers(built)
        return built

    def build_visualizer(
        self, visualizer: dict | Visualizer | None = None
    ) -> Visualizer:
        """Gives every run of this process its own log folder.

        mmdet's configs all name their visualizer ``visualizer``, and a name
        stands for the first of its instances.
        """
        if isinstance(visualizer, dict) and Visualizer.check_instance_created(
            visualizer.get('name', '')
        ):
            visualizer['name'] += f'_{self.work_dir}_{self.timestamp}'
        return super().build_visualizer(visualizer)

    def build_evaluator(self, evaluator: dict | list | Evaluator) -> Evaluator:
        """Gathers results by message, not through files, over gloo."""
        built = super().build_evaluator(evaluator)
        if self.distributed and get_device() == 'cpu':
            for metric in built.metrics:
                metric.collect_device = 'gpu'  # means: all_gather_object
        return built

    def register_hooks(
        self,
        default_hooks: dict | None = None,
        custom_hooks: list | None = None,
    ) -> None:
        """Adds what the class promises; keeps two checkpoints at least."""
        super().register_hooks(default_hooks, custom_hooks)
        for hook in [*self.hooks]:
            if isinstance(hook, EarlyStoppingHook):
                # Before a new best checkpoint, which is to have its count.
                self.hooks.remove(hook)
                self.register_hook(hook, 'LOW')
        present = {type(hook) for hook in self.hooks}
        for kind in (
            EpochSeedHook,
            NumericalGuardHook,
            StartChecksHook,
            ExactResumeHook,
            InterruptHook,
            CurvesHook,
            ResumeValidationHook,
        ):
            if kind not in present:
                self.register_hook(kind())
        if self.distributed and not any(
            isinstance(hook, SyncBuffersHook) for hook in self.hooks
        ):
            # Else each process validates with its own BN statistics, and the
            # checkpoint, which has the first one's, cannot reproduce the AP.
            self.register_hook(SyncBuffersHook())
        for hook in self.hooks:
            if isinstance(hook, CheckpointHook) and hook.max_keep_ckpts == 1:
                # It removes the old one before it writes the new one.
                hook.max_keep_ckpts = 2

    def build_train_loop(self, loop: dict | BaseLoop) -> BaseLoop:
        """Takes the loop that can go on in the middle of an epoch."""
        if isinstance(loop, dict):
            loop = dict(loop)
            by_epoch = loop.get('by_epoch')
            if loop.get('type') == 'EpochBasedTrainLoop' or by_epoch:
                loop.pop('by_epoch', None)
                loop['type'] = 'ResumableEpochLoop'
        return super().build_train_loop(loop)

    def train(self) -> nn.Module:
        """Trains; Ctrl-C and SIGTERM save before they stop it."""
        try:
            return super().train()
        finally:
            for hook in self.hooks:
                if isinstance(hook, InterruptHook):
                    hook.stop_listening()

    def test(self) -> dict:
        """Tests; every tensor of the checkpoint must fit."""
        self._evaluating = True
        return super().test()

    def val(self) -> dict:
        """Validates; every tensor of the checkpoint must fit."""
        self._evaluating = True
        return super().val()

    def load_or_resume(self) -> None:
        """Resumes from the newest whole checkpoint where none is named."""
        if self._resume and self._load_from is None and not self._has_loaded:
            found = [None]
            if self.rank == 0:
                found = [newest_valid(self.work_dir, self.logger.warning)]
            broadcast_object_list(found)
            if found[0] is None:
                self.logger.warning(
                    f'Nothing to resume in {self.work_dir}: starting anew'
                )
                self._resume = False
                self._load_from = self.cfg.get('start_from')
            else:
                self.logger.info(f'Resuming from {found[0]}')
                self._load_from = str(found[0])
        super().load_or_resume()

    def _init_model_weights(self) -> None:
        """Says what ``init_cfg`` loaded, and stops where it was nothing."""
        with drawn_in_usual_order(self.model), watch_pretrained(self.model):
            super()._init_model_weights()

    def load_checkpoint(
        self,
        filename: str,
        map_location: str | Callable = 'cpu',
        strict: bool = False,
        revise_keys: list = [(r'^module.', '')],  # noqa: B006
    ) -> dict:
        """Loads a checkpoint after checking how much of it fits."""
        self._reading = filename
        return super().load_checkpoint(
            filename, map_location, strict, revise_keys
        )

    def call_hook(self, fn_name: str, **kwargs) -> None:
        """Checks a checkpoint between its reading and its use."""
        if fn_name == 'after_load_checkpoint':
            name = str(self._reading)
            least = 1.0 if self._evaluating or self._resume else 0.5
            checkpoint = kwargs['checkpoint']
            found = require_match(self.model, checkpoint, name, least)
            told = str(found)
            if least < 1:
                told += f' ({require_start(self.model, checkpoint, name)})'
            if self.rank == 0 and Path(name).is_file():
                name += f' (SHA-256 {sha256(name)})'
            self.logger.info(f'Checkpoint {name}: {told}')
        super().call_hook(fn_name, **kwargs)

    @master_only
    def save_checkpoint(
        self,
        out_dir: str,
        filename: str,
        file_client_args: dict | None = None,
        save_optimizer: bool = True,
        save_param_scheduler: bool = True,
        meta: dict | None = None,
        by_epoch: bool = True,
        backend_args: dict | None = None,
    ) -> None:
        """Writes a checkpoint whole or not at all.

        Raises:
            UserError: The disk is full; nothing was left half-written.
        """
        local = '://' not in str(out_dir) and not backend_args
        name = f'{filename}.tmp' if local else filename
        temporary, final = Path(out_dir, name), Path(out_dir, filename)
        try:
            super().save_checkpoint(
                out_dir,
                name,
                file_client_args,
                save_optimizer,
                save_param_scheduler,
                meta,
                by_epoch,
                backend_args,
            )
            if local:
                replace_durably(temporary, final)
        except OSError as error:
            raise UserError(
                f'checkpoint {final} could not be written: {error}',
                'Free some space, then run the same command with --resume: '
                'it continues from the last whole checkpoint.',
            ) from error
        finally:
            if local:  # a second Ctrl-C may come while it is written
                with contextlib.suppress(OSError):
                    temporary.unlink()
        if local and (told := disk_warning(self, final.stat().st_size)):
            self.logger.warning(told)
