# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The DWNet detectors are the size that their authors published."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config

import mmext  # noqa: F401

ROOT = Path(__file__).resolve().parents[2]
# Millions, of Cascade Mask R-CNN: the README of Atten4Vis/DemystifyLocalViT.
PUBLISHED = {
    'tiny': 82,
    'base': 132,
    'tiny-homogeneous': 108,
    'base-homogeneous': 219,
}


@pytest.mark.parametrize('backbone', PUBLISHED)
def test_cascade_mask_rcnn_is_the_published_one(backbone: str) -> None:
    name = f'cascade-mask-rcnn_dwnet-{backbone}_fpn_ms-crop-3x_coco.py'
    cfg = Config.fromfile(ROOT / 'configs' / 'dwnet' / name)
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    params = sum(p.numel() for p in model.parameters())
    assert round(params / 1e6) == PUBLISHED[backbone]
    # The recipe of their detection configs.
    steps = cfg.param_scheduler[1]
    assert (steps.end, steps.milestones) == (36, [27, 33])
    optimizer = cfg.optim_wrapper.optimizer
    assert optimizer == {'type': 'AdamW', 'lr': 1e-4, 'weight_decay': 0.05}
    heads = model.roi_head.bbox_head
    assert [len(head.shared_convs) for head in heads] == [4, 4, 4]
    rate = {'tiny': 0.2, 'base': 0.3}[backbone.split('-')[0]]
    block = model.backbone.layers[-1].blocks[-1]
    assert block.drop_path.drop_prob == pytest.approx(rate)
