# StepNet-ResNet-50 on cell nuclei: the baseline with another backbone.
# MMEXT_DATA=data python tools/train.py \
#     configs/nuclei/mask-rcnn_stepnet-r50_fpn_12e_nuclei.py --amp
# Result: docs/results.md.
_base_ = './mask-rcnn_r50_fpn_12e_nuclei.py'
model = dict(
    backbone=dict(
        _delete_=True, type='StepNetResNet', depth=50, norm_eval=False
    ),
)
