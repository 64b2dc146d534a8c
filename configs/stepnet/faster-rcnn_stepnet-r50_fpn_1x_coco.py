# tools/dist_train.sh configs/stepnet/faster-rcnn_stepnet-r50_fpn_1x_coco.py 8
# Not trained. The paper: +2.9 AP over its ResNet-50, schedule unknown, from
# ImageNet weights of StepNet itself; here from those of the plain ResNet.
_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmext'], allow_failed_imports=False)
model = dict(
    backbone=dict(
        _delete_=True,
        type='StepNetResNet',
        depth=50,
        frozen_stages=1,
        norm_eval=True,
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50'),
    ),
)
