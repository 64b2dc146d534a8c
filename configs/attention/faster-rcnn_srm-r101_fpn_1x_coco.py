# tools/dist_train.sh configs/attention/faster-rcnn_srm-r101_fpn_1x_coco.py 8
# Not trained. No COCO result of SRM is published.
_base_ = './faster-rcnn_srm-r50_fpn_1x_coco.py'
model = dict(
    backbone=dict(
        depth=101, init_cfg=dict(checkpoint='torchvision://resnet101')
    )
)
