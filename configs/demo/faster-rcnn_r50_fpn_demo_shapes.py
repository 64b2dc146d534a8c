# The demo's detector with ResNet-50, the baseline for comparing seeds.
# python tools/train.py configs/demo/faster-rcnn_r50_fpn_demo_shapes.py
# Not trained for its nine epochs.
_base_ = './faster-rcnn_r18_fpn_demo_shapes.py'
model = dict(
    backbone=dict(depth=50), neck=dict(in_channels=[256, 512, 1024, 2048])
)
