# Licensed under the Apache License, Version 2.0. See LICENSE.
"""What the backbones of mmext do alike: arguments, freezing, weights."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from mmext.checkpoints.released import (
    load_released_weights,
    named_prefixes,
)
from mmext.errors import UserError


def drop_path_rates(last: float, depth: int) -> list[float]:
    """Rates of ``depth`` blocks, rising linearly from 0 to ``last``.

    Raises:
        UserError: ``last`` is no probability below 1.
    """
    if not 0 <= last < 1:
        raise UserError(
            f'drop_path_rate={last} is no probability below 1.',
            'It is the share of images that skip the last block: 0.1, say.',
        )
    return [last * i / max(depth - 1, 1) for i in range(depth)]


class BaseBackbone(BaseModule):
    """Freezing, strict pretrained weights and input checks in one place.

    A subclass calls ``__init__`` first, sets ``out_channels`` and
    ``strides``, builds, lists the names of its sub-modules from the image on
    in ``freezable`` and ends its own ``__init__`` with ``self.train()``.

    Args:
        in_channels: Channels of the image.
        frozen_stages: Entries of ``freezable`` to freeze beyond the first
            (0 freezes the stem alone); -1 freezes nothing.
        norm_eval: Keep batch norm in evaluation mode while training.
        with_cp: Trade computation for memory: recompute each block in the
            backward pass. As in the host, a batch norm in train mode then
            moves its running statistics twice a step.
        init_cfg: How to initialise. ``dict(type='Pretrained',
            checkpoint=..., prefix=None, allow_missing=False)`` goes through
            :func:`~mmext.models.load_released_weights`. What the list
            ``allow_missing`` names stays trainable in frozen stages.
    """

    # load_released_weights says what was loaded, and is stricter.
    reports_pretrained = True

    def __init__(
        self,
        in_channels: int,
        frozen_stages: int,
        norm_eval: bool,
        with_cp: bool,
        init_cfg: dict | list[dict] | None,
    ) -> None:
        super().__init__(init_cfg)
        self.in_channels = in_channels
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        self.with_cp = with_cp
        self.out_channels: tuple[int, ...] = ()
        self.strides: tuple[int, ...] = ()
        self.freezable: list[str] = []
        # Prefixes of released keys that nothing here answers to.
        self.unbuilt: tuple[str, ...] = ()
        # Prefixes of what a checkpoint may lack: freezing spares it. Known
        # here, because the optimiser and DDP read requires_grad before any
        # weights come.
        self.spared = tuple(
            prefix
            for cfg in _configs(init_cfg)
            for prefix in named_prefixes(cfg.get('allow_missing', False))
        )
        self.unfilled: frozenset[str] = frozenset()

    def released_key(self, key: str) -> str | None:
        """Name here of an official checkpoint's key, None to drop it."""
        return None if key.startswith(('head.', *self.unbuilt)) else key

    def check_unfilled(self, unfilled: Sequence[str]) -> None:
        """Raises UserError where a checkpoint lacks what is frozen.

        Norms that it lacks follow ``train()`` from here on, whatever
        ``norm_eval`` says.
        """
        stages = tuple(
            f'{n}.' for n in self.freezable[: self.frozen_stages + 1]
        )
        stuck = [
            key
            for key in unfilled
            if key.startswith(stages) and not key.startswith(self.spared)
        ]
        if stuck:
            layers = dict.fromkeys(key.rsplit('.', 1)[0] for key in stuck)
            shared = os.path.commonprefix([f'{name}.' for name in layers])
            shared = shared[: shared.rfind('.') + 1]
            names = [shared] if shared else [f'{name}.' for name in layers]
            raise UserError(
                f'frozen_stages={self.frozen_stages} freezes {len(stuck)} '
                f'tensors that the checkpoint lacks ({stuck[0]}, ...), at '
                'random values; nothing was loaded.',
                "Build the backbone with init_cfg=dict(type='Pretrained', "
                f'checkpoint=..., allow_missing={names}): they then stay '
                'trainable. Or frozen_stages=-1.',
            )
        self.unfilled = frozenset(unfilled)
        self.train(self.training)

    def init_weights(self) -> None:
        """Initialises; ``Pretrained`` is strict, the rest is MMEngine's."""
        cfgs = _configs(self.init_cfg)
        pretrained = [c for c in cfgs if _type_name(c) == 'Pretrained']
        asked, first_time = self.init_cfg, not self.is_init
        self.init_cfg = [c for c in cfgs if c not in pretrained]
        super().init_weights()
        self.init_cfg = asked
        if not first_time:
            return
        for cfg in pretrained:
            options = {
                k: v
                for k, v in cfg.items()
                if k not in ('type', 'checkpoint', 'map_location')
            }
            load_released_weights(self, cfg['checkpoint'], **options)
        if not pretrained and (self.frozen_stages >= 0 or self.norm_eval):
            warnings.warn(
                f'{type(self).__name__} has no init_cfg of type Pretrained, '
                f'but frozen_stages={self.frozen_stages} and '
                f'norm_eval={self.norm_eval}: unless a checkpoint follows '
                '(load_from, resume), random weights stay as they are. Give '
                "init_cfg=dict(type='Pretrained', checkpoint=...), or "
                'frozen_stages=-1 and norm_eval=False.',
                stacklevel=2,
            )

    def train(self, mode: bool = True) -> BaseBackbone:
        """Sets the mode, but keeps what is frozen frozen.

        Raises:
            UserError: ``frozen_stages`` is out of range.
        """
        super().train(mode)
        if not -1 <= self.frozen_stages < max(len(self.freezable), 1):
            raise UserError(
                f'frozen_stages={self.frozen_stages} is out of range.',
                f'-1 freezes nothing, 0 {self.freezable[0]!r} and '
                f'{len(self.freezable) - 1} everything that is built.',
            )
        for name in self.freezable[: self.frozen_stages + 1]:
            for key, param in self.get_submodule(name).named_parameters(name):
                param.requires_grad = key.startswith(self.spared)
            self._set_eval(name, nn.Module)
        if self.norm_eval:
            self._set_eval('', _BatchNorm)
        return self

    def _set_eval(self, name: str, kind: type[nn.Module]) -> None:
        for key, module in self.get_submodule(name).named_modules(prefix=name):
            # A module is spared with its prefix, or for what is in it.
            spared = f'{key}.'.startswith(self.spared) or any(
                entry.startswith(f'{key}.')
                for entry in (*self.spared, *self.unfilled)
            )
            if isinstance(module, kind) and not spared:
                module.training = False

    def check_input(self, x: Tensor) -> None:
        """Raises UserError for an image that this network cannot take."""
        if torch.jit.is_tracing():  # comparing sizes would warn
            return
        least = max(self.strides)
        if x.dim() != 4 or x.size(1) != self.in_channels:
            raise UserError(
                f'{type(self).__name__} got an input of shape '
                f'{tuple(x.shape)}.',
                f'It takes (images, {self.in_channels}, height, width).',
            )
        if min(x.shape[2:]) < least:
            raise UserError(
                f'{type(self).__name__} got an image of '
                f'{x.size(2)}x{x.size(3)} pixels, less than its stride of '
                f'{least}.',
                f'Resize or pad images to at least {least}x{least}.',
            )

    def run_block(self, block: nn.Module, x: Tensor) -> Tensor:
        """One block, recomputed in the backward pass if ``with_cp``."""
        if self.with_cp and x.requires_grad:
            return checkpoint(block, x, use_reentrant=False)
        return block(x)


def _configs(init_cfg: dict | list[dict] | None) -> list[dict]:
    return [init_cfg] if isinstance(init_cfg, dict) else list(init_cfg or ())


def _type_name(cfg: dict) -> str:
    kind = cfg['type']
    name = kind if isinstance(kind, str) else kind.__name__
    return {'PretrainedInit': 'Pretrained'}.get(name, name)
