# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Checks and logs what pre-trained weights fill in any model.

MMEngine loads ``init_cfg=dict(type='Pretrained', ...)`` of any backbone with
``strict=False``. With a wrong prefix nothing is loaded, and one warning among
hundreds of log lines says so. :func:`watch_pretrained` compares the weights
with every module that asks for a checkpoint, while it loads. The limits are
for backbones of other packages; those of mmext are strict. A *kind* of tensors
is a name without its numbers. See docs/reliability.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from mmengine.logging import print_log
from torch import nn

from mmext.checkpoints.frozen import require_filled
from mmext.checkpoints.match import Match, kind, match, naming_hint
from mmext.checkpoints.released import StrictInit, pretrained_configs
from mmext.errors import UserError
from mmext.utils.modules import unwrap

# The least share that must be filled of the tensors of known kinds.
LEAST_OF_KNOWN = 0.75
# The least share of all tensors below which none counts as new.
LEAST_OF_ALL = 0.5


def match_with_new(
    model: nn.Module, checkpoint: Mapping[str, Any]
) -> tuple[Match, bool]:
    """Compares a checkpoint with a model that may have new layers.

    Returns how they match, with tensors of kinds that the checkpoint does not
    know as ``new``; and whether it fills enough of the model.
    """
    found = match(model, checkpoint)
    if len(found.loaded) >= LEAST_OF_ALL * found.total:
        known = {kind(name) for name in found.loaded}
        found.new = [n for n in found.missing if kind(n) not in known]
        found.missing = [n for n in found.missing if kind(n) in known]
    return found, 0 < len(found.loaded) >= LEAST_OF_KNOWN * found.total


@contextmanager
def watch_pretrained(model: nn.Module) -> Iterator[None]:
    """Checks what ``init_weights`` loads; logs one line for each module.

    Raises `UserError` if a checkpoint fills too little; nothing was loaded.
    """
    seen: set[str] = set()
    asked: dict[str, str] = {}
    with ExitStack() as hooks:
        for name, module in unwrap(model).named_modules():
            configs = pretrained_configs(getattr(module, 'init_cfg', None))
            if not configs or isinstance(module, StrictInit):
                continue
            name = name or 'model'
            asked[name] = configs[0].get('checkpoint')
            hook = partial(_check, seen, name, asked[name])
            handle = module.register_load_state_dict_pre_hook(hook)
            hooks.enter_context(handle)  # removes it
        try:
            yield
        except AssertionError as error:
            # MMEngine's message if no name begins with the prefix.
            if 'is not in the pretrained model' not in str(error):
                raise
            raise UserError(
                f'init_cfg: {error}',
                'Give the prefix that its names begin with: prefix='
                "'backbone.' for the checkpoint of a detector, none for the "
                'checkpoint of a backbone.',
            ) from error
    for name in asked.keys() - seen:
        print_log(
            f'{name}: nothing was loaded from {asked[name]}, which its '
            'init_cfg names',
            logger='current',
            level=30,
        )


def _check(
    seen: set[str],
    name: str,
    source: str,
    module: nn.Module,
    state: Mapping[str, Any],
    prefix: str,
    *_: Any,
) -> None:
    """Compares a state dict with the module that is about to load it."""
    if prefix or name in seen:
        return
    seen.add(name)
    found, enough = match_with_new(module, state)
    line = found.describe(name, source)
    if not enough:
        raise UserError(
            f'{line}. That is too little to be the weights of this '
            f'{type(module).__name__}; nothing was loaded',
            naming_hint(list(module.state_dict()), list(state))
            or 'Is it of another depth or width? Otherwise convert its names '
            '(mmext convert weights), or remove checkpoint from init_cfg to '
            'start from random weights.',
        )
    require_filled(module, found.missing + found.new, name, source)
    print_log(line, logger='current')


def require_start(
    model: nn.Module, checkpoint: Mapping[str, Any], source: str
) -> str:
    """Checks what ``load_from`` fills in each part of a model.

    Returns ``'backbone 318 of 318, neck 16 of 16, rpn_head 6 of 6, ...'``.
    Raises `UserError` if the backbone is not in it, or if frozen tensors of
    the backbone are not; heads may be new.
    """
    state = {
        key.removeprefix('module.'): value
        for key, value in checkpoint.get('state_dict', checkpoint).items()
    }
    model = unwrap(model)
    counts = []
    for name, child in model.named_children():
        if not child.state_dict():
            continue
        part = {
            key.removeprefix(f'{name}.'): value
            for key, value in state.items()
            if key.startswith(f'{name}.')
        }
        found, enough = match_with_new(child, part)
        if name == 'backbone' and not enough:
            raise UserError(
                f'load_from: {found.describe(name, source)}',
                naming_hint(list(model.state_dict()), list(state))
                or 'Use a checkpoint with this backbone, or convert its '
                'names (mmext convert weights).',
            )
        if name == 'backbone':
            require_filled(child, found.missing + found.new, name, source)
        counts.append(
            f'{name} {len(found.loaded)} of {found.total + len(found.new)}'
        )
    return ', '.join(counts)
