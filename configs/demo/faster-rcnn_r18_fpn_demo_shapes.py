# The baseline of the demo: a small Faster R-CNN from random weights, sized
# for two CPU cores.
# python tools/train.py configs/demo/faster-rcnn_r18_fpn_demo_shapes.py
_base_ = [
    '../_base_/models/faster-rcnn_narrow_fpn.py',
    'mmdet::_base_/default_runtime.py',
    '../_base_/datasets/shapes_detection.py',
    '../_base_/schedules/demo.py',
]
custom_imports = dict(imports=['mmext'], allow_failed_imports=False)
model = dict(
    backbone=dict(
        depth=18,
        frozen_stages=-1,
        norm_eval=False,
        # A short training from random weights: no branch starts at zero.
        # What that gains was not measured.
        zero_init_residual=False,
        init_cfg=None,
    ),
    neck=dict(in_channels=[64, 128, 256, 512]),
    roi_head=dict(bbox_head=dict(num_classes=5)),
)
