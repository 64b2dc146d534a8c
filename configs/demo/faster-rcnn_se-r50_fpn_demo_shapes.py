# python tools/train.py configs/demo/faster-rcnn_se-r50_fpn_demo_shapes.py
# Not trained for its nine epochs.
_base_ = [
    './faster-rcnn_r50_fpn_demo_shapes.py',
    '../_base_/backbones/attention.py',
]
model = dict(backbone=_base_.pop('attention').se)
