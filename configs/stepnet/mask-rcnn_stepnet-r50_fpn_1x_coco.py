# tools/dist_train.sh configs/stepnet/mask-rcnn_stepnet-r50_fpn_1x_coco.py 8
# Not trained; nothing is published. mmdet with ResNet-50: 38.2 box, 34.7 mask.
_base_ = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'
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
