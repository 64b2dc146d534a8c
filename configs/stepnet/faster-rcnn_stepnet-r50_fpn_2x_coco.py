# tools/dist_train.sh configs/stepnet/faster-rcnn_stepnet-r50_fpn_2x_coco.py 8
# Not trained. The paper reports +2.9 AP over its ResNet-50, without the
# schedule, from ImageNet weights of StepNet; this config starts from those of
# the plain ResNet.
_base_ = [
    'mmdet::faster_rcnn/faster-rcnn_r50_fpn_2x_coco.py',
    '../_base_/backbones/stepnet.py',
]
custom_imports = dict(imports=['mmext'], allow_failed_imports=False)
model = dict(backbone=_base_.pop('stepnet').r50)
