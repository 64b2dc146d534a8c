# SE-ResNet-50 on blood cells: the baseline with attention.
# MMEXT_DATA=data python tools/train.py \
#     configs/bccd/faster-rcnn_se-r50_fpn_12e_bccd.py --amp
# Not trained.
_base_ = [
    './faster-rcnn_r50_fpn_12e_bccd.py',
    '../_base_/backbones/attention.py',
]
model = dict(backbone=_base_.pop('attention').se)
