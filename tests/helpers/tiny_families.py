# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Configs and random weights of small detectors of many families."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch
from mmengine.registry import init_default_scope
from tiny_run import CLASSES
from torch import Tensor, nn

from mmext.export.eager import EagerDetector
from mmext.export.preparation import Prepared
from mmext.models.build import build_model
from mmext.utils.config import load_config

#: Config of mmdet, and changes of its model.
FAMILIES = {
    'retinanet': (
        'retinanet/retinanet_r50_fpn_1x_coco.py',
        'bbox_head=dict(**head, stacked_convs=1)',
    ),
    'fcos': (
        'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py',
        "bbox_head=dict(**head, stacked_convs=1, norm_cfg=dict(type='GN',"
        ' num_groups=4))',
    ),
    'atss': (
        'atss/atss_r50_fpn_1x_coco.py',
        "bbox_head=dict(**head, stacked_convs=1, norm_cfg=dict(type='GN',"
        ' num_groups=4))',
    ),
    'faster-rcnn': (
        'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
        'rpn_head=rpn, roi_head=dict(**roi, bbox_head=dict(**box))',
    ),
    'mask-rcnn': (
        'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
        'rpn_head=rpn, roi_head=dict(**roi, **mask, bbox_head=dict(**box))',
    ),
    'cascade-mask-rcnn': (
        'cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py',
        'rpn_head=rpn, roi_head=dict(**roi, **mask, bbox_head=[dict('
        "type='Shared2FCBBoxHead', roi_feat_size=7, reg_class_agnostic="
        'stage < 2, bbox_coder=dict(type="DeltaXYWHBBoxCoder", target_stds='
        '[0.1, 0.1, 0.2, 0.2]), **box) for stage in range(3)])',
    ),
    'rtmdet': ('rtmdet/rtmdet_tiny_8xb32-300e_coco.py', ''),
    'rtmdet-ins': ('rtmdet/rtmdet-ins_tiny_8xb32-300e_coco.py', ''),
}

TEXT = """
_base_ = 'mmdet::{base}'
custom_imports = dict(imports=['mmext'], allow_failed_imports=False)
head = dict(in_channels=16, feat_channels=16, num_classes=2)
rpn = dict(in_channels=16, feat_channels=16)
box = dict(in_channels=16, fc_out_channels=32, num_classes=2)
roi = dict(bbox_roi_extractor=dict(out_channels=16))
mask = dict(
    mask_roi_extractor=dict(out_channels=16),
    mask_head=dict(
        num_convs=1, in_channels=16, conv_out_channels=16, num_classes=2))
metainfo = dict(classes={classes!r})
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(160, 128), keep_ratio=True),
    {pad}dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=(
        'img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))]
test_dataloader = dict(batch_size=1, num_workers=0, dataset=dict(
    data_root={root!r}, ann_file='val.json', metainfo=metainfo,
    data_prefix=dict(img='val'), pipeline=test_pipeline))
test_evaluator = dict(ann_file={root!r} + '/val.json')
train_dataloader = dict(dataset=dict(
    _delete_=True, type='CocoDataset', data_root={root!r},
    ann_file='train.json', metainfo=metainfo, data_prefix=dict(img='train')))
val_dataloader = test_dataloader
val_evaluator = test_evaluator
model = dict({model})
"""
RESNET = """
    backbone=dict(
        depth=18, base_channels=16, stem_channels=16, style='pytorch',
        norm_cfg=dict(type='BN', requires_grad=True),
        frozen_stages=-1, init_cfg=None),
    neck=dict(in_channels=[16, 32, 64, 128], out_channels=16),
    {changes}"""
RTMDET = """
    backbone=dict(widen_factor=0.125, deepen_factor=0.1, init_cfg=None),
    neck=dict(
        in_channels=[32, 64, 128], out_channels=32, num_csp_blocks=1),
    bbox_head=dict(
        in_channels=32, feat_channels=32, num_classes=2, stacked_convs=1),
    test_cfg=dict(nms_pre=200, max_per_img=50)"""
PAD = """dict(type='Pad', size=(160, 128), pad_val=dict(img=(114, 114, 114))),
    """


def write_family(name: str, folder: Path, data: Path) -> tuple[Path, Path]:
    """Writes the config and a checkpoint of a family.

    The scores of random weights would be nearly equal. The last layers are
    scaled to a standard deviation of 2.

    Args:
        name: One of :data:`FAMILIES`.
        folder: Where to.
        data: A folder of ``make_coco``.
    """
    base, changes = FAMILIES[name]
    is_rtmdet = name.startswith('rtmdet')
    text = TEXT.format(
        base=base,
        classes=CLASSES,
        root=str(data),
        pad=PAD if is_rtmdet else '',
        model=RTMDET if is_rtmdet else RESNET.format(changes=changes),
    )
    config = folder / f'{name}.py'
    config.write_text(text)
    return config, write_weights(config)


def write_weights(config: Path) -> Path:
    """Writes a checkpoint with random weights beside a config."""
    init_default_scope('mmdet')
    torch.manual_seed(0)
    model = build_model(load_config(config).model)
    image = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
    spread_outputs(model, [Prepared(image, (96, 128))], cls=2)
    return save_weights(model, config.with_suffix('.pth'))


def spread_outputs(
    model: nn.Module, images: list[Prepared], **stds: float
) -> None:
    """Scales last layers, so that their outputs for images have a spread.

    ``stds`` are of layers with ``cls`` or ``reg`` in their names.
    """
    handles = {}

    def spread(std: float, layer: nn.Module, _: tuple, out: Tensor) -> Tensor:
        handles.pop(layer).remove()
        factor = std / out.std()
        layer.weight.data *= factor
        layer.bias.data.zero_()
        return out * factor

    for key, layer in model.named_modules():
        for part, std in stds.items():
            is_last = part in key and '_convs' not in key
            if is_last and isinstance(layer, nn.Conv2d | nn.Linear):
                hook = partial(spread, std)
                handles[layer] = layer.register_forward_hook(hook)
    EagerDetector(model.eval())(images)


def save_weights(model: nn.Module, path: Path) -> Path:
    meta = {'dataset_meta': {'classes': CLASSES}}
    torch.save({'state_dict': model.state_dict(), 'meta': meta}, path)
    return path
