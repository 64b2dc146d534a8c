# tools/dist_train.sh configs/attention/faster-rcnn_eca-r101_fpn_1x_coco.py 8
# Not trained. Published: 40.3 AP (ECA-Net, Table 5), from ImageNet
# weights with the attention. This config starts from plain ResNet weights.
_base_ = './faster-rcnn_eca-r50_fpn_1x_coco.py'
model = dict(
    backbone=dict(
        depth=101, init_cfg=dict(checkpoint='torchvision://resnet101')
    )
)
