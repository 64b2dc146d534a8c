# tools/dist_train.sh configs/starnet/faster-rcnn_starnet-s3_fpn_1x_coco.py 8
# Not trained.
_base_ = [
    './faster-rcnn_starnet-s1_fpn_1x_coco.py',
    '../_base_/backbones/starnet.py',
]
model = _base_.pop('starnet').s3
