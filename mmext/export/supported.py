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
from mmext.export.roi import stages
from mmext.utils.text import some

FAMILIES = (
    'RetinaNet, FCOS, ATSS, RTMDet, RTMDet-Ins, Faster R-CNN, Mask R-CNN, '
    'Cascade R-CNN and Cascade Mask R-CNN'
)


def require_supported(model: nn.Module) -> None:
    """Raises ``UserError`` if a model cannot be exported, with the reasons."""
    if reasons := list(_reasons(model)):
        raise UserError(
            f'{type(model).__name__} cannot be exported: {some(reasons)}',
            f'These can be: {FAMILIES}, with any backbone and neck, and '
            'other detectors that use their methods.',
        )


def _reasons(model: nn.Module) -> Iterator[str]:
    if not isinstance(model, SingleStageDetector | TwoStageDetector):
        yield 'it is neither a SingleStageDetector nor a TwoStageDetector'
        return
    two = isinstance(model, TwoStageDetector)
    yield from _own_methods(
        model,
        ('predict', 'extract_feat'),
        SingleStageDetector,
        TwoStageDetector,
    )
    yield from _not_one_of(model.data_preprocessor, DetDataPreprocessor)
    if not two:
        yield from _dense_reasons(model.bbox_head, BaseDenseHead)
        return
    if model.rpn_head is None:
        yield 'it has no rpn_head'
    else:
        yield from _dense_reasons(model.rpn_head, RPNHead)
    yield from _roi_reasons(model.roi_head)


def _dense_reasons(head: nn.Module, base: type) -> Iterator[str]:
    methods = ['predict', 'predict_by_feat', '_predict_by_feat_single']
    if isinstance(head, RTMDetInsHead):
        base = RTMDetInsHead
        methods += ['_bbox_mask_post_process', '_mask_predict_by_feat_single']
    else:
        methods.append('_bbox_post_process')
    yield from _own_methods(head, methods, base)
    if not isinstance(head, BaseDenseHead):
        return
    if getattr(head.loss_cls, 'custom_cls_channels', False):
        yield f'{type(head.loss_cls).__name__} has an activation of its own'
    generator = head.prior_generator
    yield from _not_one_of(generator, AnchorGenerator, MlvlPointGenerator)
    yield from _coder_reasons(head.bbox_coder)
    yield from _nms_reasons(head.test_cfg)


def _roi_reasons(head: nn.Module) -> Iterator[str]:
    methods = (
        'predict',
        'predict_bbox',
        'predict_mask',
        '_bbox_forward',
        '_mask_forward',
    )
    yield from _own_methods(head, methods, StandardRoIHead, CascadeRoIHead)
    if not isinstance(head, StandardRoIHead | CascadeRoIHead):
        return
    for part in stages(head.bbox_head):
        yield from _own_methods(
            part, ('_predict_by_feat_single', 'regress_by_class'), BBoxHead
        )
        if part.custom_cls_channels or not (part.with_cls and part.with_reg):
            yield f'{type(part).__name__} has outputs of its own'
        yield from _coder_reasons(part.bbox_coder)
    extractors = stages(head.bbox_roi_extractor)
    if head.with_mask:
        extractors += stages(head.mask_roi_extractor)
        for part in stages(head.mask_head):
            yield from _own_methods(
                part, ('_predict_by_feat_single',), FCNMaskHead
            )
    for extractor in extractors:
        yield from _not_one_of(extractor, SingleRoIExtractor)
        for layer in getattr(extractor, 'roi_layers', ()):
            if getattr(layer, 'pool_mode', None) != 'avg':
                yield f'{type(layer).__name__} does not average'
                break
    yield from _nms_reasons(head.test_cfg)


def _own_methods(
    part: nn.Module, names: tuple[str, ...] | list[str], *bases: type
) -> Iterator[str]:
    """Yields which methods are not those of the classes ``bases``."""
    for name in names:
        method = getattr(type(part), name, None)
        if not any(method is getattr(base, name, 0) for base in bases):
            yield f'{type(part).__name__} has a method {name} of its own'
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
    kind = nms.get('type', 'nms')
    if 'iou_threshold' not in nms or kind != 'nms':
        yield f'its test_cfg has the NMS {dict(nms)}, not one of type nms'
    more = {*nms} - {'type', 'iou_threshold', 'class_agnostic', 'split_thr'}
    if more:
        yield f'its NMS has {some(sorted(more))}'
    if cfg.get('max_per_img', -1) <= 0:
        yield 'its test_cfg has no max_per_img'
