# Licensed under the Apache License, Version 2.0. See LICENSE.
"""A COCO folder of a few drawn images and a Faster R-CNN for it."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

CLASSES = ('square', 'disc')
WIDTH, HEIGHT = 128, 96

CONFIG = """
_base_ = 'mmdet::{base}'
custom_imports = dict(imports=['mmext'], allow_failed_imports=False)
model = dict(
    data_preprocessor=dict(pad_size_divisor=32),
    backbone=dict(
        depth=18, base_channels=16, stem_channels=16,
        norm_eval=False, frozen_stages=-1, init_cfg=None),
    neck=dict(in_channels=[16, 32, 64, 128], out_channels=16),
    rpn_head=dict(in_channels=16, feat_channels=16),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=16),
        bbox_head=dict(
            in_channels=16, fc_out_channels=64, num_classes=2)),
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=100, max_per_img=50),
        rpn=dict(sampler=dict(num=32)),
        rcnn=dict(sampler=dict(num=32))),
    test_cfg=dict(
        rpn=dict(nms_pre=100, max_per_img=50), rcnn=dict(score_thr=0.0)))
metainfo = dict(classes={classes!r})
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask={mask}),
    dict(type='Resize', scale=(128, 96), keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs')]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(128, 96), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask={mask}),
    dict(type='PackDetInputs', meta_keys=(
        'img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))]
train_dataloader = dict(batch_size=2, num_workers=0, dataset=dict(
    data_root={root!r}, ann_file='train.json', metainfo=metainfo,
    data_prefix=dict(img='train'), pipeline=train_pipeline))
val_dataloader = dict(batch_size=1, num_workers=0, dataset=dict(
    data_root={root!r}, ann_file='val.json', metainfo=metainfo,
    data_prefix=dict(img='val'), pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file={root!r} + '/val.json')
test_evaluator = val_evaluator
train_cfg = dict(max_epochs={epochs})
param_scheduler = []
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-3))
default_hooks = dict(logger=dict(interval=1))
randomness = dict(seed=1)
{more}
"""

# `base` and `more` of write_config for a tiny Mask R-CNN.
#: Options with which it uses every anchor and every proposal: nothing is
#: drawn, no anchor is ignored and NMS removes nothing. Every image has the
#: same number of samples, so the means of the losses can be averaged.
EVERY = {
    'model.backbone.norm_eval': True,
    'model.train_cfg.rpn.assigner.neg_iou_thr': 0.5,
    'model.train_cfg.rpn.assigner.pos_iou_thr': 0.5,
    'model.train_cfg.rpn.assigner.min_pos_iou': 0.5,
    'model.train_cfg.rpn.sampler.num': 10**6,
    'model.train_cfg.rpn_proposal.nms.iou_threshold': 1.0,
    'model.train_cfg.rcnn.assigner.neg_iou_thr': 0.2,
    'model.train_cfg.rcnn.assigner.pos_iou_thr': 0.2,
    'model.train_cfg.rcnn.assigner.min_pos_iou': 0.2,
    'model.train_cfg.rcnn.sampler.num': 10**6,
    'model.train_cfg.rcnn.sampler.add_gt_as_proposals': False,
    'val_dataloader.dataset.test_mode': False,
}
MASK_RCNN = 'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'
MASK_HEADS = """
model.update(roi_head=dict(
    bbox_roi_extractor=dict(out_channels=16),
    bbox_head=dict(in_channels=16, fc_out_channels=64, num_classes=2),
    mask_roi_extractor=dict(out_channels=16),
    mask_head=dict(
        num_convs=1, in_channels=16, conv_out_channels=16, num_classes=2)))
"""


def make_coco(root: Path, train: int = 4, val: int = 5) -> Path:
    """Draws the images and writes ``train.json`` and ``val.json``.

    Args:
        root: The folder; it is created and returned.
        train: Number of training images. Default: 4.
        val: Number of validation images. Default: 5.
    """
    rng = np.random.default_rng(0)
    for split, count in (('train', train), ('val', val)):
        (root / split).mkdir(parents=True)
        names = {i: f'{i}.png' for i in range(1, count + 1)}
        annotations = []
        for i, name in names.items():
            picture = rng.integers(0, 60, (HEIGHT, WIDTH, 3), np.uint8)
            for _ in range(2):
                kind = int(rng.integers(2))
                size = int(rng.integers(20, 40))
                x, y = rng.integers(0, (WIDTH - size, HEIGHT - size)).tolist()
                if kind == 0:
                    picture[y : y + size, x : x + size] = (40, 200, 40)
                else:
                    centre = (x + size // 2, y + size // 2)
                    cv2.circle(picture, centre, size // 2, (40, 40, 220), -1)
                corners = [x, y, x + size, y, x + size, y + size, x, y + size]
                annotations.append(
                    {
                        'id': len(annotations) + 1,
                        'image_id': i,
                        'category_id': kind + 1,
                        'bbox': [x, y, size, size],
                        'area': size * size,
                        'segmentation': [corners],
                        'iscrowd': 0,
                    }
                )
            cv2.imwrite(str(root / split / name), picture)
        size = {'width': WIDTH, 'height': HEIGHT}
        content = {
            'images': [
                {'id': i, 'file_name': name, **size}
                for i, name in names.items()
            ],
            'annotations': annotations,
            'categories': [
                {'id': k + 1, 'name': n} for k, n in enumerate(CLASSES)
            ],
        }
        (root / f'{split}.json').write_text(json.dumps(content))
    return root


def write_config(
    file: Path,
    root: Path,
    epochs: int = 1,
    base: str = 'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
    more: str = '',
) -> Path:
    """Writes a config of a tiny detector on the data in ``root``.

    Args:
        file: The config file; it is returned.
        root: A folder of :func:`make_coco`.
        epochs: Default: 1.
        base: A config of mmdet. Default: Faster R-CNN.
        more: Lines that are added at the end. Default: none.
    """
    text = CONFIG.format(
        base=base,
        classes=CLASSES,
        mask='mask' in base,
        root=str(root),
        epochs=epochs,
        more=more,
    )
    file.write_text(text)
    return file
