# tools/dist_train.sh configs/stepnet/\
# mask2former_stepnet-r50_8xb2-lsj-50e_coco.py 8
# Not trained. With ResNet-50, mmdet publishes 45.7 box and 42.9 mask AP.
_base_ = [
    'mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py',
    '../_base_/backbones/stepnet.py',
]
custom_imports = dict(imports=['mmext'], allow_failed_imports=False)
model = dict(backbone=_base_.pop('stepnet').r50)
