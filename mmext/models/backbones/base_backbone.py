# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Freezing, pre-trained weights and input checks for backbones of mmext."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from mmext.checkpoints.released import (
    StrictInit,
    allowed_prefixes,
    pretrained_configs,
)
from mmext.errors import UserError
from mmext.models.arguments import resolve_indices


def drop_path_rates(last: float, depth: int) -> list[float]:
    """Returns the rates of ``depth`` blocks, rising from 0 to ``last``."""
    if not 0 <= last < 1:
        raise UserError(
            f'drop_path_rate={last} is not a probability below 1.',
            'It is the share of images that skip the last block, such as 0.1.',
        )
    return [last * i / max(depth - 1, 1) for i in range(depth)]


def _layers(name: str, module: nn.Module) -> list[str]:
    if type(module) is not nn.Sequential:
        return [f'{name}.']
    parts = [_layers(f'{name}.{key}', m) for key, m in module.named_children()]
    return [*chain(*parts)]


def depths_of(
    module: nn.Module, layers: Sequence[str | tuple[str, ...]]
) -> tuple[dict[str, int], int]:
    """Returns the depth of each parameter, and the number of layers.

    ``layers`` are how the names of parameters begin, in the order of data.
    Other parameters have the depth of what follows all layers.
    """
    last = len(layers)
    depths = {
        name: next(
            (i for i in range(last) if name.startswith(layers[i])), last
        )
        for name, _ in module.named_parameters()
    }
    return depths, last


class BaseBackbone(StrictInit):
    """Base class of backbones made of a stem and stages.

    A subclass calls ``super().__init__``, then :meth:`set_stages`, builds
    the stem and as many stages as that returned, and ends its ``__init__``
    with ``self.train()``, which freezes. It implements :meth:`levels`, with
    :meth:`run_block` for its blocks, and may override :meth:`released_key`.

    Args:
        in_channels: Channels of the image.
        frozen_stages: -1 freezes nothing, 0 the stem, n the stem and the
            first n stages.
        norm_eval: Whether batch norm stays in evaluation mode in training.
        with_cp: Whether each block is computed again in the backward pass to
            save memory. As in mmdet, a batch norm in training mode then
            updates its running statistics twice a step.
        init_cfg: How to initialise. ``dict(type='Pretrained',
            checkpoint=..., prefix=None, wrapper=None, allow_missing=False)``
            is strict, see :class:`~mmext.checkpoints.released.StrictInit`.
            Tensors that the list ``allow_missing`` names stay trainable in
            frozen stages.

    Attributes:
        out_indices: Stages whose output is returned.
        out_channels: Channels of each output.
        strides: Stride of each output.
        freezable: Names of the modules that ``frozen_stages`` counts.
        unbuilt: Prefixes of keys in released checkpoints that have no
            counterpart, such as stages that are not built.
    """

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
        # Prefixes of tensors that a checkpoint may not have, so that they
        # are not frozen. The optimiser and DDP read requires_grad before any
        # checkpoint is read.
        self._spared: tuple[str, ...] = ()
        for cfg in pretrained_configs(init_cfg):
            self._spared += allowed_prefixes(cfg.get('allow_missing', False))
        self._missing: frozenset[str] = frozenset()

    def set_stages(
        self,
        out_indices: int | Sequence[int],
        channels: Sequence[int],
        strides: Sequence[int],
        stem: str = 'stem',
        stages: str = 'stages',
    ) -> int:
        """Sets the attributes that follow from the stages.

        ``channels`` and ``strides`` have one number for each stage, ``stem``
        and ``stages`` are names of modules. Returns the number of stages to
        build: those after the last output would get no gradient, which stops
        distributed training.
        """
        self.out_indices = resolve_indices(out_indices, len(channels))
        self.out_channels = tuple(channels[i] for i in self.out_indices)
        self.strides = tuple(strides[i] for i in self.out_indices)
        built = self.out_indices[-1] + 1
        self.freezable = [stem, *(f'{stages}.{i}' for i in range(built))]
        self.unbuilt = tuple(
            f'{stages}.{i}.' for i in range(built, len(channels))
        )
        return built

    def levels(self, x: Tensor) -> list[Tensor]:
        """Returns the output of each stage in ``out_indices``."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Returns the levels (B, C_i, H / stride_i, W / stride_i)."""
        self.check_input(x)
        return tuple(self.levels(x))

    def check_input(self, x: Tensor) -> None:
        """Raises ``UserError`` for images that the backbone cannot take."""
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
        """Runs a block; computes it again in backward if ``with_cp``."""
        if self.with_cp and x.requires_grad:
            return checkpoint(block, x, use_reentrant=False)
        return block(x)

    def released_key(self, key: str) -> str | None:
        """Drops the classifier and what ``unbuilt`` lists."""
        return None if key.startswith(('head.', *self.unbuilt)) else key

    def accept_missing(self, missing: list[str]) -> None:
        """Checks that nothing missing is frozen; keeps its norms training."""
        frozen = tuple(f'{name}.' for name in self._frozen())
        frozen += tuple(name for name, _ in self._frozen_parameters())
        stuck = [
            key
            for key in missing
            if key.startswith(frozen) and not key.startswith(self._spared)
        ]
        if stuck:
            layers = dict.fromkeys(key.rsplit('.', 1)[0] for key in stuck)
            shared = os.path.commonprefix([f'{name}.' for name in layers])
            shared = shared[: shared.rfind('.') + 1]
            names = [shared] if shared else [f'{name}.' for name in layers]
            raise UserError(
                f'frozen_stages={self.frozen_stages} freezes {len(stuck)} '
                'tensors that are not in the checkpoint '
                f'({stuck[0]}, ...), at random values; nothing was loaded.',
                "Build the backbone with init_cfg=dict(type='Pretrained', "
                f'checkpoint=..., allow_missing={names}): they then stay '
                'trainable. Or set frozen_stages=-1.',
            )
        self._missing = frozenset(missing)
        self.train(self.training)

    def train(self, mode: bool = True) -> BaseBackbone:
        """Sets the mode, except for frozen stages and, by norm_eval, norms."""
        super().train(mode)
        if not -1 <= self.frozen_stages < len(self.freezable):
            raise UserError(
                f'frozen_stages={self.frozen_stages} is out of range.',
                f'-1 freezes nothing, 0 {self.freezable[0]!r} and '
                f'{len(self.freezable) - 1} everything that is built.'
                if self.freezable
                else 'It cannot be frozen in stages: -1 freezes nothing.',
            )
        for key, param in self._frozen_parameters():
            param.requires_grad = key.startswith(self._spared)
        for name in self._frozen():
            self._set_eval(name, nn.Module)
        if self.norm_eval:
            self._set_eval('', _BatchNorm)
        return self

    def _frozen(self) -> list[str]:
        """Returns the names of the modules that are frozen."""
        return self.freezable[: self.frozen_stages + 1]

    def _frozen_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        for name in self._frozen():
            yield from self.get_submodule(name).named_parameters(name)

    def layer_depths(self) -> tuple[dict[str, int], int]:
        """Returns the depth of each parameter, and that of what follows.

        The stem has depth 0; each block is a layer. Norms of the outputs are
        no part of a layer, and have the depth of necks and heads.
        """
        parts = [_layers(n, self.get_submodule(n)) for n in self.freezable[1:]]
        return depths_of(self, [f'{self.freezable[0]}.', *chain(*parts)])

    def _set_eval(self, name: str, kind: type[nn.Module]) -> None:
        for key, module in self.get_submodule(name).named_modules(prefix=name):
            # A module is spared with its prefix, or for what is in it.
            spared = f'{key}.'.startswith(self._spared) or any(
                entry.startswith(f'{key}.')
                for entry in (*self._spared, *self._missing)
            )
            if isinstance(module, kind) and not spared:
                module.training = False


