# tools/dist_train.sh configs/stepnet/mask-rcnn_stepnet-r50_fpn_1x_coco.py 8
# Not trained, and nothing is published. With ResNet-50, mmdet publishes 38.2
# box AP and 34.7 mask AP.
_base_ = [
    'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
    '../_base_/backbones/stepnet.py',
]
custom_imports = dict(imports=['mmext'], allow_failed_imports=False)
model = dict(backbone=_base_.pop('stepnet').r50)
