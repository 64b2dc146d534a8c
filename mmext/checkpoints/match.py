# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Compares the tensors of a checkpoint with those of a model."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from mmext.checkpoints.tensors import KEY, require_usable
from mmext.errors import UserError
from mmext.utils.modules import unwrap
from mmext.utils.text import short, some


@dataclass
class Match:
    """How the tensors of a checkpoint fit a model.

    Attributes:
        loaded: Tensors of the model that the checkpoint has, in their shape.
        missing: Tensors of the model that the checkpoint does not have.
        reshaped: Tensors with another shape, as ``'NAME is (2, 3), expected
            (4, 3)'``.
        new: Tensors of the model that a checkpoint need not have.
        unused: Tensors of the checkpoint that the model does not take.
        renamed: Names in the checkpoint and, if they differ, in the model.
    """

    loaded: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    reshaped: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    renamed: dict[str, str] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Tensors of the model, without the new ones."""
        return len(self.loaded) + len(self.missing) + len(self.reshaped)

    @property
    def exact(self) -> bool:
        """Whether every tensor of each side has its partner."""
        return not (self.missing or self.unused or self.reshaped)

    def __str__(self) -> str:
        fit = f'{len(self.loaded)} of {self.total} tensors fit'
        return fit + self._rest(some)

    def describe(self, part: str, source: str) -> str:
        """Returns ``'loaded 318 of 318 backbone tensors from SOURCE'``."""
        return (
            f'loaded {len(self.loaded)} of {self.total} {part} tensors from '
            f'{source}{self._rest(_by_kind)}'
        )

    def _rest(self, join: Callable[[list[str]], str]) -> str:
        """Returns the counts and names of the tensors that do not match."""
        text = ''
        for what, names, listed in (
            ('missing', self.missing, join),
            ('of another shape', self.reshaped, some),
            ('new, not in it', self.new, join),
            ('not used', self.unused, join),
        ):
            if names:
                text += f'; {len(names)} {what}: {listed(names)}'
        if self.renamed:
            text += f'; {len(self.renamed)} renamed'
        return text


def kind(name: str) -> str:
    """Returns a name with its numbers replaced: ``layer#.#.conv1.weight``."""
    return re.sub(r'\d+', '#', name)


def _by_kind(names: list[str]) -> str:
    """Joins names; those that differ only in their numbers are one."""
    kinds = defaultdict(list)
    for name in names:
        kinds[kind(name)].append(name)
    words = [
        same[0] if len(same) == 1 else f'{key} ({len(same)})'
        for key, same in kinds.items()
    ]
    return some(words, limit=12)


def compare(own: Mapping[str, Any], theirs: Mapping[str, Any]) -> Match:
    """Compares the state dict of a model with that of a checkpoint."""
    found = Match(unused=[name for name in theirs if name not in own])
    for name, value in own.items():
        other = theirs.get(name)
        if not isinstance(other, Tensor):
            # The counter of BatchNorm is younger than many weights.
            if not name.endswith('num_batches_tracked'):
                found.missing.append(name)
        elif not hasattr(value, 'shape') or value.shape == other.shape:
            found.loaded.append(name)
        else:
            found.reshaped.append(
                f'{name} is {tuple(other.shape)}, expected '
                f'{tuple(value.shape)}'
            )
    return found


def match(model: nn.Module, checkpoint: Mapping[str, Any]) -> Match:
    """Compares a checkpoint, or a state dict, with a model, even wrapped."""
    theirs = {
        re.sub(r'^module\.', '', key): value
        for key, value in checkpoint.get('state_dict', checkpoint).items()
    }
    return compare(unwrap(model).state_dict(), theirs)


def require_match(
    model: nn.Module,
    checkpoint: Mapping[str, Any],
    name: str,
    least: float = 1.0,
) -> Match:
    """Raises an error if too few tensors of a checkpoint fit a model.

    ``least`` is the fraction of the model's tensors that must fit; 1 also
    forbids tensors that the model does not have. ``name`` is for the message.
    """
    found = match(model, checkpoint)
    if found.exact or (least < 1 and len(found.loaded) >= least * found.total):
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
        + ', or convert its names (mmext convert weights).',
    )


def naming_hint(own: list[str], theirs: list[str]) -> str:
    """Returns what to change if all names differ by one prefix, or ''."""
    if prefix := _prefix(theirs, own):
        return (
            f'Its names begin with {prefix!r}: '
            f"init_cfg=dict(type='Pretrained', prefix={prefix!r}, ...)."
        )
    if prefix := _prefix(own, theirs):
        part = prefix.removesuffix('.')
        return (
            f'It holds only the {part}: load it with model.{part}.init_cfg='
            "dict(type='Pretrained', checkpoint=...), not with load_from or "
            'a prefix.'
        )
    return ''


def _prefix(longer: list[str], shorter: list[str]) -> str:
    """Returns what to put before most of the shorter names, or ''."""
    prefixes = Counter(
        name.removesuffix(end)
        for end in shorter[:: max(len(shorter) // 20, 1)]
        for name in longer
        if name.endswith(f'.{end}')
    )
    if not prefixes:
        return ''
    prefix = prefixes.most_common(1)[0][0]
    there = set(longer)
    shared = sum(f'{prefix}{name}' in there for name in shorter)
    # One common name, such as 'weight', does not prove a prefix.
    return prefix if shared >= max(len(shorter) / 2, 4) else ''


def require_resumable(checkpoint: Mapping[str, Any], name: str) -> None:
    """Raises an error if a training cannot continue from a checkpoint."""
    meta = checkpoint.get('meta') or {}
    missing = [k for k in ('optimizer', 'message_hub') if k not in checkpoint]
    missing += [f'meta.{k}' for k in ('epoch', 'iter') if k not in meta]
    if missing:
        raise UserError(
            f'--resume: checkpoint {name} has no {", ".join(missing)}: it '
            'holds only weights, and a training cannot be resumed from them',
            f'To start from its weights: --cfg-options load_from={name}',
        )
    for key in ('epoch', 'iter'):
        if type(meta[key]) is not int or meta[key] < 0:
            raise UserError(
                f'--resume: checkpoint {name} has meta.{key} = '
                f'{short(meta[key])}, not a number of {key}s',
                'Use an older one.',
            )
    # With checksums, it is what the runner has saved.
    if (
        KEY not in meta
        and meta['iter']
        and _has_lost_momentum(checkpoint['optimizer'])
    ):
        raise UserError(
            f'--resume: checkpoint {name} has no state of the optimizer, such '
            f'as its momentum, after {meta["iter"]} iterations',
            f'Use an older one, or start from its weights: --cfg-options '
            f'load_from={name}',
        )
    require_usable(checkpoint, name)


def _has_lost_momentum(optimizer: Any) -> bool:
    """Whether an optimizer with momentum has none, of any parameter."""
    if not isinstance(optimizer, Mapping):
        return True
    if 'param_groups' not in optimizer:  # several optimizers
        return any(
            _has_lost_momentum(one)
            for one in optimizer.values()
            if isinstance(one, Mapping) and 'param_groups' in one
        )
    has_momentum = any(
        group.get('momentum') or 'betas' in group
        for group in optimizer['param_groups']
    )
    return has_momentum and not optimizer.get('state')
