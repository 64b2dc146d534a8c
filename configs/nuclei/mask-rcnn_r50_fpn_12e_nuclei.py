# The baseline on cell nuclei, from random weights, sized for two CPU cores.
# MMEXT_DATA=data python tools/train.py \
#     configs/nuclei/mask-rcnn_r50_fpn_12e_nuclei.py --amp
# Result: docs/results.md.
_base_ = [
    '../_base_/models/mask-rcnn_r50_128-fpn.py',
    'mmdet::_base_/default_runtime.py',
    '../_base_/datasets/nuclei_instance.py',
    '../_base_/schedules/scratch_12e.py',
]
custom_imports = dict(imports=['mmext'], allow_failed_imports=False)
model = dict(
    roi_head=dict(bbox_head=dict(num_classes=1), mask_head=dict(num_classes=1))
)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2))
randomness = dict(seed=0)
