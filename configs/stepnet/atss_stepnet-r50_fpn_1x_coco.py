# tools/dist_train.sh configs/stepnet/atss_stepnet-r50_fpn_1x_coco.py 8
# Not trained. With ResNet-50, mmdet publishes 39.4 AP.
_base_ = [
    'mmdet::atss/atss_r50_fpn_1x_coco.py',
    '../_base_/backbones/stepnet.py',
]
custom_imports = dict(imports=['mmext'], allow_failed_imports=False)
model = dict(backbone=_base_.pop('stepnet').r50)
