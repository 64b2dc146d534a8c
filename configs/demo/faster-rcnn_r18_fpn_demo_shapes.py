# The baseline of the demo: a small Faster R-CNN from random weights, sized
# for two CPU cores.
# python tools/train.py configs/demo/faster-rcnn_r18_fpn_demo_shapes.py
# Result: docs/results.md.
_base_ = [
    '../_base_/models/faster-rcnn_r18_narrow-fpn.py',
    'mmdet::_base_/default_runtime.py',
    '../_base_/datasets/shapes_detection.py',
    '../_base_/schedules/demo.py',
]
custom_imports = dict(imports=['mmext'], allow_failed_imports=False)
model = dict(roi_head=dict(bbox_head=dict(num_classes=5)))
