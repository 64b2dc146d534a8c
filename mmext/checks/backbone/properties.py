# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Checks properties of a backbone: precision, formats, sizes, gradients.

``mmext check-backbone`` and the tests of backbones use them. See
:mod:`~mmext.checks.backbone.measures` for what is left as it was.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mmext.checks.backbone.measures import (
    backward,
    copied,
    equal,
    error_of,
    gradients,
    kept_bytes,
    loss_of,
    maps_of,
    randomise,
    stride_of,
)
from mmext.errors import UserError
from mmext.models.backbones.base_backbone import BaseBackbone
from mmext.utils.random_state import random_state_kept, seed_everything
from mmext.utils.text import count, some

#: How much more than rounding image and weights once mixed precision may
#: change the outputs.
ROUNDINGS = 5


@dataclass(frozen=True)
class Property:
    """A property, and whether a backbone has it (None: not measured)."""

    name: str
    ok: bool | None
    text: str


def measure_levels(model: nn.Module, x: Tensor) -> list[dict[str, int]]:
    """Returns ``channels`` and ``stride`` of each level, as measured.

    Raises:
        UserError: The output is not a tuple of maps, or the strides differ in
            height and width.
    """
    name = type(model).__name__
    with copied(model, x) as net, torch.no_grad():
        maps = maps_of(net(x), name)
    levels = []
    for one in maps:
        stride, across = (stride_of(x.shape[i], one.shape[i]) for i in (2, 3))
        if stride != across:
            raise UserError(
                f'{name}: a map of {one.shape[2]}x{one.shape[3]} for an image '
                f'of {x.shape[2]}x{x.shape[3]} has stride {stride} in height '
                f'and {across} in width',
                'Detectors need one stride for each map.',
            )
        levels.append({'channels': one.shape[1], 'stride': stride})
    return levels


def check_promises(
    model: nn.Module, levels: Sequence[Mapping[str, int]]
) -> Property:
    """Whether ``out_channels`` and ``strides`` are what was measured.

    Other backbones than mmext's may use ``strides`` for another purpose, such
    as the strides of stages.
    """
    keys = {'out_channels': 'channels'}
    if isinstance(model, BaseBackbone):
        keys['strides'] = 'stride'
    found, wrong = [], []
    for attribute, key in keys.items():
        measured = tuple(level[key] for level in levels)
        promised = getattr(model, attribute, None)
        if not isinstance(promised, list | tuple):
            continue
        found.append(attribute)
        if tuple(promised) != measured:
            wrong.append(f'{attribute} is {promised}, measured {measured}')
    if not found:
        return Property('attributes', None, 'none')
    right = f'{" and ".join(found)} equal what was measured'
    return Property('attributes', not wrong, '; '.join(wrong) or right)


def check_gradients(model: nn.Module, x: Tensor) -> list[Property]:
    """Whether every trainable parameter has a finite gradient in training."""
    with copied(model, x, True) as net:
        found = gradients(net, net(x))
    texts = [
        f'{found.total - len(found.unused)} of {found.total} trainable '
        'tensors have one'
    ]
    for names, what in (
        (found.infinite, 'not finite'),
        (found.zero, '0 everywhere'),
    ):
        if names:
            texts.append(f'{len(names)} are {what} ({some(names, 3)})')
    unused = 'none'
    if found.unused:
        unused = (
            f'{len(found.unused)} of {found.total} ({some(found.unused, 3)}): '
            'several processes stop in the second step. Remove them, or set '
            'find_unused_parameters=True'
        )
    return [
        Property('gradients', len(texts) == 1, '; '.join(texts)),
        Property('unused parameters', not found.unused, unused),
    ]


def check_modes(model: nn.Module, x: Tensor) -> Property:
    """Whether ``eval`` and ``train`` switch the mode and eval keeps state.

    Both modes give maps of the same shapes.
    """

    def state() -> dict[str, Tensor]:
        # Buffers, too, that are not saved.
        return {**net.state_dict(), **dict(net.named_buffers())}

    problems = []
    with copied(model, x, True) as net, torch.no_grad():
        idle = [n for n, m in net.named_modules() if n and not m.training]
        shapes = [[tuple(out.shape) for out in net(x)]]
        net.eval()
        before = copy.deepcopy(state())
        training = [
            n or 'itself' for n, m in net.named_modules() if m.training
        ]
        shapes.append([tuple(out.shape) for out in net(x)])
        after = state()
    if shapes[0] != shapes[1]:
        problems.append(
            f'maps are {shapes[0]} in training and {shapes[1]} in evaluation'
        )
    if training:
        problems.append(
            f'{count(len(training), "module")} still in training mode after '
            f'eval() ({some(training, 3)})'
        )
    changed = [n for n in before if not torch.equal(before[n], after[n])]
    if changed:
        problems.append(
            f'a forward pass in evaluation mode changes {some(changed, 3)}'
        )
    text = 'evaluation mode changes no state'
    if idle:
        text += f'; train() leaves {count(len(idle), "module")} in eval'
    return Property(
        'train and eval', not problems, '; '.join(problems) or text
    )


def check_batch(model: nn.Module, x: Tensor) -> Property:
    """Whether an image in a batch gives what it gives alone."""
    with copied(model, x) as net, torch.no_grad():
        whole = net(x)
        parts = [out[i : i + 1] for i in range(len(x)) for out in whole]
        alone = [out for i in range(len(x)) for out in net(x[i : i + 1])]
        error = error_of(alone, parts)
    text = f'an image alone differs by {error:.1e} from the same in a batch'
    return Property('batch invariance', equal(error, x.dtype), text)


