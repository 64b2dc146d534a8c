# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Measures what a backbone does: maps, gradients, memory, errors.

The pre-flight check of a run uses :func:`maps_of` and :func:`gradients`. Every
function takes a backbone as it is, and leaves its weights, its buffers and its
mode as they were; those that cannot work on a copy.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.modules.batchnorm import _BatchNorm

from mmext.errors import UserError
from mmext.utils.random_state import random_state_kept
from mmext.utils.text import some

#: Relative error of outputs that count as equal, in roundings of their type:
#: 1.2e-4 in float32.
EXACT = 1000


@dataclass(frozen=True)
class Gradients:
    """Names of the trainable parameters whose gradient is not usual."""

    unused: list[str]  # no gradient: the outputs do not depend on them
    infinite: list[str]
    zero: list[str]  # every number is 0
    total: int  # of the trainable parameters


def maps_of(outs: Any, place: str) -> tuple[Tensor, ...]:
    """Returns the maps in the output of a backbone.

    Raises `UserError` if it is not a tuple or list of (B, C, H, W) tensors;
    ``place`` names the backbone in the message.
    """
    if (
        isinstance(outs, list | tuple)
        and outs
        and all(isinstance(x, Tensor) and x.dim() == 4 for x in outs)
    ):
        return tuple(outs)
    found = f'a {type(outs).__name__}'
    fix = 'Return a tuple of (images, channels, height, width) tensors.'
    if isinstance(outs, Tensor):
        found += f' of shape {tuple(outs.shape)}'
        fix = 'Return (x,) for one map, and one map for each level of a neck.'
    elif isinstance(outs, Mapping):
        found += f' with the keys {some(outs)}'
        fix = 'Return tuple(maps.values()), with the finest map first.'
    elif isinstance(outs, list | tuple):
        inside = [
            f'Tensor {tuple(x.shape)}'
            if isinstance(x, Tensor)
            else type(x).__name__
            for x in outs
        ]
        found += f' of ({some(inside)})'
    raise UserError(
        f'{place} returns {found}, not a tuple of feature maps', fix
    )


def stride_of(size: int, side: int) -> int:
    """Returns the stride of a map with ``side`` of an image's ``size``."""
    return max(round(size / max(side, 1)), 1)


def randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    """Breaks every symmetry of the initial weights and norm statistics.

    A residual branch or a gate that starts at 0 would have no gradient. The
    noise of a weight is small enough to keep the scale of what it computes.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            inputs = value[0].numel() if value.dim() > 1 else 1
            noise = torch.randn(value.shape, generator=generator)
            noise = noise.to(value.device) * min(0.1, 0.5 / inputs**0.5)
            value.add_(noise.abs() if name.endswith('var') else noise)
    return model


def set_statistics(model: nn.Module, x: Tensor) -> None:
    """Sets the statistics of batch norms to those of ``x``.

    In a deep network with those of its start, numbers grow from layer to
    layer, and rounding decides the outputs.
    """
    norms = {
        module: module.momentum
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.track_running_stats
    }
    if not norms:
        return
    model.train()
    for module in norms:
        module.train()
        module.reset_running_stats()
        module.momentum = None  # the average of all batches
    with torch.no_grad():
        model(x)
    for module, momentum in norms.items():
        module.momentum = momentum


def loss_of(outs: Any) -> Tensor:
    """Returns a number that depends on every tensor in nested containers."""
    if isinstance(outs, Tensor):
        return outs.float().square().mean()
    if isinstance(outs, Mapping):
        outs = outs.values()
    return sum(loss_of(out) for out in outs)


def backward(outs: Any) -> None:
    loss = loss_of(outs)
    if loss.requires_grad:  # something is trainable
        loss.backward()


def gradients(model: nn.Module, outs: Any) -> Gradients:
    """Returns which trainable parameters outputs depend on, and how.

    The gradients of the model are removed before and after.
    """
    model.zero_grad(set_to_none=True)
    backward(outs)
    trainable = {n: p for n, p in model.named_parameters() if p.requires_grad}
    grads = {n: p.grad for n, p in trainable.items() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    finite = {n: bool(grad.isfinite().all()) for n, grad in grads.items()}
    return Gradients(
        [n for n in trainable if n not in grads],
        [n for n in grads if not finite[n]],
        [n for n, grad in grads.items() if finite[n] and not grad.any()],
        len(trainable),
    )


def kept_bytes(model: nn.Module, x: Tensor) -> int:
    """Returns the size of what a forward pass saves for the backward pass.

    Parameters and buffers are not counted, nor is what is computed again in
    the backward pass.
    """
    own = {
        value.untyped_storage().data_ptr()
        for value in (*model.parameters(), *model.buffers())
    }
    sizes: dict[int, int] = {}

    def pack(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
        return value

    with saved_tensors_hooks(pack, lambda value: value):
        outs = model(x)
    del outs
    return sum(sizes.values())


def error_of(outs: Sequence[Tensor], reference: Sequence[Tensor]) -> float:
    """Returns the largest relative error of the maps, by their norms.

    It is nan if one of them is.
    """
    errors = []
    for out, ref in zip(outs, reference, strict=True):
        out, ref = out.detach().cdouble(), ref.detach().cdouble()
        errors.append(float((out - ref).norm() / ref.norm().clamp(min=1e-30)))
    return max(errors, key=lambda e: (math.isnan(e), e), default=0.0)


def equal(error: float, dtype: torch.dtype = torch.float32) -> bool:
    """Whether an error of :func:`error_of` is rounding; nan is not."""
    return error < EXACT * torch.finfo(dtype).eps


@contextmanager
def copied(
    model: nn.Module, x: Tensor, training: bool = False
) -> Iterator[nn.Module]:
    """Gives a copy that is fit for measurements; random numbers are kept.

    Its symmetries are broken, its batch norms have the statistics of ``x``,
    and it gets copies of images, which it may change.
    """
    with random_state_kept():
        net = randomise(copy.deepcopy(model))
        net.register_forward_pre_hook(
            lambda _, args: tuple(arg.clone() for arg in args)
        )
        set_statistics(net, x)
        net.train(training)  # mmdet's ResNet returns None
        yield net
