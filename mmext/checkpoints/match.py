# Licensed under the Apache License, Version 2.0. See LICENSE.
"""How a checkpoint's tensors fit a model, and what to do where they do not."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import nn

from mmext.errors import UserError


@dataclass
class Match:
    """How a checkpoint's tensors fit a model's."""

    loaded: int = 0
    missing: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    reshaped: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Tensors of the model."""
        return self.loaded + len(self.missing) + len(self.reshaped)

    @property
    def exact(self) -> bool:
        """Whether every tensor of each side has its partner."""
        return not (self.missing or self.unused or self.reshaped)

    def __str__(self) -> str:
        text = f'{self.loaded} of {self.total} tensors fit'
        for what, names in (
            ('of another shape', self.reshaped),
            ('missing from the checkpoint', self.missing),
            ('unknown to the model', self.unused),
        ):
            if names:
                more = ', ...' if len(names) > 3 else ''
                text += f'; {len(names)} {what}: {", ".join(names[:3])}{more}'
        return text


def match(model: nn.Module, checkpoint: Mapping[str, Any]) -> Match:
    """Compares names and shapes; changes neither side.

    Args:
        model: A model, wrapped (DDP, test-time augmentation) or not.
        checkpoint: What :func:`load` returned, or a plain state dict.
    """
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    theirs = {
        re.sub(r'^module\.', '', key): value
        for key, value in checkpoint.get('state_dict', checkpoint).items()
    }
    result = Match()
    for key, value in model.state_dict().items():
        other = theirs.pop(key, None)
        if other is None:
            # BatchNorm's counter is younger than many published weights.
            if not key.endswith('num_batches_tracked'):
                result.missing.append(key)
        elif not hasattr(value, 'shape') or value.shape == other.shape:
            result.loaded += 1
        else:
            result.reshaped.append(
                f'{key} {tuple(other.shape)} for {tuple(value.shape)}'
            )
    result.unused = list(theirs)
    return result


def require_match(
    model: nn.Module,
    checkpoint: Mapping[str, Any],
    name: str,
    least: float = 1.0,
) -> Match:
    """Stops where too few tensors of a checkpoint fit the model.

    Args:
        model: The model to be loaded.
        checkpoint: What :func:`load` returned.
        name: The checkpoint's name, for the message.
        least: Fraction of the model's tensors that must fit. 1, the default,
            also forbids tensors that the model does not have.

    Raises:
        UserError: With the first few that do not fit.
    """
    found = match(model, checkpoint)
    if found.exact or (least < 1 and found.loaded >= least * found.total):
        return found
    meta = checkpoint.get('meta', {})
    made_by = meta.get('experiment_name') if isinstance(meta, dict) else None
    raise UserError(
        f'checkpoint {name} is of another architecture than the config: '
        f'{found}',
        naming_hint(
            list(model.state_dict()),
            list(checkpoint.get('state_dict', checkpoint)),
        )
        or 'Use the config it was trained with'
        + (f' (the run was {made_by!r})' if made_by else '')
        + ', or convert its names (tools/model_converters).',
    )


def naming_hint(own: list[str], theirs: list[str]) -> str:
    """What to change where names differ by a prefix; empty elsewhere.

    Args:
        own: Names of the model's tensors.
        theirs: Names of the checkpoint's.
    """
    for longer, shorter in ((theirs, own), (own, theirs)):
        prefixes = Counter(
            name.removesuffix(end)
            for end in shorter[:: max(len(shorter) // 20, 1)]
            for name in longer
            if name.endswith(f'.{end}')
        )
        if not prefixes:
            continue
        prefix = prefixes.most_common(1)[0][0]
        there = set(longer)
        shared = sum(f'{prefix}{name}' in there for name in shorter)
        # One name in common, such as 'weight', says nothing.
        if shared < max(len(shorter) / 2, 4):
            continue
        if longer is theirs:
            return (
                f'Its names begin with {prefix!r}: '
                f"init_cfg=dict(type='Pretrained', prefix={prefix!r}, ...)."
            )
        part = prefix.removesuffix('.')
        return (
            f'It holds the {part} alone: model.{part}.init_cfg='
            "dict(type='Pretrained', checkpoint=...) takes it, load_from and "
            'a prefix do not.'
        )
    return ''


def require_resumable(checkpoint: Mapping[str, Any], name: str) -> None:
    """Stops where a checkpoint holds weights and no training.

    Args:
        checkpoint: What :func:`load` returned.
        name: The checkpoint's name, for the message.

    Raises:
        UserError: With what ``Runner.resume`` would miss.
    """
    meta = checkpoint.get('meta') or {}
    missing = [k for k in ('optimizer', 'message_hub') if k not in checkpoint]
    missing += [f'meta.{k}' for k in ('epoch', 'iter') if k not in meta]
    if missing:
        raise UserError(
            f'--resume: checkpoint {name} has no {", ".join(missing)}: it '
            'holds weights, not a training that can go on',
            f'To start from its weights: --cfg-options load_from={name}',
        )