def check_determinism(model: nn.Module, x: Tensor) -> Property:
    """Whether the same seed gives the same bits."""
    problems = []
    with copied(model, x) as net, torch.no_grad():
        if not all(map(torch.equal, net(x), net(x))):
            problems.append('two passes in evaluation mode differ')
    runs = []
    for _ in range(2):
        with copied(model, x, True) as net:
            seed_everything(0)
            outs = net(x)
            backward(outs)
            grads = [p.grad for p in net.parameters() if p.grad is not None]
            runs.append([*outs, *grads])
    if not all(map(torch.equal, *runs)):
        problems.append('two training steps with the same seed differ')
    text = '; '.join(problems) or 'the same seed gives the same bits'
    return Property('determinism', not problems, text)


def check_precision(
    model: nn.Module, x: Tensor, dtype: torch.dtype
) -> Property:
    """Whether mixed precision gives finite gradients and similar outputs.

    A network with random weights amplifies every rounding. The outputs may
    therefore differ by a few times as much as they do if only the image and
    the weights are rounded. They are those of evaluation mode, the gradients
    those of training mode.
    """
    with copied(model, x) as net:
        with torch.no_grad():
            reference = net(x)
            coarse = copy.deepcopy(net)
            for value in coarse.parameters():
                if value.is_floating_point():  # not complex
                    value.copy_(value.to(dtype))
            usual = error_of(coarse(x.to(dtype).to(x.dtype)), reference)
        with torch.autocast(x.device.type, dtype):
            with torch.no_grad():
                error = error_of(net(x), reference)
            net.train()
            outs = net(x)
        infinite = gradients(net, outs).infinite
    text = (
        f'outputs differ by {error:.1%} from float32; rounding image and '
        f'weights alone changes them by {usual:.1%}'
    )
    if infinite:
        text += f'; gradients not finite: {some(infinite, 3)}'
    limit = ROUNDINGS * usual + 10 * torch.finfo(dtype).eps
    return Property(
        f'AMP {str(dtype).removeprefix("torch.")}',
        not infinite and error <= limit,
        text,
    )


def check_channels_last(model: nn.Module, x: Tensor) -> Property:
    """Whether the memory format ``channels_last`` gives the same outputs."""
    form = torch.channels_last
    with copied(model, x) as net, torch.no_grad():
        plain = net(x)
        net.to(memory_format=form)
        error = error_of(net(x.contiguous(memory_format=form)), plain)
    text = f'outputs differ by {error:.1e}'
    return Property('channels-last', equal(error, x.dtype), text)


def check_export(model: nn.Module, x: Tensor) -> Property:
    """Whether ``torch.export`` gives a program with the same outputs."""
    with copied(model, x) as net, torch.no_grad():
        program = torch.export.export(net, (x,), strict=False)
        error = error_of(program.module()(x), net(x))
    text = f'outputs differ by {error:.1e}'
    return Property('torch.export', equal(error, x.dtype), text)


def check_sizes(
    model: nn.Module,
    x: Tensor,
    levels: Sequence[Mapping[str, int]],
    sizes: Sequence[tuple[int, int]] = ((65, 97), (127, 161)),
) -> Property:
    """Whether sizes that are no multiples of the strides give rounded maps."""
    texts, ok = [], True
    with copied(model, x) as net, torch.no_grad():
        for height, width in sizes:
            image = torch.rand(1, x.shape[1], height, width, device=x.device)
            found = [tuple(m.shape[2:]) for m in net(image)]
            strides = [level['stride'] for level in levels]
            if found == [(-(-height // s), -(-width // s)) for s in strides]:
                how = 'sizes rounded up'
            elif found == [(height // s, width // s) for s in strides]:
                how = 'sizes rounded down, the last pixels are lost'
            else:
                how, ok = f'maps {found}', False
            texts.append(f'{height}x{width}: {how}')
    return Property('odd sizes', ok, '; '.join(texts))


def check_checkpointing(
    plain: nn.Module, lean: nn.Module, x: Tensor
) -> Property:
    """Whether ``with_cp`` changes nothing but saves memory.

    Args:
        plain: A backbone.
        lean: The same one, built with ``with_cp=True``; it gets the weights
            of ``plain``.
        x: Images.
    """
    runs, kept = [], []
    with random_state_kept():
        plain, lean = (copy.deepcopy(m) for m in (plain, lean))
        lean.load_state_dict(randomise(plain).state_dict())
        for model in (plain, lean):
            model.train()
            image = x.clone().requires_grad_()
            seed_everything(0)
            kept.append(kept_bytes(copy.deepcopy(model), image.clone()))
            seed_everything(0)
            outs = model(image.clone())  # which the model may change
            loss_of(outs).backward()
            grads = [
                torch.zeros_like(p) if p.grad is None else p.grad
                for p in (image, *model.parameters())
            ]
            runs.append([*outs, *grads])
    error = error_of(runs[1], runs[0])
    saved = 1 - kept[1] / max(kept[0], 1)
    text = f'saves {saved:.0%} of what is kept for the backward pass'
    if saved <= 0:
        text = 'with_cp=True is ignored: as much is kept for the backward pass'
    same = equal(error, x.dtype)
    if not same:
        text += f'; outputs or gradients differ by {error:.1e}'
    return Property('checkpointing', saved > 0 and same, text)