class IsotropicBackbone(BaseBackbone):
    """Runs a patch embedding and a stack of blocks on (B, H, W, C) tokens.

    A subclass calls :meth:`set_blocks`, builds ``stem`` (any module with a
    (B, C, H, W) output of stride ``patch_size``), ``blocks`` and ``norm``
    (or None), and ends its ``__init__`` with ``self.train()``.
    """

    stem: nn.Module
    blocks: nn.ModuleList
    norm: nn.Module | None

    def set_blocks(
        self,
        out_indices: int | tuple[int, ...],
        depth: int,
        embed_dims: int,
        patch_size: int,
        final_norm: bool,
    ) -> tuple[int, bool]:
        """Returns how many blocks to build, and whether to build ``norm``."""
        self.patch_size = patch_size
        built = self.set_stages(
            out_indices,
            [embed_dims] * depth,
            [patch_size] * depth,
            stages='blocks',
        )
        has_norm = final_norm and built == depth
        if not has_norm:
            self.unbuilt += ('norm.',)
        return built, has_norm

    def final(self, x: Tensor) -> Tensor:
        """Returns the last output from the last tokens (B, H, W, C)."""
        return self.norm(x).permute(0, 3, 1, 2)

    def levels(self, x: Tensor) -> list[Tensor]:
        # Zeros at the right and below, so that no pixel is lost.
        bottom, right = (-n % self.patch_size for n in x.shape[2:])
        x = self.stem(pad(x, (0, right, 0, bottom)))
        x = x.permute(0, 2, 3, 1).contiguous()
        outs = []
        for i, block in enumerate(self.blocks):
            x = self.run_block(block, x)
            if i in self.out_indices:
                outs.append(x.permute(0, 3, 1, 2))
        if self.norm is not None:
            outs[-1] = self.final(x)
        return outs
