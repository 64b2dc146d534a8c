# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Loads pre-trained weights strictly: every tensor has its place, or an error.

A checkpoint is read without running code, its wrappers are removed, and its
tensors are matched with those of the backbone by name and shape. Only then
are they copied, so a checkpoint that does not fit leaves the model as it was.
What may differ is declared by the backbone, see :class:`StrictInit`.
"""

from __future__ import annotations

import logging
from argparse import Namespace
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModule, update_init_info
from mmengine.model.weight_init import PretrainedInit
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmext.checkpoints.files import writing
from mmext.checkpoints.load import load
from mmext.checkpoints.match import Match, compare
from mmext.errors import UserError, did_you_mean
from mmext.utils.text import some

# In the order of preference: averaged weights only if there are no others.
WRAPPERS = ('state_dict', 'model', 'state_dict_ema', 'model_ema')
PREFIXES = ('module.', '_orig_mod.')
BACKBONE = 'backbone.'


class StrictInit(BaseModule):
    """A backbone whose ``init_cfg`` of type ``Pretrained`` is strict.

    It goes through :func:`load_released_weights`. A subclass overrides what
    may differ between a checkpoint and itself.
    """

    frozen_stages = -1
    norm_eval = False
    #: What a user should check if a checkpoint does not fit.
    weights_hint = 'Check the arch and the channels of the backbone'

    def released_tensors(self, tensors: dict[str, Tensor]) -> dict:
        """Returns a checkpoint's tensors in the form that this model has."""
        return tensors

    def released_key(self, key: str) -> str | None:
        """Returns the name here of a checkpoint's key; None to drop it."""
        return None if key.startswith('head.') else key

    def new_layers(self) -> dict[str, nn.Module]:
        """Returns the layers that a checkpoint need not have, by name."""
        return {}

    def accept_missing(self, missing: list[str]) -> None:
        """Raises `UserError` if missing tensors would be frozen at random."""

    def init_weights(self) -> None:
        """Initialises as MMEngine does, then loads the checkpoint, if any."""
        first, configured = not self.is_init, self.init_cfg
        pretrained = pretrained_configs(configured)
        self.init_cfg = [c for c in configs(configured) if c not in pretrained]
        super().init_weights()
        self.init_cfg = configured
        if not first:
            return
        for cfg in pretrained:
            given = ('type', 'checkpoint', 'map_location')
            options = {k: v for k, v in cfg.items() if k not in given}
            load_released_weights(self, cfg['checkpoint'], **options)
            if hasattr(self, '_params_init_info'):
                update_init_info(self, f'loaded from {cfg["checkpoint"]}')
        if not pretrained:
            self._warn_if_frozen()

    def _warn_if_frozen(self) -> None:
        held = []
        if self.frozen_stages >= 0:
            held.append(f'frozen_stages={self.frozen_stages}')
        if self.norm_eval:
            held.append('norm_eval=True')
        if held:
            print_log(
                f'{type(self).__name__}: there is no pretrained checkpoint '
                f'in init_cfg, but {", ".join(held)} keeps random weights as '
                'they are. Unless load_from or resume brings weights, set '
                'frozen_stages=-1 and norm_eval=False, or '
                "init_cfg=dict(type='Pretrained', checkpoint=...).",
                logger='current',
                level=logging.WARNING,
            )


def configs(init_cfg: Mapping | Sequence[Mapping] | None) -> list[Mapping]:
    """Returns the entries of an ``init_cfg``, which may be a dict or None."""
    return [init_cfg] if isinstance(init_cfg, Mapping) else [*(init_cfg or ())]


def pretrained_configs(
    init_cfg: Mapping | Sequence[Mapping] | None,
) -> list[Mapping]:
    """Returns the entries of type ``Pretrained``."""
    return [
        cfg
        for cfg in configs(init_cfg)
        if cfg.get('type') is PretrainedInit
        or str(cfg.get('type')).split('.')[-1] == 'Pretrained'
    ]


