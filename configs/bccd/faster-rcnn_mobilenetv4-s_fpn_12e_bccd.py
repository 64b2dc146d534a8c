# MobileNetV4 of timm on blood cells, from random weights.
# MMEXT_DATA=data python tools/train.py \
#     configs/bccd/faster-rcnn_mobilenetv4-s_fpn_12e_bccd.py
# Result: docs/results.md.
_base_ = './faster-rcnn_r50_fpn_12e_bccd.py'
model = dict(
    backbone=dict(
        _delete_=True, type='TimmBackbone', name='mobilenetv4_conv_small'
    ),
    neck=dict(in_channels='auto'),
)
