# Fine-tunes mmdet's Faster R-CNN on own boxes. Not trained here.
# python tools/train.py \
#     configs/custom/faster-rcnn_r50_fpn_12e_custom.py --data my_data
_base_ = [
    'mmdet::_base_/models/faster-rcnn_r50_fpn.py',
    'mmdet::_base_/default_runtime.py',
    '../_base_/datasets/custom_coco.py',
    '../_base_/schedules/adamw_cosine_12e.py',
]
custom_imports = dict(imports=['mmext'], allow_failed_imports=False)
model = dict(
    # All weights come from load_from.
    backbone=dict(init_cfg=None),
    roi_head=dict(bbox_head=dict(num_classes=_base_.num_classes)),
)
default_hooks = dict(checkpoint=dict(save_best='auto', max_keep_ckpts=2))
load_from = 'https://download.openmmlab.com/mmdetection/v2.0/faster_rcnn/faster_rcnn_r50_fpn_1x_coco/faster_rcnn_r50_fpn_1x_coco_20200130-047c8118.pth'  # noqa: E501