def load_released_weights(
    model: nn.Module,
    checkpoint: str | Path | Mapping[str, Any],
    *,
    prefix: str | None = None,
    wrapper: str | None = None,
    allow_missing: bool | str | Sequence[str] = False,
) -> Match:
    """Fills a backbone from a checkpoint, or leaves it as it was.

    Args:
        model: A backbone, or a model that has one as ``model.backbone``.
            mmpretrain's ``head.fc`` is filled too, if it has the shape of
            the released classifier.
        checkpoint: A file (anything that ``torch.load`` reads with
            ``weights_only``, or ``.safetensors``), an http(s) address, or
            the content of such a file.
        prefix: Takes only keys with this prefix, and removes it. Default:
            removes ``module.`` and, if any key has it, takes ``backbone.``.
        wrapper: Entry of the file that holds the weights. Default: the first
            of ``state_dict``, ``model``, ``state_dict_ema``, ``model_ema``.
        allow_missing: Accepts a checkpoint without some tensors of the
            backbone: all (True), or those whose names begin with one of
            these texts. They keep their values. Frozen stages accept only
            what ``init_cfg.allow_missing`` of the backbone names. Default:
            False.

    Returns:
        What was loaded, renamed and not used; also logged as one line.

    Raises:
        UserError: If the file does not exist, cannot be read or holds more
            than data; if a tensor is missing, unknown, or of another shape.
    """
    backbone = getattr(model, 'backbone', model)
    # A backbone of another package follows the default rules.
    rules = backbone if isinstance(backbone, StrictInit) else StrictInit()
    if isinstance(checkpoint, Mapping):
        source, content = 'the given state dict', checkpoint
    else:
        source, content = str(checkpoint), _read(checkpoint)
    tensors = _find_tensors(content, source, wrapper)
    tensors, unused = _strip_prefix(tensors, source, prefix)
    tensors = rules.released_tensors(tensors)
    names = _rename(tensors, rules, source)
    matched = {name: tensors[key] for key, name in names.items()}
    found = compare(backbone.state_dict(), matched)
    new = tuple(f'{name}.' for name in rules.new_layers())
    found.new = [name for name in found.missing if name.startswith(new)]
    found.missing = [name for name in found.missing if name not in found.new]
    _require_fit(found, backbone, rules, source, allow_missing)
    rules.accept_missing(found.missing)
    backbone.load_state_dict(matched, strict=False)
    if head := _fill_classifier(model, tensors):
        names.update(head)
    found.unused = unused + [key for key in tensors if key not in names]
    found.renamed = {key: name for key, name in names.items() if key != name}
    print_log(found.describe('backbone', source), logger='current')
    return found


def allowed_prefixes(allow_missing: bool | str | Sequence[str]) -> tuple:
    """Returns the names in ``allow_missing``; none if it is a bool."""
    if isinstance(allow_missing, str):
        return (allow_missing,)
    return () if isinstance(allow_missing, bool) else tuple(allow_missing)


def convert_released_weights(
    backbone: dict,
    source: str | Path,
    target: str | Path,
    allow_missing: bool | Sequence[str] = False,
) -> Match:
    """Writes a released checkpoint as a plain state dict of our backbone.

    ``backbone`` is a config as in ``model.backbone``; ``source`` and
    ``allow_missing`` are as for :func:`load_released_weights`, whose errors it
    raises. The ``state_dict`` in ``target``, a ``.pth`` file, has the tensors
    of the backbone that were loaded.
    """
    target = Path(target)
    if target.suffix != '.pth' or not target.parent.is_dir():
        raise UserError(
            f'Cannot write {target}.',
            'Name a .pth file in a folder that exists.',
        )
    model = MODELS.build(backbone)
    found = load_released_weights(model, source, allow_missing=allow_missing)
    content = {
        'meta': {'source': str(source), 'backbone': dict(backbone)},
        'state_dict': {k: model.state_dict()[k] for k in found.loaded},
    }
    with writing(target) as part:
        torch.save(content, part)
    return found


def _read(path: str | Path) -> dict:
    # The records of a run that timm and the Swin family save beside their
    # weights: argparse's, and yacs' mapping, read as a plain one.
    records = [Namespace, (OrderedDict, 'yacs.config.CfgNode')]
    with torch.serialization.safe_globals(records):
        return load(path)


