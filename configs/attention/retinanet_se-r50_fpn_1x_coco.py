# tools/dist_train.sh configs/attention/retinanet_se-r50_fpn_1x_coco.py 8
# Not trained. Published: 37.1 AP (ECA-Net, Table 5).
_base_ = [
    'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
    '../_base_/backbones/attention.py',
]
custom_imports = dict(imports=['mmext'], allow_failed_imports=False)
model = dict(backbone=_base_.pop('attention').se)
