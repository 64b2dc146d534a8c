# tools/dist_train.sh configs/stepnet/\
# dino-4scale_stepnet-r50_8xb2-12e_coco.py 8
# Not trained. With ResNet-50, mmdet publishes 49.0 AP.
_base_ = [
    'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py',
    '../_base_/backbones/stepnet.py',
]
custom_imports = dict(imports=['mmext'], allow_failed_imports=False)
model = dict(backbone=_base_.pop('stepnet').r50)
model['backbone']['out_indices'] = (1, 2, 3)