def _find_tensors(
    content: object, source: str, wrapper: str | None
) -> dict[str, Tensor]:
    """Returns the tensors under ``state_dict``, ``model``, ... of a file."""
    while isinstance(content, Mapping):
        inside = [
            w
            for w in ((wrapper,) if wrapper else WRAPPERS)
            if isinstance(content.get(w), Mapping)
        ]
        if not inside:
            break
        content, wrapper = content[inside[0]], None
    if wrapper or not isinstance(content, Mapping) or not content:
        what = f'a {type(content).__name__}'
        if isinstance(content, Mapping):
            what = f'the entries {_counted(list(content))}'
        under = f' under {wrapper!r}' if wrapper else ''
        raise UserError(
            f'{source} holds {what} and no tensors{under}.',
            f'Weights are a mapping of names to tensors, bare or under one '
            f'of {WRAPPERS}.',
        )
    other = [k for k, v in content.items() if not isinstance(v, Tensor)]
    if other:
        raise UserError(
            f'{source} is not a state dict: {_counted(other)} is not a '
            'tensor.',
            f'Name the entry that holds the weights: wrapper=..., one of '
            f'{_counted(list(content))}.',
        )
    return dict(content)


def _strip_prefix(
    tensors: dict[str, Tensor], source: str, prefix: str | None
) -> tuple[dict[str, Tensor], list[str]]:
    """Returns the backbone's tensors without prefixes, and the other keys."""
    while not prefix:
        shared = [p for p in PREFIXES if all(k.startswith(p) for k in tensors)]
        if not shared:
            break
        tensors = {k.removeprefix(shared[0]): v for k, v in tensors.items()}
    if not prefix and any(k.startswith(BACKBONE) for k in tensors):
        prefix = BACKBONE
    if not prefix:
        return tensors, []
    found = {
        k.removeprefix(prefix): v
        for k, v in tensors.items()
        if k.startswith(prefix)
    }
    if not found:
        raise UserError(
            f'{source} has no key that begins with {prefix!r}.',
            f'Its keys begin like {_counted(list(tensors))}.',
        )
    return found, [k for k in tensors if not k.startswith(prefix)]


def _rename(
    tensors: dict[str, Tensor], rules: StrictInit, source: str
) -> dict[str, str]:
    """Returns the backbone's names of the keys that it does not drop."""
    names = {key: rules.released_key(key) for key in tensors}
    names = {key: name for key, name in names.items() if name is not None}
    twice = [name for name, n in Counter(names.values()).items() if n > 1]
    if twice:
        raise UserError(
            f'{source} has {_counted(twice)} twice, under different names.',
            'Remove one of them.',
        )
    return names


def _require_fit(
    found: Match,
    backbone: nn.Module,
    rules: StrictInit,
    source: str,
    allow_missing: bool | str | Sequence[str],
) -> None:
    """Raises one error with everything that does not fit."""
    missing = []
    if allow_missing is not True:
        allowed = allowed_prefixes(allow_missing)
        missing = [k for k in found.missing if not k.startswith(allowed)]
    problems = []
    if unknown := found.unused:
        known = found.missing or backbone.state_dict()
        hint = did_you_mean(unknown[0], known)
        problems.append(f'unknown to it: {_counted(unknown)}. {hint}'.rstrip())
    if missing:
        problems.append(f'missing: {_counted(missing)}')
    if found.reshaped:
        problems.append(f'of another shape: {_counted(found.reshaped)}')
    if not problems:
        return
    fix = f'{rules.weights_hint}.'
    if len(problems) == 1 and missing:
        fix += (
            f' allow_missing=[{missing[0].split(".")[0]!r}] accepts a '
            'checkpoint without them.'
        )
    there = len(found.loaded) + len(found.reshaped)
    raise UserError(
        f'{source} does not fit {type(backbone).__name__} ({there} of '
        f'{len(backbone.state_dict())} tensors found); nothing was loaded:'
        + ''.join(f'\n     {problem}' for problem in problems),
        fix,
    )


def _fill_classifier(
    model: nn.Module, tensors: dict[str, Tensor]
) -> dict[str, str]:
    """Fills mmpretrain's linear head if it fits; returns the new names."""
    fc = getattr(getattr(model, 'head', None), 'fc', None)
    head = {
        key.removeprefix('head.'): value
        for key, value in tensors.items()
        if key.startswith('head.')
    }
    if not isinstance(fc, nn.Linear) or head.keys() != fc.state_dict().keys():
        return {}
    if head['weight'].shape != fc.weight.shape:
        return {}
    fc.load_state_dict(head)
    return {f'head.{name}': f'head.fc.{name}' for name in head}


def _counted(names: list[str]) -> str:
    """Returns ``'3: a, b, c'``; at most four names."""
    return f'{len(names)}: {some(names, 4)}'
