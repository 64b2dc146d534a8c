# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Fills ``in_channels='auto'`` of a neck in from its backbone."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from mmengine.registry import MODELS

from mmext.errors import UserError
from mmext.models.backbones.base_backbone import BaseBackbone
from mmext.utils.random_state import random_state_kept

AUTO = 'auto'


def fill_channels(cfg: Any) -> None:
    """Replaces ``'auto'`` in the ``model`` part of a config, in place.

    ``in_channels='auto'`` becomes the channels of the backbone's maps, and
    ``stride='auto'`` (of :class:`SimpleFeaturePyramid`) the stride of the
    last one: in the neck, in the first of several, or in heads of a model
    without a neck. The backbone is built for it; random numbers stay as they
    were. Raises `UserError` if one of others takes no image of 128 x 128.
    """
    if not isinstance(cfg, Mapping):
        return
    for part in cfg.values():
        fill_channels(part)
    backbone = cfg.get('backbone')
    parts = [p for p in _after_backbone(cfg) if AUTO in p.values()]
    if not parts or not isinstance(backbone, Mapping):
        return
    channels, stride = _measure(backbone)
    for part in parts:
        if part.get('in_channels') == AUTO:
            part['in_channels'] = list(channels)
        if part.get('stride') == AUTO:
            part['stride'] = stride


def _after_backbone(cfg: Mapping[str, Any]) -> Iterator[Any]:
    """Yields the configs of what takes the maps of the backbone."""
    names = ['neck'] if cfg.get('neck') else [*cfg]
    for name in names:
        part = cfg[name]
        if isinstance(part, list | tuple) and part:
            part = part[0]
        if isinstance(part, Mapping):
            yield part


@random_state_kept()
def _measure(cfg: Mapping[str, Any]) -> tuple[list[int], int]:
    backbone = MODELS.build(copy.deepcopy(cfg))
    if isinstance(backbone, BaseBackbone):
        return list(backbone.out_channels), backbone.strides[-1]
    backbone.eval()
    try:
        with torch.no_grad():
            maps = backbone(torch.zeros(1, 3, 128, 128))
        return [m.shape[1] for m in maps], round(128 / maps[-1].shape[2])
    except Exception as error:  # of any backbone
        raise UserError(
            f"model.neck.in_channels='auto': {type(backbone).__name__} fails "
            f'on an image of 128x128 pixels: {error}',
            'Write the channels of its maps.',
        ) from error
