# tools/dist_train.sh configs/attention/mask-rcnn_fca-r50_fpn_1x_coco.py 8
# Not trained. Published: 40.3 box AP, 36.2 mask AP (FcaNet).
_base_ = [
    'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
    '../_base_/backbones/attention.py',
]
custom_imports = dict(imports=['mmext'], allow_failed_imports=False)
model = dict(backbone=_base_.pop('attention').fca)
