# tools/dist_train.sh configs/attention/retinanet_fca-r50_fpn_1x_coco.py 8
# Not trained. Nothing is published.
_base_ = [
    'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
    '../_base_/backbones/attention.py',
]
custom_imports = dict(imports=['mmext'], allow_failed_imports=False)
model = dict(backbone=_base_.pop('attention').fca)
