# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The DWNet detectors have the size that their authors published."""

from __future__ import annotations

import pytest
from leaves import build_cheaply, load

# Millions, of Cascade Mask R-CNN: the README of Atten4Vis/DemystifyLocalViT.
PUBLISHED = {
    'tiny': 82,
    'base': 132,
    'tiny-homogeneous': 108,
    'base-homogeneous': 219,
}


@pytest.mark.parametrize('backbone', PUBLISHED)
def test_cascade_mask_rcnn_is_the_published_one(backbone: str) -> None:
    cfg = load(f'cascade-mask-rcnn_dwnet-{backbone}_fpn_ms-crop-3x_coco')
    model = build_cheaply(cfg)
    params = sum(p.numel() for p in model.parameters())
    assert round(params / 1e6) == PUBLISHED[backbone]
    # The recipe of the authors' detection configs.
    steps = cfg.param_scheduler[1]
    assert (steps.end, steps.milestones) == (36, [27, 33])
    optimizer = cfg.optim_wrapper.optimizer
    assert optimizer == {'type': 'AdamW', 'lr': 1e-4, 'weight_decay': 0.05}
    heads = model.roi_head.bbox_head
    assert [len(head.shared_convs) for head in heads] == [4, 4, 4]
    rate = {'tiny': 0.2, 'base': 0.3}[backbone.split('-')[0]]
    block = model.backbone.layers[-1].blocks[-1]
    assert block.drop_path.drop_prob == pytest.approx(rate)
