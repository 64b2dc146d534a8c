# StepNet-ResNet-50 on blood cells: the baseline with another backbone.
# MMEXT_DATA=data python tools/train.py \
#     configs/bccd/faster-rcnn_stepnet-r50_fpn_12e_bccd.py
# Result: docs/results.md.
_base_ = './faster-rcnn_r50_fpn_12e_bccd.py'
model = dict(
    backbone=dict(
        _delete_=True,
        type='StepNetResNet',
        depth=50,
        num_stages=4,
        out_indices=(0, 1, 2, 3),
        norm_cfg=dict(type='BN', requires_grad=True),
        norm_eval=False,
        style='pytorch',
    ),
)
