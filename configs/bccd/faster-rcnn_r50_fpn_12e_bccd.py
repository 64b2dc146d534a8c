# The baseline on blood cells, from random weights, sized for a CPU.
# MMEXT_DATA=data python tools/train.py \
#     configs/bccd/faster-rcnn_r50_fpn_12e_bccd.py
# Result: docs/results.md.
_base_ = [
    'mmdet::_base_/models/faster-rcnn_r50_fpn.py',
    'mmdet::_base_/default_runtime.py',
    '../_base_/datasets/bccd_detection.py',
    '../_base_/schedules/scratch_12e.py',
]
custom_imports = dict(imports=['mmext'], allow_failed_imports=False)
model = dict(
    backbone=dict(frozen_stages=-1, norm_eval=False, init_cfg=None),
    roi_head=dict(bbox_head=dict(num_classes=3)),
    # mmdet's default of 512 RoIs per image is for a GPU.
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=500, max_per_img=200),
        rcnn=dict(sampler=dict(num=64)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=500, max_per_img=200)),
)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2))
randomness = dict(seed=0)
