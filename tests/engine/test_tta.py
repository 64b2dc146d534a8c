# Licensed under the Apache License, Version 2.0. See LICENSE.
"""tools/test.py --tta on a model that predicts masks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.registry import init_default_scope
from tiny_run import MASK_HEADS, make_coco, write_config

from mmext.engine.launch import test as run_test
from mmext.errors import UserError
from mmext.models.build import build_model
from mmext.utils.config import load_config


def test_the_boxes_of_a_mask_detector(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('MMEXT_CACHE', str(tmp_path / 'cache'))
    data = make_coco(Path('coco'), 1, 2)
    config = write_config(
        Path('tiny.py'),
        data,
        base='mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
        more=MASK_HEADS,
    )
    init_default_scope('mmdet')
    torch.manual_seed(0)
    model = build_model(load_config(config).model)
    torch.save({'state_dict': model.state_dict(), 'meta': {}}, 'net.pth')
    with pytest.raises(UserError, match='evaluates masks'):
        run_test(config, 'net.pth', work_dir='work', tta=True)
    assert not Path('work').exists()
    found = run_test(
        config,
        'net.pth',
        work_dir='work',
        tta=True,
        cfg_options={'test_evaluator.metric': 'bbox'},
    )
    assert 0 <= found['coco/bbox_mAP'] <= 1
