# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Refuses to train with a backbone that is frozen at random values.

``frozen_stages=1, norm_eval=True`` is right for pre-trained weights. In a
config that removes these weights (``init_cfg=None, load_from=None``) it keeps
the first layers at random values, and AP stays close to 0.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from mmext.checkpoints.released import StrictInit, pretrained_configs
from mmext.errors import UserError
from mmext.utils.random_state import random_state_kept, seed_everything
from mmext.utils.text import count, some


def require_trainable(model: nn.Module, cfg: Mapping[str, Any]) -> None:
    """Raises an error if the backbone freezes values that nothing has trained.

    These are parameters, and statistics of batch norms in evaluation mode.
    Call it for a run that neither loads nor resumes a checkpoint. ``cfg`` is
    that of the model; a model without a ``backbone`` passes.
    """
    place = 'model.backbone'
    if isinstance(getattr(model, 'student', None), nn.Module):
        # The semi-supervised detectors of mmdet.
        model, cfg = model.student, cfg.get('detector', {})
        place = 'model.detector.backbone'
    backbone = getattr(model, 'backbone', None)
    if not isinstance(backbone, nn.Module) or any(
        pretrained_configs(getattr(module, 'init_cfg', None))
        for module in (model, *backbone.modules())
    ):
        return
    before = backbone.training
    backbone.train()  # where some backbones freeze
    held = [n for n, p in backbone.named_parameters() if not p.requires_grad]
    norms = _idle_norms(backbone)
    backbone.train(before)
    if held:
        random = _random_names(backbone, cfg.get('backbone'))
        held = [name for name in held if name in random]
    what = []
    if held:
        what.append(f'{count(len(held), "tensor")} ({some(held, 2)})')
    if norms:
        what.append(
            f'the statistics of {count(len(norms), "batch norm")} '
            f'({some(norms, 2)})'
        )
    if not what:
        return
    options = []
    if getattr(backbone, 'frozen_stages', -1) >= 0:
        options.append(f'{place}.frozen_stages=-1')
    if getattr(backbone, 'norm_eval', False):
        options.append(f'{place}.norm_eval=False')
    fix = 'freeze no parameter (requires_grad) and no batch norm'
    if options:
        fix = f'--cfg-options {" ".join(options)}'
    raise UserError(
        f'{place}: {type(backbone).__name__} freezes {" and ".join(what)} at '
        'random or initial values, because the run loads no weights '
        '(init_cfg, load_from, --resume)',
        f'To train from random weights: {fix}. Otherwise name weights: '
        f'--cfg-options load_from=FILE, or {place}.init_cfg='
        "dict(type='Pretrained', checkpoint=FILE).",
    )


def require_filled(
    module: nn.Module, missing: Iterable[str], name: str, source: str
) -> None:
    """Raises an error if a module freezes tensors that are ``missing``.

    ``name`` is that of the module, ``source`` that of the checkpoint.
    """
    held = {n for n, p in module.named_parameters() if not p.requires_grad}
    stuck = [n for n in missing if n in held]
    if stuck:
        raise UserError(
            f'{name}: {count(len(stuck), "frozen tensor")} of '
            f'{type(module).__name__} ({some(stuck, 3)}) would keep random '
            f'values, because {source} does not have them; nothing was loaded',
            f'--cfg-options model.{name}.frozen_stages=-1, or fewer stages, '
            "or for a ResNet with new layers type='PluginResNet', which "
            'freezes only what a checkpoint filled.',
        )


def _idle_norms(backbone: nn.Module) -> list[str]:
    """Returns batch norms that training leaves at their first statistics."""
    return [
        name
        for name, module in backbone.named_modules()
        if isinstance(module, _NormBase)
        and not module.training
        and module.running_mean is not None
        and (module.running_mean == 0).all()
        and (module.running_var == 1).all()
    ]


def _random_names(
    backbone: nn.Module, cfg: Mapping[str, Any] | None
) -> set[str]:
    """Returns the parameters whose values depend on the seed.

    A backbone may load weights in its own code, and may compute fixed tables.
    Both are the same for every seed. Without a config, the random ones are
    those that vary.
    """
    if not isinstance(cfg, Mapping):
        return {n for n, p in backbone.named_parameters() if p.numel() > 1}
    first, second = (_values(cfg, seed) for seed in (0, 1))
    return {n for n in first if not torch.equal(first[n], second[n])}


@random_state_kept()
def _values(cfg: Mapping[str, Any], seed: int) -> dict[str, Tensor]:
    seed_everything(seed)
    backbone = MODELS.build(copy.deepcopy(cfg))
    # StrictInit loads from init_cfg only, and would warn.
    if hasattr(backbone, 'init_weights') and not isinstance(
        backbone, StrictInit
    ):
        backbone.init_weights()
    return dict(backbone.named_parameters())
