# Semantic FPN on drawn shapes: training and testing take minutes on a CPU.
# python tools/train.py configs/segmentation/fpn_starnet-s050_600i_shapes.py
# Result: docs/results.md.
_base_ = [
    'mmseg::_base_/models/fpn_r50.py',
    'mmseg::_base_/default_runtime.py',
    '../_base_/datasets/shapes_semantic.py',
    '../_base_/schedules/seg_600i.py',
]
norm_cfg = dict(type='BN')
model = dict(
    data_preprocessor=dict(size=(192, 256)),
    pretrained=None,
    backbone=dict(_delete_=True, type='StarNet', arch='s050'),
    neck=dict(in_channels=[16, 32, 64, 128], out_channels=64),
    decode_head=dict(
        in_channels=[64] * 4, channels=64, num_classes=6, norm_cfg=norm_cfg
    ),
)
randomness = dict(seed=0)
