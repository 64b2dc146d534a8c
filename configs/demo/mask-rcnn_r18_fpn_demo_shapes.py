# Boxes and masks of the drawn shapes: the demo's detector with a mask head.
# python tools/train.py configs/demo/mask-rcnn_r18_fpn_demo_shapes.py
# Not trained for its nine epochs.
_base_ = [
    '../_base_/models/mask-rcnn_r18_narrow-fpn.py',
    'mmdet::_base_/default_runtime.py',
    '../_base_/datasets/shapes_instance.py',
    '../_base_/schedules/demo.py',
]
custom_imports = dict(imports=['mmext'], allow_failed_imports=False)
model = dict(
    roi_head=dict(bbox_head=dict(num_classes=5), mask_head=dict(num_classes=5))
)
