# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Adds an orthogonality term to the loss of any model, from a config."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import HOOKS, MODELS
from mmengine.runner import Runner
from torch import Tensor, nn

from mmext.errors import UserError
from mmext.regularizers.base import Regularizer, has_filters, num_groups
from mmext.utils.modules import unwrap


@HOOKS.register_module()
class OrthogonalityHook(Hook):
    """Regularises the filters of chosen layers during training.

    The term is added to the losses that the model returns, so that mixed
    precision, gradient accumulation, distributed training and logging treat
    it as one of them. It exists only within a training step: checkpoints,
    validation and testing are not affected.

    Args:
        regularizer: Config of a registered :class:`Regularizer`.
        layers: Regular expressions of full module names, such as
            ``'backbone.layer[34].*conv2'``. Linear and convolution layers
            among the matches are used, except frozen ones and those with
            one filter per group (depth-wise).
        weight: Coefficient of the sum over layers. Default: 1.
        schedule: Pairs (begin, factor): from epoch ``begin`` on, the weight
            is multiplied by ``factor``; with 0 the term is not computed.
            Default: 1 in all epochs.
        by_epoch: False counts ``schedule`` in iterations. Default: True.
        loss_name: Key in the losses and the log. Default: 'loss_orth'.

    Raises:
        UserError: If a pattern matches no usable layer, a layer whose
            output is needed does not run, or ``loss_name`` is taken.

    Example:
        >>> custom_hooks = [
        ...     dict(
        ...         type='OrthogonalityHook',
        ...         regularizer=dict(type='SelfOrthogonality'),
        ...         layers='backbone.layer[34].*conv2',
        ...         weight=0.01,
        ...     )
        ... ]
    """

    def __init__(
        self,
        regularizer: dict,
        layers: str | Sequence[str],
        weight: float = 1.0,
        schedule: Sequence[tuple[int, float]] | None = None,
        by_epoch: bool = True,
        loss_name: str = 'loss_orth',
    ) -> None:
        if 'loss' not in loss_name:
            raise UserError(
                f'OrthogonalityHook: loss_name={loss_name!r} does not contain '
                "'loss', so MMEngine would log it without adding it.",
                "Name it 'loss_orth', for example.",
            )
        self.regularizer: Regularizer = MODELS.build(regularizer)
        self.patterns = [layers] if isinstance(layers, str) else list(layers)
        self.weight = weight
        self.schedule = sorted(schedule or [(0, 1.0)])
        self.by_epoch = by_epoch
        self.loss_name = loss_name
        self.layers: dict[str, nn.Module] = {}
        self._handles: list = []
        self._collecting = False
        self._step = 0
        # Samples of outputs, and those without a graph until backward.
        self._samples: dict[str, list[Tensor]] = {}
        self._pending: dict[str, Tensor] = {}

    def check_model(self, model: nn.Module) -> None:
        """Checks ``layers`` before the run writes anything."""
        select_layers(model, self.patterns, quiet=True)

    def before_train(self, runner: Runner) -> None:
        self.layers = select_layers(unwrap(runner.model), self.patterns)
        print_log(
            f'{self.loss_name}: {type(self.regularizer).__name__} on '
            f'{len(self.layers)} layers: {", ".join(self.layers)}',
            'current',
        )

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None
    ) -> None:
        self._remove()
        self._step = runner.iter
        self.regularizer.start_step(self._step)
        now = runner.epoch if self.by_epoch else runner.iter
        reached = [factor for begin, factor in self.schedule if begin <= now]
        self._factor = reached[-1] if reached else 0.0
        model = unwrap(runner.model)
        self._handles = [
            model.register_forward_pre_hook(self._open, with_kwargs=True),
            model.register_forward_hook(self._close, with_kwargs=True),
        ]
        if self.regularizer.reads_output and self._factor:
            self._handles += [
                layer.register_forward_hook(partial(self._read, name))
                for name, layer in self.layers.items()
            ]

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict | None = None,
    ) -> None:
        self._remove()

    def _remove(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles, self._collecting = [], False
        self._samples, self._pending = {}, {}

    def _open(self, model: nn.Module, args: tuple, kwargs: dict) -> None:
        """Starts to collect samples if the model computes its losses."""
        mode = kwargs.get('mode', args[2] if len(args) > 2 else 'tensor')
        self._collecting = mode == 'loss'
        self._samples = {}

    def _close(
        self, model: nn.Module, args: tuple, kwargs: dict, losses: Any
    ) -> Any:
        """Returns the losses of the model with the term."""
        if not self._collecting:
            return losses
        self._collecting = False
        if self.loss_name in losses:
            raise UserError(
                f'The losses already have {self.loss_name!r}: '
                f'{", ".join(losses)}.',
                'Give each OrthogonalityHook another `loss_name`.',
            )
        return {**losses, self.loss_name: self._loss()}

    def _loss(self) -> Tensor:
        device = next(iter(self.layers.values())).weight.device
        total = torch.zeros((), device=device)
        if not self._factor:
            return total
        # A Gram matrix of half-precision numbers would overflow.
        with torch.autocast(device.type, enabled=False):
            for name, layer in self.layers.items():
                if not self.regularizer.reads_output:
                    total = total + self.regularizer(layer)
                    continue
                calls = self._samples.get(name)
                if not calls:
                    raise UserError(
                        f'{self.loss_name}: layer {name!r} did not run in '
                        'this step, so it has no output to regularise.',
                        'Remove it from `layers`, or use a regularizer of '
                        'the weights, such as SoftOrthogonality.',
                    )
                terms = [self.regularizer(layer, y) for y in calls]
                total = total + torch.stack(terms).mean()
        return self.weight * self._factor * total

    def _read(
        self, name: str, layer: nn.Module, args: tuple, output: Tensor
    ) -> None:
        """Samples the output of a layer, as a forward hook."""
        if not self._collecting:  # a checkpointed region is recomputed
            if name in self._pending and torch.is_grad_enabled():
                self._give_gradient(layer, output, self._pending.pop(name))
            return
        samples = self.regularizer.sample(layer, output, self._step)
        if not torch.is_grad_enabled():
            if name in self._pending:
                raise UserError(
                    f'{self.loss_name}: layer {name!r} runs several times '
                    'in re-entrant checkpoints.',
                    'Remove it from `layers`, or checkpoint with '
                    'use_reentrant=False.',
                )
            samples.requires_grad_()
            self._pending[name] = samples
        self._samples.setdefault(name, []).append(samples)

    def _give_gradient(
        self, layer: nn.Module, output: Tensor, samples: Tensor
    ) -> None:
        """Adds the term's gradient to that of the recomputed output.

        Re-entrant checkpointing runs the first forward without a graph, so
        the samples were leaves. The term is last in the forward and first in
        the backward, so their gradient is already known.
        """

        def add(gradient: Tensor) -> Tensor:
            with torch.enable_grad():
                zeros = torch.zeros_like(output, requires_grad=True)
                part = self.regularizer.sample(layer, zeros, self._step)
            extra = torch.autograd.grad(part, zeros, samples.grad)[0]
            return gradient + extra

        output.register_hook(add)


def select_layers(
    model: nn.Module, patterns: Sequence[str], quiet: bool = False
) -> dict[str, nn.Module]:
    """Returns the layers whose full name matches and that can be used.

    Logs the matches that are not used, unless ``quiet``. Raises `UserError`
    if a pattern is not a regular expression, or matches no usable layer.
    """
    candidates = {n: m for n, m in model.named_modules() if has_filters(m)}
    chosen: dict[str, nn.Module] = {}
    for pattern in patterns:
        try:
            matches = re.compile(pattern).fullmatch
        except re.error as error:
            raise UserError(
                f'layers={pattern!r} is not a regular expression: {error}.',
                f'For this exact text, write {re.escape(pattern)!r}.',
            ) from error
        found = {n: m for n, m in candidates.items() if matches(n)}
        if not found:
            raise UserError(
                f'layers={pattern!r} matches none of the '
                f'{len(candidates)} convolution and linear layers.',
                f'Near: {", ".join(_near(pattern, candidates))}. A pattern '
                "is matched against the full name; '.*' stands for any part.",
            )
        usable = {n: m for n, m in found.items() if _is_usable(m)}
        left_out = [n for n in found if n not in usable]
        if not usable:
            raise UserError(
                f'layers={pattern!r} matches only layers that are frozen or '
                f'have one filter a group: {", ".join(left_out)}.',
                'Choose layers that train (see `frozen_stages`).',
            )
        if left_out and not quiet:
            print_log(
                'Not regularised, frozen or one filter a group: '
                + ', '.join(left_out),
                'current',
            )
        chosen.update(usable)
    return chosen


def _is_usable(layer: nn.Module) -> bool:
    filters = getattr(layer, 'out_channels', None) or layer.out_features
    several = filters // num_groups(layer) > 1
    return layer.weight.requires_grad and layer.weight.numel() and several


def _near(pattern: str, names: Sequence[str]) -> list[str]:
    literal = re.sub(r'\\|[^\w.]', '', pattern).replace('..', '.')
    near = difflib.get_close_matches(literal, list(names), 5, 0.4)
    return near or list(names)[:5]
