# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Says what pre-trained weights filled, and stops where it was too little.

MMEngine loads ``init_cfg=dict(type='Pretrained', ...)`` of any backbone with
``strict=False``: with a wrong prefix nothing is loaded, and one warning among
hundreds of log lines says so. Here every module that asks for a checkpoint is
watched while it loads, however its class goes about it.

Two limits, for the backbones whose classes do not check for themselves
(mmext's own are strict, see :mod:`mmext.checkpoints.released`):

- Of the tensors whose *kind* the checkpoint knows, 75 % must be filled. A
  kind is a name without its numbers: ``layer3.22.conv1.weight`` lacks in a
  ResNet-50's weights for a ResNet-101 (51 % are filled), but a plugin's
  ``layer3.0.gcb.conv_mask.weight`` is new, and no fault. Most that was seen
  to lack rightly: 13 % (the two last layers of SSD's VGG).
- Only where half of all tensors are filled can others be new.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from mmengine.logging import print_log
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.model.weight_init import PretrainedInit
from torch import nn
from torch.utils.hooks import RemovableHandle

from mmext.checkpoints.match import Match, match, naming_hint
from mmext.errors import UserError

LEAST_OF_KNOWN = 0.75
LEAST_OF_ALL = 0.5


def new_and_lacking(found: Match, names: list[str]) -> tuple[list, list]:
    """What a module has and a checkpoint has not, in two lists.

    Args:
        found: How they match.
        names: All names of the module's state dict.

    Returns:
        Names of kinds that the checkpoint does not know, and names of kinds
        that it does; all of them are lacking where it filled less than half.
    """
    if found.loaded < LEAST_OF_ALL * found.total:
        return [], found.missing
    absent = {*found.missing, *(text.split()[0] for text in found.reshaped)}
    known = {_kind(name) for name in names if name not in absent}
    new = [name for name in found.missing if _kind(name) not in known]
    return new, [name for name in found.missing if _kind(name) in known]


def enough(found: Match, names: list[str]) -> bool:
    """Whether a checkpoint filled what could be expected of it.

    Args:
        found: How it matches.
        names: All names of the module's state dict.
    """
    new, _ = new_and_lacking(found, names)
    expected = found.total - len(new)
    return 0 < found.loaded >= LEAST_OF_KNOWN * expected


def _kind(name: str) -> str:
    return re.sub(r'\d+', '#', name)


def describe(found: Match, names: list[str], part: str, source: str) -> str:
    """'loaded 318 of 318 backbone tensors from ...', and the rest."""
    new, lacking = new_and_lacking(found, names)
    expected = found.total - len(new)
    text = f'loaded {found.loaded} of {expected} {part} tensors from {source}'
    for what, listed in (
        ('missing', lacking),
        ('of another shape', found.reshaped),
        ('new, not in it', new),
        ('not used', found.unused),
    ):
        if listed:
            text += f'; {len(listed)} {what}: {_listed(listed)}'
    return text


def _listed(names: list[str], most: int = 12) -> str:
    """Names, those that differ in their numbers alone taken together."""
    kinds: dict[str, list[str]] = {}
    for name in names:
        kinds.setdefault(_kind(name), []).append(name)
    words = [
        same[0] if len(same) == 1 else f'{kind} ({len(same)})'
        for kind, same in kinds.items()
    ]
    return ', '.join(words[:most]) + (', ...' if words[most:] else '')


@contextmanager
def watch_pretrained(model: nn.Module) -> Iterator[None]:
    """Watches what is loaded by ``init_weights``; one log line a module.

    Args:
        model: The model, wrapped or not.

    Raises:
        UserError: A checkpoint filled too little; nothing was loaded.
    """
    while is_model_wrapper(model):
        model = model.module
    told: set[str] = set()
    asked: dict[str, tuple[str, RemovableHandle]] = {}
    for name, module in model.named_modules():
        source = _source(module)
        if source and not getattr(module, 'reports_pretrained', False):
            hook = partial(_look, told, name or 'model', source)
            asked[name or 'model'] = (
                source,
                module.register_load_state_dict_pre_hook(hook),
            )
    try:
        yield
    except AssertionError as error:
        # What MMEngine says of a prefix that no name begins with.
        if 'is not in the pretrained model' not in str(error):
            raise
        raise UserError(
            f'init_cfg: {error}',
            'Give the prefix that its names do begin with; for a checkpoint '
            "of a whole detector prefix='backbone.', for one of a backbone "
            'none.',
        ) from error
    finally:
        for _, handle in asked.values():
            handle.remove()
    for name in asked.keys() - told:
        print_log(
            f'{name}: nothing was loaded from {asked[name][0]}, which its '
            'init_cfg names',
            logger='current',
            level=30,
        )


def _source(module: nn.Module) -> str | None:
    """The checkpoint that a module's ``init_cfg`` names."""
    cfgs = getattr(module, 'init_cfg', None) or ()
    for cfg in [cfgs] if isinstance(cfgs, Mapping) else cfgs:
        kind = cfg.get('type')
        if kind is PretrainedInit or str(kind).split('.')[-1] == 'Pretrained':
            return cfg.get('checkpoint')
    return None


def _look(
    told: set[str],
    name: str,
    source: str,
    module: nn.Module,
    state: Mapping[str, Any],
    prefix: str,
    *_: Any,
) -> None:
    """Compares a state dict with the module it is about to fill."""
    if prefix or name in told:
        return
    told.add(name)
    require_enough(module, state, source, name)


def require_enough(
    module: nn.Module, state: Mapping[str, Any], source: str, name: str
) -> Match:
    """Logs what a state dict fills of a module; stops if too little.

    Args:
        module: The module, before it is filled.
        state: The state dict, prefixes removed.
        source: The checkpoint's name, for the message.
        name: The module's name in the model, for the message.

    Raises:
        UserError: With what to change.
    """
    found = match(module, state)
    names = list(module.state_dict())
    line = describe(found, names, name, source)
    if not enough(found, names):
        raise UserError(
            f'{line}. That is too little to be the weights of this '
            f'{type(module).__name__}; nothing was kept',
            naming_hint(names, list(state))
            or 'Is it of another depth or width? Otherwise convert its names '
            "(tools/model_converters), or leave init_cfg's checkpoint out to "
            'start from random weights.',
        )
    print_log(line, logger='current')
    return found


def require_start(
    model: nn.Module, checkpoint: Mapping[str, Any], source: str
) -> str:
    """What ``load_from`` fills, part by part; stops if the backbone lacks.

    Args:
        model: The model, wrapped or not.
        checkpoint: What :func:`mmext.checkpoints.read.load` returned.
        source: The checkpoint's name, for the message.

    Returns:
        ``'backbone 318 of 318, neck 16 of 16, rpn_head 6 of 6, ...'``

    Raises:
        UserError: Heads may be new, the backbone may not.
    """
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    state = checkpoint.get('state_dict', checkpoint)
    counts = []
    for name, child in model.named_children():
        own = list(child.state_dict())
        if not own:
            continue
        part = {
            key.removeprefix('module.')[len(name) + 1 :]: value
            for key, value in state.items()
            if key.removeprefix('module.').startswith(f'{name}.')
        }
        found = match(child, part)
        if name == 'backbone' and not enough(found, own):
            raise UserError(
                f'load_from: {describe(found, own, name, source)}',
                naming_hint(list(model.state_dict()), list(state))
                or 'Use a checkpoint with this backbone, or convert its '
                'names (tools/model_converters).',
            )
        counts.append(f'{name} {found.loaded} of {found.total}')
    return ', '.join(counts)
