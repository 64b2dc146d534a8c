# python tools/train.py configs/demo/faster-rcnn_stepnet-r50_fpn_demo_shapes.py
# Not trained for its nine epochs.
_base_ = './faster-rcnn_stepnet-r18_fpn_demo_shapes.py'
model = dict(
    backbone=dict(depth=50), neck=dict(in_channels=[256, 512, 1024, 2048])
)
