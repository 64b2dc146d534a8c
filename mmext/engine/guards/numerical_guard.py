# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Stops a training run at its first non-finite loss or gradient.

The check is right before the step of each optimizer, so that its weights are
still those that the step began with:

- A loss term that is not finite makes its own gradient NaN, on the device.
  Gradients are averaged over the processes, so that all of them see it at the
  same step and stop together without a message.
- If gradients are clipped by their norm, MMEngine has read that norm already.
  If ``GradScaler`` scales the loss, it has checked the gradients itself; the
  steps that it skips while it looks for a scale are no error. Otherwise the
  norm is computed and read. This is the only wait for the device that the
  guard adds, shortly before MMEngine reads the losses.
"""

from __future__ import annotations

import math
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_gather_object
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from mmext.checkpoints.files import writing
from mmext.engine.distributed import SharedError
from mmext.engine.guards.replay import (
    Diagnosis,
    diagnose,
    images_of,
    non_finite_terms,
    tensors,
)
from mmext.engine.optimizers import members, step_is_done
from mmext.utils.modules import unwrap
from mmext.utils.random_state import (
    random_state,
    random_state_kept,
    set_random_state,
)

#: Consecutive steps that GradScaler may skip: from 2**16 down to 2**-4.
SCALER_SKIPS = 20


class DivergedError(SharedError):
    """A loss or gradient is not finite; the same training repeats it."""


@HOOKS.register_module()
class NumericalGuardHook(Hook):
    """Stops at, or skips, a step whose loss or gradient is not finite.

    The message names the loss terms, the first layer, the images and the
    learning rate. ``WORK_DIR/nonfinite_iter_N.pth`` stores weights, batch and
    random state for ``tools/misc/replay_step.py``.

    Args:
        max_skips: How many consecutive steps are skipped before the run
            stops. A skipped step changes neither the weights nor the
            statistics of batch norms. Default: 0, the first such step stops
            the run.

    Raises:
        DivergedError: In all processes, at the same step.
    """

    priority = 'VERY_HIGH'

    def __init__(self, max_skips: int = 0) -> None:
        self.max_skips = max_skips
        self._skips = 0
        self._begin()

    def _begin(self) -> None:
        """Resets the record of the current step of the optimizer."""
        self._stepped = self._bad = False
        self._batches: list[dict[str, Any]] = []
        self._losses: list[dict[str, Any]] = []

    def before_train(self, runner: Runner) -> None:
        """Registers the checks with the model and the optimizers."""
        model = unwrap(runner.model)
        self._wrappers = members(runner.optim_wrapper)
        if len(self._wrappers) > 1 and any(map(_scaled, self._wrappers)):
            runner.logger.warning(
                'NumericalGuardHook: of several optimizers, those whose loss '
                'GradScaler scales are not checked, because a step that it '
                'skips looks like one that was not due'
            )
        self._handles = [model.register_forward_hook(self._poison)]
        for wrapper in self._wrappers:
            check = partial(self._before_step, wrapper)
            handle = wrapper.optimizer.register_step_pre_hook(check)
            self._handles.append(handle)
        self._statistics = _Statistics(model)

    def after_train(self, runner: Runner) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None
    ) -> None:
        """Keeps the batch and the random state of the step."""
        if not self._batches:
            self._statistics.keep()
        batch = {'data': data_batch, 'random_state': random_state()}
        self._batches.append(batch)

    def _poison(self, model: nn.Module, args: Any, output: Any) -> None:
        """Makes the gradient of a non-finite loss term NaN."""
        if not isinstance(output, dict):
            return
        losses = [value for name, value in output.items() if 'loss' in name]
        for term in tensors(losses):
            if term.requires_grad:
                term.register_hook(partial(_poisoned, term.detach()))

    def _before_step(
        self, wrapper: OptimWrapper, optimizer: torch.optim.Optimizer, *_: Any
    ) -> None:
        self._stepped = True
        if (found := getattr(optimizer, 'found_inf', None)) is not None:
            # A fused optimizer does what GradScaler does for the others.
            self._stepped = not bool(found)
            return
        if not _gradients_finite(wrapper):
            self._bad = True
            # Optimizers skip parameters that have no gradient.
            optimizer.zero_grad(set_to_none=True)

    def after_train_iter(
        self, runner: Runner, outputs: dict | None = None, **kwargs: Any
    ) -> None:
        """Handles a step that was not taken."""
        self._losses.append(outputs or {})
        if not step_is_done(runner.optim_wrapper):
            return  # gradients accumulate
        (first, *others) = self._wrappers
        scaled = not others and _scaled(first) and not self._stepped
        if self._bad or scaled:
            self._handle(runner, scaled)
        else:
            self._skips = 0
        self._begin()

    def _handle(self, runner: Runner, scaled: bool) -> None:
        """Stops the run or skips the step; all processes call it."""
        terms = [non_finite_terms(losses) for losses in self._losses]
        self._skips += 1
        if (
            scaled
            and self._skips <= SCALER_SKIPS
            and not any(map(any, all_gather_object(terms)))
        ):
            return
        self._statistics.put_back()
        found = self._diagnose(runner)
        mine = any(terms) or any(found)
        bad = [i for i, m in enumerate(all_gather_object(mine)) if m] or [0]
        stops = self._skips > self.max_skips
        path = None
        if runner.rank in bad and (stops or self._skips == 1):
            path = self._save(runner)
        texts = all_gather_object(self._describe(runner, terms, found))
        text = texts[bad[0]]
        paths = [p for p in all_gather_object(path) if p]
        if not stops:
            runner.logger.warning(
                f'{text}\n  this step was skipped ({self._skips} in a row; '
                f'the run stops after {self.max_skips})'
                + ''.join(f'\n  saved: {path}' for path in paths)
            )
            return
        config = Path(runner.work_dir, Path(runner.cfg.filename or '').name)
        tool = f'mmext replay-step {config}'
        repeats = [f'{tool} {p} repeats the step.\n     ' for p in paths]
        raise DivergedError(
            text,
            ''.join(repeats) + 'A lower learning rate, a longer warm-up or '
            '--cfg-options +optim_wrapper.clip_grad.max_norm=10 may help; '
            'with float16 also +optim_wrapper.dtype=bfloat16. '
            "custom_hooks=[dict(type='NumericalGuardHook', max_skips=10)] "
            'skips such steps. --resume continues from the last checkpoint.',
        )

    def _diagnose(self, runner: Runner) -> list[Diagnosis]:
        """Runs the batches of the step again, in every process."""
        model = unwrap(runner.model)
        found = []
        with random_state_kept():
            for batch in self._batches:
                set_random_state(batch['random_state'])
                context = self._wrappers[0].optim_context(model)
                found.append(diagnose(model, batch['data'], context))
        self._statistics.put_back()
        return found

    def _describe(
        self,
        runner: Runner,
        terms: list[dict[str, float]],
        found: list[Diagnosis],
    ) -> str:
        """Returns the message of this process."""
        rates = {
            f'{r:g}' for v in runner.optim_wrapper.get_lr().values() for r in v
        }
        # The first batch of the step that is not finite, if any.
        bad = [i for i, _ in enumerate(terms) if terms[i] or found[i]]
        which = bad[0] if bad else -1
        found[which].losses = found[which].losses or terms[which]
        what = 'loss' if terms[which] else 'gradient'
        images = '; '.join(images_of(self._batches[which]['data']))
        lines = [
            f'the {what} of iteration {runner.iter + 1} (epoch '
            f'{runner.epoch + 1}, process {runner.rank}) is not finite',
            *found[which].lines(),
            f'images: {images or "unknown"}',
            f'learning rate: {", ".join(sorted(rates))}',
        ]
        return '\n  '.join(lines)

    def _save(self, runner: Runner) -> str | None:
        """Saves the step; returns the path, or None if that fails."""
        name = f'nonfinite_iter_{runner.iter + 1}'
        if runner.world_size > 1:
            name += f'_rank_{runner.rank}'
        path = Path(runner.work_dir, f'{name}.pth')
        meta = {'iter': runner.iter, 'epoch': runner.epoch, 'autocast': None}
        wrapper = self._wrappers[0]
        if 'Amp' in type(wrapper).__name__:
            chosen = getattr(wrapper, 'cast_dtype', torch.bfloat16)
            dtype = chosen or torch.float16
            meta['autocast'] = str(dtype).removeprefix('torch.')
        weights = unwrap(runner.model).state_dict()
        content = {
            'meta': meta,
            'state_dict': {k: v.cpu() for k, v in weights.items()},
            'batches': self._batches,
        }
        try:
            with writing(path) as part:
                torch.save(content, part)
        except (OSError, RuntimeError) as error:  # PyTorch's is the latter
            runner.logger.warning(f'{path} could not be written: {error}')
            return None
        return str(path)


class _Statistics:
    """The statistics of norms, which a forward pass changes."""

    def __init__(self, model: nn.Module) -> None:
        by_type: dict[torch.dtype, list[Tensor]] = defaultdict(list)
        for module in model.modules():
            if isinstance(module, _NormBase):
                for buffer in module.buffers(recurse=False):
                    by_type[buffer.dtype].append(buffer)
        self._pairs = [(b, [x.clone() for x in b]) for b in by_type.values()]

    def keep(self) -> None:
        for buffers, kept in self._pairs:
            torch._foreach_copy_(kept, buffers)

    def put_back(self) -> None:
        for buffers, kept in self._pairs:
            torch._foreach_copy_(buffers, kept)


def _poisoned(loss: Tensor, gradient: Tensor) -> Tensor:
    # The difference is 0 for finite values and NaN for all others.
    return gradient + (loss - loss)


def _scaled(wrapper: OptimWrapper) -> bool:
    """Returns whether GradScaler checks the gradients."""
    return hasattr(wrapper, 'loss_scaler')


def _gradients_finite(wrapper: OptimWrapper) -> bool:
    """Returns whether a step may be taken; waits for the device if needed."""
    if _scaled(wrapper):
        return True  # GradScaler would have skipped the step
    if wrapper.clip_grad_kwargs and wrapper.grad_name == 'grad_norm':
        norm = wrapper.message_hub.get_scalar('train/grad_norm').current()
        return math.isfinite(norm)
    gradients = [
        p.grad
        for group in wrapper.optimizer.param_groups
        for p in group['params']
        if p.grad is not None
    ]
    # The norm is 20 times faster than the largest absolute value. A norm
    # beyond 1.8e19 overflows; such gradients are as useless as infinite ones.
    return math.isfinite(torch.nn.utils.get_total_norm(gradients))
