# tools/dist_train.sh configs/attention/mask-rcnn_eca-r50_fpn_1x_coco.py 8
# Not trained. Published: 39.0 box AP (ECA-Net, Table 5).
_base_ = [
    'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
    '../_base_/backbones/attention.py',
]
custom_imports = dict(imports=['mmext'], allow_failed_imports=False)
model = dict(backbone=_base_.pop('attention').eca)
