# StarNet-s1 on cell nuclei: the baseline with another backbone.
# MMEXT_DATA=data python tools/train.py \
#     configs/nuclei/mask-rcnn_starnet-s1_fpn_12e_nuclei.py --amp
# Result: docs/results.md.
_base_ = './mask-rcnn_r50_fpn_12e_nuclei.py'
model = dict(
    backbone=dict(_delete_=True, type='StarNet', arch='s1'),
    neck=dict(in_channels=[24, 48, 96, 192]),
)
