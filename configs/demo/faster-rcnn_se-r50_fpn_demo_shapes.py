# python tools/train.py configs/demo/faster-rcnn_se-r50_fpn_demo_shapes.py
# Not trained for its nine epochs.
_base_ = './faster-rcnn_r50_fpn_demo_shapes.py'
plugin = dict(
    cfg=dict(type='SEAttention', ratio=16, bias=False), position='after_conv3'
)
model = dict(backbone=dict(type='PluginResNet', plugins=[plugin]))
