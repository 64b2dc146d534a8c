# tools/dist_train.sh configs/stepnet/faster-rcnn_stepnet-r101_fpn_1x_coco.py 8
# Not trained. The paper: +3.0 AP over its ResNet-101, schedule unknown.
_base_ = './faster-rcnn_stepnet-r50_fpn_1x_coco.py'
model = dict(
    backbone=dict(
        depth=101,
        init_cfg=dict(checkpoint='torchvision://resnet101'),
    ),
)
