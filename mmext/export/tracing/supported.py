# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Which detectors can be exported, and what stops the others.

The post-processing of a file is written here again, without branches on
values. It is right for every class that uses mmdet's methods which it was
written after, whatever the class is called.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmdet.models import (
    DeformableDETR,
    DetDataPreprocessor,
    SingleStageDetector,
    TwoStageDetector,
)
from mmdet.models.dense_heads import RPNHead, RTMDetInsHead
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.models.roi_heads import CascadeRoIHead, StandardRoIHead
from mmdet.models.roi_heads.bbox_heads import BBoxHead
from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmdet.models.task_modules.coders import (
    DeltaXYWHBBoxCoder,
    DistancePointBBoxCoder,
)
from mmdet.models.task_modules.prior_generators import (
    AnchorGenerator,
    MlvlPointGenerator,
)
from torch import nn

from mmext.errors import UserError
from mmext.export.tracing.roi import stages
from mmext.utils.text import some

FAMILIES = (
    'RetinaNet, FCOS, ATSS, RTMDet, RTMDet-Ins, Faster R-CNN, Mask R-CNN, '
    'Cascade R-CNN and Cascade Mask R-CNN'
)
_DENSE = (
    'predict',
    'predict_by_feat',
    '_predict_by_feat_single',
    '_bbox_post_process',
)
_ROI = (
    'predict',
    'predict_bbox',
    'predict_mask',
    '_bbox_forward',
    '_mask_forward',
)
#: Class -> the methods whose results are computed here.
METHODS = {
    SingleStageDetector: ('predict', 'extract_feat'),
    TwoStageDetector: ('predict', 'extract_feat'),
    BaseDenseHead: _DENSE,
    RPNHead: _DENSE,
    RTMDetInsHead: (
        *_DENSE[:3],
        '_bbox_mask_post_process',
        '_mask_predict_by_feat_single',
    ),
    StandardRoIHead: _ROI,
    CascadeRoIHead: _ROI,
    BBoxHead: ('_predict_by_feat_single', 'regress_by_class'),
    FCNMaskHead: ('_predict_by_feat_single',),
}


def require_supported(model: nn.Module) -> None:
    """Raises ``UserError`` if a model cannot be exported, with the reasons."""
    if reasons := list(_reasons(model)):
        raise UserError(
            f'{type(model).__name__} cannot be exported: {some(reasons)}',
            f'These can be: {FAMILIES}, with any backbone and neck, and '
            'other detectors that use their methods.',
        )


def _reasons(model: nn.Module) -> Iterator[str]:
    if isinstance(model, DeformableDETR):  # and DINO
        yield (
            'torch.export stops in mmdet/models/detectors/deformable_detr.py, '
            'pre_transformer: the shapes of maps are values of a tensor'
        )
        return
    if reasons := list(_own_methods(model)):
        yield from reasons
        return
    yield from _not_one_of(model.data_preprocessor, DetDataPreprocessor)
    if isinstance(model, SingleStageDetector):
        yield from _dense_reasons(model.bbox_head)
    elif not isinstance(model.rpn_head, RPNHead):
        yield f'its rpn_head is {type(model.rpn_head).__name__}'
    else:
        yield from _dense_reasons(model.rpn_head)
        yield from _roi_reasons(model.roi_head)


def _dense_reasons(head: nn.Module) -> Iterator[str]:
    yield from _own_methods(head)
    if not isinstance(head, BaseDenseHead):
        return
    if getattr(head.loss_cls, 'custom_cls_channels', False):
        yield f'{type(head.loss_cls).__name__} has an activation of its own'
    generator = head.prior_generator
    yield from _not_one_of(generator, AnchorGenerator, MlvlPointGenerator)
    yield from _coder_reasons(head.bbox_coder)
    yield from _nms_reasons(head.test_cfg)
    if head.test_cfg.get('nms_pre', -1) <= 0:
        yield 'its test_cfg has no nms_pre'


def _roi_reasons(head: nn.Module) -> Iterator[str]:
    if reasons := list(_own_methods(head)):
        yield from reasons
        return
    for part in stages(head.bbox_head):
        yield from _own_methods(part)
        if part.custom_cls_channels or not (part.with_cls and part.with_reg):
            yield f'{type(part).__name__} has outputs of its own'
        yield from _coder_reasons(part.bbox_coder)
    extractors = stages(head.bbox_roi_extractor)
    if head.with_mask:
        extractors += stages(head.mask_roi_extractor)
        for part in stages(head.mask_head):
            yield from _own_methods(part)
    for extractor in extractors:
        yield from _not_one_of(extractor, SingleRoIExtractor)
        layers = getattr(extractor, 'roi_layers', ())
        if any(getattr(layer, 'pool_mode', '') != 'avg' for layer in layers):
            yield f'{type(layers[0]).__name__} does not average'
    yield from _nms_reasons(head.test_cfg)


def _own_methods(part: nn.Module) -> Iterator[str]:
    """Yields the first method that is not the one of :data:`METHODS`."""
    kind = type(part)
    base = next((c for c in kind.__mro__ if c in METHODS), None)
    if base is None:
        yield f'{kind.__name__} is no class whose results are known'
        return
    for name in METHODS[base]:
        if getattr(kind, name) is not getattr(base, name):
            yield f'{kind.__name__} has a method {name} of its own'
            return


def _not_one_of(part: Any, *types: type) -> Iterator[str]:
    if type(part) not in types:
        yield f'it has the part {type(part).__name__}'


def _coder_reasons(coder: Any) -> Iterator[str]:
    yield from _not_one_of(coder, DeltaXYWHBBoxCoder, DistancePointBBoxCoder)
    if getattr(coder, 'add_ctr_clamp', False):
        yield 'its box coder has add_ctr_clamp'


def _nms_reasons(cfg: Any) -> Iterator[str]:
    nms = cfg.get('nms') or {}
    if 'iou_threshold' not in nms or nms.get('type', 'nms') != 'nms':
        yield f'its test_cfg has the NMS {dict(nms)}, not one of type nms'
    more = {*nms} - {'type', 'iou_threshold', 'class_agnostic', 'split_thr'}
    if more:
        yield f'its NMS has {some(sorted(more))}'
    if cfg.get('max_per_img', -1) <= 0:
        yield 'its test_cfg has no max_per_img'
