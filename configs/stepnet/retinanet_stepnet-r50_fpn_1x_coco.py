# tools/dist_train.sh configs/stepnet/retinanet_stepnet-r50_fpn_1x_coco.py 8
# Not trained, and nothing is published. With ResNet-50, mmdet publishes 36.5
# AP.
_base_ = [
    'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
    '../_base_/backbones/stepnet.py',
]
custom_imports = dict(imports=['mmext'], allow_failed_imports=False)
model = dict(backbone=_base_.pop('stepnet').r50)
