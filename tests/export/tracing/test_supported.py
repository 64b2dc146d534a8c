# Licensed under the Apache License, Version 2.0. See LICENSE.
"""What cannot be exported is refused by a message that names the reason."""

from __future__ import annotations

import copy

import pytest
from mmdet.models import DeformableDETR
from mmdet.models.dense_heads import GFLHead
from mmdet.models.roi_heads import PointRendRoIHead
from torch import nn

from mmext.errors import UserError
from mmext.export.tracing.supported import require_supported


def gfl_head(model: nn.Module) -> None:
    model.bbox_head.__class__ = GFLHead


def point_rend(model: nn.Module) -> None:
    model.roi_head.__class__ = PointRendRoIHead


def soft_nms(model: nn.Module) -> None:
    model.roi_head.test_cfg.nms.type = 'soft_nms'


def own_threshold(model: nn.Module) -> None:
    model.rpn_head.test_cfg.nms.max_num = 10


def maximum(model: nn.Module) -> None:
    model.roi_head.bbox_roi_extractor.roi_layers[0].pool_mode = 'max'


def no_limit(model: nn.Module) -> None:
    model.bbox_head.test_cfg.max_per_img = -1


def all_boxes(model: nn.Module) -> None:
    model.bbox_head.test_cfg.nms_pre = -1


def clamp(model: nn.Module) -> None:
    model.bbox_head.bbox_coder.add_ctr_clamp = True


@pytest.mark.parametrize(
    ('name', 'change', 'reason'),
    [
        ('retinanet', gfl_head, 'GFLHead has a method _predict_by_feat_'),
        ('retinanet', no_limit, 'no max_per_img'),
        ('retinanet', clamp, 'add_ctr_clamp'),
        ('retinanet', all_boxes, 'no nms_pre'),
        ('mask-rcnn', point_rend, 'PointRendRoIHead has a method'),
        ('mask-rcnn', soft_nms, "'soft_nms'"),
        ('mask-rcnn', own_threshold, 'its NMS has max_num'),
        ('mask-rcnn', maximum, 'RoIAlign does not average'),
    ],
)
def test_reasons(name, change, reason, family):
    model = copy.deepcopy(family(name).model)
    change(model)
    with pytest.raises(UserError, match='cannot be exported') as info:
        require_supported(model)
    assert reason in info.value.problem
    assert 'RetinaNet, FCOS' in info.value.fix


def test_the_line_that_stops_torch_export():
    model = DeformableDETR.__new__(DeformableDETR)
    with pytest.raises(UserError, match='deformable_detr.py, pre_transformer'):
        require_supported(model)


def test_no_detector():
    with pytest.raises(UserError, match='Linear is no class whose results'):
        require_supported(nn.Linear(1, 1))
